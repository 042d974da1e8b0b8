"""Prediction with a value linear in features, v(s) = w·x(s): semi-gradient methods and LSTD.

With one-hot features these are the tabular methods. The step size is divided by nothing: for n
active tiles use α / n. Episodes cut by `max_steps` bootstrap from the state in which they were cut.
Source: Sutton & Barto 2018, chapters 9 and 12.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.episodes import (
    Acting,
    Episode,
    acted,
    acting_in,
    check_count,
    check_fraction,
    check_positive,
    empty_episode,
    goes_on,
    longer,
    next_episode,
)
from plaudit.mdp.learning.features import add, dot
from plaudit.mdp.learning.learned import Floats, LinearPredicted
from plaudit.mdp.learning.linear_run import LinearRun, keep, linear_run, linearly_predicted
from plaudit.mdp.learning.monte_carlo import returns
from plaudit.mdp.learning.sampling import first_state
from plaudit.mdp.model import MDP, MRP

Matrix: TypeAlias = ArrayLike | sparse.sparray


def gradient_monte_carlo(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: Matrix,
    *,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start: LinearPredicted | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value nearest to the returns, by stochastic gradient descent.

    w ← w + α (G_t - w·x(S_t)) x(S_t) for t = 0, 1, ... when an episode is over; it comes near the w
    of least squared error over the states as often as they are met.
    policy: none for a chain; features [S, d] dense or sparse (those of terminal states count as 0);
    start: an earlier result to go on from (its generator is used, not `seed`).
    Source: Sutton & Barto 2018, section 9.3.
    """
    acting, size = acting_in(mdp, policy), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every)
    return linearly_predicted(run, _monte_carlo(acting, size, run), start)


def semi_gradient_td(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: Matrix,
    *,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value at TD's fixed point, by semi-gradient TD(0).

    w ← w + α (R_{t+1} + γ w·x(S_{t+1}) - w·x(S_t)) x(S_t).
    Arguments as in `gradient_monte_carlo`, and max_steps, which cuts episodes.
    Source: Sutton & Barto 2018, section 9.3.
    """
    acting, size = acting_in(mdp, policy, max_steps=max_steps), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every)
    return linearly_predicted(run, _n_step(acting, 1, size, run), start)


def semi_gradient_n_step_td(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: Matrix,
    *,
    n: int,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value from n rewards and the estimate after them.

    w ← w + α (G - w·x(S_t)) x(S_t), G = R_{t+1} + ... + γ^(n-1) R_{t+n} + γ^n w·x(S_{t+n}).
    Arguments as in `semi_gradient_td`.
    Source: Sutton & Barto 2018, section 9.4.
    """
    acting, size = acting_in(mdp, policy, max_steps=max_steps), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every)
    return linearly_predicted(run, _n_step(acting, check_count(n, "n"), size, run), start)


def semi_gradient_td_lambda(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: Matrix,
    *,
    lam: float,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value by semi-gradient TD(λ), with accumulating traces.

    z ← γλz + x(S_t), w ← w + α δ_t z. Arguments as in `semi_gradient_td`.
    Source: Sutton & Barto 2018, section 12.2.
    """
    acting, size = acting_in(mdp, policy, max_steps=max_steps), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every)
    steps = _accumulating(acting, check_fraction(lam, "lam"), size, run)
    return linearly_predicted(run, steps, start)


def linear_true_online_td_lambda(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: Matrix,
    *,
    lam: float,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value by true online TD(λ), with dutch traces.

    z ← γλz + (1 - αγλ z·x) x, w ← w + α (δ_t + w·x - V_old) z - α (w·x - V_old) x.
    Arguments as in `semi_gradient_td`.
    Source: van Seijen et al. 2016; Sutton & Barto 2018, section 12.5.
    """
    acting, size = acting_in(mdp, policy, max_steps=max_steps), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every)
    return linearly_predicted(run, _dutch(acting, check_fraction(lam, "lam"), size, run), start)


@inlined
def towards(run: LinearRun, state: int, target: float, alpha: float) -> None:
    """w ← w + α (target - w·x(s)) x(s), counted."""
    run.counts[state] += 1
    error = target - dot(run.features, state, run.weights)
    add(run.features, state, alpha * error, run.weights)


