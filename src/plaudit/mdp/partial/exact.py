"""Exact value over all beliefs for a number of steps: every useful α-vector, and no other.

The backup is incremental pruning: for each action the sets of what follows each observation are
summed pairwise, and after each sum the vectors that are nowhere the best are removed, first by
comparing entries, then by a linear programme (with two states by crossing lines).

For small worlds: the number of vectors can grow doubly exponentially.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from plaudit.mdp.checks import check_distribution, frozen
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.tables import Ints
from plaudit.records.errors import UserError

TOLERANCE = 1e-10
"""An α-vector that is nowhere better by more than this, relative to the largest, is removed."""


@dataclass(frozen=True, eq=False)
class AlphaSet:
    """alphas [N, S] with the first action [N] of each plan; the value is their greatest."""

    alphas: Floats
    actions: Ints

    def value(self, belief: ArrayLike) -> float:
        """max_n Σ_s b(s) α_n(s)."""
        b = check_distribution(belief, self.alphas.shape[1], "belief")
        return float((self.alphas @ b).max())

    def action(self, belief: ArrayLike) -> int:
        """The first action of the best plan."""
        b = check_distribution(belief, self.alphas.shape[1], "belief")
        return int(self.actions[(self.alphas @ b).argmax()])


def finite_horizon_alphas(pomdp: POMDP, horizon: int) -> AlphaSet:
    """V_t(b) = max_α Σ_s b(s) α(s) for t = `horizon` steps, as its least set of α-vectors.

    γ may be 1. Errors: a horizon below one.
    Source: Cassandra, Littman & Zhang 1997 (incremental pruning).
    Check: Tiger's V_t at the even belief is -1, -1.95, 2.3098 for t = 1, 2, 3.
    """
    if horizon < 1:
        raise UserError(f"horizon: {horizon}; expected 1 step or more")
    step = _factors(pomdp)
    found = np.zeros((1, pomdp.num_states))
    actions = np.zeros(1, np.int64)
    for _ in range(horizon):
        by_action = [_backed_up(pomdp.reward[:, a], step[a], found) for a in range(len(step))]
        actions = np.repeat(np.arange(len(step)), [len(part) for part in by_action])
        together = np.concatenate(by_action)
        kept = useful(together)
        found, actions = together[kept], actions[kept]
    return AlphaSet(frozen(found), frozen(actions))


def _factors(pomdp: POMDP) -> list[list[Floats]]:
    """γ T(s'|s, a) O(o|a, s') as [S, S'] for each action and each observation it can show."""
    moves, seen = pomdp.mdp.dense(), pomdp.dense_observation()
    return [
        [
            pomdp.gamma * moves[a] * seen[a, :, o]
            for o in range(pomdp.num_observations)
            if (seen[a, :, o] > 0).any()
        ]
        for a in range(pomdp.num_actions)
    ]


def _backed_up(reward: Floats, factors: list[Floats], alphas: Floats) -> Floats:
    total = reward[None].astype(np.float64)
    for factor in factors:
        part = alphas @ factor.T
        part = part[useful(part)]
        total = (total[:, None] + part[None]).reshape(-1, reward.size)
        total = total[useful(total)]
    return total


def useful(alphas: Floats) -> Ints:
    """Which of the vectors [N, S] are somewhere the best: their numbers, in order.

    Of vectors alike within `TOLERANCE` one is kept. Source: Lark's filter, in White 1991.
    """
    margin = TOLERANCE * max(float(np.abs(alphas).max(initial=0.0)), 1e-300)
    left = _not_covered(alphas, margin)
    if alphas.shape[1] == 2:
        chosen = np.array(left, np.int64)
        return np.sort(chosen[_supporting_lines(alphas[chosen], margin)])
    kept: list[int] = []
    for s in range(alphas.shape[1]):  # the best at each corner needs no programme
        _take_best(alphas, left, kept, np.eye(alphas.shape[1])[s], margin)
    while left:
        belief = _witness(alphas[left[-1]], alphas[kept], margin)
        if belief is None:
            left.pop()
        else:
            _take_best(alphas, left, kept, belief, margin)
    return np.array(sorted(kept), np.int64)


def _supporting_lines(lines: Floats, margin: float) -> list[int]:
    """With two states vectors are lines over [0, 1], and no programme is needed.

    Where two lines that are kept cross, the best of all is kept too if it is higher there.
    Source: the linear support algorithm, Cheng 1988.
    """
    left, right = (int(lines[:, s].argmax()) for s in (1, 0))
    kept, open_pairs = {left, right}, [(left, right)]
    while open_pairs:
        i, j = open_pairs.pop()
        rise = lines[j, 0] - lines[i, 0], lines[i, 1] - lines[j, 1]
        if min(rise) <= 0:
            continue
        p = rise[1] / (rise[0] + rise[1])
        values = lines @ np.array([p, 1 - p])
        best = int(values.argmax())
        if values[best] > values[i] + margin and best not in kept:
            kept.add(best)
            open_pairs += [(i, best), (best, j)]
    return sorted(kept)


def _take_best(
    alphas: Floats, left: list[int], kept: list[int], belief: Floats, margin: float
) -> None:
    """Move the best at a belief from `left` to `kept`, unless one that is kept is as good."""
    if not left:
        return
    values = alphas[left] @ belief
    best = values.max()
    if kept and (alphas[kept] @ belief).max() >= best - margin / 2:
        return
    near = [i for i, value in enumerate(values) if value >= best - margin / 2]
    chosen = max(near, key=lambda i: tuple(alphas[left[i]]))  # of equals, one that has a region
    kept.append(left.pop(chosen))


def _not_covered(alphas: Floats, margin: float) -> list[int]:
    """Vectors that no other is at least as high as in every entry, and one of those alike."""
    order = np.argsort(-alphas.sum(1), kind="stable")
    kept: list[int] = []
    for i in order:
        if not kept or not (alphas[kept] >= alphas[i] - margin).all(1).any():
            kept.append(int(i))
    return kept


def _witness(alpha: Floats, others: Floats, margin: float) -> Floats | None:
    """A belief where `alpha` is above all the others by more than `margin`, or None.

    max δ over b, δ: Σ_s b(s) (α(s) - α_n(s)) ≥ δ for every n, b a distribution.
    """
    num_states = alpha.size
    found = linprog(
        np.append(np.zeros(num_states), -1.0),
        A_ub=np.column_stack([others - alpha, np.ones(len(others))]),
        b_ub=np.zeros(len(others)),
        A_eq=np.append(np.ones(num_states), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * num_states + [(None, None)],
        method="highs",
    )
    if found.status != 0 or -found.fun <= margin:
        return None
    return np.asarray(np.maximum(found.x[:-1], 0) / found.x[:-1].sum(), dtype=np.float64)
