"""Planning as a linear programme, by HiGHS; its dual is where the optimal policy spends its time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import Floats, rows_of
from plaudit.mdp.planning.solution import Solution, discounted_solution
from plaudit.records.errors import UserError


class Programme(NamedTuple):
    """The solution and the discounted occupancy [S, A] that proves it: value and dual agree."""

    solution: Solution
    occupancy: Floats


def linear_programme(mdp: MDP) -> Programme:
    """min α·V subject to V(s) >= R(s, a) + γ Σ p(s'|s, a) V(s') for every action that exists.

    α is the world's `initial` mixed with a little of every state, so that all values are determined.
    The dual x(s, a) = Σ_t γ^t P(s_t = s, a_t = a) sums to 1/(1-γ) and earns α·V*.
    Errors: γ = 1. Source: Puterman 1994, section 6.9.
    """
    if mdp.gamma == 1:
        raise UserError("linear_programme needs gamma < 1; solve(method='auto') takes gamma = 1")
    rows = rows_of(mdp)
    exists = mdp.available.ravel()
    state = np.repeat(np.arange(mdp.num_states), mdp.num_actions)[exists]
    own = sparse.csr_array(
        (np.ones(state.size), (np.arange(state.size), state)), shape=(state.size, mdp.num_states)
    )
    beyond = sparse.csr_array(mdp.transition[np.flatnonzero(exists)])
    alpha = 0.9 * mdp.initial + 0.1 / mdp.num_states
    found = linprog(
        alpha,
        A_ub=mdp.gamma * beyond - own,
        b_ub=-mdp.reward.ravel()[exists],
        bounds=(None, None),
        method="highs",
    )
    if found.status != 0:
        raise UserError(f"linear_programme: HiGHS gave up ({found.message})")
    occupancy = np.zeros(exists.size)
    occupancy[exists] = -found.ineqlin.marginals
    value = np.asarray(found.x, dtype=np.float64)
    solution = discounted_solution(mdp, rows, value, "linear_programme", int(found.nit), [])
    return Programme(solution, occupancy.reshape(mdp.reward.shape))
