"""Q-learning, double Q-learning and Watkins' Q(λ): the greedy policy learned while exploring."""

from __future__ import annotations

from typing import NamedTuple

from numpy.typing import ArrayLike

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.acting import (
    TERMINATED,
    Ended,
    Task,
    closed,
    greatest,
    learn_towards,
    moved,
    step_size,
)
from plaudit.mdp.learning.control import Algorithm, Memory, Options, Own, Stepped, learn
from plaudit.mdp.learning.result import Floats, Learned, Walk
from plaudit.mdp.learning.sampling import Table, uniform
from plaudit.mdp.learning.schedules import Schedule
from plaudit.mdp.model import MDP


def q_learning(
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
    """Optimal q from single steps, whatever the policy that takes them (here ε-greedy).

    q(s, a) ← q(s, a) + α [r + γ max_a' q(s', a') - q(s, a)].

    num_steps: steps to take; alpha in (0, 1] and epsilon in [0, 1]: numbers or schedules; q_start:
    one number or [S, A]; max_episode_steps: an episode is cut there, and its last step still
    bootstraps; start: what an earlier call returned, to go on from there (seed and q_start are
    then those of the earlier call). Raises UserError naming the option that is wrong.
    Source: Watkins & Dayan 1992; Sutton & Barto 2018, section 6.5.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(Q_LEARNING, mdp, options)


def double_q_learning(
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
    """Q-learning without the bias of a maximum over noisy numbers: one table picks, one judges.

    With even chance q₁(s, a) ← q₁(s, a) + α [r + γ q₂(s', argmax_a' q₁(s', a')) - q₁(s, a)], else
    the same with the tables exchanged. Acting, and the answer's q, use their mean. Alpha by visits
    counts those of both tables. Options as for `q_learning`.
    Source: van Hasselt 2010; Sutton & Barto 2018, section 6.7.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(DOUBLE_Q_LEARNING, mdp, options)


class Twins(NamedTuple):
    """The two tables [S, A] of double Q-learning; `Walk.q` is their mean."""

    first: Floats
    second: Floats


@inlined
def _observe_q(
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
        target += task.gamma * greatest(walk.q, next_state)
    learn_towards(task, walk, state, action, target)


@inlined
def _steps_q(
    table: Table, task: Task, own: Own, walk: Walk, memory: Memory, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_q(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _observe_double(
    table: Table,
    task: Task,
    own: Own,
    walk: Walk,
    memory: Twins,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    alpha = step_size(task, walk, state, action)
    if uniform(walk.rng) < 0.5:
        _learn_double(
            task, memory.first, memory.second, alpha, state, action, reward, next_state, end
        )
    else:
        _learn_double(
            task, memory.second, memory.first, alpha, state, action, reward, next_state, end
        )
    both = memory.first[state, action] + memory.second[state, action]
    walk.q[state, action] = 0.5 * both


@inlined
def _learn_double(
    task: Task,
    picks: Floats,
    judges: Floats,
    alpha: float,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    target = reward
    if end != TERMINATED:
        best = 0
        for a in range(1, picks.shape[1]):
            if picks[next_state, a] > picks[next_state, best]:
                best = a
        target += task.gamma * judges[next_state, best]
    picks[state, action] += alpha * (target - picks[state, action])


@inlined
def _steps_double(
    table: Table, task: Task, own: Own, walk: Walk, memory: Twins, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_double(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


def _twins(q: Floats, own: Own) -> Twins:
    return Twins(q.copy(), q.copy())


Q_LEARNING = Algorithm("q_learning", _steps_q, _observe_q)
DOUBLE_Q_LEARNING = Algorithm("double_q_learning", _steps_double, _observe_double, _twins)
