"""Heads whose params are values of actions: greedy, as DQN acts."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from plaudit.models.action_head import Array, Head, Rng, expect
from plaudit.records.spaces import ActionSpec


class Greedy(Head):
    """params are values of n actions: the best of them, or with chance `epsilon` any of the n.

    Each row tosses its own coin. `epsilon` may be set between steps.
    Source: Mnih et al. 2015, algorithm 1.
    """

    kind = "greedy"

    def __init__(self, spec: ActionSpec, *, epsilon: float = 0.0) -> None:
        expect(spec, "discrete", self.kind)
        super().__init__(spec, spec.sizes[0])
        self.epsilon = epsilon

    def q(self, params: Tensor) -> Tensor:
        """Action values [B, A]: the params."""
        return params

    def draw(self, params: Array, rng: Rng) -> Array:
        """int64 [B]: one uniform number for a row's coin, one integer for its random action."""
        explore = rng.random(params.shape[0]) < self.epsilon
        anything = rng.integers(self.spec.sizes[0], size=params.shape[0])
        chosen: Array = np.where(explore, anything, self.mode(params))
        return chosen

    def mode(self, params: Array) -> Array:
        """The first of the best actions: int64 [B]."""
        best: Array = params.argmax(-1)
        return best

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        return {**super().facts(), "epsilon": self.epsilon}


class DuelingGreedy(Greedy):
    """params are a state value and n advantages: q = v + a − mean a, and greedy in it.

    Source: Wang et al. 2016 (1511.06581), equation 9.
    """

    kind = "dueling_greedy"

    def __init__(self, spec: ActionSpec, *, epsilon: float = 0.0) -> None:
        super().__init__(spec, epsilon=epsilon)
        self.num_params = spec.sizes[0] + 1

    def q(self, params: Tensor) -> Tensor:
        """v + a − mean a: [B, A] from [B, 1 + A]."""
        value, adv = params[..., :1], params[..., 1:]
        return value + adv - adv.mean(-1, keepdim=True)

    def mode(self, params: Array) -> Array:
        """The first of the best actions: int64 [B]."""
        best: Array = params[..., 1:].argmax(-1)
        return best
