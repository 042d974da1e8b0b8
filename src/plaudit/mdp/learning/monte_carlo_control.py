"""Monte Carlo control: action values from whole episodes, and the policy that is greedy in them.

Ties keep the action that the policy already has, so that a policy changes only for a better one.
A policy on its way can walk in circles for ever, so every episode is cut after `max_steps`; a cut
episode counts with the rewards that it had, and `num_cut` says how many there were.
Source: Sutton & Barto 2018, sections 5.3, 5.4 and 5.7.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.compiled import compiled
from plaudit.mdp.learning.episodes import (
    Episode,
    check_count,
    check_fraction,
    empty_episode,
    longer,
)
from plaudit.mdp.learning.learned import Floats, Ints, MonteCarloControl
from plaudit.mdp.learning.sampling import (
    Table,
    Words,
    any_action,
    below,
    drawn_action,
    epsilon_greedy,
    first_state,
    seeded,
    step,
    table_of,
)
from plaudit.mdp.model import MDP, policy_rows
from plaudit.records.errors import UserError

MAX_STEPS = 10_000
"""Steps after which an episode is cut, if the caller says nothing."""


class Control(NamedTuple):
    """What control carries, written in place: see `MonteCarloControl`; tally [2]: steps, cuts."""

    table: Table
    gamma: float
    q: Floats
    policy: Ints
    counts: Ints
    weight: Floats
    rng: Words
    tally: Ints
    num_episodes: int
    max_steps: int


def monte_carlo_exploring_starts(
    mdp: MDP,
    *,
    num_episodes: int,
    seed: int = 0,
    start_policy: ArrayLike | None = None,
    start: MonteCarloControl | None = None,
    max_steps: int = MAX_STEPS,
) -> MonteCarloControl:
    """The best policy by episodes that begin with any action in any state and follow the policy.

    Q(s, a) is the average of the returns after first visits; π(s) = argmax_a Q(s, a) at once.
    The world's own initial states are not used: every state that is not terminal begins alike.
    start_policy [S]: actions to begin with (by default the first of each state); start: an earlier
    result to go on from (its generator is used, not `seed`).
    Source: Sutton & Barto 2018, section 5.3.
    """
    control = _control(mdp, num_episodes, seed, start_policy, start, max_steps)
    begin = np.flatnonzero(~control.table.terminal)
    if not begin.size:
        raise UserError("every state is terminal, so no episode has a step")
    _exploring_starts(control, begin)
    return _controlled(control, start)


def monte_carlo_control(
    mdp: MDP,
    *,
    num_episodes: int,
    epsilon: float,
    seed: int = 0,
    start: MonteCarloControl | None = None,
    max_steps: int = MAX_STEPS,
) -> MonteCarloControl:
    """The best ε-soft policy by episodes that follow it.

    Q(s, a) is the average of the returns after first visits; the policy that acts takes the best
    action with probability 1 - ε + ε/|A(s)| and each other with ε/|A(s)|. `policy` in the answer is
    the greedy one. start: an earlier result to go on from.
    Source: Sutton & Barto 2018, section 5.4.
    """
    control = _control(mdp, num_episodes, seed, None, start, max_steps)
    _on_policy(control, check_fraction(epsilon, "epsilon"))
    return _controlled(control, start)


def off_policy_monte_carlo_control(
    mdp: MDP,
    behaviour: ArrayLike | None = None,
    *,
    num_episodes: int,
    seed: int = 0,
    start: MonteCarloControl | None = None,
    max_steps: int = MAX_STEPS,
) -> MonteCarloControl:
    """The best policy by episodes of another, with weighted importance sampling.

    Backwards from the end while the actions are those of the greedy policy:
    C(s, a) += W, Q(s, a) += W / C(s, a) (G - Q(s, a)), W ← W / b(a|s).
    behaviour: [S, A] probabilities, above 0 for every action that exists (by default all alike).
    Only the tails of episodes teach, so learning is slow where the greedy policy is unlikely.
    Source: Sutton & Barto 2018, section 5.7.
    """
    control = _control(mdp, num_episodes, seed, None, start, max_steps)
    _off_policy(control, _soft(mdp, behaviour))
    return _controlled(control, start)


def _soft(mdp: MDP, behaviour: ArrayLike | None) -> Floats:
    if behaviour is None:
        return np.asarray(mdp.available / mdp.available.sum(1, keepdims=True))
    rows = np.array(policy_rows(mdp, behaviour), order="C")
    never = np.argwhere((rows <= 0) & mdp.available & ~mdp.terminal[:, None])
    if never.size:
        s, a = never[0]
        raise UserError(f"behaviour: state {s}, action {a} has probability 0; expected more than 0")
    return rows


def _control(
    mdp: MDP,
    num_episodes: int,
    seed: int,
    start_policy: ArrayLike | None,
    start: MonteCarloControl | None,
    max_steps: int,
) -> Control:
    """The arrays of a new run, or those of `start`, copied."""
    count, limit = check_count(num_episodes, "num_episodes"), check_count(max_steps, "max_steps")
    if start is None:
        start = _fresh(mdp, seed, start_policy)
    elif start_policy is not None:
        raise UserError("start_policy: `start` already holds a policy; give one of the two")
    if start.q.shape != mdp.reward.shape:
        raise UserError(f"start: q of shape {start.q.shape}; expected {mdp.reward.shape}")
    return Control(
        table_of(mdp),
        mdp.gamma,
        start.q.copy(),
        start.policy.copy(),
        start.counts.copy(),
        start.weight.copy(),
        start.rng.copy(),
        np.zeros(2, np.int64),
        count,
        limit,
    )


def _fresh(mdp: MDP, seed: int, start_policy: ArrayLike | None) -> MonteCarloControl:
    """What is known before the first episode: q of 0, the first action of each state."""
    q = np.where(mdp.available, 0.0, -np.inf)
    policy = q if start_policy is None else policy_rows(mdp, start_policy)
    counts = np.zeros(q.shape, np.int64)
    return MonteCarloControl(
        q, policy.argmax(1), counts, 0, 0, 0, weight=np.zeros(q.shape), rng=seeded(seed)
    )


def _controlled(control: Control, start: MonteCarloControl | None) -> MonteCarloControl:
    before = (0, 0, 0) if start is None else (start.num_episodes, start.num_steps, start.num_cut)
    return MonteCarloControl(
        control.q,
        control.policy,
        control.counts,
        before[0] + control.num_episodes,
        before[1] + int(control.tally[0]),
        before[2] + int(control.tally[1]),
        control.weight,
        control.rng,
    )


@compiled
def _exploring_starts(control: Control, begin: Ints) -> None:
    table, rng, episode = control.table, control.rng, empty_episode()
    met = np.full(control.q.shape, -1)
    for number in range(control.num_episodes):
        state, t = begin[below(rng, begin.size)], 0
        action = any_action(table, rng, state)
        while not table.terminal[state] and t < control.max_steps:
            episode = longer(episode, t)
            after, reward = step(table, rng, state, action)
            episode.states[t], episode.actions[t], episode.rewards[t] = state, action, reward
            state, action = after, control.policy[after]
            t += 1
        _count(control, t, table.terminal[state])
        _learn(control, episode, t, met, number)


@compiled
def _on_policy(control: Control, epsilon: float) -> None:
    table, rng, episode = control.table, control.rng, empty_episode()
    met = np.full(control.q.shape, -1)
    for number in range(control.num_episodes):
        state, t = first_state(table, rng), 0
        while not table.terminal[state] and t < control.max_steps:
            episode = longer(episode, t)
            action = epsilon_greedy(table, control.q, epsilon, rng, state)
            after, reward = step(table, rng, state, action)
            episode.states[t], episode.actions[t], episode.rewards[t] = state, action, reward
            state = after
            t += 1
        _count(control, t, table.terminal[state])
        _learn(control, episode, t, met, number)


@compiled
def _off_policy(control: Control, behaviour: Floats) -> None:
    table, rng, episode = control.table, control.rng, empty_episode()
    for _ in range(control.num_episodes):
        state, t = first_state(table, rng), 0
        while not table.terminal[state] and t < control.max_steps:
            episode = longer(episode, t)
            action = drawn_action(behaviour, rng, state)
            after, reward = step(table, rng, state, action)
            episode.states[t], episode.actions[t], episode.rewards[t] = state, action, reward
            state = after
            t += 1
        _count(control, t, table.terminal[state])
        _learn_from_tail(control, episode, t, behaviour)


@compiled
def _count(control: Control, num_steps: int, ended: bool) -> None:
    control.tally[0] += num_steps
    control.tally[1] += 0 if ended else 1


@compiled
def _learn(control: Control, episode: Episode, length: int, met: Ints, number: int) -> None:
    """First visits of state and action, averaged; the policy follows at once."""
    first = np.zeros(length, np.bool_)
    for t in range(length):
        state, action = episode.states[t], episode.actions[t]
        first[t] = met[state, action] != number
        met[state, action] = number
    g = 0.0
    for t in range(length - 1, -1, -1):
        state, action = episode.states[t], episode.actions[t]
        g = episode.rewards[t] + control.gamma * g
        if first[t]:
            _average(control, state, action, g, 1.0)


@compiled
def _learn_from_tail(control: Control, episode: Episode, length: int, behaviour: Floats) -> None:
    g, weight = 0.0, 1.0
    for t in range(length - 1, -1, -1):
        state, action = episode.states[t], episode.actions[t]
        g = episode.rewards[t] + control.gamma * g
        _average(control, state, action, g, weight)
        if action != control.policy[state]:
            break
        weight /= behaviour[state, action]


@compiled
def _average(control: Control, state: int, action: int, g: float, weight: float) -> None:
    """Q(s, a) as the weighted average of its returns; π(s) changes only for a better action."""
    control.counts[state, action] += 1
    control.weight[state, action] += weight
    share = weight / control.weight[state, action]
    control.q[state, action] += share * (g - control.q[state, action])
    best = control.policy[state]
    for a in range(control.q.shape[1]):
        if control.q[state, a] > control.q[state, best]:
            best = a
    control.policy[state] = best
