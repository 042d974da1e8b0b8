"""The price of certainty in soft actor-critic: one number, which may be learned."""

from __future__ import annotations

import math

import torch
from torch import nn

from plaudit.nets.optim import FlatAdam
from plaudit.records.state import Saved


class Temperature:
    """α, fixed or learned by Adam: L_α = log α · (H − H̄), so α falls while the entropy H is above H̄.

    A learned α begins at 1.
    """

    def __init__(self, fixed: float | None, target_entropy: float, lr: float) -> None:
        self.fixed, self.target_entropy = fixed, target_entropy
        self.log = nn.Parameter(torch.zeros(1))
        self.optimiser = FlatAdam([self.log], lr=lr)

    @property
    def value(self) -> float:
        """α as it is now."""
        return math.exp(self.log.item()) if self.fixed is None else self.fixed

    def step(self, entropy: float) -> None:
        """One gradient step on L_α, where α is learned; its gradient in log α is H − H̄."""
        if self.fixed is None:
            self.log.grad = torch.tensor([entropy - self.target_entropy])
            self.optimiser.step()

    def state(self) -> Saved:
        """log α and its optimiser."""
        arrays, facts = self.optimiser.state()
        return {**arrays, "log": self.log.detach().numpy().copy()}, facts

    def restore(self, saved: Saved) -> None:
        """Goes on from there."""
        with torch.no_grad():
            self.log.copy_(torch.from_numpy(saved[0]["log"]))
        self.optimiser.restore(saved)


__all__ = ["Temperature"]
