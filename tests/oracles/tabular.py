"""Exact gradients of tabular softmax policies: everything enumerated, derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracles.distribution import probabilities


def gradient(f: Callable[[np.ndarray], float], theta: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences, one parameter after the other (error of order step²)."""
    out = np.zeros_like(theta)
    for i in np.ndindex(theta.shape):
        up, down = theta.copy(), theta.copy()
        up[i] += step
        down[i] -= step
        out[i] = (f(up) - f(down)) / (2 * step)
    return out


def expected_return(theta: np.ndarray, reward: np.ndarray, gamma: float) -> float:
    """Two choices: a in the first state, then b in the state that a leads to.

    theta is [1 + A, A]: row 0 is the first state's, row 1 + a that of the state after a.
    reward[0, a] is paid first, reward[1 + a, b] second.
    """
    total = 0.0
    first = probabilities(theta[0].tolist())
    for a, p in enumerate(first):
        for b, q in enumerate(probabilities(theta[1 + a].tolist())):
            total += p * q * (reward[0, a] + gamma * reward[1 + a, b])
    return total
