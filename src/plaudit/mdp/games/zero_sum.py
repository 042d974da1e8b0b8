"""Zero-sum matrix games: optimal strategies, with the gap between the two guarantees as proof.

Two ways: the linear programme by HiGHS, and a compiled simplex for the many small games inside
Shapley's iteration and minimax-Q. Neither is trusted: the gap is measured on what they return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from plaudit.mdp.compiled import compiled
from plaudit.mdp.games.model import MatrixGame
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]

_TINY = 1e-12
"""Below this a pivot or a price is rounding: entries of the scaled matrix lie between 1 and 2."""


@dataclass(frozen=True)
class ZeroSumSolution:
    """value: what player 0 wins at best play; strategies (x [A_0], y [A_1]).

    bound = max_i (A y)_i - min_j (xᵀ A)_j: x wins at least value - bound whatever the column player
    does, y loses at most value + bound, and the true value is within `bound` of `value`.
    """

    value: float
    strategies: tuple[Floats, Floats]
    bound: float


def nash_zero_sum(game: MatrixGame) -> ZeroSumSolution:
    """Optimal strategies of a zero-sum game by linear programme.

    max_x v  with  Σ_i x_i A_ij ≥ v for every column j, x a distribution; the dual gives y.
    Raises UserError where the payoffs do not sum to zero.
    Source: von Neumann 1928; Dantzig 1951.
    """
    if not game.zero_sum:
        raise UserError(
            "this game is not zero sum, so no linear programme solves it; use support_enumeration"
        )
    paid = game.payoffs[0]
    low, high = float(paid.min()), float(paid.max())
    scaled = (paid - low) / ((high - low) or 1.0)
    x = _guarantee(scaled)
    y = _guarantee(1.0 - scaled.T)
    return certified(paid, x, y)


def certified(paid: Floats, x: Floats, y: Floats) -> ZeroSumSolution:
    """The strategies with the value in the middle of what they guarantee."""
    upper, lower = float((paid @ y).max()), float((x @ paid).min())
    rounding = (paid.shape[0] + paid.shape[1]) * np.finfo(float).eps * float(np.abs(paid).max())
    return ZeroSumSolution((upper + lower) / 2, (x, y), max(upper - lower, 0.0) + rounding)


def _guarantee(scaled: Floats) -> Floats:
    """x that maximises min_j (xᵀ scaled)_j."""
    rows, columns = scaled.shape
    cost = np.concatenate([np.zeros(rows), [-1.0]])
    found = linprog(
        cost,
        A_ub=np.hstack([-scaled.T, np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        A_eq=np.concatenate([np.ones(rows), [0.0]])[None],
        b_eq=[1.0],
        bounds=[(0, None)] * rows + [(None, None)],
        method="highs",
    )
    assert found.status == 0, found.message  # every matrix game has a solution
    x = np.maximum(found.x[:rows], 0.0)
    return np.asarray(x / x.sum())


@compiled
def solve_matrix(paid: Floats, x: Floats, y: Floats) -> tuple[float, float]:
    """Fills x [A_0] and y [A_1] with optimal strategies of `paid`; returns (value, gap).

    A pure saddle point is taken where there is one. Otherwise the payoffs are scaled to B in
    [1, 2], and the simplex method solves max Σu with B u ≤ 1, u ≥ 0, whose dual prices w are the
    row player's: value of B = 1 / Σu, y = u / Σu, x = w / Σw. Bland's rule keeps it from cycling.
    The value lies in the middle of what x and y guarantee, `gap` apart.
    """
    num_rows, num_columns = paid.shape
    if _saddle(paid, x, y):
        return _guarantees(paid, x, y)
    low, high = paid.min(), paid.max()
    table = np.zeros((num_rows + 1, num_columns + num_rows + 1))
    basis = np.empty(num_rows, np.int64)
    for i in range(num_rows):
        for j in range(num_columns):
            table[i, j] = (paid[i, j] - low) / (high - low) + 1.0
        table[i, num_columns + i] = 1.0
        table[i, -1] = 1.0
        basis[i] = num_columns + i
    table[-1, :num_columns] = -1.0
    _run_simplex(table, basis)
    y[:] = 0.0
    for i in range(num_rows):
        if basis[i] < num_columns:
            y[basis[i]] = max(table[i, -1], 0.0)
        x[i] = max(table[-1, num_columns + i], 0.0)
    x /= x.sum()
    y /= y.sum()
    return _guarantees(paid, x, y)


@compiled
def _run_simplex(table: Floats, basis: NDArray[np.int64]) -> None:
    num_rows = basis.size
    width = table.shape[1]
    for _ in range(200 * width):
        enter = -1
        for j in range(width - 1):
            if table[-1, j] < -_TINY:
                enter = j
                break
        if enter < 0:
            return
        leave, least = -1, np.inf
        for i in range(num_rows):
            if table[i, enter] > _TINY:
                ratio = table[i, -1] / table[i, enter]
                if ratio < least or (ratio == least and basis[i] < basis[leave]):
                    leave, least = i, ratio
        if leave < 0:
            return
        table[leave] /= table[leave, enter]
        for i in range(num_rows + 1):
            if i != leave and table[i, enter] != 0.0:
                table[i] -= table[i, enter] * table[leave]
        basis[leave] = enter


@compiled
def _saddle(paid: Floats, x: Floats, y: Floats) -> bool:
    """Fills x and y where some entry is the least of its row and the greatest of its column."""
    num_rows, num_columns = paid.shape
    best_row, most = 0, -np.inf
    for i in range(num_rows):
        if paid[i].min() > most:
            best_row, most = i, paid[i].min()
    best_column, least = 0, np.inf
    for j in range(num_columns):
        if paid[:, j].max() < least:
            best_column, least = j, paid[:, j].max()
    if most != least:
        return False
    x[:] = 0.0
    y[:] = 0.0
    x[best_row] = 1.0
    y[best_column] = 1.0
    return True


@compiled
def _guarantees(paid: Floats, x: Floats, y: Floats) -> tuple[float, float]:
    """(middle, width) of the interval from what x secures to what y concedes."""
    upper, lower = -np.inf, np.inf
    for i in range(paid.shape[0]):
        total = 0.0
        for j in range(paid.shape[1]):
            total += paid[i, j] * y[j]
        upper = max(upper, total)
    for j in range(paid.shape[1]):
        total = 0.0
        for i in range(paid.shape[0]):
            total += x[i] * paid[i, j]
        lower = min(lower, total)
    return (upper + lower) / 2.0, max(upper - lower, 0.0)
