"""n-step control: SARSA, tree backup and Q(σ), which learn each pair from the n steps after it.

A window holds the last n steps. A pair is learned when n steps have followed it or when its episode
ends; a cut episode bootstraps from the state where it was cut, a finished one from nothing.
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
    chance,
    chosen,
    closed,
    expected,
    explore_rate,
    learn_towards,
    moved,
)
from plaudit.mdp.learning.control import Algorithm, Options, Own, Stepped, learn, number_in, whole
from plaudit.mdp.learning.result import ACTION, STEP, Floats, Ints, Learned, Walk
from plaudit.mdp.learning.sampling import Table
from plaudit.mdp.learning.schedules import Rate, Schedule, by_visits_of_state, rate_at, share_of
from plaudit.mdp.model import MDP
from plaudit.records.errors import UserError


class Steps(NamedTuple):
    """n; the target policy's epsilon; sigma, the share of sampling."""

    n: int
    target_epsilon: Rate
    sigma: float


class Window(NamedTuple):
    """The steps not yet learned, in a ring of n: oldest at at[0], at[1] of them."""

    state: Ints
    action: Ints
    reward: Floats
    at: Ints


def n_step_sarsa(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    n: int = 4,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """SARSA whose target looks n steps ahead.

    G = r_1 + γ r_2 + … + γ^(n-1) r_n + γ^n q(s_n, a_n).

    n: 1 or more (1 is SARSA). Other options as for `q_learning`.
    Source: Sutton & Barto 2018, section 7.2.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(N_STEP_SARSA, mdp, options, _steps(n))


def n_step_tree_backup(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    n: int = 4,
    target_epsilon: float | Schedule = 0.0,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """n steps off policy without importance sampling: the branches not taken are bootstrapped.

    G_t = r + γ [Σ_{a≠a'} π(a|s') q(s', a) + π(a'|s') G_{t+1}], and Σ_a π(a|s') q(s', a) at the end.

    π is the policy learned about: ε-greedy with `target_epsilon` (0: greedy), whatever `epsilon`
    acts. With n = 1 this is Q-learning for 0, Expected SARSA for target_epsilon = epsilon. Other
    options as for `n_step_sarsa`. Source: Precup et al. 2000; Sutton & Barto 2018, section 7.5.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    return learn(N_STEP_TREE_BACKUP, mdp, options, _steps(n, target_epsilon))


def n_step_q_sigma(
    mdp: MDP | Stepped,
    *,
    num_steps: int,
    n: int = 4,
    sigma: float = 0.5,
    alpha: float | Schedule = 0.1,
    epsilon: float | Schedule = 0.1,
    seed: int = 0,
    q_start: ArrayLike = 0.0,
    max_episode_steps: int | None = None,
    start: Learned | None = None,
) -> Learned:
    """Between n-step SARSA (sigma = 1) and tree backup (sigma = 0), on policy.

    G_t = r + γ [σ G_{t+1} + (1 - σ) (Σ_a π(a|s') q(s', a) + π(a'|s') (G_{t+1} - q(s', a')))], with
    G = q(s', a') at the end. This is the paper's form; that of Sutton & Barto 2018, equation 7.17,
    adds a control variate to the sampled part.
    Options as for `n_step_sarsa`. Source: De Asis et al. 2018.
    """
    options = Options(num_steps, alpha, epsilon, seed, q_start, max_episode_steps, start)
    own = _steps(n, 0.0, number_in(sigma, "sigma", 0.0, 1.0))
    return learn(N_STEP_Q_SIGMA, mdp, options, own)


def _steps(n: int, target_epsilon: float | Schedule = 0.0, sigma: float = 1.0) -> Steps:
    target = share_of(target_epsilon, "target_epsilon")
    if by_visits_of_state(target):
        raise UserError("target_epsilon: by_visits; expected a number, or a linear schedule")
    return Steps(whole(n, "n"), target, sigma)


def _window(q: Floats, own: Own) -> Window:
    n = own[0]
    return Window(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n), np.zeros(2, np.int64))


@inlined
def _push(window: Window, state: int, action: int, reward: float) -> None:
    place = (window.at[0] + window.at[1]) % window.state.size
    window.state[place] = state
    window.action[place] = action
    window.reward[place] = reward
    window.at[1] += 1


@inlined
def _pop(window: Window) -> None:
    window.at[0] = (window.at[0] + 1) % window.state.size
    window.at[1] -= 1


@inlined
def _next_action(table: Table, task: Task, walk: Walk, next_state: int, end: int) -> int:
    """The action that follows, kept for the next step; -1 after the end of an episode."""
    walk.at[ACTION] = -1
    if end != TERMINATED:
        walk.at[ACTION] = chosen(table, task, walk, next_state)
    return int(walk.at[ACTION])


@inlined
def _observe_sarsa(
    table: Table,
    task: Task,
    own: Steps,
    walk: Walk,
    memory: Window,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    next_action = _next_action(table, task, walk, next_state, end)
    _push(memory, state, action, reward)
    while memory.at[1] == own.n or (end != GOES_ON and memory.at[1] > 0):
        target = 0.0 if end == TERMINATED else walk.q[next_state, next_action]
        for back in range(memory.at[1] - 1, -1, -1):
            target = memory.reward[(memory.at[0] + back) % own.n] + task.gamma * target
        oldest = memory.at[0]
        learn_towards(task, walk, memory.state[oldest], memory.action[oldest], target)
        _pop(memory)


@inlined
def _steps_sarsa(
    table: Table, task: Task, own: Steps, walk: Walk, memory: Window, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_sarsa(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _observe_tree(
    table: Table,
    task: Task,
    own: Steps,
    walk: Walk,
    memory: Window,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    _push(memory, state, action, reward)
    while memory.at[1] == own.n or (end != GOES_ON and memory.at[1] > 0):
        epsilon = _target_epsilon(own, walk)
        follows = 0.0 if end == TERMINATED else expected(table, walk.q, epsilon, next_state)
        for back in range(memory.at[1] - 1, -1, -1):
            place = (memory.at[0] + back) % own.n
            target = memory.reward[place] + task.gamma * follows
            if back > 0:
                s, a = memory.state[place], memory.action[place]
                taken = chance(table, walk.q, epsilon, s, a)
                follows = expected(table, walk.q, epsilon, s) + taken * (target - walk.q[s, a])
        oldest = memory.at[0]
        learn_towards(task, walk, memory.state[oldest], memory.action[oldest], target)
        _pop(memory)


@inlined
def _target_epsilon(own: Steps, walk: Walk) -> float:
    return rate_at(own.target_epsilon, 1, walk.at[STEP])


@inlined
def _steps_tree(
    table: Table, task: Task, own: Steps, walk: Walk, memory: Window, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_tree(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


@inlined
def _mixed(
    table: Table, task: Task, own: Steps, walk: Walk, state: int, action: int, sampled: float
) -> float:
    """What Q(σ) takes for the value of (state, action) when `sampled` was seen from it."""
    epsilon = explore_rate(task, walk, state)
    taken = chance(table, walk.q, epsilon, state, action)
    tree = expected(table, walk.q, epsilon, state) + taken * (sampled - walk.q[state, action])
    return float(own.sigma * sampled + (1.0 - own.sigma) * tree)


@inlined
def _observe_sigma(
    table: Table,
    task: Task,
    own: Steps,
    walk: Walk,
    memory: Window,
    state: int,
    action: int,
    reward: float,
    next_state: int,
    end: int,
) -> None:
    next_action = _next_action(table, task, walk, next_state, end)
    _push(memory, state, action, reward)
    while memory.at[1] == own.n or (end != GOES_ON and memory.at[1] > 0):
        follows = 0.0
        if end != TERMINATED:
            sampled = walk.q[next_state, next_action]
            follows = _mixed(table, task, own, walk, next_state, next_action, sampled)
        for back in range(memory.at[1] - 1, -1, -1):
            place = (memory.at[0] + back) % own.n
            target = memory.reward[place] + task.gamma * follows
            if back > 0:
                s, a = memory.state[place], memory.action[place]
                follows = _mixed(table, task, own, walk, s, a, target)
        oldest = memory.at[0]
        learn_towards(task, walk, memory.state[oldest], memory.action[oldest], target)
        _pop(memory)


@inlined
def _steps_sigma(
    table: Table, task: Task, own: Steps, walk: Walk, memory: Window, ended: Ended, num_steps: int
) -> int:
    finished = 0
    for _ in range(num_steps):
        state, action, reward, next_state, end = moved(table, task, walk)
        _observe_sigma(table, task, own, walk, memory, state, action, reward, next_state, end)
        finished = closed(table, walk, ended, finished, next_state, end)
    return finished


N_STEP_SARSA = Algorithm("n_step_sarsa", _steps_sarsa, _observe_sarsa, _window)
N_STEP_TREE_BACKUP = Algorithm("n_step_tree_backup", _steps_tree, _observe_tree, _window)
N_STEP_Q_SIGMA = Algorithm("n_step_q_sigma", _steps_sigma, _observe_sigma, _window)
