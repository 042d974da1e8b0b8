"""Prioritized sweeping with a learned model: planning where a value is most wrong, backwards.

The model remembers the last outcome of each pair, as in Dyna-Q, with the pairs that led to each
state in a linked list, and the pairs to be learned in a heap by the size of their error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.acting import (
    TERMINATED,
    Ended,
    Task,
    closed,
    greatest,
    learn_towards,
    moved,
)
from plaudit.mdp.learning.control import Algorithm, Options, Own, Stepped, learn, number_in, whole
from plaudit.mdp.learning.result import Floats, Ints, Learned, Walk
from plaudit.mdp.learning.sampling import Table
from plaudit.mdp.learning.schedules import Schedule
from plaudit.mdp.model import MDP


class Sweeping(NamedTuple):
    """Pairs planned after each real step, and the error below which a pair is not worth it."""

    num_planning: int
    theta: float


class Queue(NamedTuple):
    """The model and the queue; a pair is s·A + a, and -1 is none.

    next_state, reward, over [S·A]: the last outcome; first [S], after, before [S·A]: the pairs that
    lead to each state, linked both ways; heap, place, priority [S·A]: the queue, where each pair
    stands in it, its error; size [1].
    """

    next_state: Ints
    reward: Floats
    over: NDArray[np.bool_]
    first: Ints
    after: Ints
    before: Ints
    heap: Ints
    place: Ints
    priority: Floats
    size: Ints


def prioritized_sweeping(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    num_planning: int = 10,
    theta: float = 1e-4,
    alpha: float | Schedule = 1.0,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """Q-learning on remembered steps, the one with the greatest error first.

    After each real step its pair enters a queue by |r + γ max_a' q(s', a') - q(s, a)|, if that is
    above `theta`. Up to `num_planning` times the first pair is taken and learned, and the pairs
    that lead to its state enter by their errors. Only queued pairs are learned.

    For deterministic worlds, where alpha may be 1. num_planning: 1 or more; theta: 0 or more; other options as for
    `q_learning`. Source: Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    own = Sweeping(whole(num_planning, "num_planning"), number_in(theta, "theta", 0.0, np.inf))
    return learn(PRIORITIZED_SWEEPING, mdp, options, own)


def _queue(q: Floats, own: Own) -> Queue:
    none = [np.full(q.size, -1, np.int64) for _ in range(5)]
    next_state, after, before, heap, place = none
    return Queue(
        next_state,
        np.zeros(q.size),
        np.zeros(q.size, np.bool_),
        np.full(q.shape[0], -1, np.int64),
        after,
        before,
        heap,
        place,
        np.zeros(q.size),
        np.zeros(1, np.int64),
    )


@inlined
def _error(task: Task, walk: Walk, queue: Queue, pair: int) -> float:
    """r + γ max_a' q(s', a') - q(s, a) of the remembered outcome."""
    target = queue.reward[pair]
    if not queue.over[pair]:
        target += task.gamma * greatest(walk.q, queue.next_state[pair])
    num_actions = walk.q.shape[1]
    return float(target - walk.q[pair // num_actions, pair % num_actions])


@inlined
def _remember(queue: Queue, pair: int, reward: float, next_state: int, over: bool) -> None:
    """The outcome of a pair; it moves to the list of the state that it leads to now."""
    old = queue.next_state[pair]
    queue.reward[pair] = reward
    queue.over[pair] = over
    if old == next_state:
        return
    if old >= 0:
        if queue.before[pair] >= 0:
            queue.after[queue.before[pair]] = queue.after[pair]
        else:
            queue.first[old] = queue.after[pair]
        if queue.after[pair] >= 0:
            queue.before[queue.after[pair]] = queue.before[pair]
    queue.next_state[pair] = next_state
    queue.before[pair] = -1
    queue.after[pair] = queue.first[next_state]
    if queue.first[next_state] >= 0:
        queue.before[queue.first[next_state]] = pair
    queue.first[next_state] = pair


@inlined
def _put(queue: Queue, slot: int, pair: int) -> None:
    queue.heap[slot] = pair
    queue.place[pair] = slot


@inlined
def _settle(queue: Queue, pair: int) -> None:
    """Moves a pair up or down the heap to where its priority belongs."""
    slot = queue.place[pair]
    while slot > 0 and queue.priority[queue.heap[(slot - 1) // 2]] < queue.priority[pair]:
        _put(queue, slot, queue.heap[(slot - 1) // 2])
        slot = (slot - 1) // 2
    while 2 * slot + 1 < queue.size[0]:
        child = 2 * slot + 1
        right = child + 1
        if right < queue.size[0]:
            left_pair, right_pair = queue.heap[child], queue.heap[right]
            if queue.priority[right_pair] > queue.priority[left_pair]:
                child = right
        if queue.priority[queue.heap[child]] <= queue.priority[pair]:
            break
        _put(queue, slot, queue.heap[child])
        slot = child
    _put(queue, slot, pair)


@inlined
def _enter(queue: Queue, pair: int, priority: float, theta: float) -> None:
    """Queues a pair whose error is above theta; one that waits already takes its new error."""
    if priority <= theta:
        return
    if queue.place[pair] < 0:
        queue.place[pair] = queue.size[0]
        queue.heap[queue.size[0]] = pair
        queue.size[0] += 1
    queue.priority[pair] = priority
    _settle(queue, pair)


@inlined
def _leave(queue: Queue) -> int:
    """Takes the first pair from the queue."""
    pair = queue.heap[0]
    queue.place[pair] = -1
    queue.size[0] -= 1
    if queue.size[0] > 0:
        last = queue.heap[queue.size[0]]
        _put(queue, 0, last)
        _settle(queue, last)
    return int(pair)


@inlined
def _observe(
    table: Table,
    task: Task,
    own: Sweeping,
    walk: Walk,
    memory: Queue,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    num_actions = walk.q.shape[1]
    pair = state * num_actions + action
    _remember(memory, pair, reward, next_state, end == TERMINATED)
    _enter(memory, pair, abs(_error(task, walk, memory, pair)), own.theta)
    for _ in range(own.num_planning):
        if memory.size[0] == 0:
            break
        first = _leave(memory)
        s, a = first // num_actions, first % num_actions
        learn_towards(task, walk, s, a, walk.q[s, a] + _error(task, walk, memory, first))
        leads = memory.first[s]
        while leads >= 0:
            if not memory.over[leads]:
                _enter(memory, leads, abs(_error(task, walk, memory, leads)), own.theta)
            leads = memory.after[leads]


@inlined
def _steps(
    table: Table, task: Task, own: Sweeping, walk: Walk, memory: Queue, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


PRIORITIZED_SWEEPING = Algorithm("prioritized_sweeping", _steps, _observe, _queue)
