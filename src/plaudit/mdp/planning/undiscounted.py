"""Control at γ = 1: episodes that end, solved with a proof (stochastic shortest paths).

V*(s) = sup_π E[Σ r]. It is finite and has one solution of Bellman's equation once unpaid components
are drawn together (`components.py`), if every state can surely end and no loop pays. Worlds where
that fails are refused with the state's name. Source: Bertsekas & Tsitsiklis 1991.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import (
    Floats,
    Ints,
    Rows,
    optimal_backup,
    q_values,
    rows_of,
    size_of,
)
from plaudit.mdp.planning.components import (
    Booleans,
    drawn_together,
    lifted_policy,
    refuse_unbounded,
    surely_ending,
)
from plaudit.mdp.planning.iteration import MAX_SWEEPS, Swept
from plaudit.mdp.planning.ordered import gauss_seidel, ordered_policy_iteration
from plaudit.mdp.planning.solution import Solution, rounding_of

Sweeper = Callable[[Rows, float, Floats, Ints], Swept]


def solve_undiscounted(mdp: MDP, method: str, tol: float, sweeper: Sweeper) -> Solution:
    """The optimal value at γ = 1 with its certified bound, and a policy that ends.

    The sweeper is called with finer and finer tolerances of its change until the bound is proved.
    Raises UserError where the value is not finite.
    """
    rows = rows_of(mdp)
    drawn = drawn_together(mdp, rows)
    ending, action = surely_ending(drawn)
    refuse_unbounded(drawn, mdp, ending)
    value = np.zeros(drawn.end + 1)
    change_allowed, iterations, trace = tol, 0, []
    bound = np.inf
    while True:
        swept = sweeper(drawn.rows, change_allowed, value, action)
        value = swept.value
        iterations += swept.iterations
        trace += swept.trace
        out, action = np.empty_like(value), np.empty(value.size, np.int64)
        optimal_backup(drawn.rows, value, out, action)
        bound = proved_bound(drawn.rows, value, drawn.end)
        least = 4 * rounding_of(drawn.rows, size_of(value))
        if bound <= tol or change_allowed < least:
            break
        change_allowed = min(change_allowed / 10, change_allowed * tol / max(bound, tol) / 2)
    lifted = value[drawn.first]
    q = q_values(rows, lifted)
    policy = lifted_policy(drawn, action, mdp)
    return Solution(lifted, q, policy, iterations, bound, method, np.array(trace))


def proved_bound(rows: Rows, value: Floats, end: int) -> float:
    """max |value - V*| at γ = 1 at most, or inf where nothing could be proved.

    Let u(s) >= 1 + Σ p(s'|s, a) u(s') for every action a within η of the best. Then V + t·u is above
    its own backup, hence above V*, if t is large enough for those actions and small enough for all
    others; and the greedy policy's value is above V - δ·u, with δ its greatest loss in one backup.
    """
    q = q_values(rows, value)
    rounding = rounding_of(rows, size_of(value))
    slack = value[:, None] - q  # 0 for the best action of a solved state
    slack[end] = 0.0
    scale = 1.0 + size_of(value)
    for eta in (1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
        near = slack <= eta * scale
        steps = _longest_steps(rows, near, end)
        if steps is None:
            continue
        bound = _bound_by(rows, slack, steps, near, rounding, end)
        if np.isfinite(bound):
            return bound
    return np.inf


def _longest_steps(rows: Rows, near: Booleans, end: int) -> Floats | None:
    """Expected steps to the end when the slowest of the near-best actions are taken; None: for ever."""
    reward = np.where(near, 1.0, -np.inf)
    reward[end] = np.where(np.isneginf(rows.reward[end]), -np.inf, 0.0)
    if np.isneginf(reward).all(axis=1).any():
        return None
    slowest = replace(rows, reward=reward, greatest_reward=1.0)
    value = np.zeros(reward.shape[0])
    for _ in range(60):
        swept = ordered_policy_iteration(slowest, 0.05, value, max_sweeps=5)
        value = swept.value
        if swept.trace[-1] <= 0.05:
            return value
        if size_of(value) > 1e12:
            return None
    return None


def _bound_by(
    rows: Rows,
    slack: Floats,
    steps: Floats,
    near: Booleans,
    rounding: float,
    end: int,
) -> float:
    unpaid = np.where(np.isneginf(rows.reward), -np.inf, 0.0)
    ahead = q_values(replace(rows, reward=unpaid), steps)
    grow = ahead - steps[:, None]
    going = ~np.isneginf(unpaid)
    going[end] = False
    full_slack = slack
    slack, grow, near = slack[going], grow[going], near[going]
    if (grow[near] > -0.5).any():
        return np.inf
    shrinking = grow < 0
    needed = (np.maximum(0.0, rounding - slack[shrinking]) / -grow[shrinking]).max(initial=0.0)
    allowed = slack[~shrinking] - rounding
    room = np.where(grow[~shrinking] > 0, allowed / np.maximum(grow[~shrinking], 1e-300), allowed)
    if (allowed < 0).any() or (needed > room.min(initial=np.inf)):
        return np.inf
    best = np.where(going, full_slack, np.inf).min(axis=1)
    loss = rounding + float(np.maximum(0.0, best[np.isfinite(best)]).max(initial=0.0))
    least_step = float(-grow[near].max(initial=-1.0))
    return float(max(needed, loss / least_step) * size_of(steps))


def sweep_ordered(rows: Rows, tol: float, value: Floats, action: Ints) -> Swept:
    """Ordered policy iteration from a policy that surely ends."""
    return ordered_policy_iteration(rows, tol, value, action)


def sweep_gauss_seidel(rows: Rows, tol: float, value: Floats, action: Ints) -> Swept:
    """Gauss-Seidel value iteration."""
    return gauss_seidel(rows, tol, value)


def sweep_jacobi(rows: Rows, tol: float, value: Floats, action: Ints) -> Swept:
    """Value iteration by its change."""
    out, choice = np.empty_like(value), np.empty(value.size, np.int64)
    value, trace = value.copy(), []
    for sweep in range(MAX_SWEEPS):
        low, high = optimal_backup(rows, value, out, choice)
        value, out = out, value
        trace.append(max(-low, high))
        if trace[-1] <= max(tol, 2 * rounding_of(rows, size_of(value))):
            return Swept(value, sweep + 1, trace)
    return Swept(value, len(trace), trace)
