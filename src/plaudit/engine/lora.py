"""An actor that learns low-rank adapters instead of the weights of its top.

The optimiser holds the adapters alone: at rank 8 about a fiftieth of the top's numbers, and of its
moments. After every step the merged weights are written into the model's own modules, so that the
sampler and whoever saves the model see the policy as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from plaudit.engine.learner import AdamConfig, Learner
from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone
from plaudit.models.adapter import adapter_parameters, merge, save_adapter, with_adapters

if TYPE_CHECKING:
    from plaudit.records.roles import PolicyLoss
    from plaudit.records.types import Trajectories


class LoraActor(LocalActor):
    """`LocalActor` with adapters of `rank` on the linear maps of its top.

    It is made from the model as it was read: the adapters are relative to those weights. `seed`
    decides the first values of A; B starts at zero, so the first policy is the model.
    """

    def __init__(
        self,
        backbone: SharedBackbone,
        *,
        rank: int,
        adam: AdamConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, adam=adam)
        self.rank = rank
        self.plain = backbone.top.requires_grad_(False)
        backbone.head.module.requires_grad_(False)
        self.top = with_adapters(self.plain, rank=rank, seed=seed)
        self.learner = Learner(adapter_parameters(self.top), adam or AdamConfig())

    def update(self, batch: Trajectories, loss: PolicyLoss, *, lr: float) -> Mapping[str, float]:
        figures = super().update(batch, loss, lr=lr)
        merge(self.top, self.plain)
        return figures

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(arrays, facts)
        merge(self.top, self.plain)

    def save_adapter(self, folder: str | Path) -> Path:
        """Write the adapter as peft does, relative to the model as it was read."""
        backbone = self.backbone
        return save_adapter(folder, backbone.lm, self.top, split=backbone.split, rank=self.rank)
