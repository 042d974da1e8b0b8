"""Batch prediction: a fixed set of episodes, shown again and again until nothing moves.

Both methods then stand at a definite answer: Monte Carlo at the average return of each state, TD(0)
at the value of the most likely chain (certainty equivalence).
Source: Sutton & Barto 2018, section 6.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import compiled
from plaudit.mdp.learning.episodes import (
    acting_in,
    check_count,
    check_fraction,
    check_positive,
    check_step_size,
    empty_episode,
    next_episode,
)
from plaudit.mdp.learning.learned import Floats, Ints
from plaudit.mdp.learning.sampling import seeded
from plaudit.mdp.model import MDP, MRP
from plaudit.records.errors import UserError

DIVERGED = 1e6
"""Errors this many times as great as the first are not going to settle."""


@dataclass(frozen=True)
class Episodes:
    """Whole episodes, one after another.

    state [N] and reward [N]: S_t and R_{t+1} of every step; after [N]: S_{t+1}, or -1 where the
    episode ended; begin [E + 1]: where each episode begins, and N.
    """

    state: Ints
    reward: Floats
    after: Ints
    begin: Ints
    num_states: int

    def __len__(self) -> int:
        return int(self.begin.size - 1)

    @property
    def counts(self) -> Ints:
        """Visits of each state [S]."""
        return np.bincount(self.state, minlength=self.num_states).astype(np.int64)


def episodes_of(
    mdp: MDP | MRP, policy: ArrayLike | None = None, *, num_episodes: int, seed: int = 0
) -> Episodes:
    """Episodes of a policy in a world; a chain takes no policy."""
    acting, rng = acting_in(mdp, policy), seeded(seed)
    log: list[tuple[Ints, Floats]] = []
    buffer = empty_episode()
    for _ in range(check_count(num_episodes, "num_episodes")):
        buffer = next_episode(acting, rng, buffer)
        log.append((buffer.states[: buffer.length].copy(), buffer.rewards[: buffer.length].copy()))
    return episodes_from(log, num_states=mdp.num_states)


def episodes_from(log: Sequence[tuple[ArrayLike, ArrayLike]], *, num_states: int) -> Episodes:
    """Episodes written down as (states S_0 to S_{T-1}, rewards R_1 to R_T), each to its end."""
    states = [_whole(s, e) for e, (s, _) in enumerate(log)]
    rewards = [np.asarray(r, dtype=np.float64) for _, r in log]
    for e, (s, r) in enumerate(zip(states, rewards, strict=True)):
        if s.ndim != 1 or s.shape != r.shape:
            raise UserError(f"episode {e}: {s.size} states and {r.size} rewards; expected as many")
        if s.size and not (s.min() >= 0 and s.max() < num_states and np.isfinite(r).all()):
            raise UserError(
                f"episode {e}: expected states from 0 to {num_states - 1} and finite rewards"
            )
    if not sum(s.size for s in states):
        raise UserError("no episode has a step, so there is nothing to learn from")
    after = [np.append(s[1:], -1)[: s.size] for s in states]
    begin = np.cumsum([0, *(s.size for s in states)])
    whole = np.concatenate(states), np.concatenate(rewards), np.concatenate(after)
    return Episodes(*whole, begin, num_states)


def _whole(states: ArrayLike, episode: int) -> Ints:
    given = np.asarray(states)
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise UserError(f"episode {episode}: states of {given.dtype}; expected whole numbers")
    return given.astype(np.int64)


def batch_td(
    episodes: Episodes,
    *,
    gamma: float,
    alpha: float | None = None,
    tol: float = 1e-9,
    max_sweeps: int = 100_000,
    start_value: ArrayLike | None = None,
) -> Floats:
    """The value [S] at which TD(0) stands still on these episodes.

    V ← V + α Σ_t (R_{t+1} + γ V(S_{t+1}) - V(S_t)) in S_t, all from the V before, until no sum is
    above tol. alpha None: one over the visits of the most visited state, which always settles; a
    larger one may diverge, which is an error. States never met keep start_value (0).
    Warns if max_sweeps are not enough.
    Source: Sutton & Barto 2018, section 6.3.
    """
    visits = episodes.counts
    paid = np.bincount(episodes.state, episodes.reward, minlength=visits.size)
    goes_on = episodes.after >= 0
    pairs = (episodes.state[goes_on], episodes.after[goes_on])
    moves = sparse.csr_array((np.ones(pairs[0].size), pairs), shape=(visits.size, visits.size))
    moves.sum_duplicates()
    gamma = check_fraction(gamma, "gamma")

    def error(value: Floats) -> Floats:
        return np.asarray(paid + gamma * (moves @ value) - visits * value)

    return _settled(error, visits, alpha, tol, max_sweeps, start_value)


def batch_monte_carlo(
    episodes: Episodes,
    *,
    gamma: float,
    alpha: float | None = None,
    tol: float = 1e-9,
    max_sweeps: int = 100_000,
    start_value: ArrayLike | None = None,
) -> Floats:
    """The value [S] at which every-visit Monte Carlo stands still on these episodes.

    V ← V + α Σ_t (G_t - V(S_t)) in S_t. Arguments as in `batch_td`.
    Source: Sutton & Barto 2018, section 6.3.
    """
    g = _returns(episodes.reward, episodes.begin, check_fraction(gamma, "gamma"))
    visits = episodes.counts
    total = np.bincount(episodes.state, g, minlength=visits.size)
    return _settled(
        lambda value: np.asarray(total - visits * value),
        visits,
        alpha,
        tol,
        max_sweeps,
        start_value,
    )


def _settled(
    error: Callable[[Floats], Floats],
    visits: Ints,
    alpha: float | None,
    tol: float,
    max_sweeps: int,
    start_value: ArrayLike | None,
) -> Floats:
    most = int(visits.max())
    size = 1.0 / most if alpha is None else check_step_size(alpha)
    value = np.zeros(visits.size)
    value += np.asarray(0.0 if start_value is None else start_value, dtype=np.float64)
    check_positive(tol, "tol")
    first = max(float(np.abs(error(value)).max()), tol)
    for _ in range(check_count(max_sweeps, "max_sweeps")):
        moved = error(value)
        greatest = float(np.abs(moved).max())
        if greatest <= tol:
            return value
        if not greatest < DIVERGED * first:
            raise UserError(
                f"alpha: {size:.6g} diverges on these episodes; up to {1 / most:.6g} is safe"
            )
        value += size * moved
    warnings.warn(
        f"the batch still moved after {max_sweeps} sweeps; raise max_sweeps or tol", stacklevel=3
    )
    return value


@compiled
def _returns(reward: Floats, begin: Ints, gamma: float) -> Floats:
    """G_t of every step."""
    out = np.empty(reward.size)
    for e in range(begin.size - 1):
        g = 0.0
        for t in range(begin[e + 1] - 1, begin[e] - 1, -1):
            g = reward[t] + gamma * g
            out[t] = g
    return out
