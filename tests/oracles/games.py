"""Slow float64 answers for small games, from theorems that the package's code does not use."""

from __future__ import annotations

import itertools

import numpy as np


def value_by_kernels(paid, slack=1e-9):
    """The value of a zero-sum game by Shapley & Snow 1950: some square block is solved by its inverse.

    Solves every block for strategies that equalise, and returns the value of the first whose
    strategies are good against all rows and columns.
    """
    paid = np.asarray(paid, dtype=float)
    shift = 1 - paid.min()  # a positive game has no singular kernel with value 0
    game = paid + shift
    for size in range(1, min(game.shape) + 1):
        for rows in itertools.combinations(range(game.shape[0]), size):
            for columns in itertools.combinations(range(game.shape[1]), size):
                block = game[np.ix_(rows, columns)]
                if abs(np.linalg.det(block)) < 1e-12:
                    continue
                ones = np.ones(size)
                right, left = np.linalg.solve(block, ones), np.linalg.solve(block.T, ones)
                if right.sum() < 1e-9 or left.sum() < 1e-9:
                    continue
                x, y = np.zeros(game.shape[0]), np.zeros(game.shape[1])
                x[list(rows)], y[list(columns)] = left / left.sum(), right / right.sum()
                good = min(x.min(), y.min()) >= -slack
                if good and (game @ y).max() <= (x @ game).min() + slack:
                    return 1 / right.sum() - shift
    raise AssertionError("every matrix game has a kernel")


def shapley_by_kernels(transition, reward, gamma, sweeps):
    """V of a zero-sum Markov game [S, A, B, S], [S, A, B] by plain sweeps of the above."""
    num_states, first, second = reward.shape
    value = [0.0] * num_states
    for _ in range(sweeps):
        stages = [
            [
                [
                    reward[s, a, b]
                    + gamma * sum(transition[s, a, b, t] * value[t] for t in range(num_states))
                    for b in range(second)
                ]
                for a in range(first)
            ]
            for s in range(num_states)
        ]
        value = [value_by_kernels(stage) for stage in stages]
    return np.array(value)


def left_to_the_other(transition, reward, policy):
    """([A, S, S], [S, A]) of the row player when the column player mixes by policy [S, B]."""
    num_states, first, second = reward.shape
    moves, paid = np.zeros((first, num_states, num_states)), np.zeros((num_states, first))
    for s in range(num_states):
        for a in range(first):
            for b in range(second):
                moves[a, s] += policy[s, b] * transition[s, a, b]
                paid[s, a] += policy[s, b] * reward[s, a, b]
    return moves, paid
