"""What all linear learners carry from episode to episode, and how they begin and answer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.episodes import Acting, check_count
from plaudit.mdp.learning.features import Features, features_of, value_of
from plaudit.mdp.learning.learned import Floats, Ints, LinearPredicted, Words
from plaudit.mdp.learning.sampling import seeded
from plaudit.records.errors import UserError


class LinearRun(NamedTuple):
    """A linear prediction on its way; kernels write into its arrays.

    weights and second [d]; counts [S]; `trace` [K, d] gets the weights after episodes every,
    2·every, ...; `done` episodes came before.
    """

    features: Features
    weights: Floats
    second: Floats
    counts: Ints
    rng: Words
    trace: Floats
    every: int
    done: int
    num_episodes: int


def linear_run(
    acting: Acting,
    features: ArrayLike | sparse.sparray,
    num_episodes: int,
    seed: int,
    start: LinearPredicted | None,
    trace_every: int | None,
    start_weights: ArrayLike | None = None,
) -> LinearRun:
    """The arrays of a new run, or those of `start`, copied."""
    check_count(num_episodes, "num_episodes")
    every = 0 if trace_every is None else check_count(trace_every, "trace_every")
    x = features_of(features, acting.table.terminal)
    num_states, done = acting.table.terminal.size, 0 if start is None else start.num_episodes
    rows = (done + num_episodes) // every - done // every if every else 0
    trace = np.empty((rows, x.num_features))
    if start is None:
        weights = _start_weights(start_weights, x.num_features)
        second, counts = np.zeros(x.num_features), np.zeros(num_states, np.int64)
        return LinearRun(x, weights, second, counts, seeded(seed), trace, every, 0, num_episodes)
    if start_weights is not None:
        raise UserError("start_weights: `start` already holds weights; give one of the two")
    if start.weights.size != x.num_features or start.counts.size != num_states:
        raise UserError(
            f"start: learned {start.weights.size} weights in {start.counts.size} states; "
            f"expected {x.num_features} in {num_states}"
        )
    arrays = start.weights.copy(), start.second.copy(), start.counts.copy(), start.rng.copy()
    return LinearRun(x, *arrays, trace, every, done, num_episodes)


def linearly_predicted(
    run: LinearRun, num_steps: int, start: LinearPredicted | None
) -> LinearPredicted:
    """The result of a run."""
    earlier = run.trace[:0]
    if start is not None:
        num_steps += start.num_steps
        earlier = start.trace if run.every and len(start.trace) else earlier
    return LinearPredicted(
        run.weights,
        value_of(run.features, run.weights),
        run.counts,
        run.done + run.num_episodes,
        num_steps,
        run.second,
        run.rng,
        np.concatenate([earlier, run.trace]),
    )


def _start_weights(given: ArrayLike | None, count: int) -> Floats:
    weights = np.zeros(count) if given is None else np.array(given, dtype=np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all():
        raise UserError(f"start_weights: shape {weights.shape}; expected {count} finite numbers")
    return weights


@inlined
def keep(run: LinearRun, episode: int) -> None:
    """Keep the weights after this episode of the run (counted from 0), if its turn has come."""
    number = run.done + episode + 1
    if run.every > 0 and number % run.every == 0:
        row = number // run.every - run.done // run.every - 1
        for i in range(run.weights.size):
            run.trace[row, i] = run.weights[i]
