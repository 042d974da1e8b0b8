"""Bounds on the value of a partially observed world that need no search over beliefs.

Each is a set of α-vectors, one for each action: at belief b the bound is max_a Σ_s b(s) α_a(s).
From above: QMDP, which assumes that the state is seen from the next step on, and the fast informed
bound, which assumes it one step later. From below: the policies that never look.
"""

from __future__ import annotations

import numpy as np

from plaudit.mdp.compiled import compiled
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.tables import Table, table_of
from plaudit.mdp.planning import solve
from plaudit.mdp.planning.evaluation import solve_linear
from plaudit.records.errors import UserError

EPS = float(np.finfo(np.float64).eps)

MAX_SWEEPS = 100_000


def discounted(pomdp: POMDP) -> float:
    """γ, which must be below one here."""
    if pomdp.gamma >= 1:
        raise UserError(
            "gamma = 1: bounds over all beliefs need gamma < 1; "
            "for a number of steps use finite_horizon_alphas"
        )
    return pomdp.gamma


def qmdp_bound(pomdp: POMDP, *, tol: float = 1e-9) -> Floats:
    """α_a = Q*_MDP(·, a) as [A, S]: an upper bound, exact if the state were seen from then on.

    It never sees a reason to look, so it is loose where looking pays.
    γ = 1 is an error. Source: Littman, Cassandra & Kaelbling 1995, section 4.
    """
    discounted(pomdp)
    found = solve(pomdp.mdp, tol=tol)
    return np.ascontiguousarray((found.q + found.bound).T)


def fast_informed_bound(pomdp: POMDP, *, tol: float = 1e-6) -> Floats:
    """α_a(s) = R(s, a) + γ Σ_o max_a' Σ_s' T(s'|s, a) O(o|a, s') α_a'(s') as [A, S].

    An upper bound between V* and QMDP's, from which it starts; each sweep lowers it, and it stops
    when a sweep changes nothing by more than (1-γ)·tol, so that it is at most `tol` above its limit.
    γ = 1 is an error. Source: Hauskrecht 2000, section 4.3.
    """
    gamma = discounted(pomdp)
    q = np.ascontiguousarray(qmdp_bound(pomdp, tol=min(tol, 1e-9)).T)
    table, out = table_of(pomdp), np.empty_like(q)
    rounding = 64 * EPS * float(np.abs(q).max(initial=0.0))
    for _ in range(MAX_SWEEPS):
        change = _informed_backup(table, q, out)
        q, out = out, q
        if change <= max((1 - gamma) * tol, rounding):
            break
    return np.ascontiguousarray(q.T) + rounding / (1 - gamma)


@compiled
def _informed_backup(table: Table, q: Floats, out: Floats) -> float:
    num_states, num_actions = q.shape
    by_observation = np.zeros((table.num_observations, num_actions))
    change = 0.0
    for s in range(num_states):
        for a in range(num_actions):
            by_observation[:] = 0.0
            row = s * num_actions + a
            for k in range(table.t_ptr[row], table.t_ptr[row + 1]):
                after = table.t_idx[k]
                arrived = after * num_actions + a
                for j in range(table.o_ptr[arrived], table.o_ptr[arrived + 1]):
                    p = table.t_p[k] * table.o_p[j]
                    for b in range(num_actions):
                        by_observation[table.o_idx[j], b] += p * q[after, b]
            total = 0.0
            for o in range(table.num_observations):
                best = by_observation[o, 0]
                for b in range(1, num_actions):
                    best = max(best, by_observation[o, b])
                total += best
            out[s, a] = min(table.reward[s, a] + table.gamma * total, q[s, a])
            change = max(change, q[s, a] - out[s, a])
    return change


def blind_bound(pomdp: POMDP) -> Floats:
    """α_a = (I - γ T_a)^-1 R_a as [A, S]: a lower bound, the value of always doing a.

    γ = 1 is an error. Source: Hauskrecht 2000, section 4.1.
    """
    gamma = discounted(pomdp)
    alphas = np.empty((pomdp.num_actions, pomdp.num_states))
    for a in range(pomdp.num_actions):
        moves = pomdp.transition[a :: pomdp.num_actions]
        reward = np.ascontiguousarray(pomdp.reward[:, a])
        value = solve_linear(moves, reward, gamma)
        backed_up = reward + gamma * (moves @ value)
        scale = np.abs(reward).max(initial=0.0) + np.abs(value).max(initial=0.0)
        below = min(float((backed_up - value).min()), 0.0) - 16 * EPS * scale
        alphas[a] = value + below / (1 - gamma)  # T_a v ≥ v + c implies v_a ≥ v + c / (1 - γ)
    return alphas
