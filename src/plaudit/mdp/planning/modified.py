"""Modified policy iteration, made for large worlds that mix fast (γ < 1).

Improve the policy by one backup, evaluate it by some sweeps of its own, and again; stop by the span
(`solution.span_bound`). Two things make it fast where a plain backup reads the whole world:

- The policy's rows are kept side by side, so that its sweeps read memory in order; an improvement
  rewrites only the rows of states whose action changed.
- An improvement looks at all actions only where the best could have changed. If the best action of s
  led by a gap g when it was last compared, it still leads while γ times the span of all that V moved
  since is below g. (Hübner 1977; Puterman 1994, section 6.7, uses this to leave actions out.)

Source: Puterman & Shin 1978; Puterman 1994, sections 6.5 and 6.6.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from numba import prange

from plaudit.mdp.compiled import compiled, compiled_parallel, shared, unsigned
from plaudit.mdp.planning.backups import (
    BLOCKS,
    Floats,
    Index,
    Ints,
    Rows,
    size_of,
)
from plaudit.mdp.planning.iteration import MAX_SWEEPS, Floor, Swept
from plaudit.mdp.planning.solution import rounding_of, span_bound

AIM = 0.05
"""How far a policy's own sweeps shrink the span before the policy is improved again."""

MOST_SWEEPS = 100
"""Sweeps of one policy at most: the policy may be wrong, and then they are wasted."""

PATIENCE = 20
"""Sweeps of a policy after which their rate tells whether the world mixes slowly."""


def modified_policy_iteration(
    rows: Rows,
    tol: float,
    value: Floats,
    max_sweeps: int = MAX_SWEEPS,
    *,
    give_up_rate: float = 1.0,
) -> Swept:
    """V within `tol` of V* up to a constant that the span's middle gives; `iterations`: improvements.

    `give_up_rate`: return with `slow` true when a policy's sweeps shrink the span by a smaller
    factor than this each (1: never).
    """
    # T 0 = max_a R(s, a): no transition need be read
    value = value.copy() if value.any() else reduce(np.maximum, rows.reward.T, value - np.inf)
    policy = _policy_of(rows)
    out, before = np.empty_like(value), value.copy()
    trace: list[float] = []
    moved, floor = 0.0, Floor()
    for sweep in range(max_sweeps):
        moved += rows.gamma * _span(value, before)
        before[:] = value
        low, high = _improve(rows, policy, moved, value, out)
        trace.append(span_bound(rows, low, high, size_of(value)))
        if trace[-1] <= tol or floor.reached(high - low, rounding_of(rows, size_of(out))):
            return Swept(value, sweep + 1, trace)
        value, out = out, value
        value, out, rate = _evaluate(rows, policy, value, out, high - low, tol)
        if rate > give_up_rate:
            return Swept(value, sweep + 1, trace, slow=True)
    return Swept(value, max_sweeps, trace)


def _evaluate(
    rows: Rows, policy: _Policy, value: Floats, spare: Floats, span: float, tol: float
) -> tuple[Floats, Floats, float]:
    """Sweeps of a policy until its span is AIM of `span`, or is enough; and their last rate."""
    enough = max(AIM * span, 0.5 * tol * (1 - rows.gamma) / max(rows.gamma, 1e-300))
    before, rate = span, 0.0
    for sweep in range(MOST_SWEEPS):
        low, high = _policy_sweep(rows, policy, value, spare)
        value, spare = spare, value
        rate = (high - low) / before if before > 0 else 0.0
        before = high - low
        if before <= enough or (sweep >= PATIENCE and rate > 0.9):
            break
    return value, spare, rate


class _Policy(NamedTuple):
    """The rows of one action a state: begin[s] to begin[s + 1], with zeros after a short row."""

    begin: Ints
    indices: Index
    data: Floats
    reward: Floats
    action: Ints
    leads: Floats
    """How much V may move in all before the action must be compared again; -inf: now."""


def _policy_of(rows: Rows) -> _Policy:
    num_states = rows.reward.shape[0]
    begin = _slots(rows.indptr, rows.reward.shape[1], num_states)
    if begin[-1] < 2**31:  # half the bytes to read in every sweep
        begin = begin.astype(np.int32)
    return _Policy(
        begin,
        np.empty(begin[-1], rows.indices.dtype),
        np.empty(begin[-1]),
        np.empty(num_states),
        np.full(num_states, -1, np.int64),
        np.full(num_states, -np.inf),
    )


