"""One step of any learner of control, compiled: acting, counting, ending episodes, learning a pair.

Random words are drawn in this order at every step: the action (one word for exploration, then what
the choice needs), the next state, the noise of the reward (two words, where there is any), what
the learner's `observe` draws, and after an episode's end the next first state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.result import ACTION, EPISODE_STEP, STATE, STEP, Floats, Ints, Walk
from plaudit.mdp.learning.sampling import (
    Table,
    any_action,
    first_state,
    greedy_action,
    step,
    uniform,
)
from plaudit.mdp.learning.schedules import Rate, by_visits_of_state, rate_at

GOES_ON, TERMINATED, TRUNCATED = 0, 1, 2
"""How a step left its episode. A truncated episode has a future, so its last step bootstraps."""


class Task(NamedTuple):
    """What every kernel reads: discount, schedules, and the steps after which episodes are cut."""

    gamma: float
    alpha: Rate
    epsilon: Rate
    max_episode_steps: int


class Ended(NamedTuple):
    """Room for the return and length of each episode that ends within one chunk."""

    total: Floats
    length: Ints


@inlined
def explore_rate(task: Task, walk: Walk, state: int) -> float:
    """Epsilon for the coming step."""
    if not by_visits_of_state(task.epsilon):
        return rate_at(task.epsilon, 1, walk.at[STEP])
    num_visits = 1
    for a in range(walk.visits.shape[1]):
        num_visits += walk.visits[state, a]
    return rate_at(task.epsilon, num_visits, walk.at[STEP])


@inlined
def step_size(task: Task, walk: Walk, state: int, action: int) -> float:
    """Alpha for a pair whose visit has just been counted."""
    return rate_at(task.alpha, walk.visits[state, action], walk.at[STEP] - 1)


@inlined
def act(table: Table, task: Task, walk: Walk) -> int:
    """The action already chosen, else an ε-greedy one of q."""
    if walk.at[ACTION] >= 0:
        return int(walk.at[ACTION])
    return chosen(table, task, walk, walk.at[STATE])


@inlined
def chosen(table: Table, task: Task, walk: Walk, state: int) -> int:
    """An ε-greedy action of q in the state; of equally good ones each as likely."""
    if uniform(walk.rng) < explore_rate(task, walk, state):
        return any_action(table, walk.rng, state)
    return greedy_action(walk.q, walk.rng, state)


@inlined
def count_step(task: Task, walk: Walk, state: int, action: int, reward: float) -> bool:
    """Counts a step; whether the episode has reached its limit."""
    walk.visits[state, action] += 1
    walk.at[STEP] += 1
    walk.at[EPISODE_STEP] += 1
    walk.so_far[0] += reward
    return bool(walk.at[EPISODE_STEP] >= task.max_episode_steps)


@inlined
def moved(table: Table, task: Task, walk: Walk) -> tuple[int, int, float, int, int]:
    """One counted step of a table: (state, action, reward, next state, how it left the episode)."""
    state = walk.at[STATE]
    action = act(table, task, walk)
    next_state, reward = step(table, walk.rng, state, action)
    at_limit = count_step(task, walk, state, action, reward)
    if table.terminal[next_state]:
        return state, action, reward, next_state, TERMINATED
    return state, action, reward, next_state, TRUNCATED if at_limit else GOES_ON


@inlined
def closed(table: Table, walk: Walk, ended: Ended, finished: int, next_state: int, end: int) -> int:
    """Goes to the next state, or writes down the finished episode and begins another.

    Returns how many episodes have ended.
    """
    if end == GOES_ON:
        walk.at[STATE] = next_state
        return finished
    ended.total[finished] = walk.so_far[0]
    ended.length[finished] = walk.at[EPISODE_STEP]
    walk.so_far[0] = 0.0
    walk.at[EPISODE_STEP] = 0
    walk.at[ACTION] = -1
    walk.at[STATE] = first_state(table, walk.rng)
    return finished + 1


@inlined
def greatest(q: Floats, state: int) -> float:
    """max_a q(state, a)."""
    best = q[state, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[state, a])
    return float(best)


@inlined
def expected(table: Table, q: Floats, epsilon: float, state: int) -> float:
    """Σ_a π(a|state) q(state, a) of the ε-greedy policy π: ε · mean + (1 - ε) · max."""
    total, count, best = 0.0, 0, -np.inf
    for a in range(q.shape[1]):
        if table.exists[state, a]:
            total += q[state, a]
            count += 1
            best = max(best, q[state, a])
    return epsilon * (total / count) + (1.0 - epsilon) * best


@inlined
def chance(table: Table, q: Floats, epsilon: float, state: int, action: int) -> float:
    """π(action|state) of the ε-greedy policy, whose greedy share is split among equals."""
    count, ties, best = 0, 0, -np.inf
    for a in range(q.shape[1]):
        if table.exists[state, a]:
            count += 1
            if q[state, a] > best:
                best, ties = q[state, a], 1
            elif q[state, a] == best:
                ties += 1
    greedy = (1.0 - epsilon) / ties if q[state, action] == best else 0.0
    return epsilon / count + greedy


@inlined
def learn_towards(task: Task, walk: Walk, state: int, action: int, target: float) -> None:
    """q(s, a) ← q(s, a) + α (target - q(s, a))."""
    alpha = step_size(task, walk, state, action)
    walk.q[state, action] += alpha * (target - walk.q[state, action])
