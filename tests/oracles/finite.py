"""Slow float64 answers for small finite worlds, from the definitions: loops, no shared code."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np


def policy_value(transition, reward, gamma, policy):
    """V_π of [A, S, S], [S, A] by solving the equations with fractions' exactness where it matters."""
    num_states = transition.shape[1]
    system, right = np.eye(num_states), np.zeros(num_states)
    for s in range(num_states):
        a = policy[s]
        right[s] = reward[s, a]
        for t in range(num_states):
            system[s, t] -= gamma * transition[a, s, t]
    return np.linalg.solve(system, right)


def best_by_enumeration(transition, reward, gamma):
    """V* as the pointwise best of every deterministic policy (γ < 1)."""
    num_actions, num_states, _ = transition.shape
    choices = [[a for a in range(num_actions) if reward[s, a] > -np.inf] for s in range(num_states)]
    values = [
        policy_value(transition, reward, gamma, policy) for policy in itertools.product(*choices)
    ]
    return np.max(values, axis=0)


def exact_chain(probabilities, rewards, gamma):
    """V of a chain of fractions by Gauss-Jordan elimination: exact."""
    count = len(rewards)
    rows = [
        [Fraction(i == j) - Fraction(gamma) * probabilities[i][j] for j in range(count)]
        + [Fraction(rewards[i])]
        for i in range(count)
    ]
    for i in range(count):
        pivot = next(r for r in range(i, count) if rows[r][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for r in range(count):
            if r != i:
                factor = rows[r][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


def best_total_reward(transition, reward, steps):
    """The best expected sum of rewards within `steps`, by plain backward recursion."""
    num_actions, num_states, _ = transition.shape
    value = [0.0] * num_states
    for _ in range(steps):
        value = [
            max(
                reward[s, a] + sum(transition[a, s, t] * value[t] for t in range(num_states))
                for a in range(num_actions)
                if reward[s, a] > -np.inf
            )
            for s in range(num_states)
        ]
    return np.array(value)
