"""SARSA and Expected SARSA: the value of the exploring policy itself, learned while it improves."""

from __future__ import annotations

from numpy.typing import ArrayLike

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.acting import (
    TERMINATED,
    Ended,
    Task,
    chosen,
    closed,
    expected,
    explore_rate,
    learn_towards,
    moved,
)
from plaudit.mdp.learning.control import Algorithm, Memory, Options, Own, Stepped, learn
from plaudit.mdp.learning.result import ACTION, Learned, Walk
from plaudit.mdp.learning.sampling import Table
from plaudit.mdp.learning.schedules import Schedule
from plaudit.mdp.model import MDP


def sarsa(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """q of the ε-greedy policy that is followed, from (s, a, r, s', a').

    q(s, a) ← q(s, a) + α [r + γ q(s', a') - q(s, a)], with a' the action taken next; where an
    episode is cut, a' is drawn only for this.
    Options as for `q_learning`. Source: Rummery & Niranjan 1994; Sutton & Barto 2018, section 6.4.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(SARSA, mdp, options)


def expected_sarsa(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """SARSA with the expectation over the next action in place of one draw of it.

    q(s, a) ← q(s, a) + α [r + γ Σ_a' π(a'|s') q(s', a') - q(s, a)], π the ε-greedy policy.
    Options as for `q_learning`. Source: van Seijen et al. 2009; Sutton & Barto 2018, section 6.6.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(EXPECTED_SARSA, mdp, options)


@inlined
def _observe_sarsa(
    table: Table,
    task: Task,
    own: Own,
    walk: Walk,
    memory: Memory,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    target = reward
    if end != TERMINATED:
        next_action = chosen(table, task, walk, next_state)
        walk.at[ACTION] = next_action
        target += task.gamma * walk.q[next_state, next_action]
    learn_towards(task, walk, state, action, target)


@inlined
def _steps_sarsa(
    table: Table, task: Task, own: Own, walk: Walk, memory: Memory, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_sarsa(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _observe_expected(
    table: Table,
    task: Task,
    own: Own,
    walk: Walk,
    memory: Memory,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    target = reward
    if end != TERMINATED:
        epsilon = explore_rate(task, walk, next_state)
        target += task.gamma * expected(table, walk.q, epsilon, next_state)
    learn_towards(task, walk, state, action, target)


@inlined
def _steps_expected(
    table: Table, task: Task, own: Own, walk: Walk, memory: Memory, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_expected(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


SARSA = Algorithm("sarsa", _steps_sarsa, _observe_sarsa)
EXPECTED_SARSA = Algorithm("expected_sarsa", _steps_expected, _observe_expected)
