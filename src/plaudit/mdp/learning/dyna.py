"""Dyna-Q and Dyna-Q+: a model learned on the way, and steps replayed from it between real ones.

The model remembers the last outcome of each pair. In a deterministic world that is the world; in a
random one planning replays one recent sample again and again, so that alpha must be small against
1 / num_planning. A world that changes is met by going on in another MDP with `start`.
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
from plaudit.mdp.learning.result import STEP, Floats, Ints, Learned, Walk
from plaudit.mdp.learning.sampling import Table, below
from plaudit.mdp.learning.schedules import Schedule, rate_at
from plaudit.mdp.model import MDP


class Planning(NamedTuple):
    """Steps planned after each real one, and the bonus for what was not tried for long."""

    num_planning: int
    kappa: float


class Model(NamedTuple):
    """What was seen: next_state [S, A] (-1: never tried), reward and over (the episode ended) [S, A],
    tried_at [S, A], the step of the last try; met [S], the states left so far; num_met [1], how many.
    """

    next_state: Ints
    reward: Floats
    over: NDArray[np.bool_]
    tried_at: Ints
    met: Ints
    num_met: Ints


def dyna_q(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    num_planning: int = 10,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """Q-learning from real steps, and from `num_planning` remembered ones after each.

    A remembered step: a state met before, evenly; an action tried there, evenly; its last outcome.
    num_planning = 0 is Q-learning. Other options as for `q_learning`.
    Source: Sutton 1990; Sutton & Barto 2018, section 8.2.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(DYNA_Q, mdp, options, Planning(whole(num_planning, "num_planning", 0), 0.0))


def dyna_q_plus(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    num_planning: int = 10,
    kappa: float = 1e-3,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """Dyna-Q that goes to look again: a planned step pays r + κ √τ, τ real steps since its last try.

    Any action of a state met before may be planned; one never tried is thought to stay and to pay
    nothing but its bonus. kappa: 0 or more. Other options as for `dyna_q`.
    Source: Sutton 1990; Sutton & Barto 2018, section 8.3.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    own = Planning(whole(num_planning, "num_planning", 0), number_in(kappa, "kappa", 0.0, np.inf))
    return learn(DYNA_Q_PLUS, mdp, options, own)


def _model(q: Floats, own: Own) -> Model:
    return Model(
        np.full(q.shape, -1, np.int64),
        np.zeros(q.shape),
        np.zeros(q.shape, np.bool_),
        np.zeros(q.shape, np.int64),
        np.zeros(q.shape[0], np.int64),
        np.zeros(1, np.int64),
    )


@inlined
def _remember(
    walk: Walk, model: Model, state: int, action: int, reward: float, next_state: int, end: int
) -> None:
    known = False
    for a in range(model.next_state.shape[1]):
        known = known or model.next_state[state, a] >= 0
    if not known:
        model.met[model.num_met[0]] = state
        model.num_met[0] += 1
    model.next_state[state, action] = next_state
    model.reward[state, action] = reward
    model.over[state, action] = end == TERMINATED
    model.tried_at[state, action] = walk.at[STEP]


@inlined
def _learn_greedily(
    task: Task, walk: Walk, state: int, action: int, reward: float, next_state: int, over: bool
) -> None:
    """Q-learning's update."""
    target = reward
    if not over:
        target += task.gamma * greatest(walk.q, next_state)
    learn_towards(task, walk, state, action, target)


@inlined
def _tried_action(model: Model, walk: Walk, state: int) -> int:
    """One of the actions tried in the state, evenly."""
    count = 0
    for a in range(model.next_state.shape[1]):
        count += 1 if model.next_state[state, a] >= 0 else 0
    choice = below(walk.rng, count)
    for a in range(model.next_state.shape[1]):
        if model.next_state[state, a] >= 0:
            if choice == 0:
                return a
            choice -= 1
    return -1


@inlined
def _observe_dyna(
    table: Table,
    task: Task,
    own: Planning,
    walk: Walk,
    memory: Model,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    _learn_greedily(task, walk, state, action, reward, next_state, end == TERMINATED)
    _remember(walk, memory, state, action, reward, next_state, end)
    for _ in range(own.num_planning):
        s = memory.met[below(walk.rng, memory.num_met[0])]
        a = _tried_action(memory, walk, s)
        _learn_greedily(
            task, walk, s, a, memory.reward[s, a], memory.next_state[s, a], memory.over[s, a]
        )


@inlined
def _steps_dyna(
    table: Table, task: Task, own: Planning, walk: Walk, memory: Model, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_dyna(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _imagine(task: Task, own: Planning, walk: Walk, model: Model, state: int, action: int) -> None:
    """One planned step of Dyna-Q+."""
    bonus = own.kappa * np.sqrt(float(walk.at[STEP] - model.tried_at[state, action]))
    if model.next_state[state, action] >= 0:
        reward, next_state = model.reward[state, action], model.next_state[state, action]
    else:
        reward, next_state = 0.0, state
    target = reward + bonus
    if not model.over[state, action]:
        target += task.gamma * greatest(walk.q, next_state)
    alpha = rate_at(task.alpha, max(walk.visits[state, action], 1), walk.at[STEP] - 1)
    walk.q[state, action] += alpha * (target - walk.q[state, action])


@inlined
def _observe_plus(
    table: Table,
    task: Task,
    own: Planning,
    walk: Walk,
    memory: Model,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    _learn_greedily(task, walk, state, action, reward, next_state, end == TERMINATED)
    _remember(walk, memory, state, action, reward, next_state, end)
    for _ in range(own.num_planning):
        s = memory.met[below(walk.rng, memory.num_met[0])]
        a = below(walk.rng, table.exists.shape[1])
        while not table.exists[s, a]:
            a = below(walk.rng, table.exists.shape[1])
        _imagine(task, own, walk, memory, s, a)


@inlined
def _steps_plus(
    table: Table, task: Task, own: Planning, walk: Walk, memory: Model, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_plus(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


DYNA_Q = Algorithm("dyna_q", _steps_dyna, _observe_dyna, _model)
DYNA_Q_PLUS = Algorithm("dyna_q_plus", _steps_plus, _observe_plus, _model)
