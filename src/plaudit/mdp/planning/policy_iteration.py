"""Policy iteration: solve for the policy's value exactly, improve it greedily, until it stays."""

from __future__ import annotations

import numpy as np

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import q_values, rows_of, size_of
from plaudit.mdp.planning.evaluation import greedy_action, solve_linear
from plaudit.mdp.planning.iteration import Swept

MAX_IMPROVEMENTS = 10_000


def policy_iteration(mdp: MDP, max_improvements: int = MAX_IMPROVEMENTS) -> Swept:
    """π ← greedy(V_π) with V_π from the linear system; ends when no action is strictly better (γ < 1).

    Source: Howard 1960; Sutton & Barto 2018, section 4.3.
    """
    rows = rows_of(mdp)
    action = mdp.reward.argmax(axis=1)
    value = np.zeros(mdp.num_states)
    trace: list[float] = []
    for improvement in range(max_improvements):
        chain = mdp.under(action)
        value = solve_linear(chain.transition, chain.reward, mdp.gamma)
        q = q_values(rows, value)
        better = greedy_action(q, action)
        gain = float((q.max(axis=1) - value).max(initial=0.0))
        trace.append(max(0.0, gain) / (1 - mdp.gamma))
        if (better == action).all() or gain <= 1e-15 * size_of(value):
            return Swept(value, improvement + 1, trace)
        action = better
    return Swept(value, max_improvements, trace)
