"""Losses whose gradients are known, for tests of roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from plaudit.ops import aggregate


@dataclass(frozen=True)
class WeightedLogp:
    """−Σ weight·log π over the chosen tokens, divided by the denominator; `weight` is a field."""

    needs: ClassVar[tuple[str, ...]] = ("logp",)
    together: ClassVar[bool] = False

    def __call__(self, part):
        loss = aggregate(-part["logp"] * part["weight"], part.chosen, part.denominator)
        return loss, {"loss": loss}


@dataclass(frozen=True)
class SquaredError:
    """Σ (value − wanted)² over the chosen tokens, divided by the denominator; `wanted` is a field."""

    needs: ClassVar[tuple[str, ...]] = ("value",)
    together: ClassVar[bool] = False

    def __call__(self, part):
        error = (part["value"] - part["wanted"]) ** 2
        loss = aggregate(error, part.chosen, part.denominator)
        return loss, {"loss": loss}


def weighted_step(actor, batch, weight: Tensor, *, lr: float) -> dict[str, float]:
    """One step of `actor` on `WeightedLogp`, averaged over the batch's chosen tokens."""
    count = int(batch.chosen.sum())
    return actor.update(batch, WeightedLogp(), fields={"weight": weight}, denominator=count, lr=lr)
