"""Planning in place, in an order that suits the world: for mazes and other worlds that mix slowly.

A Jacobi sweep carries news one step; a sweep in place carries it along the whole order. Three ways:
Gauss-Seidel policy iteration along the policy's own paths, prioritised sweeping from the greatest
error backwards, and one component after another where the world has no way back.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from plaudit.mdp.checks import terminal_states
from plaudit.mdp.compiled import compiled
from plaudit.mdp.planning.backups import (
    Floats,
    Index,
    Ints,
    Rows,
    chain_in_order,
    likeliest_first,
    optimal_backup,
    q_values,
    size_of,
    sweep_chain,
    sweep_in_place,
)
from plaudit.mdp.planning.iteration import MAX_SWEEPS, Floor, Swept
from plaudit.mdp.planning.solution import rounding_of, span_bound, span_shift

Booleans: TypeAlias = NDArray[np.bool_]


def gauss_seidel(rows: Rows, tol: float, value: Floats, max_sweeps: int = MAX_SWEEPS) -> Swept:
    """Sweeps of T in place, forwards and backwards in turn.

    Source: Puterman 1994, section 6.3.3 (Gauss-Seidel value iteration). At γ = 1, `tol` is for the
    greatest change of a sweep, as no bound follows from it alone.
    """
    value, action = value.copy(), np.empty(value.size, np.int64)
    order = np.arange(value.size)
    trace: list[float] = []
    floor = Floor()
    for sweep in range(max_sweeps):
        change = sweep_in_place(*rows.parts, order, value, action)
        order = order[::-1]
        rounding = rounding_of(rows, size_of(value))
        # In place, max |V - V*| after a sweep is at most γ/(1-γ) times its greatest change.
        reach = rows.gamma / (1 - rows.gamma) if rows.gamma < 1 else 1.0
        trace.append(reach * change + (1 + reach) * rounding)
        if trace[-1] <= tol or floor.reached(change, rounding):
            return Swept(value, sweep + 1, trace)
    return Swept(value, max_sweeps, trace)


def ordered_policy_iteration(
    rows: Rows, tol: float, value: Floats, action: Ints | None = None, max_sweeps: int = MAX_SWEEPS
) -> Swept:
    """Improve by one backup; evaluate by Gauss-Seidel along the policy's likeliest paths; again.

    The order is made anew for each policy, so that a sweep begins at the ends of paths (goals) and
    goes back along them. It begins with `action`, else with a policy that goes where the world
    ends, if it does, else with the greedy policy of `value`: from a policy that gets somewhere a maze
    takes some 20 improvements, from an arbitrary one over 100. At γ = 1, `tol` is for the greatest
    |TV - V|.
    """
    value, out = value.copy(), np.empty_like(value)
    choice = goal_directed(rows) if action is None else action.copy()
    if choice is None:
        choice = np.zeros(value.size, np.int64)
    else:
        value[:] = 0.0
        _evaluate(rows, choice, value, np.inf, tol)
    trace: list[float] = []
    floor = Floor()
    for sweep in range(max_sweeps):
        low, high = optimal_backup(rows, value, out, choice)
        change = max(-low, high)
        rounding = rounding_of(rows, size_of(out))
        if rows.gamma < 1:
            trace.append(span_bound(rows, low, high, size_of(value)))
        else:
            trace.append(change)
        if trace[-1] <= tol or floor.reached(change, rounding):
            return Swept(value, sweep + 1, trace)
        value, out = out, value
        if rows.gamma < 1 and abs(low + high) > high - low:  # the whole level is off
            value += span_shift(rows, low, high)
        _evaluate(rows, choice, value, change, tol)
    return Swept(value, max_sweeps, trace)


AIM = 0.03
"""How far sweeps of one policy shrink the greatest change before the policy is improved again."""

MOST_SWEEPS = 60


def _evaluate(rows: Rows, action: Ints, value: Floats, change: float, tol: float) -> None:
    order = likeliest_first(rows.indptr, rows.indices, rows.data, rows.reward.shape[1], action)
    chain = chain_in_order(*rows.parts, order, action)
    enough = max(AIM * change, 0.3 * tol * (1 - rows.gamma)) if np.isfinite(change) else tol
    for _ in range(MOST_SWEEPS):
        if sweep_chain(*chain, order, value) <= enough:
            return


def goal_directed(rows: Rows) -> Ints | None:
    """Actions that bring the expected distance to a terminal state down most; None: there is none.

    The distance is the least number of transitions, whatever their chances.
    """
    goal = terminal_states(rows.indptr, rows.indices, rows.data, rows.reward)
    if not goal.any():
        return None
    shape = (rows.indptr.size - 1, goal.size)
    columns = rows.indices.astype(np.int32 if shape[1] < 2**31 else np.int64)
    into = sparse.csr_array((rows.data, columns, rows.indptr), shape=shape).tocsc()
    distance = _distances(into.indptr, into.indices, rows.reward.shape[1], goal)
    unpaid = np.where(np.isneginf(rows.reward), -np.inf, 0.0)
    nearer = q_values(replace(rows, reward=unpaid, gamma=1.0), -distance)
    action: Ints = nearer.argmax(axis=1)
    return action


@compiled
def _distances(into_indptr: Ints, into: Ints, num_actions: int, goal: Booleans) -> Floats:
    """Transitions to the nearest goal; where none can be reached, one more than the greatest."""
    num_states = goal.size
    distance = np.full(num_states, -1.0)
    queue = np.empty(num_states, np.int64)
    tail = 0
    for s in range(num_states):
        if goal[s]:
            distance[s] = 0.0
            queue[tail] = s
            tail += 1
    head = 0
    while head < tail:
        s = queue[head]
        head += 1
        for k in range(into_indptr[s], into_indptr[s + 1]):
            before = into[k] // num_actions
            if distance[before] < 0.0:
                distance[before] = distance[s] + 1.0
                queue[tail] = before
                tail += 1
    furthest = distance.max() + 1.0
    for s in range(num_states):
        if distance[s] < 0.0:
            distance[s] = furthest
    return distance


def prioritized_sweeping(
    rows: Rows, tol: float, value: Floats, max_backups: int = 100_000_000
) -> Swept:
    """Back up the state whose value is most wrong, then look at the states that lead to it.

    `iterations` counts backups divided by S, rounded up. γ < 1.
    Source: Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4 (with a known model).
    """
    num_states, num_actions = rows.reward.shape
    counts = np.diff(rows.indptr)
    origin = np.repeat(np.arange(counts.size) // num_actions, counts)
    shape = (num_states, num_states)
    into = sparse.csr_array((np.ones(origin.size), (rows.indices, origin)), shape=shape)
    value = value.copy()
    enough = tol * (1 - rows.gamma) / max(rows.gamma, 1e-300)
    backups = _most_wrong_first(*rows.parts, into.indptr, into.indices, value, enough, max_backups)
    return Swept(value, -(-backups // num_states), [])


@compiled
def _most_wrong_first(
    indptr: Ints,
    indices: Index,
    data: Floats,
    reward: Floats,
    gamma: float,
    into_indptr: Ints,
    into: Ints,
    value: Floats,
    enough: float,
    max_backups: int,
) -> int:
    num_states = reward.shape[0]
    error = np.empty(num_states)
    queue = [(0.0, 0)]  # tells the compiler the types
    queue.pop()
    for s in range(num_states):
        error[s] = abs(_best(indptr, indices, data, reward, gamma, value, s) - value[s])
        if error[s] > enough:
            heapq.heappush(queue, (-error[s], s))
    backups = 0
    while len(queue) > 0 and backups < max_backups:
        said, s = heapq.heappop(queue)
        if -said != error[s]:  # an older entry of the same state
            continue
        value[s] = _best(indptr, indices, data, reward, gamma, value, s)
        error[s] = 0.0
        backups += 1
        for k in range(into_indptr[s], into_indptr[s + 1]):
            before = int(into[k])
            now = abs(_best(indptr, indices, data, reward, gamma, value, before) - value[before])
            if now > enough and now != error[before]:
                heapq.heappush(queue, (-now, before))
            error[before] = now
    return backups


@compiled
def _best(
    indptr: Ints, indices: Index, data: Floats, reward: Floats, gamma: float, value: Floats, s: int
) -> float:
    """max_a Q(s, a), with staying divided out as in `sweep_in_place`."""
    num_actions = reward.shape[1]
    best = -np.inf
    for a in range(num_actions):
        total, stay = 0.0, 0.0
        for k in range(indptr[s * num_actions + a], indptr[s * num_actions + a + 1]):
            if indices[k] == s:
                stay += data[k]
            else:
                total += data[k] * value[indices[k]]
        best = max(best, (reward[s, a] + gamma * total) / (1.0 - gamma * stay))
    return best


def topological(rows: Rows, tol: float, value: Floats) -> Swept:
    """Solve the strongly connected components one by one, those without a way out first.

    A component of one state takes one backup; a larger one is swept in place until it is still.
    `iterations` counts sweeps of the longest component. Source: Dai & Goldsmith 2007 (topological
    value iteration).
    """
    order, begin = components_backwards(rows)
    value, action = value.copy(), np.empty(value.size, np.int64)
    most = 1
    change_allowed = tol * (1 - rows.gamma) / max(rows.gamma, 1e-300) if rows.gamma < 1 else tol
    alone = np.diff(begin) == 1
    run = 0
    while run < alone.size:
        stop = run + 1
        if alone[run]:  # as many single states as follow each other, in one sweep
            while stop < alone.size and alone[stop]:
                stop += 1
            sweep_in_place(*rows.parts, order[begin[run] : begin[stop]], value, action)
        else:
            part = order[begin[run] : begin[stop]]
            floor = Floor()
            for sweep in range(1, MAX_SWEEPS):
                change = sweep_in_place(*rows.parts, part, value, action)
                part, most = part[::-1], max(most, sweep)
                rounding = rounding_of(rows, size_of(value))
                if change <= 0.5 * change_allowed or floor.reached(change, rounding):
                    break
        run = stop
    return Swept(value, most, [])


def components_backwards(rows: Rows) -> tuple[Ints, Ints]:
    """States by strongly connected component, each after all that it leads to; and where each begins."""
    num_states, num_actions = rows.reward.shape
    begin = np.ascontiguousarray(rows.indptr[::num_actions])
    graph = sparse.csr_array(
        (rows.data.copy(), rows.indices.astype(np.int64), begin), shape=(num_states, num_states)
    )
    graph.sum_duplicates()
    graph.eliminate_zeros()
    number, label = csgraph.connected_components(graph, directed=True, connection="strong")
    origin = label[np.repeat(np.arange(num_states), np.diff(graph.indptr))]
    target = label[graph.indices]
    between = origin != target
    into = sparse.csr_array(
        (np.ones(int(between.sum()), np.int8), (target[between], origin[between])),
        shape=(number, number),
    )
    into.sum_duplicates()
    waits = np.bincount(into.indices, minlength=number)
    rank = _backwards(into.indptr, into.indices, waits)[label]
    order = np.argsort(rank, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=number))])


@compiled
def _backwards(into_indptr: Ints, into: Ints, waits: Ints) -> Ints:
    """Place of each component in an order in which it comes after all that it leads to (Kahn)."""
    place = np.empty(waits.size, np.int64)
    ready = np.empty(waits.size, np.int64)
    tail = 0
    for component in range(waits.size):
        if waits[component] == 0:
            ready[tail] = component
            tail += 1
    for head in range(waits.size):
        component = ready[head]
        place[component] = head
        for k in range(into_indptr[component], into_indptr[component + 1]):
            before = into[k]
            waits[before] -= 1
            if waits[before] == 0:
                ready[tail] = before
                tail += 1
    return place
