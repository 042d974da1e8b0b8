"""`solve`: one call for any finite world, by the method that suits it or the one that is named."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from plaudit.mdp.model import MDP
from plaudit.mdp.planning.backups import Floats, Rows, rows_of
from plaudit.mdp.planning.iteration import Swept, value_iteration
from plaudit.mdp.planning.modified import modified_policy_iteration
from plaudit.mdp.planning.ordered import (
    gauss_seidel,
    ordered_policy_iteration,
    prioritized_sweeping,
    topological,
)
from plaudit.mdp.planning.policy_iteration import policy_iteration
from plaudit.mdp.planning.programme import linear_programme
from plaudit.mdp.planning.solution import Solution, discounted_solution
from plaudit.mdp.planning.undiscounted import (
    Sweeper,
    solve_undiscounted,
    sweep_gauss_seidel,
    sweep_jacobi,
    sweep_ordered,
)
from plaudit.records.errors import UserError, nearest

SLOW = 0.9
"""A policy whose sweeps shrink the span by less than this factor each mixes slowly: a maze."""

SMALL = 256
"""Up to so many states an exact dense solution of each policy is the fastest."""


def solve(mdp: MDP, method: str = "auto", tol: float = 1e-8) -> Solution:
    """The optimal value, q and policy, with a certified bound on the value's sup-norm error.

    V*(s) = max_a [R(s, a) + γ Σ_s' p(s'|s, a) V*(s')].

    "auto": policy iteration for small worlds; modified policy iteration with the span rule for
    those that mix fast, which it notices, else Gauss-Seidel along the policy's paths; the solution's
    `method` says which it took. Other methods: `METHODS`. At γ = 1 the world must end (UserError names a state where it cannot), and
    ties are broken so that the policy ends. Warns where `tol` is beyond what floats can prove.
    """
    if not tol > 0:
        raise UserError(f"tol: {tol}; expected a number above 0")
    if method not in METHODS:
        raise UserError(
            f"no method {method!r}{nearest(method, METHODS)}; one of {', '.join(METHODS)}"
        )
    if mdp.gamma == 1:
        taken = "ordered_policy_iteration" if method == "auto" else method
        solution = solve_undiscounted(mdp, taken, tol, _sweeper(taken))
    elif method == "linear_programme":
        solution = linear_programme(mdp).solution
    elif method == "policy_iteration" or (method == "auto" and mdp.num_states <= SMALL):
        swept = policy_iteration(mdp)
        solution = discounted_solution(
            mdp, rows_of(mdp), swept.value, "policy_iteration", swept.iterations, swept.trace
        )
    else:
        rows = rows_of(mdp)
        swept = METHODS[method](rows, tol, np.zeros(mdp.num_states))
        taken = method
        if method == "auto":
            taken = "ordered_policy_iteration" if swept.slow else "modified_policy_iteration"
        solution = discounted_solution(mdp, rows, swept.value, taken, swept.iterations, swept.trace)
    if solution.bound > tol:
        warnings.warn(
            f"solve: the bound is {solution.bound:.3g}, above tol = {tol:.3g}: rounding, or the limit "
            "of sweeps, allows no better",
            stacklevel=2,
        )
    return solution


def _auto(rows: Rows, tol: float, value: Floats) -> Swept:
    swept = modified_policy_iteration(rows, tol, value, give_up_rate=SLOW)
    if not swept.slow:
        return swept
    further = ordered_policy_iteration(rows, tol, swept.value)
    trace = swept.trace + further.trace
    return Swept(further.value, swept.iterations + further.iterations, trace, slow=True)


def _unused(rows: Rows, tol: float, value: Floats) -> Swept:
    raise AssertionError("solved above, from the MDP itself")


METHODS: dict[str, Callable[[Rows, float, Floats], Swept]] = {
    "auto": _auto,
    "value_iteration": value_iteration,
    "policy_iteration": _unused,
    "modified_policy_iteration": modified_policy_iteration,
    "gauss_seidel": gauss_seidel,
    "ordered_policy_iteration": ordered_policy_iteration,
    "prioritized_sweeping": prioritized_sweeping,
    "topological": topological,
    "linear_programme": _unused,
}
"""The planners by name."""


def _sweeper(method: str) -> Sweeper:
    sweepers: dict[str, Sweeper] = {
        "ordered_policy_iteration": sweep_ordered,
        "gauss_seidel": sweep_gauss_seidel,
        "value_iteration": sweep_jacobi,
    }
    if method not in sweepers:
        raise UserError(
            f"{method} needs gamma < 1; at gamma = 1 use one of auto, {', '.join(sweepers)}"
        )
    return sweepers[method]
