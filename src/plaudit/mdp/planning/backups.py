"""Bellman backups: the inner loops of every planner, compiled, each transition read once.

A sweep over S states and nnz stored transitions does 2·nnz floating operations and reads 12 bytes
for each transition, so that on large worlds the memory sets the pace. Whole-world sweeps that read
one array and write another (Jacobi) share the states among the cores; sweeps in place
(Gauss-Seidel) go through a given order on one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import prange
from numpy.typing import NDArray

from plaudit.mdp.compiled import compiled, compiled_parallel, shared, unsigned
from plaudit.mdp.model import MDP

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Index: TypeAlias = NDArray[np.uint32]

BLOCKS = 64
"""Shares of the states that cores take in turn; the result does not depend on it."""


@dataclass(frozen=True)
class Rows:
    """A world as the kernels read it: row s·A + a of (indptr, indices, data) is p(·|s, a).

    `longest` row, `greatest_reward` in size and `row_error` (how far a row's sum is from one) are
    what bounds the rounding of a backup.
    """

    indptr: Ints
    indices: Index
    data: Floats
    reward: Floats
    gamma: float
    longest: int
    greatest_reward: float
    row_error: float

    @property
    def parts(self) -> tuple[Ints, Index, Floats, Floats, float]:
        """The arguments that every kernel begins with."""
        return self.indptr, self.indices, self.data, self.reward, self.gamma


def rows_of(mdp: MDP) -> Rows:
    """The arrays of a world; the transitions are shared, not copied."""
    p = mdp.transition
    indices = p.indices.view(np.uint32 if p.indices.dtype == np.int32 else np.uint64)
    longest, greatest = np.zeros(BLOCKS, np.int64), np.zeros(BLOCKS)
    shared(_extent, p.nnz, p.indptr, mdp.reward, longest, greatest)
    extent = (int(longest.max()), float(greatest.max()))
    return Rows(p.indptr, indices, p.data, mdp.reward, mdp.gamma, *extent, mdp.row_error)


@compiled_parallel
def _extent(indptr: Ints, reward: Floats, longest: Ints, greatest: Floats) -> None:
    num_states, num_actions = reward.shape
    for block in prange(longest.size):
        most, size = 0, 0.0
        for s in range(
            block * num_states // longest.size, (block + 1) * num_states // longest.size
        ):
            for a in range(num_actions):
                row = s * num_actions + a
                most = max(most, indptr[row + 1] - indptr[row])
                if reward[s, a] != -np.inf:
                    size = max(size, abs(reward[s, a]))
        longest[block] = most
        greatest[block] = size


def size_of(value: Floats) -> float:
    """max |V|, without a copy."""
    return float(max(-value.min(), value.max())) if value.size else 0.0


def optimal_backup(rows: Rows, value: Floats, out: Floats, action: Ints) -> tuple[float, float]:
    """out = T value with the greedy `action`; returns min and max of (T value - value).

    (T V)(s) = max_a [R(s, a) + γ Σ_s' p(s'|s, a) V(s')]; the first of equal actions is taken.
    """
    low, high = np.empty(BLOCKS), np.empty(BLOCKS)
    shared(_optimal, rows.data.size, *rows.parts, value, out, action, low, high)
    return float(low.min()), float(high.max())


def optimal_backup_with_q(
    rows: Rows, value: Floats, out: Floats, action: Ints, q: Floats
) -> tuple[float, float]:
    """As `optimal_backup`, and q [S, A] of `value` besides."""
    low, high = np.empty(BLOCKS), np.empty(BLOCKS)
    shared(_optimal_with_q, rows.data.size, *rows.parts, value, out, action, q, low, high)
    return float(low.min()), float(high.max())


@compiled_parallel
def _optimal_with_q(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    value: Floats,
    out: Floats,
    action: Ints,
    q: Floats,
    low: Floats,
    high: Floats,
) -> None:
    num_states, num_actions = reward.shape[0], unsigned(reward.shape[1])
    one = unsigned(1)
    for block in prange(low.size):
        least, most = np.inf, -np.inf
        first, past = block * num_states // low.size, (block + 1) * num_states // low.size
        for s in range(unsigned(first), unsigned(past)):
            choice = unsigned(0)
            for a in range(num_actions):
                row = s * num_actions + a
                total = 0.0
                for k in range(unsigned(indptr[row]), unsigned(indptr[row + one])):
                    total += data[k] * value[indices[k]]
                q[s, a] = reward[s, a] + gamma * total
                choice = a if q[s, a] > q[s, choice] else choice
            out[s] = q[s, choice]
            action[s] = choice
            least = min(least, out[s] - value[s])
            most = max(most, out[s] - value[s])
        low[block] = least
        high[block] = most


def policy_backup(rows: Rows, action: Ints, value: Floats, out: Floats) -> tuple[float, float]:
    """out = T_π value for a policy of one action a state; returns min and max of the change."""
    low, high = np.empty(BLOCKS), np.empty(BLOCKS)
    shared(_under_policy, rows.data.size, *rows.parts, action, value, out, low, high)
    return float(low.min()), float(high.max())


@compiled_parallel
def _optimal(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    value: Floats,
    out: Floats,
    action: Ints,
    low: Floats,
    high: Floats,
) -> None:
    num_states, num_actions = reward.shape[0], unsigned(reward.shape[1])
    one = unsigned(1)
    for block in prange(low.size):
        least, most = np.inf, -np.inf
        first, past = block * num_states // low.size, (block + 1) * num_states // low.size
        for s in range(unsigned(first), unsigned(past)):
            best, choice = -np.inf, unsigned(0)
            for a in range(num_actions):
                row = s * num_actions + a
                total = 0.0
                for k in range(unsigned(indptr[row]), unsigned(indptr[row + one])):
                    total += data[k] * value[indices[k]]
                q = reward[s, a] + gamma * total
                if q > best:
                    best, choice = q, a
            out[s] = best
            action[s] = choice
            least = min(least, best - value[s])
            most = max(most, best - value[s])
        low[block] = least
        high[block] = most


@compiled_parallel
def _under_policy(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    action: Ints,
    value: Floats,
    out: Floats,
    low: Floats,
    high: Floats,
) -> None:
    num_states, num_actions = reward.shape
    for block in prange(low.size):
        least, most = np.inf, -np.inf
        for s in range(block * num_states // low.size, (block + 1) * num_states // low.size):
            row = s * num_actions + action[s]
            total = 0.0
            for k in range(unsigned(indptr[row]), unsigned(indptr[row + 1])):
                total += data[k] * value[indices[k]]
            new = reward[s, action[s]] + gamma * total
            out[s] = new
            least = min(least, new - value[s])
            most = max(most, new - value[s])
        low[block] = least
        high[block] = most


def q_values(rows: Rows, value: Floats) -> Floats:
    """Q(s, a) = R(s, a) + γ Σ_s' p(s'|s, a) V(s') as [S, A]; -inf where there is no action."""
    q = np.empty_like(rows.reward)
    shared(_q, rows.data.size, *rows.parts, value, q)
    return q


@compiled_parallel
def _q(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    value: Floats,
    q: Floats,
) -> None:
    num_states, num_actions = reward.shape
    for s in prange(num_states):
        for a in range(num_actions):
            row = s * num_actions + a
            total = 0.0
            for k in range(unsigned(indptr[row]), unsigned(indptr[row + 1])):
                total += data[k] * value[indices[k]]
            q[s, a] = reward[s, a] + gamma * total


@compiled
def sweep_in_place(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    order: Ints,
    value: Floats,
    action: Ints,
) -> float:
    """One Gauss-Seidel sweep of T over the states in `order`; returns the greatest change.

    An action that stays with probability p is taken until it leaves: its backup is
    (R + γ Σ_{s'≠s} p(s') V(s')) / (1 - γ p), which has the same fixed point and forgets V(s).
    With γ p = 1 the action never leaves and earns R for ever: it counts as R + V(s).
    """
    num_actions = reward.shape[1]
    greatest = 0.0
    for i in range(order.size):
        s = order[i]
        best, choice = -np.inf, 0
        for a in range(num_actions):
            row = s * num_actions + a
            total, stay = 0.0, 0.0
            for k in range(unsigned(indptr[row]), unsigned(indptr[row + 1])):
                if indices[k] == s:
                    stay += data[k]
                else:
                    total += data[k] * value[indices[k]]
            leave = 1.0 - gamma * stay
            if leave > 1e-12:
                q = (reward[s, a] + gamma * total) / leave
            else:
                q = reward[s, a] + value[s]
            if q > best:
                best, choice = q, a
        greatest = max(greatest, abs(best - value[s]))
        value[s] = best
        action[s] = choice
    return greatest


class Chain(NamedTuple):
    """A policy's rows in sweeping order: row i of (indptr, indices, data) is state order[i].

    Staying is divided out beforehand: V(order[i]) = reward[i] + Σ data · V(indices).
    """

    indptr: Ints
    indices: Index
    data: Floats
    reward: Floats
    order: Ints


@compiled
def chain_in_order(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    order: Ints,
    action: Ints,
) -> tuple[Ints, Index, Floats, Floats]:
    """The parts of a `Chain` but its order, for a policy of one action a state."""
    num_actions = reward.shape[1]
    begin = np.zeros(order.size + 1, np.int64)
    for i in range(order.size):
        row = order[i] * num_actions + action[order[i]]
        begin[i + 1] = begin[i] + indptr[row + 1] - indptr[row]
    column = np.empty(begin[-1], indices.dtype)
    weight = np.empty(begin[-1])
    paid = np.empty(order.size)
    used = 0
    for i in range(order.size):
        s = order[i]
        row = s * num_actions + action[s]
        stay = 0.0
        for k in range(indptr[row], indptr[row + 1]):
            if indices[k] == s:
                stay += data[k]
        leave = 1.0 - gamma * stay
        if leave <= 1e-12:
            leave = 1.0  # stays for good, for nothing: its value is its reward, 0
        begin[i] = used
        paid[i] = reward[s, action[s]] / leave
        for k in range(indptr[row], indptr[row + 1]):
            if indices[k] != s:
                column[used] = indices[k]
                weight[used] = gamma * data[k] / leave
                used += 1
    begin[order.size] = used
    return begin, column[:used], weight[:used], paid


@compiled
def sweep_chain(
    indptr: Ints, indices: Index, data: Floats, reward: Floats, order: Ints, value: Floats
) -> float:
    """One Gauss-Seidel sweep of a `Chain` in place; returns the greatest change."""
    greatest = 0.0
    for i in range(order.size):
        total = reward[i]
        for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            total += data[k] * value[indices[k]]
        greatest = max(greatest, abs(total - value[order[i]]))
        value[order[i]] = total
    return greatest


@compiled
def likeliest_first(
    indptr: Ints, indices: Index, data: Floats, num_actions: int, action: Ints
) -> Ints:
    """States ordered so that the likeliest successor of each under the policy comes before it.

    Each state points at its likeliest successor other than itself; from the states where these
    paths end or meet themselves, they are walked backwards, nearest first. One sweep in this order
    then carries a change at a goal along every main path to its beginning.
    """
    num_states = action.size
    ahead = np.empty(num_states, np.int64)
    followers = np.zeros(num_states + 1, np.int64)
    for s in range(num_states):
        row = s * num_actions + action[s]
        ahead[s], most = s, 0.0
        for k in range(indptr[row], indptr[row + 1]):
            if indices[k] != s and data[k] > most:
                ahead[s], most = indices[k], data[k]
        followers[ahead[s] + 1] += 1
    for s in range(num_states):
        followers[s + 1] += followers[s]
    slot = followers[:-1].copy()
    behind = np.empty(num_states, np.int64)
    for s in range(num_states):
        behind[slot[ahead[s]]] = s
        slot[ahead[s]] += 1
    order = np.empty(num_states, np.int64)
    seen = np.zeros(num_states, np.int8)
    used = 0
    for start in range(num_states):  # roots: ends of paths, else one state of each ring
        s = start
        while seen[s] == 0:
            seen[s] = 1
            s = ahead[s]
        root, ends_here = s, seen[s] == 1  # else it ran into an earlier path
        s = start
        while seen[s] == 1:
            seen[s] = 2
            s = ahead[s]
        if ends_here:
            order[used] = root
            seen[root] = 3
            used += 1
    head = 0
    while head < used:
        s = order[head]
        head += 1
        for i in range(followers[s], followers[s + 1]):
            follower = behind[i]
            if seen[follower] != 3:
                seen[follower] = 3
                order[used] = follower
                used += 1
    return order
