"""Equilibria of small games in exact fractions: the pure ones, and all of two players' games.

Payoffs are floats, which are fractions, so that every equation and every inequality below is
decided without rounding; only the answer is rounded.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.games.model import MatrixGame
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Exact: TypeAlias = list[list[Fraction]]

MAX_SYSTEMS = 50_000
"""Linear systems that support enumeration solves at most: an 8 × 8 game has 12,869."""


@dataclass(frozen=True)
class Equilibrium:
    """A Nash equilibrium: (x [A_0], y [A_1]) and what each player expects from it."""

    strategies: tuple[Floats, Floats]
    payoffs: tuple[float, float]


@dataclass(frozen=True)
class Equilibria:
    """All equilibria of a nondegenerate game, else its extreme ones.

    In a degenerate game (some strategy has more best answers than actions) the others are mixtures
    of extreme ones that share a best answer.
    """

    equilibria: tuple[Equilibrium, ...]
    nondegenerate: bool


def pure_equilibria(game: MatrixGame) -> list[tuple[int, ...]]:
    """Joint actions from which no player alone gains by another action; any number of players."""
    stable = np.ones(game.num_actions, np.bool_)
    for player in range(game.num_players):
        paid = game.payoffs[player]
        stable &= paid == paid.max(axis=player, keepdims=True)
    return [tuple(int(a) for a in joint) for joint in np.argwhere(stable)]


def support_enumeration(game: MatrixGame) -> Equilibria:
    """All equilibria of a small game of two players, by solving for every pair of supports.

    x on I ⊆ A_0 must make every action of J ⊆ A_1, |J| = |I|, equally good for the other player and
    none better: these are the vertices of the best-answer polyhedron of x, and y's are found alike.
    A pair is an equilibrium if each one's support lies in the best answers to the other.
    Errors: other than two players; more than `MAX_SYSTEMS` pairs of supports.
    Source: Mangasarian 1964; von Stengel 2002, sections 2.2 and 2.6.
    """
    if game.num_players != 2:
        raise UserError(f"support_enumeration takes two players; this game has {game.num_players}")
    rows, columns = game.num_actions
    if math.comb(rows + columns, rows) > MAX_SYSTEMS:
        raise UserError(
            f"{rows} × {columns} actions have {math.comb(rows + columns, rows):,} pairs of supports, "
            f"above {MAX_SYSTEMS:,}; use regret_matching, or nash_zero_sum if it is zero sum"
        )
    first = [[Fraction(float(v)) for v in row] for row in game.payoffs[0]]
    second = [[Fraction(float(v)) for v in row] for row in game.payoffs[1].T]
    of_x, of_y = _vertices(second), _vertices(first)
    found = [
        _rounded(x, y, first, second)
        for (x, answers_to_x), (y, answers_to_y) in itertools.product(of_x, of_y)
        if _support(x) <= answers_to_y and _support(y) <= answers_to_x
    ]
    nondegenerate = all(
        len(answers) <= len(_support(strategy)) for strategy, answers in (*of_x, *of_y)
    )
    return Equilibria(tuple(found), nondegenerate)


def _vertices(paid: Exact) -> list[tuple[tuple[Fraction, ...], set[int]]]:
    """Strategies z, with the best answers to them, that are vertices; `paid` [answers, actions].

    Every vertex has some support I and |I| tight answers J with one solution of
    paid[J, I] z = v, Σ z = 1.
    """
    num_answers, num_actions = len(paid), len(paid[0])
    found: dict[tuple[Fraction, ...], set[int]] = {}
    for size in range(1, min(num_answers, num_actions) + 1):
        for support in itertools.combinations(range(num_actions), size):
            for tight in itertools.combinations(range(num_answers), size):
                strategy = _indifferent(paid, support, tight)
                if strategy is None or strategy in found:
                    continue
                worth = [sum(p * z for p, z in zip(row, strategy, strict=True)) for row in paid]
                best = max(worth)
                if worth[tight[0]] == best:
                    found[strategy] = {j for j, v in enumerate(worth) if v == best}
    return list(found.items())


def _indifferent(
    paid: Exact, support: tuple[int, ...], tight: tuple[int, ...]
) -> tuple[Fraction, ...] | None:
    """The one distribution on `support` that pays all of `tight` alike, if positive there."""
    rows = [[*(paid[j][i] for i in support), Fraction(-1), Fraction(0)] for j in tight]
    rows.append([*(Fraction(1) for _ in support), Fraction(0), Fraction(1)])
    solution = _solved(rows)
    if solution is None or min(solution[:-1]) <= 0:
        return None
    strategy = [Fraction(0)] * len(paid[0])
    for i, z in zip(support, solution, strict=False):
        strategy[i] = z
    return tuple(strategy)


def _solved(rows: Exact) -> list[Fraction] | None:
    """The one solution of n equations [coefficients | right side], or None."""
    count = len(rows)
    for i in range(count):
        pivot = next((r for r in range(i, count) if rows[r][i] != 0), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        scale = rows[i][i]
        rows[i] = [v / scale for v in rows[i]]
        for r in range(count):
            factor = rows[r][i]
            if r != i and factor != 0:
                rows[r] = [v - factor * w for v, w in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


def _support(strategy: tuple[Fraction, ...]) -> set[int]:
    return {i for i, z in enumerate(strategy) if z > 0}


def _rounded(
    x: tuple[Fraction, ...], y: tuple[Fraction, ...], first: Exact, second: Exact
) -> Equilibrium:
    pays = [
        sum(x[i] * y[j] * first[i][j] for i in range(len(x)) for j in range(len(y))),
        sum(x[i] * y[j] * second[j][i] for i in range(len(x)) for j in range(len(y))),
    ]
    strategies = (np.array([float(v) for v in x]), np.array([float(v) for v in y]))
    return Equilibrium(strategies, (float(pays[0]), float(pays[1])))
