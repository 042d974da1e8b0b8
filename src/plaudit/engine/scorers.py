"""Roles that give numbers instead of text: the reward model and the critic.

Each is a top of its own with a scalar head, over the trunk that all roles share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.shared import SharedBackbone, spread
from plaudit.models.backbone import Decoder, ScalarHead, copy_top, gather_places
from plaudit.models.layout import Layout
from plaudit.models.probe_start import can_start_from_probe, last_hidden, mean_token, write_probe
from plaudit.ops.masks import wide
from plaudit.records.types import Trajectories

if TYPE_CHECKING:
    from plaudit.records.roles import ValueLoss


class Scorer:
    """A top of its own with a scalar head: what a reward model and a critic both are."""

    has_bias = False

    def __init__(
        self,
        backbone: SharedBackbone,
        *,
        top: Decoder | None = None,
        adam: AdamConfig | None = None,
    ) -> None:
        self.backbone = backbone
        self.top = copy_top(top or backbone.top).requires_grad_(True)
        self.head = ScalarHead(backbone.width, bias=self.has_bias, dtype=backbone.dtype)
        named = {f"top.{name}": p for name, p in self.top.named_parameters()}
        named |= {f"head.{name}": p for name, p in self.head.named_parameters()}
        self.learner = Learner(named, adam or AdamConfig())

    def freeze(self) -> None:
        """No more training: gradients and moments, three times the weights, are given back."""
        self.learner.zero_grad()
        self.learner.optimiser.state.clear()
        self.top.requires_grad_(False)
        self.head.requires_grad_(False)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and moments, as `Learner.state`."""
        return self.learner.state()

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.learner.restore(arrays, facts)


class LocalRewardModel(Scorer):
    """One score for an answer, read at its last real token."""

    def layout_scores(self, layout: Layout, batch: Trajectories) -> Tensor:
        """Scores [b] of the layout's answers."""
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        scores: Tensor = self.head(gather_places(hidden, layout.last))
        return scores

    @torch.no_grad()
    def __call__(self, batch: Trajectories) -> Tensor:
        """Scores [B]."""
        out = torch.zeros(len(batch), dtype=wide(self.backbone.dtype))
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.layout_scores(layout, batch).to(out)
        return out

    @torch.no_grad()
    def mean_tokens(self, batch: Trajectories) -> Tensor | None:
        """What a linear probe sees of each answer, [B, H]; None where no probe can be written."""
        if self.backbone.trunk is None or not can_start_from_probe(self.top):
            return None
        return self._gathered(batch, lambda hidden, layout: mean_token(self.top, hidden, layout))

    @torch.no_grad()
    def start_from_probe(self, weight: Tensor, batch: Trajectories) -> None:
        """Begin as the probe `weight` [H] on `mean_tokens(batch)`."""
        mean = self.mean_tokens(batch)
        assert mean is not None, "mean_tokens says whether a probe can be written"
        last = self._gathered(batch, last_hidden)
        write_probe(self.top, self.head, weight.to(mean.dtype), mean=mean, last=last)

    def _gathered(self, batch: Trajectories, read: Callable[[Tensor, Layout], Tensor]) -> Tensor:
        """`read(trunk states, layout)` [b, H] of every layout, in the batch's order: [B, H]."""
        out = torch.zeros((len(batch), self.backbone.width), dtype=self.backbone.dtype)
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = read(self.backbone.inputs(layout, batch), layout)
        return out

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        """One step on `loss(rows, scores [b])`; answers to one prompt reach it together.

        Where a prompt's answers do not fit into one micro-batch, all are scored first, the loss is
        differentiated by the scores, and each micro-batch then carries its share back: the same
        gradient for one more forward pass.
        """
        self.learner.zero_grad()
        layouts = list(self.backbone.layouts(batch))
        in_one = [set(layout.groups) for layout in layouts]
        if sum(map(len, in_one)) == len(set().union(*in_one)):
            for layout in layouts:
                torch.autograd.backward(loss(list(layout.rows), self.layout_scores(layout, batch)))
        else:
            scores = self(batch).requires_grad_(True)
            torch.autograd.backward(loss(list(range(len(batch))), scores))
            assert scores.grad is not None
            for layout in layouts:
                mine = self.layout_scores(layout, batch)
                torch.autograd.backward(mine, scores.grad[list(layout.rows)].to(mine))
        return {"grad_norm": self.learner.step(lr=lr)}


class LocalCritic(Scorer):
    """The value of the state before each token, read where that token is predicted."""

    has_bias = True

    @classmethod
    def from_reward_model(
        cls,
        reward: LocalRewardModel,
        *,
        scale: float = 1.0,
        shift: float = 0.0,
        adam: AdamConfig | None = None,
    ) -> LocalCritic:
        """Starts as the reward model: V = scale · (score − shift) (Huang et al. 2024, detail 11)."""
        critic = cls(reward.backbone, top=reward.top, adam=adam)
        with torch.no_grad():
            critic.head.weight.copy_(reward.head.weight * scale)
            assert critic.head.bias is not None
            critic.head.bias.fill_(-shift * scale)
        return critic

    def layout_values(self, layout: Layout, batch: Trajectories) -> Tensor:
        """Values [b, T], T of the batch, 0 off the mask."""
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        value = self.head(gather_places(hidden, layout.before[layout.mask]))
        return spread(value, layout, (len(layout.rows), batch.mask.shape[1]))

    @torch.no_grad()
    def values(self, batch: Trajectories) -> Tensor:
        """V(state before token t), [B, T]; 0 off the mask."""
        out = torch.zeros(batch.mask.shape, dtype=wide(self.backbone.dtype))
        for layout in self.backbone.layouts(batch):
            out[list(layout.rows)] = self.layout_values(layout, batch).to(out)
        return out

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        """One step on the sum of `loss(rows, values [b, T])` over micro-batches."""
        self.learner.zero_grad()
        for layout in self.backbone.layouts(batch):
            torch.autograd.backward(loss(list(layout.rows), self.layout_values(layout, batch)))
        return {"grad_norm": self.learner.step(lr=lr)}
