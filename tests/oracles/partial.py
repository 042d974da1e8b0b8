"""Slow answers for small partially observed worlds: sums over whole paths and histories."""

from __future__ import annotations

import itertools

import numpy as np


def path_probability(transition, observation, initial, actions, seen):
    """P(s_t = s and the observations `seen` | actions), [S], as a sum over every path of states."""
    num_states = transition.shape[1]
    total = np.zeros(num_states)
    for path in itertools.product(range(num_states), repeat=len(actions) + 1):
        p = initial[path[0]]
        for t, (a, o) in enumerate(zip(actions, seen, strict=True)):
            p *= transition[a, path[t], path[t + 1]] * observation[a, path[t + 1], o]
        total[path[-1]] += p
    return total


def history_value(transition, observation, reward, gamma, initial, horizon):
    """Best expected return of `horizon` steps over all policies of histories.

    Works on joint weights P(s, history), never normalised, so it divides by nothing.
    """
    if horizon == 0:
        return 0.0
    num_actions, num_states, _ = transition.shape
    best = -np.inf
    for a in range(num_actions):
        total = sum(initial[s] * reward[s, a] for s in range(num_states))
        for o in range(observation.shape[2]):
            weight = np.array(
                [
                    sum(initial[s] * transition[a, s, t] for s in range(num_states))
                    * observation[a, t, o]
                    for t in range(num_states)
                ]
            )
            if weight.sum() > 0:
                total += gamma * history_value(
                    transition, observation, reward, gamma, weight, horizon - 1
                )
        best = max(best, total)
    return best


def controller_return(world, actions, successor, start, initial, horizon):
    """E[Σ_{t<horizon} γ^t R] of a finite-state controller, following weights of (node, state)."""
    transition, observation, reward, gamma = world
    weights = {(start, s): p for s, p in enumerate(initial) if p > 0}
    total = 0.0
    for t in range(horizon):
        following: dict[tuple[int, int], float] = {}
        for (node, s), p in weights.items():
            a = actions[node]
            total += gamma**t * p * reward[s, a]
            for after in range(len(initial)):
                for o in range(observation.shape[2]):
                    q = p * transition[a, s, after] * observation[a, after, o]
                    if q > 0:
                        key = (int(successor[node][o]), after)
                        following[key] = following.get(key, 0.0) + q
        weights = following
    return total


def random_partial(seed):
    """Tables of a small random world with zeros, ties, useless signals and absorbing states."""
    rng = np.random.default_rng(seed)
    num_states, num_actions, num_observations = (
        int(rng.integers(*r)) for r in ((1, 4), (1, 4), (1, 4))
    )
    transition = rng.dirichlet(np.full(num_states, 0.4), size=(num_actions, num_states))
    observation = rng.dirichlet(np.full(num_observations, 0.4), size=(num_actions, num_states))
    transition[transition < 1e-2] = 0
    observation[observation < 1e-2] = 0
    transition /= transition.sum(-1, keepdims=True)
    observation /= observation.sum(-1, keepdims=True)
    reward = rng.integers(-3, 4, size=(num_states, num_actions)).astype(float)
    if rng.random() < 0.2:
        observation[:] = 1 / num_observations
    if rng.random() < 0.3:
        transition[:, 0] = np.eye(num_states)[0]
    if rng.random() < 0.2:
        transition[:], observation[:] = transition[:1], observation[:1]
    initial = rng.dirichlet(np.ones(num_states))
    gamma = float(rng.choice([0.0, 0.3, 0.5]))
    return transition, observation, reward, gamma, initial