@compiled
def _monte_carlo(acting: Acting, alpha: float, run: LinearRun) -> int:
    episode, num_steps = empty_episode(), 0
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        g = returns(episode, acting.gamma, 0.0)
        for t in range(episode.length):
            towards(run, episode.states[t], g[t], alpha)
        keep(run, number)
    return num_steps


@compiled
def _n_step(acting: Acting, n: int, alpha: float, run: LinearRun) -> int:
    num_steps, buffer = 0, empty_episode()
    for number in range(run.num_episodes):
        state, t = first_state(acting.table, run.rng), 0
        buffer.states[0] = state
        while goes_on(acting, state, t):
            buffer = longer(buffer, t)
            state, t = _n_step_on(acting, n, alpha, run, buffer, state, t)
        _rest(acting, buffer, n, t, alpha, run)
        num_steps += t
        keep(run, number)
    return num_steps


@inlined
def _n_step_on(
    acting: Acting, n: int, alpha: float, run: LinearRun, buffer: Episode, state: int, t: int
) -> tuple[int, int]:
    """To the end of the episode or of the buffer: (state, steps) there."""
    while goes_on(acting, state, t) and t < buffer.rewards.size:
        state, buffer.rewards[t] = acted(acting, run.rng, state)
        t += 1
        buffer.states[t] = state
        if t >= n and not acting.table.terminal[state]:
            target = dot(run.features, state, run.weights)
            for k in range(t - 1, t - n - 1, -1):
                target = buffer.rewards[k] + acting.gamma * target
            towards(run, buffer.states[t - n], target, alpha)
    return state, t


@compiled
def _rest(acting: Acting, buffer: Episode, n: int, t: int, alpha: float, run: LinearRun) -> None:
    """The states that were still waiting for their n-th step when the episode stopped."""
    last = buffer.states[t]
    ended = acting.table.terminal[last]
    begin = max(0, t - n) if ended else max(0, t - n + 1)
    waiting = Episode(
        buffer.states[begin:], buffer.actions[begin:], buffer.rewards[begin:], t - begin, ended
    )
    g = returns(waiting, acting.gamma, dot(run.features, last, run.weights))
    for k in range(t - begin):
        towards(run, waiting.states[k], g[k], alpha)


@compiled
def _accumulating(acting: Acting, lam: float, alpha: float, run: LinearRun) -> int:
    num_steps, z = 0, np.zeros(run.weights.size)
    for number in range(run.num_episodes):
        num_steps += _accumulating_episode(acting, lam, alpha, run, z)
        keep(run, number)
    return num_steps


@inlined
def _accumulating_episode(
    acting: Acting, lam: float, alpha: float, run: LinearRun, z: Floats
) -> int:
    x, w = run.features, run.weights
    state, t = first_state(acting.table, run.rng), 0
    scale(z, 0.0)
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        scale(z, acting.gamma * lam)
        add(x, state, 1.0, z)
        td_error = reward + acting.gamma * dot(x, after, w) - dot(x, state, w)
        along(w, alpha * td_error, z)
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _dutch(acting: Acting, lam: float, alpha: float, run: LinearRun) -> int:
    num_steps, z = 0, np.zeros(run.weights.size)
    for number in range(run.num_episodes):
        num_steps += _dutch_episode(acting, lam, alpha, run, z)
        keep(run, number)
    return num_steps


@inlined
def _dutch_episode(acting: Acting, lam: float, alpha: float, run: LinearRun, z: Floats) -> int:
    x, w = run.features, run.weights
    state, t = first_state(acting.table, run.rng), 0
    old = dot(x, state, w)
    scale(z, 0.0)
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        scale(z, acting.gamma * lam)
        add(x, state, 1.0 - alpha * dot(x, state, z), z)
        here, there = dot(x, state, w), dot(x, after, w)
        along(w, alpha * (reward + acting.gamma * there - old), z)
        add(x, state, -alpha * (here - old), w)
        old = there
        run.counts[state] += 1
        state = after
        t += 1
    return t


@inlined
def scale(z: Floats, factor: float) -> None:
    """z ← factor · z."""
    for i in range(z.size):
        z[i] *= factor


@inlined
def along(weights: Floats, amount: float, z: Floats) -> None:
    """w ← w + amount · z."""
    for i in range(z.size):
        weights[i] += amount * z[i]
