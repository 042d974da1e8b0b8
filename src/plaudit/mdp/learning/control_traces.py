"""SARSA(λ) and Watkins' Q(λ): each TD error shared backwards among the pairs of the episode.

A trace that has fallen below `TRACE_FLOOR` is dropped from the list that a step walks through, so
that a step costs as much as there are live traces and not S·A.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.acting import (
    GOES_ON,
    TERMINATED,
    Ended,
    Task,
    chosen,
    closed,
    greatest,
    moved,
    step_size,
)
from plaudit.mdp.learning.control import Algorithm, Options, Own, Stepped, learn, number_in
from plaudit.mdp.learning.result import ACTION, Floats, Ints, Learned, Walk
from plaudit.mdp.learning.sampling import Table
from plaudit.mdp.learning.schedules import Schedule
from plaudit.mdp.model import MDP

TRACE_FLOOR = 1e-24
"""Errors of any size that fits the values move a q by less than its rounding through such a trace."""


class Lam(NamedTuple):
    """The trace decay λ."""

    lam: float


class Traces(NamedTuple):
    """Eligibility e [S, A]; the pairs s·A + a that have one, and alive [1], how many."""

    e: Floats
    pairs: Ints
    alive: Ints


def sarsa_lambda(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    lam: float = 0.9,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """SARSA with accumulating traces.

    δ = r + γ q(s', a') - q(s, a);  e(s, a) ← e(s, a) + 1;  q ← q + α δ e;  e ← γ λ e.

    lam in [0, 1]: 0 is SARSA. Alpha is that of the pair just left, for all pairs. Other options as
    for `q_learning`. Source: Rummery & Niranjan 1994; Sutton & Barto 2018, section 12.7.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(SARSA_LAMBDA, mdp, options, _lam(lam))


def sarsa_lambda_replacing(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    lam: float = 0.9,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """SARSA with replacing traces: a pair met again has e(s, a) = 1, not more.

    The traces of the other actions of the state stay as they are. Options as for `sarsa_lambda`.
    Source: Singh & Sutton 1996; Sutton & Barto 2018, section 12.7.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(SARSA_LAMBDA_REPLACING, mdp, options, _lam(lam))


def q_lambda(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    lam: float = 0.9,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """Watkins' Q(λ): Q-learning with accumulating traces, cut where the policy explores.

    δ = r + γ max_a q(s', a) - q(s, a); all traces fall to 0 when the next action is not a greatest
    one of s', since what follows says nothing about the greedy policy.
    Options as for `sarsa_lambda`. Source: Watkins 1989; Sutton & Barto 2018, section 12.10.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(Q_LAMBDA, mdp, options, _lam(lam))


def _lam(lam: float) -> Lam:
    return Lam(number_in(lam, "lam", 0.0, 1.0))


def _traces(q: Floats, own: Own) -> Traces:
    return Traces(np.zeros(q.shape), np.zeros(q.size, np.int64), np.zeros(1, np.int64))


@inlined
def _enlist(traces: Traces, state: int, action: int) -> None:
    """Puts a pair on the list unless it is there."""
    if traces.e[state, action] == 0.0:
        traces.pairs[traces.alive[0]] = state * traces.e.shape[1] + action
        traces.alive[0] += 1


@inlined
def _spread(walk: Walk, traces: Traces, change: float, decay: float) -> None:
    """q ← q + change · e and e ← decay · e for every live trace; those below the floor go."""
    num_actions = traces.e.shape[1]
    i = 0
    while i < traces.alive[0]:
        state, action = divmod(traces.pairs[i], num_actions)
        walk.q[state, action] += change * traces.e[state, action]
        traces.e[state, action] *= decay
        if traces.e[state, action] < TRACE_FLOOR:
            traces.e[state, action] = 0.0
            traces.alive[0] -= 1
            traces.pairs[i] = traces.pairs[traces.alive[0]]
        else:
            i += 1


@inlined
def _sarsa_error(
    table: Table,
    task: Task,
    walk: Walk,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> float:
    """The TD error of SARSA; the next action is chosen on the way."""
    target = reward
    if end != TERMINATED:
        next_action = chosen(table, task, walk, next_state)
        walk.at[ACTION] = next_action
        target += task.gamma * walk.q[next_state, next_action]
    return float(target - walk.q[state, action])


@inlined
def _observe_accumulating(
    table: Table,
    task: Task,
    own: Lam,
    walk: Walk,
    memory: Traces,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    error = _sarsa_error(table, task, walk, state, action, reward, next_state, end)
    _enlist(memory, state, action)
    memory.e[state, action] += 1.0
    decay = task.gamma * own.lam if end == GOES_ON else 0.0
    _spread(walk, memory, step_size(task, walk, state, action) * error, decay)


@inlined
def _steps_accumulating(
    table: Table, task: Task, own: Lam, walk: Walk, memory: Traces, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_accumulating(
            table, task, own, walk, memory, state, action, reward, next_state, end
        )
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _observe_replacing(
    table: Table,
    task: Task,
    own: Lam,
    walk: Walk,
    memory: Traces,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    error = _sarsa_error(table, task, walk, state, action, reward, next_state, end)
    _enlist(memory, state, action)
    memory.e[state, action] = 1.0
    decay = task.gamma * own.lam if end == GOES_ON else 0.0
    _spread(walk, memory, step_size(task, walk, state, action) * error, decay)


@inlined
def _steps_replacing(
    table: Table, task: Task, own: Lam, walk: Walk, memory: Traces, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_replacing(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _observe_watkins(
    table: Table,
    task: Task,
    own: Lam,
    walk: Walk,
    memory: Traces,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    target, decay = reward, 0.0
    if end != TERMINATED:
        best = greatest(walk.q, next_state)
        target += task.gamma * best
        if end == GOES_ON:
            walk.at[ACTION] = chosen(table, task, walk, next_state)
            if walk.q[next_state, walk.at[ACTION]] == best:
                decay = task.gamma * own.lam
    error = target - walk.q[state, action]
    _enlist(memory, state, action)
    memory.e[state, action] += 1.0
    _spread(walk, memory, step_size(task, walk, state, action) * error, decay)


@inlined
def _steps_watkins(
    table: Table, task: Task, own: Lam, walk: Walk, memory: Traces, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_watkins(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


SARSA_LAMBDA = Algorithm("sarsa_lambda", _steps_accumulating, _observe_accumulating, _traces)
SARSA_LAMBDA_REPLACING = Algorithm(
    "sarsa_lambda_replacing", _steps_replacing, _observe_replacing, _traces
)
Q_LAMBDA = Algorithm("q_lambda", _steps_watkins, _observe_watkins, _traces)
