"""What a planner answers: value, q, policy, and how far the value can be from the truth at most."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import (
    Floats,
    Ints,
    Rows,
    optimal_backup_with_q,
    size_of,
)

EPS = float(np.finfo(np.float64).eps)

Trace: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """An answer with its proof.

    value [S], q [S, A] (-inf where there is no action), policy [S] (greedy in q);
    iterations: sweeps over the world, or improvements of the policy, as the method says;
    bound: max_s |value(s) - V*(s)| is at most this, rounding included; the policy's own value is
    below `value` by at most the same. It may exceed the tolerance asked for, with a warning, where
    floats can do no better or the iterations ran out.
    method: the planner that found it, the one that "auto" took where that was asked for.
    trace [iterations]: the bound after each iteration, for convergence curves.
    """

    value: Floats
    q: Floats
    policy: Ints
    iterations: int
    bound: float
    method: str
    trace: Trace = field(default_factory=lambda: np.empty(0), repr=False)


def span_bound(rows: Rows, low: float, high: float, size: float) -> float:
    """Half the width of the interval that one backup proves, with its rounding (γ < 1).

    With low = min(TV - V) and high = max(TV - V), V* lies in TV + γ/(1-γ)·[low, high], and so does
    the value of the greedy policy from below. `size` is max |V|.
    Source: MacQueen 1966; Puterman 1994, section 6.6.3.
    """
    if rows.gamma == 0:
        return rounding_of(rows, size)
    rounding = rounding_of(rows, size + abs(span_shift(rows, low, high)))
    reach = rows.gamma / (1 - rows.gamma)
    return reach * (high - low) / 2 + (1 + reach) * rounding


def span_shift(rows: Rows, low: float, high: float) -> float:
    """What to add to TV to stand in the middle of the interval that `span_bound` halves."""
    return rows.gamma / (1 - rows.gamma) * (low + high) / 2


def rounding_of(rows: Rows, size: float) -> float:
    """At most the rounding error of one backup of values up to `size`.

    (n + 2)·eps·max |terms| for rows of n transitions, and what rows that sum to 1 ± row_error add.
    """
    unit = (rows.longest + 2) * EPS + rows.row_error
    return unit * (rows.greatest_reward + rows.gamma * size)


def discounted_solution(
    mdp: MDP, rows: Rows, value: Floats, method: str, iterations: int, trace: list[float]
) -> Solution:
    """The answer that one more backup of `value` proves (γ < 1)."""
    out, action = np.empty_like(value), np.empty(value.size, np.int64)
    q = np.empty_like(rows.reward)
    low, high = optimal_backup_with_q(rows, value, out, action, q)
    bound = span_bound(rows, low, high, size_of(value))
    shift = span_shift(rows, low, high)
    q += shift
    out += shift
    if mdp.terminal.any():  # what is known exactly need not be in the middle of an interval
        out[mdp.terminal] = 0.0
        q[mdp.terminal] = np.where(mdp.available[mdp.terminal], 0.0, -np.inf)
    return Solution(out, q, action, iterations, bound, method, np.array(trace))
