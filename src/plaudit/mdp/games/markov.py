"""Zero-sum Markov games: solved by Shapley's iteration, and learned by minimax-Q.

The value of a state is that of the matrix game whose payoffs are what is paid now and the
discounted value of where it leads. Left out: γ = 1 (the value need not exist without more), and
general sums (several equilibria, no contraction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.compiled import compiled
from plaudit.mdp.games.model import MarkovGame
from plaudit.mdp.games.zero_sum import solve_matrix
from plaudit.mdp.learning.sampling import (
    Table,
    Words,
    below,
    first_state,
    seeded,
    step,
    table_of,
    uniform,
)
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

MAX_SWEEPS = 100_000
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class MarkovSolution:
    """value [S] of player 0; policies ([S, A_0], [S, A_1]) that are optimal to within the bound.

    bound: max_s |value(s) - V*(s)| is at most this; player 0's policy wins at least value - bound
    against any opponent, player 1's concedes at most value + bound.
    trace [iterations]: the bound after each sweep. The bound may stay above the tolerance asked for
    where floats, or rows that sum to nearly one, allow no better.
    """

    value: Floats
    policies: tuple[Floats, Floats]
    iterations: int
    bound: float
    trace: Floats


def shapley(game: MarkovGame, tol: float = 1e-8) -> MarkovSolution:
    """Value iteration for two players: V(s) ← val[r(s, ·, ·) + γ Σ_s' p(s'|s, ·, ·) V(s')].

    With low = min(TV - V) and high = max(TV - V), V* lies in TV + γ/(1-γ)·[low, high]; the gaps of
    the stage games and the rounding widen it. Errors: not zero sum, γ = 1, tol not above 0.
    Source: Shapley 1953; the bounds as MacQueen 1966, which need only that T is monotone and moves
    constants by γ.
    """
    _check(game)
    if not tol > 0:
        raise UserError(f"tol: {tol}; expected a number above 0")
    p, reward = game.transition, np.ascontiguousarray(game.reward[0])
    num_states, (first, second) = game.num_states, game.num_actions
    value, out = np.zeros(num_states), np.empty(num_states)
    x, y = np.empty((num_states, first)), np.empty((num_states, second))
    q, unit, trace = np.empty((first, second)), _unit_error(game), []
    reach = game.gamma / (1 - game.gamma)
    for _ in range(MAX_SWEEPS):
        gap = _sweep(p.indptr, p.indices, p.data, reward, game.gamma, value, out, x, y, q)
        low, high = float((out - value).min()), float((out - value).max())
        shift = reach * (low + high) / 2
        size = np.abs(reward).max() + game.gamma * (np.abs(value).max() + abs(shift))
        error = gap + unit * float(size)
        trace.append(reach * (high - low) / 2 + (1 + reach) * error)
        value, out = out, value
        if trace[-1] <= tol or high - low <= error:  # from here rounding is all that is left
            break
    return MarkovSolution(value + shift, (x, y), len(trace), trace[-1], np.array(trace))


def _unit_error(game: MarkovGame) -> float:
    """At most the relative error of a stage's payoffs: rounding, and rows that sum to nearly one."""
    sums = np.asarray(game.transition.sum(axis=1))
    longest = int(np.diff(game.transition.indptr).max())
    return (longest + 2 + sum(game.num_actions)) * EPS + float(np.abs(sums - 1).max())


@compiled
def _sweep(
    indptr: Ints,
    indices: Ints,
    data: Floats,
    reward: Floats,
    gamma: float,
    value: Floats,
    out: Floats,
    x: Floats,
    y: Floats,
    q: Floats,
) -> float:
    """Fills out [S], x and y; returns the widest gap of a stage game's solution."""
    num_states, first, second = reward.shape
    widest = 0.0
    for s in range(num_states):
        row = s * first * second
        for a in range(first):
            for b in range(second):
                later = 0.0
                for k in range(indptr[row], indptr[row + 1]):
                    later += data[k] * value[indices[k]]
                q[a, b] = reward[s, a, b] + gamma * later
                row += 1
        out[s], gap = solve_matrix(q, x[s], y[s])
        widest = max(widest, gap)
    return widest


@dataclass(frozen=True)
class LearnedGame:
    """What minimax-Q holds: q [S, A_0, A_1] and value [S] of player 0, policies ([S, A_0], [S, A_1]).

    num_steps so far; alpha: the step size to go on with; state and rng: where play stands, so that
    a second call continues the first exactly.
    """

    q: Floats
    value: Floats
    policies: tuple[Floats, Floats]
    num_steps: int
    alpha: float
    state: int
    rng: Words


def minimax_q(
    game: MarkovGame,
    *,
    num_steps: int,
    alpha: float = 1.0,
    alpha_decay: float = 1.0,
    epsilon: float = 0.2,
    seed: int = 0,
    start: LearnedGame | None = None,
) -> LearnedGame:
    """Q(s, a, b) ← (1 - α) Q(s, a, b) + α (r + γ V(s')), V(s) ← val Q(s, ·, ·), by samples.

    Both players draw from their parts of the solution of Q(s, ·, ·), or with probability `epsilon`
    evenly; α is multiplied by `alpha_decay` after each step. `start` continues an earlier call: then
    its alpha, state and generator are used, not those given.
    Values begin at 0 (Littman: 1). Source: Littman 1994, figure 1, whose player learns against any
    opponent; here the opponent is the other half of the same solution.
    Errors: not zero sum, γ = 1, numbers outside their range.
    """
    _check(game)
    for name, number in (("alpha", alpha), ("alpha_decay", alpha_decay), ("epsilon", epsilon)):
        if not 0 <= number <= 1:
            raise UserError(f"{name}: {number}; expected a number from 0 to 1")
    if num_steps < 0:
        raise UserError(f"num_steps: {num_steps}; expected 0 or more")
    table = table_of(game.together(0))
    begun = _begun(game, table, alpha, seed) if start is None else _copied(start)
    rate, state = _minimax_q(
        table,
        begun.rng,
        begun.q,
        begun.value,
        *begun.policies,
        game.gamma,
        begun.alpha,
        alpha_decay,
        epsilon,
        begun.state,
        num_steps,
    )
    done = begun.num_steps + num_steps
    return LearnedGame(begun.q, begun.value, begun.policies, done, rate, state, begun.rng)


@compiled
def _minimax_q(
    table: Table,
    rng: Words,
    q: Floats,
    value: Floats,
    x: Floats,
    y: Floats,
    gamma: float,
    alpha: float,
    alpha_decay: float,
    epsilon: float,
    state: int,
    num_steps: int,
) -> tuple[float, int]:
    """Plays num_steps; returns (alpha, state) to go on from."""
    for _ in range(num_steps):
        a = _choice(x[state], epsilon, rng)
        b = _choice(y[state], epsilon, rng)
        following, reward = step(table, rng, state, a * y.shape[1] + b)
        target = reward + gamma * value[following]
        q[state, a, b] += alpha * (target - q[state, a, b])
        value[state], _gap = solve_matrix(q[state], x[state], y[state])
        alpha *= alpha_decay
        state = first_state(table, rng) if table.terminal[following] else following
    return alpha, state


@compiled
def _choice(strategy: Floats, epsilon: float, rng: Words) -> int:
    if uniform(rng) < epsilon:
        return below(rng, strategy.size)
    draw, total, last = uniform(rng), 0.0, 0
    for a in range(strategy.size):
        if strategy[a] > 0.0:
            last = a
            total += strategy[a]
            if draw < total:
                return a
    return last


def _begun(game: MarkovGame, table: Table, alpha: float, seed: int) -> LearnedGame:
    num_states, (first, second) = game.num_states, game.num_actions
    rng = seeded(seed)
    even = (np.full((num_states, first), 1 / first), np.full((num_states, second), 1 / second))
    q = np.zeros((num_states, first, second))
    state = int(first_state(table, rng))
    return LearnedGame(q, np.zeros(num_states), even, 0, alpha, state, rng)


def _copied(start: LearnedGame) -> LearnedGame:
    x, y = start.policies
    return LearnedGame(
        start.q.copy(),
        start.value.copy(),
        (x.copy(), y.copy()),
        start.num_steps,
        start.alpha,
        start.state,
        start.rng.copy(),
    )


def _check(game: MarkovGame) -> None:
    if not game.zero_sum:
        raise UserError("this Markov game is not zero sum; only zero-sum ones have one value")
    if game.gamma == 1:
        raise UserError(
            "gamma = 1: a Markov game needs gamma < 1 for its value to be sure to exist"
        )
