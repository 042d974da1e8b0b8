"""Monte Carlo prediction: the value of a state is the average of the returns that followed it.

Updates are made when an episode is over, in the order in which its states were met. Nothing is
bootstrapped, so an episode that is cut has no return: episodes must end.
Source: Sutton & Barto 2018, sections 5.1 and 6.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.episodes import (
    Acting,
    Episode,
    Run,
    acting_in,
    check_step_size_or_average,
    empty_episode,
    next_episode,
    predicted,
    rate,
    record,
    run_of,
)
from plaudit.mdp.learning.learned import Floats, Ints, Predicted
from plaudit.mdp.model import MDP, MRP


def first_visit_monte_carlo(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    num_episodes: int,
    alpha: float | None = None,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy from the return after the first visit to each state of an episode.

    V(s) ← V(s) + α (G_t - V(s)) with t the first time in s; α = 1/n(s) by default, the average.
    policy [S] or [S, A], none for a chain; start_value: a number or [S]; start: an earlier result
    to go on from (its generator is used, not `seed`). Unbiased at α = 1/n.
    Source: Sutton & Barto 2018, section 5.1; Singh & Sutton 1996.
    """
    acting, size = acting_in(mdp, policy), check_step_size_or_average(alpha)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=start_value,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _first_visit(acting, size, run), start)


def every_visit_monte_carlo(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    num_episodes: int,
    alpha: float | None = None,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy from the returns after every visit.

    V(S_t) ← V(S_t) + α (G_t - V(S_t)) for t = 0, 1, ...; α = 1/n(s) by default, the average, which
    is biased in few episodes and right in many.
    Arguments as in `first_visit_monte_carlo`.
    Source: Sutton & Barto 2018, equation 6.1; Singh & Sutton 1996.
    """
    acting, size = acting_in(mdp, policy), check_step_size_or_average(alpha)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=start_value,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _every_visit(acting, size, run), start)


@compiled
def returns(episode: Episode, gamma: float, value_at_end: float) -> Floats:
    """[T]: G_t = R_{t+1} + γ G_{t+1}, from the value of the last state (0 if terminal)."""
    out = np.empty(episode.length)
    g = value_at_end
    for t in range(episode.length - 1, -1, -1):
        g = episode.rewards[t] + gamma * g
        out[t] = g
    return out


@compiled
def first_times(episode: Episode, met: Ints, mark: int) -> Ints:
    """[T]: whether t is the first time in its state (1) or not (0); `met` keeps marks by state."""
    first = np.zeros(episode.length, np.int64)
    for t in range(episode.length):
        if met[episode.states[t]] != mark:
            met[episode.states[t]] = mark
            first[t] = 1
    return first


@compiled
def _first_visit(acting: Acting, alpha: float, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    met = np.full(run.value.size, -1)
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        g, first = returns(episode, acting.gamma, 0.0), first_times(episode, met, number)
        for t in range(episode.length):
            if first[t]:
                update(run, episode.states[t], g[t], alpha)
        record(run, number)
    return num_steps


@compiled
def _every_visit(acting: Acting, alpha: float, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        g = returns(episode, acting.gamma, 0.0)
        for t in range(episode.length):
            update(run, episode.states[t], g[t], alpha)
        record(run, number)
    return num_steps


@inlined
def update(run: Run, state: int, target: float, alpha: float) -> None:
    """V(s) ← V(s) + α (target - V(s)), counted."""
    run.counts[state] += 1
    run.value[state] += rate(alpha, run.counts[state]) * (target - run.value[state])