def _improve(
    rows: Rows, policy: _Policy, moved: float, value: Floats, out: Floats
) -> tuple[float, float]:
    low, high = np.empty(BLOCKS), np.empty(BLOCKS)
    given = (*rows.parts, *policy, moved, value, out, low, high)
    shared(_improve_blocks, rows.data.size, *given)
    return float(low.min()), float(high.max())


def _policy_sweep(rows: Rows, policy: _Policy, value: Floats, out: Floats) -> tuple[float, float]:
    low, high = np.empty(BLOCKS), np.empty(BLOCKS)
    shared(
        _sweep_blocks,
        policy.data.size,
        policy.begin,
        policy.indices,
        policy.data,
        policy.reward,
        rows.gamma,
        value,
        out,
        low,
        high,
    )
    return float(low.min()), float(high.max())


@compiled
def _slots(indptr: Ints, num_actions: int, num_states: int) -> Ints:
    """Where each state's slot begins, wide enough for the longest of its rows."""
    begin = np.zeros(num_states + 1, np.int64)
    for s in range(num_states):
        longest = 0
        for row in range(s * num_actions, (s + 1) * num_actions):
            longest = max(longest, indptr[row + 1] - indptr[row])
        begin[s + 1] = begin[s] + longest
    return begin


@compiled
def _span(value: Floats, before: Floats) -> float:
    low, high = np.inf, -np.inf
    for s in range(value.size):
        low = min(low, value[s] - before[s])
        high = max(high, value[s] - before[s])
    return high - low


@compiled_parallel
def _improve_blocks(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    begin: Ints,
    own_indices: Index,
    own_data: Floats,
    own_reward: Floats,
    action: Ints,
    leads: Floats,
    moved: float,
    value: Floats,
    out: Floats,
    low: Floats,
    high: Floats,
) -> None:
    num_states, num_actions = reward.shape[0], unsigned(reward.shape[1])
    one = unsigned(1)
    for block in prange(low.size):
        least, most = np.inf, -np.inf
        first, past = block * num_states // low.size, (block + 1) * num_states // low.size
        for s in range(unsigned(first), unsigned(past)):
            if leads[s] > moved:
                total = 0.0
                for k in range(unsigned(begin[s]), unsigned(begin[s + one])):
                    total += own_data[k] * value[own_indices[k]]
                best = own_reward[s] + gamma * total
            else:
                best, second, choice = -np.inf, -np.inf, unsigned(0)
                for a in range(num_actions):
                    row = s * num_actions + a
                    total = 0.0
                    for k in range(unsigned(indptr[row]), unsigned(indptr[row + one])):
                        total += data[k] * value[indices[k]]
                    q = reward[s, a] + gamma * total
                    better = q > best  # selections, not branches: they would be mispredicted
                    second = max(second, min(q, best))
                    choice = a if better else choice
                    best = q if better else best
                leads[s] = best - second + moved
                if choice != unsigned(action[s]):
                    action[s] = choice
                    own_reward[s] = reward[s, choice]
                    row = s * num_actions + choice
                    length = indptr[row + one] - indptr[row]
                    for i in range(begin[s + one] - begin[s]):
                        used = i < length
                        own_data[begin[s] + i] = data[indptr[row] + i] if used else 0.0
                        own_indices[begin[s] + i] = indices[indptr[row] + i] if used else 0
            out[s] = best
            least = min(least, best - value[s])
            most = max(most, best - value[s])
        low[block] = least
        high[block] = most


@compiled_parallel
def _sweep_blocks(
    begin: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    value: Floats,
    out: Floats,
    low: Floats,
    high: Floats,
) -> None:
    num_states, one = reward.size, unsigned(1)
    for block in prange(low.size):
        least, most = np.inf, -np.inf
        first, past = block * num_states // low.size, (block + 1) * num_states // low.size
        for s in range(unsigned(first), unsigned(past)):
            total = 0.0
            for k in range(unsigned(begin[s]), unsigned(begin[s + one])):
                total += data[k] * value[indices[k]]
            new = reward[s] + gamma * total
            out[s] = new
            least = min(least, new - value[s])
            most = max(most, new - value[s])
        low[block] = least
        high[block] = most
