"""Heads whose params are values of actions: greedy, as DQN acts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plaudit.nets.action_head import Array, Head, Rng, expect
from plaudit.records.spaces import ActionSpec

Bools = NDArray[np.bool_]


class Greedy(Head):
    """params are values of n actions: the best of them, or with chance `epsilon` any of the n.

    A value of −inf excludes an action from both. Each row tosses its own coin. `epsilon` may be set between steps.
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

    def q_barred(self, params: Tensor) -> Tensor:
        """The same where some are −inf, as of actions that are not allowed."""
        return params

    def draw(self, params: Array, rng: Rng) -> Array:
        """int64 [B]: one uniform number for a row's coin, one integer for its random action."""
        explore = rng.random(params.shape[0]) < self.epsilon
        allowed = params[:, -self.spec.sizes[0] :] != -np.inf
        anything = any_action(self.spec.sizes[0], allowed, rng)
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

    def q_barred(self, params: Tensor) -> Tensor:
        """The same where some advantages are −inf: those are not in the mean, and stay −inf."""
        value, adv = params[..., :1], params[..., 1:]
        barred = adv.isneginf()
        total = adv.masked_fill(barred, 0.0).sum(-1, keepdim=True)
        return value + adv - total / (~barred).sum(-1, keepdim=True)

    def mode(self, params: Array) -> Array:
        """The first of the best actions: int64 [B]."""
        best: Array = params[..., 1:].argmax(-1)
        return best


def any_action(num_actions: int, allowed: Bools, rng: Rng) -> Array:
    """An action for each row, all that are `allowed` [B, A] alike: int64 [B], one draw a row."""
    if allowed.all():
        return rng.integers(num_actions, size=len(allowed))
    counts = allowed.sum(1)
    place = rng.integers(counts)
    # The first action up to which more than `place` are allowed.
    chosen: Array = (allowed.cumsum(1) > place[:, None]).argmax(1)
    return chosen
