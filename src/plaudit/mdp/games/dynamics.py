"""Two players who adapt to each other in a matrix game: fictitious play and regret matching.

All three are deterministic: payoffs of whole strategies are used, nothing is drawn. What converges
is the average of what was played, not the last strategy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.compiled import compiled
from plaudit.mdp.games.model import MatrixGame
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Kernel: TypeAlias = Callable[[Floats, Floats, Ints, Floats, Floats, Floats, Floats], None]

NUM_RECORDS = 200
"""Points of a trace at most, spread evenly over the logarithm of the steps."""


@dataclass(frozen=True)
class Played:
    """What repeated play led to.

    strategies: the averages (x [A_0], y [A_1]); last: what was played last; joint [A_0, A_1]: the
    average of x_t y_tᵀ, a coarse correlated equilibrium as far as the regrets are small;
    regrets [2]: how much better, a step, each player's best fixed action is against `joint`;
    exploitability: of the averages; trace: the same after each of `steps`.
    """

    strategies: tuple[Floats, Floats]
    last: tuple[Floats, Floats]
    joint: Floats
    regrets: Floats
    exploitability: float
    steps: Ints
    trace: Floats


def fictitious_play(game: MatrixGame, *, num_steps: int) -> Played:
    """Each player answers best (the first of equals) to the average of the other's past choices.

    Converges in zero-sum games (Robinson 1951), in 2 × 2 games and in potential games, not in all:
    in Shapley's game of 1964 it cycles for ever. Source: Brown 1951. Errors: not two players.
    """
    return _play(game, _fictitious_play, num_steps)


def regret_matching(game: MatrixGame, *, num_steps: int) -> Played:
    """Each player mixes in proportion to the positive regrets R(a) = Σ_t u_t(a) - u_t(x_t).

    The average regret after T steps is at most Δ √(A/T), Δ the width of the payoffs, so that in
    zero-sum games the averages are within the sum of both bounds of an equilibrium.
    Source: Hart & Mas-Colell 2000; Cesa-Bianchi & Lugosi 2006, section 2.1.
    """
    return _play(game, _regret_matching, num_steps)


def regret_matching_plus(game: MatrixGame, *, num_steps: int) -> Played:
    """Regret matching that forgets negative regrets: R ← max(R + r, 0), players in turn.

    The average of step t weighs t. Same bound as `regret_matching` on its regrets, in practice far
    faster in zero-sum games. Source: Tammelin 2014; Tammelin et al. 2015.
    """
    return _play(game, _regret_matching_plus, num_steps)


def _play(game: MatrixGame, kernel: Kernel, num_steps: int) -> Played:
    if game.num_players != 2:
        raise UserError(f"repeated play takes two players; this game has {game.num_players}")
    if num_steps < 1:
        raise UserError(f"num_steps: {num_steps}; expected 1 or more")
    first, second = game.payoffs[0].copy(), game.payoffs[1].copy()
    steps = np.unique(np.geomspace(1, num_steps, NUM_RECORDS).round().astype(np.int64))
    trace, joint = np.zeros(steps.size), np.zeros(first.shape)
    x, y = np.zeros(first.shape[0]), np.zeros(first.shape[1])
    kernel(first, second, steps, trace, joint, x, y)
    joint /= joint.sum()
    strategies = (joint.sum(1), joint.sum(0))
    best = np.array([(first @ strategies[1]).max(), (strategies[0] @ second).max()])
    regrets = best - np.array([(joint * first).sum(), (joint * second).sum()])
    exploitability = game.exploitability(strategies)
    return Played(strategies, (x, y), joint, regrets, exploitability, steps, trace)


@compiled
def _fictitious_play(
    first: Floats, second: Floats, steps: Ints, trace: Floats, joint: Floats, x: Floats, y: Floats
) -> None:
    toward_x, toward_y = np.zeros(x.size), np.zeros(y.size)  # summed payoffs of each action
    record = 0
    for t in range(1, steps[-1] + 1):
        a, b = toward_x.argmax(), toward_y.argmax()
        joint[a, b] += 1.0
        toward_x += first[:, b]
        toward_y += second[a]
        if t == steps[record]:
            trace[record] = _exploitability(first, second, joint)
            record += 1
    x[a] = 1.0
    y[b] = 1.0


@compiled
def _regret_matching(
    first: Floats, second: Floats, steps: Ints, trace: Floats, joint: Floats, x: Floats, y: Floats
) -> None:
    regret_x, regret_y = np.zeros(x.size), np.zeros(y.size)
    record = 0
    for t in range(1, steps[-1] + 1):
        _match(regret_x, x)
        _match(regret_y, y)
        _add_outer(joint, x, y, 1.0)
        paid_x, paid_y = _paid_rows(first, y), _paid_columns(second, x)
        regret_x += paid_x - _dot(x, paid_x)
        regret_y += paid_y - _dot(y, paid_y)
        if t == steps[record]:
            trace[record] = _exploitability(first, second, joint)
            record += 1


@compiled
def _regret_matching_plus(
    first: Floats, second: Floats, steps: Ints, trace: Floats, joint: Floats, x: Floats, y: Floats
) -> None:
    regret_x, regret_y = np.zeros(x.size), np.zeros(y.size)
    _match(regret_y, y)
    record = 0
    for t in range(1, steps[-1] + 1):
        _match(regret_x, x)
        paid_y = _paid_columns(second, x)
        regret_y += paid_y - _dot(y, paid_y)
        regret_y = np.maximum(regret_y, 0.0)
        _match(regret_y, y)
        paid_x = _paid_rows(first, y)
        regret_x += paid_x - _dot(x, paid_x)
        regret_x = np.maximum(regret_x, 0.0)
        _add_outer(joint, x, y, float(t))
        if t == steps[record]:
            trace[record] = _exploitability(first, second, joint)
            record += 1


@compiled
def _match(regret: Floats, strategy: Floats) -> None:
    """The strategy in proportion to the positive regrets, even where there are none."""
    strategy[:] = np.maximum(regret, 0.0)
    total = strategy.sum()
    if total > 0.0:
        strategy /= total
    else:
        strategy[:] = 1.0 / strategy.size


@compiled
def _exploitability(first: Floats, second: Floats, joint: Floats) -> float:
    """The sum of both players' gains from leaving the marginals of `joint` (of any total)."""
    x, y = joint.sum(axis=1), joint.sum(axis=0)
    x /= x.sum()
    y /= y.sum()
    paid_x, paid_y = _paid_rows(first, y), _paid_columns(second, x)
    return float(paid_x.max() - _dot(x, paid_x) + paid_y.max() - _dot(y, paid_y))


@compiled
def _paid_rows(first: Floats, y: Floats) -> Floats:
    paid = np.zeros(first.shape[0])
    for i in range(first.shape[0]):
        paid[i] = _dot(first[i], y)
    return paid


@compiled
def _paid_columns(second: Floats, x: Floats) -> Floats:
    paid = np.zeros(second.shape[1])
    for i in range(second.shape[0]):
        paid += x[i] * second[i]
    return paid


@compiled
def _dot(left: Floats, right: Floats) -> float:
    total = 0.0
    for i in range(left.size):
        total += left[i] * right[i]
    return total


@compiled
def _add_outer(joint: Floats, x: Floats, y: Floats, weight: float) -> None:
    for i in range(x.size):
        for j in range(y.size):
            joint[i, j] += weight * x[i] * y[j]
