"""Planning for a given number of steps: backward induction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import Floats, Ints, q_values, rows_of
from plaudit.records.errors import UserError


@dataclass(frozen=True)
class FiniteHorizon:
    """value [H + 1, S]: with H - t steps to go at row t; q [H, S, A]; policy [H, S]."""

    value: Floats
    q: Floats
    policy: Ints


def finite_horizon(mdp: MDP, horizon: int, final_value: ArrayLike | None = None) -> FiniteHorizon:
    """V_t(s) = max_a [R(s, a) + γ Σ p(s'|s, a) V_{t+1}(s')], from V_H = `final_value` (0) back.

    γ may be 1. Errors: a negative horizon, a final value of another shape.
    Source: Puterman 1994, section 4.5.
    """
    if horizon < 0:
        raise UserError(f"horizon: {horizon}; expected 0 or more steps")
    rows = rows_of(mdp)
    value = np.zeros((horizon + 1, mdp.num_states))
    if final_value is not None:
        given = np.asarray(final_value, dtype=np.float64)
        if given.shape != (mdp.num_states,):
            raise UserError(f"final_value: shape {given.shape}; expected [{mdp.num_states}]")
        value[horizon] = given
    q = np.empty((horizon, mdp.num_states, mdp.num_actions))
    for t in range(horizon - 1, -1, -1):
        q[t] = q_values(rows, value[t + 1])
        value[t] = q[t].max(axis=1)
    return FiniteHorizon(value, q, q.argmax(axis=2))
