"""Bootstrap intervals against exact enumeration and their own promise."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.bca import exact_bca
from plaudit.records.intervals import bootstrap_interval, ratio_interval


def test_bca_matches_exact_enumeration():
    """The hormone-patch ratio of Efron & Tibshirani 1993, section 10.3: θ = −0.0713.

    All C(15, 8) = 6435 distinct resamples are enumerated; ours samples 40,000 of them. The pairs
    are given as a pair accuracy would give them: a ratio of sums over groups.
    """
    y = np.array([-1200.0, 2601, -2705, 1982, -1290, 351, -638, -2719])
    z = np.array([8406.0, 2342, 8187, 8459, 4795, 3516, 4796, 10238])
    got = ratio_interval(y, z, level=0.9, num_resamples=40_000, seed=1)
    value, low, high = exact_bca(y.tolist(), z.tolist(), 0.9)
    assert got.value == pytest.approx(value)
    assert got.value == pytest.approx(-0.0713, abs=5e-5)
    # The exact quantiles; sampling error of a 5 % quantile of 40,000 draws is about 0.001 here.
    assert got.low == pytest.approx(low, abs=0.005)
    assert got.high == pytest.approx(high, abs=0.005)
    assert high - value > 1.2 * (value - low), "the example is skewed, or it would test little"


def test_interval_covers_the_mean_as_often_as_it_says():
    """95 % intervals of 50 exponential numbers cover their mean in 90 to 97 % of 300 trials."""
    rng = np.random.default_rng(0)
    trials = [bootstrap_interval(rng.exponential(size=50)) for _ in range(300)]
    assert 0.90 <= np.mean([low <= 1.0 <= high for low, high in trials]) <= 0.97


def test_interval_of_equal_returns_is_that_return():
    assert bootstrap_interval(np.full(20, 500.0)) == (500.0, 500.0)
