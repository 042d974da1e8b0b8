"""Planning by sweeps over the whole world: value iteration and modified policy iteration (γ < 1).

Both stop by the span of the change, not by its size: max (TV - V) - min (TV - V) shrinks as fast as
the world mixes, often far faster than γ^n, and the middle of the interval that it proves is added
at the end (MacQueen 1966; Puterman 1994, sections 6.5 and 6.6). Worlds that mix slowly, such as
mazes, are faster by `ordered.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plaudit.mdp.planning.backups import Floats, Ints, Rows, optimal_backup, policy_backup, size_of
from plaudit.mdp.planning.solution import rounding_of, span_bound, span_shift

MAX_SWEEPS = 1_000_000
"""Sweeps after which an iterative planner gives up and says so."""


class Swept(NamedTuple):
    """Where sweeping ended: the value, its sweeps, and the bound after each of them."""

    value: Floats
    iterations: int
    trace: list[float]
    slow: bool = False


def value_iteration(rows: Rows, tol: float, value: Floats, max_sweeps: int = MAX_SWEEPS) -> Swept:
    """V ← T V until the span proves `tol` or rounding forbids more.

    Source: Bellman 1957; Sutton & Barto 2018, section 4.4.
    """
    out, action = np.empty_like(value), np.empty(value.size, np.int64)
    value, trace = value.copy(), []
    floor = Floor()
    for sweep in range(max_sweeps):
        low, high = optimal_backup(rows, value, out, action)
        trace.append(span_bound(rows, low, high, size_of(value)))
        if trace[-1] <= tol or floor.reached(high - low, rounding_of(rows, size_of(out))):
            return Swept(value, sweep + 1, trace)
        value, out = out, value
    return Swept(value, max_sweeps, trace)


def modified_policy_iteration(
    rows: Rows,
    tol: float,
    value: Floats,
    max_sweeps: int = MAX_SWEEPS,
    *,
    give_up_rate: float = 1.0,
) -> Swept:
    """Improve the policy by one backup, then evaluate it by some sweeps of its own, and again.

    A policy's sweep costs about 1/A of a backup; sweeps go on while the span still shrinks and is
    above a tenth of what it was at the improvement. `give_up_rate`: return with `slow` true when
    a policy's sweeps shrink the span by less than this factor each (1: never).
    Source: Puterman & Shin 1978; Puterman 1994, section 6.5.
    """
    value, out = value.copy(), np.empty_like(value)
    action, trace = np.empty(value.size, np.int64), []
    floor = Floor()
    for sweep in range(max_sweeps):
        low, high = optimal_backup(rows, value, out, action)
        trace.append(span_bound(rows, low, high, size_of(value)))
        if trace[-1] <= tol or floor.reached(high - low, rounding_of(rows, size_of(out))):
            return Swept(value, sweep + 1, trace)
        value, out = out, value
        evaluated = _evaluate_some(rows, action, value, out, high - low, tol)
        value, out = evaluated.value, evaluated.spare
        if evaluated.rate > give_up_rate:
            return Swept(value, sweep + 1, trace, slow=True)
    return Swept(value, max_sweeps, trace)


class _Evaluated(NamedTuple):
    value: Floats
    spare: Floats
    rate: float


AIM = 0.05
"""How far a policy's own sweeps shrink the span before the policy is improved again."""

MOST_SWEEPS = 100
"""Sweeps of one policy at most: the policy may be wrong, and then they are wasted."""


def _evaluate_some(
    rows: Rows, action: Ints, value: Floats, spare: Floats, span: float, tol: float
) -> _Evaluated:
    """Sweeps of a policy until its span is AIM of `span`, or is enough; with their last rate."""
    enough = max(AIM * span, tol * (1 - rows.gamma) / max(rows.gamma, 1e-300))
    before, rate = span, 0.0
    for sweep in range(MOST_SWEEPS):
        low, high = policy_backup(rows, action, value, spare)
        value, spare = spare, value
        rate = (high - low) / before if before > 0 else 0.0
        before = high - low
        if before <= enough or (sweep >= 20 and rate > 0.9):
            break
    if np.isfinite(low + high):  # the middle of what remains; the span does not feel it
        value += span_shift(rows, low, high)
    return _Evaluated(value, spare, rate)


@dataclass
class Floor:
    """Tells when rounding, not the method, stops the change from shrinking."""

    least: float = np.inf
    stalled: int = 0

    def reached(self, change: float, rounding: float) -> bool:
        """True at ten sweeps without a new least change, once it is near the rounding."""
        if change < self.least * 0.999:
            self.least, self.stalled = change, 0
        else:
            self.stalled += 1
        return change <= 100 * rounding and self.stalled >= 10
