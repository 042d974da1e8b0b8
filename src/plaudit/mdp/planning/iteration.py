"""Value iteration (γ < 1), and what planners by sweeps share.

It stops by the span of the change, not by its size: max (TV - V) - min (TV - V) shrinks as fast as
the world mixes, often far faster than γ^n, and the middle of the interval that it proves is added
at the end (MacQueen 1966; Puterman 1994, sections 6.5 and 6.6). Worlds that mix slowly, such as
mazes, are faster by `ordered.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from plaudit.mdp.planning.backups import Floats, Rows, optimal_backup, size_of
from plaudit.mdp.planning.solution import rounding_of, span_bound

MAX_SWEEPS = 1_000_000
"""Sweeps after which an iterative planner gives up and says so."""


class Swept(NamedTuple):
    """Where sweeping ended: the value, its sweeps, the bound after each of them, and whether the
    world was found to mix slowly."""

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
