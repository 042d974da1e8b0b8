"""Figures of several training runs: interquartile mean, median, optimality gap, with intervals.

A few runs of an algorithm say little by their mean: one lucky or broken run moves it. The
interquartile mean drops the outer quarters and keeps more of the data than the median does. Its
interval resamples whole runs within each task (a stratified bootstrap) and takes percentiles.
All aggregates follow Agarwal et al. 2021 and agree with their library rliable. With few runs such
intervals are too narrow, as those of any bootstrap: with ten, a 95 % interval holds the truth in
about nine cases of ten.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plaudit.records.errors import UserError
from plaudit.records.intervals import Aggregate, Floats, Interval, curve_interval, runs_interval

NUM_RESAMPLES = 10_000
"""Bootstrap resamples: the ends of an interval then move by about 0.02 s.d. between seeds."""


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores, runs and tasks taken together.

    Of n sorted scores the ⌊n/4⌋ lowest and as many of the highest are left out. `scores` are [runs]
    or [runs, tasks], those of several tasks on one scale.
    Source: Agarwal et al. 2021, section 4.3.
    Check: of 1, 2, 3, 100 it is 2.5; of fewer than four scores it is their mean.
    """
    return float(_iqm(_scores(scores)))


def mean(scores: ArrayLike) -> float:
    """Mean of all scores [runs] or [runs, tasks]."""
    return float(_mean(_scores(scores)))


def median_run(scores: ArrayLike) -> float:
    """Median over runs and tasks taken together; of an even number the middle two's mean."""
    return float(_median_run(_scores(scores)))


def median_task(scores: ArrayLike) -> float:
    """Median over tasks of each task's mean over its runs: what papers call the median.

    Source: Agarwal et al. 2021, section 4.3, who warn that it ignores nearly half of the tasks.
    """
    return float(_median_task(_scores(scores)))


def optimality_gap(scores: ArrayLike, *, target: float) -> float:
    """By how much the scores miss `target` on average, those above it counting as 0.

        target - mean of min(score, target)

    Source: Agarwal et al. 2021, section 4.3 (whose scores are normalised, and target is 1).
    """
    return float(_optimality_gap(target)(_scores(scores)))


def interquartile_mean_interval(
    scores: ArrayLike, *, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """`interquartile_mean` of [runs] or [runs, tasks] with its stratified bootstrap interval."""
    return runs_interval(_iqm, _scores(scores), level=level, num_resamples=num_resamples, seed=seed)


def mean_run_interval(
    scores: ArrayLike, *, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """`mean` of [runs] or [runs, tasks] with its stratified bootstrap interval."""
    return runs_interval(
        _mean, _scores(scores), level=level, num_resamples=num_resamples, seed=seed
    )


def median_run_interval(
    scores: ArrayLike, *, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """`median_run` of [runs] or [runs, tasks] with its stratified bootstrap interval."""
    return runs_interval(
        _median_run, _scores(scores), level=level, num_resamples=num_resamples, seed=seed
    )


def median_task_interval(
    scores: ArrayLike, *, level: float = 0.95, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """`median_task` of [runs, tasks] with its stratified bootstrap interval."""
    return runs_interval(
        _median_task, _scores(scores), level=level, num_resamples=num_resamples, seed=seed
    )


def optimality_gap_interval(
    scores: ArrayLike,
    *,
    target: float,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """`optimality_gap` of [runs] or [runs, tasks] with its stratified bootstrap interval."""
    return runs_interval(
        _optimality_gap(target),
        _scores(scores),
        level=level,
        num_resamples=num_resamples,
        seed=seed,
    )


def interquartile_curve(
    curves: ArrayLike, *, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """(interquartile mean, low, high) [points] of learning curves [runs, points].

    Whole curves are resampled, and the ends are taken point by point.
    Source: Agarwal et al. 2021, section 4.2 (sample efficiency curves).
    """
    table = _scores(curves)
    if np.ndim(curves) != 2:
        raise UserError(f"curves must be [runs, points], found shape {np.shape(curves)}")
    return curve_interval(_iqm, table, level=level, num_resamples=num_resamples, seed=seed)


# --- aggregates of [..., runs, tasks]


def _iqm(scores: Floats) -> Floats:
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(axis=-1))


def _mean(scores: Floats) -> Floats:
    return np.asarray(scores.mean(axis=(-2, -1)))


def _median_run(scores: Floats) -> Floats:
    return np.asarray(np.median(scores, axis=(-2, -1)))


def _median_task(scores: Floats) -> Floats:
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def _optimality_gap(target: float) -> Aggregate:
    return lambda scores: target - _mean(np.minimum(scores, target))


def _scores(scores: ArrayLike) -> Floats:
    """[runs, tasks], one column where only runs are given."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim not in (1, 2) or not table.size:
        raise UserError(f"scores must be [runs] or [runs, tasks], found shape {table.shape}")
    if not np.isfinite(table).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        where = ", ".join(map(str, at))
        raise UserError(f"scores[{where}] is {table[at]}; every score must be finite")
    return table[:, None] if table.ndim == 1 else table
