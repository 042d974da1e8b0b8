"""Roles that give numbers instead of text: the reward model and the critic.

Each is a top of its own with a scalar head, over the trunk that all roles share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from plaudit.engine.learner import AdamConfig
from plaudit.engine.role import Taught, spread
from plaudit.engine.shared import SharedBackbone
from plaudit.engine.tops import LoRA, taught
from plaudit.models.backbone import Decoder, ScalarHead, copy_top, gather_places
from plaudit.models.classifier import save_classifier
from plaudit.models.layout import Layout
from plaudit.models.probe_start import can_start_from_probe, last_hidden, mean_token, write_probe
from plaudit.ops import outcome_reward
from plaudit.records.types import Trajectories


class Scorer(Taught):
    """A top of its own with a scalar head: what a reward model and a critic both are.

    It starts as a copy of `top` (by default the model's own), and is taught whole or by adapters.
    """

    has_bias: ClassVar[bool] = False
    backbone: SharedBackbone

    def __init__(
        self,
        backbone: SharedBackbone,
        *,
        top: Decoder | None = None,
        adam: AdamConfig | None = None,
        lora: LoRA | None = None,
    ) -> None:
        super().__init__(backbone)
        trained = taught(copy_top(top or backbone.top), lora)
        self.head = ScalarHead(backbone.width, bias=self.has_bias, dtype=backbone.dtype)
        self.head.to(backbone.device)
        named = {f"top.{name}": p for name, p in trained.parameters().items()}
        named |= {f"head.{name}": p for name, p in self.head.named_parameters()}
        self.teach(trained, named, adam)

    @property
    def top(self) -> Decoder:
        """The top as it computes."""
        return self.trained.forward

    def freeze(self) -> None:
        """No more training: gradients and moments, three times the weights, are given back."""
        self.learner.zero_grad()
        self.learner.optimiser.state.clear()
        self.top.requires_grad_(False)
        self.head.requires_grad_(False)

    def hidden(self, layout: Layout, batch: Trajectories) -> Tensor:
        """The top's output [R, L, H] in the layout's places."""
        out: Tensor = self.top(self.backbone.inputs(layout, batch), layout)
        return out


class LocalRewardModel(Scorer):
    """One score for a row, read at its last chosen token."""

    gives: ClassVar[tuple[str, ...]] = ("score",)

    def statistics(
        self, layout: Layout, batch: Trajectories, needs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Scores [b] of the layout's rows."""
        del needs
        return {"score": self.head(gather_places(self.hidden(layout, batch), layout.last))}

    def scores(self, batch: Trajectories) -> Tensor:
        """Scores [B]."""
        return self.told(batch, "score")

    def __call__(self, batch: Trajectories) -> Tensor:
        """Rewards [B, T]: each row's score on its last chosen token."""
        return outcome_reward(self.scores(batch), batch.chosen)

    def save(self, folder: str | Path) -> None:
        """Write it as a sequence classifier of one label (`models.classifier`)."""
        lm, split = self.backbone.lm, self.backbone.split
        save_classifier(
            folder,
            lm.model,
            lm.codec,
            score_weight=self.head.weight.detach(),
            layers_state=_of_whole_decoder(self.trained.plain, split),
        )

    @torch.no_grad()
    def mean_tokens(self, batch: Trajectories) -> Tensor | None:
        """What a linear probe sees of each answer, [B, H]; None where no probe can be written."""
        if self.backbone.trunk is None or not can_start_from_probe(self.top):
            return None
        return self._means(batch).to(batch.token.device)

    @torch.no_grad()
    def start_from_probe(self, weight: Tensor, batch: Trajectories) -> None:
        """Begin as the probe `weight` [H] on `mean_tokens(batch)`."""
        mean = self._means(batch)
        last = self._gathered(batch, last_hidden)
        write_probe(self.trained.plain, self.head, weight.to(mean), mean=mean, last=last)

    def _means(self, batch: Trajectories) -> Tensor:
        return self._gathered(batch, lambda hidden, layout: mean_token(self.top, hidden, layout))

    def _gathered(self, batch: Trajectories, read: Callable[[Tensor, Layout], Tensor]) -> Tensor:
        """`read(trunk states, layout)` [b, H] of every layout, in the batch's order: [B, H]."""
        shape = (len(batch), self.backbone.width)
        out = torch.zeros(shape, dtype=self.dtype, device=self.device)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = read(self.backbone.inputs(layout, batch), layout)
        return out


class LocalCritic(Scorer):
    """The value of the state before each token, read where that token is predicted."""

    gives: ClassVar[tuple[str, ...]] = ("value",)
    has_bias: ClassVar[bool] = True

    @classmethod
    def from_reward_model(
        cls,
        reward: LocalRewardModel,
        *,
        scale: float = 1.0,
        shift: float = 0.0,
        adam: AdamConfig | None = None,
        lora: LoRA | None = None,
    ) -> LocalCritic:
        """Starts as the reward model: V = scale · (score − shift) (Huang et al. 2024, detail 11)."""
        critic = cls(reward.backbone, top=reward.trained.plain, adam=adam, lora=lora)
        with torch.no_grad():
            critic.head.weight.copy_(reward.head.weight * scale)
            assert critic.head.bias is not None
            critic.head.bias.fill_(-shift * scale)
        return critic

    def statistics(
        self, layout: Layout, batch: Trajectories, needs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Values of the chosen tokens: [b, T], T of the batch, 0 elsewhere."""
        del needs
        places = layout.before[layout.chosen]
        value = self.head(gather_places(self.hidden(layout, batch), places))
        return {"value": spread(value, layout, batch.chosen.shape[1])}

    def values(self, batch: Trajectories) -> Tensor:
        """V(state before token t), [B, T]; 0 off the chosen tokens."""
        return self.told(batch, "value")


def _of_whole_decoder(top: Decoder, split: int) -> dict[str, Tensor]:
    """A top's weights under the names of the whole decoder: layers.0 of the top is layers.split."""
    named = {}
    for name, value in top.base.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers":
            parts[1] = str(int(parts[1]) + split)
        named[".".join(parts)] = value
    return named
