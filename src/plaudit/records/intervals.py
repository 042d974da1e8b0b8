"""Bootstrap intervals of what was measured several times, each by the resampling that fits its units.

A ratio of sums over prompts has a bias-corrected and accelerated interval; figures of training runs
have percentiles over resampled runs, task by task; a mean of episodes has percentiles alone. Draws
follow from a seed, so an interval repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from plaudit.records.errors import UserError

Floats = NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]
"""Scores [..., runs, tasks] in, one number for each leading index out."""

CHUNK = 4_000_000
"""Largest number of resampled scores, or of weights, held at once."""

NUM_RESAMPLES = 2000
"""Bootstrap samples behind the interval of a mean."""


@dataclass(frozen=True)
class Interval:
    """An estimate `value` with a confidence interval from `low` to `high`.

    `num` counts the independent units behind it: prompts or runs.
    """

    value: float
    low: float
    high: float
    level: float
    num: int


def ratio_interval(
    top: Floats, bottom: Floats, *, level: float, num_resamples: int, seed: int
) -> Interval:
    """BCa interval of Σ top / Σ bottom, resampling the entries [G] (one per prompt) together.

    z0 corrects the bias, a (from the jackknife) the skew; the ends are the resampled quantiles at
    Φ(z0 + (z0 ± z) / (1 − a (z0 ± z))).
    Source: Efron 1987, section 3; Efron & Tibshirani 1993, section 14.3.
    """
    num = len(top)
    if num < 2:
        raise UserError("an interval over prompts needs at least two prompts, found one")
    _check_resamples(num_resamples)
    _check_level(level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    value = float(top.sum() / bottom.sum())
    draws = _resampled_ratios(top, bottom, num_resamples, seed)
    # Values equal but for rounding must count as ties, or the bias correction invents a bias.
    draws[np.isclose(draws, value, rtol=1e-12, atol=1e-15)] = value
    left_out = (top.sum() - top) / (bottom.sum() - bottom)
    pull = left_out.mean() - left_out
    size = float((pull**2).sum())
    if size <= 1e-24 or draws.min() == draws.max():
        return Interval(value, value, value, level, num)
    acceleration = float((pull**3).sum()) / (6 * size**1.5)
    below = float((draws < value).sum() + 0.5 * (draws == value).sum())
    normal = NormalDist()
    bias = normal.inv_cdf((below + 0.5) / (num_resamples + 1))
    ends = [
        normal.cdf(bias + (bias + side) / (1 - acceleration * (bias + side))) for side in (-z, z)
    ]
    low, high = np.quantile(draws, ends)
    return Interval(value, float(low), float(high), level, num)


def runs_interval(
    aggregate: Aggregate, scores: Floats, *, level: float, num_resamples: int, seed: int
) -> Interval:
    """Percentile interval of `aggregate` of scores [runs, tasks].

    In every task as many runs as it has are drawn with replacement (a stratified bootstrap).
    Source: Agarwal et al. 2021, section 4.2.
    """
    _check_level(level)
    _check_resamples(num_resamples)
    rng = np.random.default_rng(seed)
    runs, tasks = scores.shape
    column = np.arange(tasks)
    draws = [
        aggregate(scores[rng.integers(runs, size=(size, runs, tasks)), column])
        for size in _sizes(num_resamples, scores.size)
    ]
    low, high = np.quantile(np.concatenate(draws), _ends(level))
    return Interval(float(aggregate(scores)), float(low), float(high), level, runs)


def curve_interval(
    aggregate: Aggregate, curves: Floats, *, level: float, num_resamples: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """(value, low, high) [points] of `aggregate` of curves [runs, points], whole curves resampled."""
    _check_level(level)
    _check_resamples(num_resamples)
    rng = np.random.default_rng(seed)
    runs, points = curves.shape
    draws = [
        aggregate(curves[rng.integers(runs, size=(size, runs))].swapaxes(1, 2)[..., None])
        for size in _sizes(num_resamples, runs * points)
    ]
    low, high = np.quantile(np.concatenate(draws), _ends(level), axis=0)
    return np.asarray(aggregate(curves.T[..., None])), low, high


def bootstrap_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the mean over resamples (Efron 1979); always the same draws."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (NUM_RESAMPLES, len(values)))].mean(-1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _resampled_ratios(top: Floats, bottom: Floats, num_resamples: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    num = len(top)
    share = np.full(num, 1 / num)
    parts = []
    for size in _sizes(num_resamples, num):
        weight = rng.multinomial(num, share, size=size).astype(float)
        parts.append((weight @ top) / (weight @ bottom))
    return np.concatenate(parts)


def _sizes(num_resamples: int, each: int) -> list[int]:
    """How many resamples of `each` numbers are drawn at a time."""
    size = max(1, min(num_resamples, CHUNK // each))
    whole, rest = divmod(num_resamples, size)
    return [size] * whole + [rest] * (rest > 0)


def _ends(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"a confidence level must be between 0 and 1, found {level}")


def _check_resamples(num_resamples: int) -> None:
    if num_resamples < 100:
        raise UserError(f"a bootstrap needs at least 100 resamples, found {num_resamples}")
