"""Prediction: the value of a chain, or of a policy in a world, exactly or by iteration.

V = R + γ P V is one linear system. The direct way factors it; the iterative way backs up until
the change proves the tolerance; both say by how much they can be wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import bicgstab, splu

from plaudit.mdp.checks import terminal_states
from plaudit.mdp.model import MDP, MRP
from plaudit.mdp.planning.backups import (
    Floats,
    Ints,
    Rows,
    policy_backup,
    q_values,
    rows_of,
    size_of,
)
from plaudit.mdp.planning.iteration import MAX_SWEEPS, Floor
from plaudit.mdp.planning.solution import (
    EPS,
    Solution,
    rounding_of,
    span_bound,
    span_shift,
)
from plaudit.records.errors import UserError

DIRECT_STATES = 3000
"""Above this a factorisation fills in; there a Krylov method is tried first."""


def evaluate(
    world: MRP | MDP,
    policy: ArrayLike | None = None,
    *,
    method: str = "direct",
    tol: float = 1e-10,
) -> Solution:
    """The value of a chain, or of a world under `policy`, with its certified bound.

    V_π = (I - γ P_π)^-1 R_π. method "direct" solves the system; "iterative" is iterative policy
    evaluation, V ← R_π + γ P_π V until `tol` is proved. In the answer of an MDP `q` is Q_π and
    `policy` its greedy improvement; in that of a chain q is [S, 1].
    At γ = 1 every closed class of states must pay nothing (value 0 there); else UserError names one.
    Source: Sutton & Barto 2018, equation 4.4 and section 4.1.
    """
    chain = _chain(world, policy)
    if method not in ("direct", "iterative"):
        raise UserError(f"no method {method!r} of evaluation; expected 'direct' or 'iterative'")
    rows = _rows(chain)
    if chain.gamma < 1:
        value, iterations, bound, trace = (
            _direct(chain, rows) if method == "direct" else _iterative(rows, tol)
        )
    else:
        value, iterations, bound, trace = _undiscounted(chain, rows, method, tol)
    value[terminal_states(rows.indptr, rows.indices, rows.data, rows.reward)] = 0.0
    if isinstance(world, MDP):
        q = q_values(rows_of(world), value)
        return Solution(value, q, q.argmax(1), iterations, bound, method, np.array(trace))
    none = np.zeros(value.size, np.int64)
    return Solution(value, value[:, None].copy(), none, iterations, bound, method, np.array(trace))


def _chain(world: MRP | MDP, policy: ArrayLike | None) -> MRP:
    if isinstance(world, MDP):
        if policy is None:
            raise UserError("evaluate: an MDP has a value only under a policy; give one")
        return world.under(policy)
    if policy is not None:
        raise UserError("evaluate: a Markov reward process takes no policy")
    return world


def _rows(chain: MRP) -> Rows:
    p = chain.transition
    longest = int(np.diff(p.indptr).max(initial=0))
    reward = chain.reward[:, None]
    greatest = float(np.abs(reward).max(initial=0.0))
    return Rows(
        p.indptr, p.indices, p.data, reward, chain.gamma, longest, greatest, chain.row_error
    )


def _direct(chain: MRP, rows: Rows) -> tuple[Floats, int, float, list[float]]:
    value = solve_linear(chain.transition, chain.reward, chain.gamma)
    out = np.empty_like(value)
    low, high = policy_backup(rows, np.zeros(value.size, np.int64), value, out)
    bound = span_bound(rows, low, high, size_of(value))
    return out + span_shift(rows, low, high), 1, bound, [bound]


def solve_linear(transition: sparse.csr_array, reward: Floats, gamma: float) -> Floats:
    """V of V = reward + gamma · transition V: dense, sparse LU, or BiCGSTAB for large systems.

    The caller measures the residual; where BiCGSTAB does not converge, LU is used after all.
    """
    count = reward.size
    if count <= 400:
        dense: Floats = np.linalg.solve(np.eye(count) - gamma * transition.toarray(), reward)
        return dense
    system = sparse.csc_array(sparse.eye_array(count, format="csc") - gamma * transition)
    if count > DIRECT_STATES:
        scale = float(np.abs(reward).max(initial=0.0)) or 1.0
        found, failed = bicgstab(
            sparse.csr_array(system), reward, rtol=0.0, atol=64 * EPS * scale, maxiter=2000
        )
        residual = np.abs(reward - system @ found).max()
        if not failed and residual <= 1e-12 * scale:
            return np.asarray(found, dtype=np.float64)
    return np.asarray(splu(system).solve(reward), dtype=np.float64)


def _iterative(rows: Rows, tol: float) -> tuple[Floats, int, float, list[float]]:
    value = np.zeros(rows.reward.shape[0])
    out, action = np.empty_like(value), np.zeros(value.size, np.int64)
    trace: list[float] = []
    floor = Floor()
    for _ in range(MAX_SWEEPS):
        low, high = policy_backup(rows, action, value, out)
        trace.append(span_bound(rows, low, high, size_of(value)))
        value, out = out, value
        if trace[-1] <= tol or floor.reached(high - low, rounding_of(rows, size_of(value))):
            break
    return value + span_shift(rows, low, high), len(trace), trace[-1], trace


def _undiscounted(
    chain: MRP, rows: Rows, method: str, tol: float
) -> tuple[Floats, int, float, list[float]]:
    """γ = 1: closed classes are worth 0; what leads to them is a system with one answer."""
    closed = closed_states(chain.transition)
    paying = np.flatnonzero(closed & (chain.reward != 0))
    if paying.size:
        s = int(paying[0])
        raise UserError(
            f"gamma = 1: state {s} is never left and pays {chain.reward[s]:.6g} each time, so its "
            "value has no bound; use gamma < 1 or the average reward"
        )
    going = np.flatnonzero(~closed)
    value = np.zeros(closed.size)
    if not going.size:
        return value, 0, 0.0, []
    inner = sparse.csr_array(chain.transition[going][:, going])
    steps = solve_linear(inner, np.ones(going.size), 1.0)
    trace: list[float] = []
    action, out = np.zeros(closed.size, np.int64), np.empty_like(value)
    if method == "direct":
        value[going] = solve_linear(inner, chain.reward[going], 1.0)
    reach = float(steps.max()) * (1 + 1e-9) + 1
    floor = Floor()
    for _ in range(1 if method == "direct" else MAX_SWEEPS):
        low, high = policy_backup(rows, action, value, out)
        rounding = rounding_of(rows, size_of(value))
        change = max(-low, high)
        trace.append(reach * (change + rounding))
        if method != "direct":
            value, out = out, value
        if trace[-1] <= tol or floor.reached(change, rounding):
            break
    return value, len(trace), trace[-1], trace


def closed_states(transition: sparse.csr_array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """[S]: in a class of states that leads to no other."""
    graph = sparse.csr_array(transition, copy=True)
    graph.eliminate_zeros()
    number, label = csgraph.connected_components(graph, directed=True, connection="strong")
    origin = np.repeat(label, np.diff(graph.indptr))
    leaves = np.zeros(number, np.bool_)
    leaves[origin[origin != label[graph.indices]]] = True
    return np.asarray(~leaves[label])


def greedy_action(q: Floats, previous: Ints | None = None) -> Ints:
    """The greatest action of each state; of equal ones the previous, else the first.

    Keeping the previous one at ties is what lets policy iteration end.
    """
    best = q.max(axis=1)
    action: Ints = q.argmax(axis=1)
    if previous is None:
        return action
    near = q[np.arange(best.size), previous] >= best - 1e-12 * np.maximum(1.0, np.abs(best))
    kept: Ints = np.where(near, previous, action)
    return kept
