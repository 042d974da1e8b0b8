"""Planning for the reward per step in the long run: relative value iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import Floats, Ints, optimal_backup, rows_of, size_of
from plaudit.mdp.planning.solution import rounding_of
from plaudit.records.errors import UserError


@dataclass(frozen=True)
class AverageSolution:
    """gain: reward per step, within `bound`; bias [S]: advantage of starting in s, 0 in state 0.

    gain + bias(s) = max_a [R(s, a) + Σ p(s'|s, a) bias(s')]; policy [S] is greedy in that.
    """

    gain: float
    bias: Floats
    policy: Ints
    bound: float
    iterations: int


def relative_value_iteration(
    mdp: MDP, tol: float = 1e-8, max_sweeps: int = 1_000_000
) -> AverageSolution:
    """h ← ½h + ½(T h - (T h)(0)), γ ignored; min and max of Th - h enclose the gain.

    The half step makes a periodic world converge to the same gain. Raises UserError where the
    gain differs between states (no policy leads from one to the other), as then no single number
    answers. Source: Puterman 1994, section 8.5; Odoni 1969 for the bounds.
    """
    rows = replace(rows_of(mdp), gamma=1.0)
    bias = np.zeros(mdp.num_states)
    out, action = np.empty_like(bias), np.empty(bias.size, np.int64)
    widest = np.inf
    for sweep in range(max_sweeps):
        low, high = optimal_backup(rows, bias, out, action)
        rounding = rounding_of(rows, size_of(bias))
        bound = (high - low) / 2 + rounding
        if bound <= max(tol, 4 * rounding):
            return AverageSolution((low + high) / 2, bias, action.copy(), bound, sweep + 1)
        bias = 0.5 * bias + 0.5 * out
        bias -= bias[0]
        if sweep % 1000 == 999:
            if bound > 0.999 * widest:
                break
            widest = bound
    raise UserError(
        f"the reward per step differs between states (from {low:.6g} to {high:.6g}) or converges too "
        "slowly; relative_value_iteration needs a world in which one gain holds everywhere"
    )
