"""Interquartile mean and its kin: by hand, by rliable, and by all resamples counted out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.pipelines.figures import returns
from plaudit.records import intervals
from plaudit.records.errors import UserError

SCORES = np.random.default_rng(5).normal(size=(10, 6)) * 5 + np.arange(6) * 3
"""[runs, tasks]"""


def test_interquartile_mean_by_hand():
    # 10 scores: two of each end go; 3 4 5 6 7 8 are left, their mean is 33 / 6.
    assert returns.interquartile_mean([10, 9, 8, 7, 6, 5, 4, 3, 2, -50]) == 5.5
    assert returns.interquartile_mean([1, 2, 3, 100]) == 2.5
    # 5 scores: one of each end; 3: none.
    assert returns.interquartile_mean([500, 0, 10, 20, 40]) == pytest.approx(70 / 3)
    assert returns.interquartile_mean([1, 2, 6]) == 3.0
    # runs and tasks together: 1 2 3 4 / 5 6 7 8 in two tasks leave 3 4 5 6
    assert returns.interquartile_mean([[1, 5], [2, 6], [3, 7], [4, 8]]) == 4.5


def test_the_other_aggregates_by_hand():
    table = [[1, 10, 100], [3, 30, 50]]  # means of the tasks: 2, 20, 75
    assert returns.median_task(table) == 20.0
    assert returns.mean(table) == pytest.approx(194 / 6)
    assert returns.median_run(table) == 20.0  # of 1 3 10 30 50 100
    assert returns.median_run([5, 1, 100]) == 5.0
    # the gap to 20: 19, 17, 10 and three times 0
    assert returns.optimality_gap(table, target=20) == pytest.approx(46 / 6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.randoms())
def test_outer_quarters_do_not_matter(scores, random):
    """Moving the scores that are left out further out changes nothing, nor does their order."""
    ordered = sorted(scores)
    cut = len(scores) // 4
    wild = [x - 1e6 for x in ordered[:cut]] + ordered[cut : len(scores) - cut]
    wild += [x + 1e6 for x in ordered[len(scores) - cut :]]
    random.shuffle(wild)
    assert returns.interquartile_mean(wild) == pytest.approx(
        returns.interquartile_mean(scores), abs=1e-9
    )


def test_the_interval_is_that_of_all_resamples():
    """Of four runs there are 256 resamples, whose quantiles are known without chance."""
    scores = np.array([0.0, 1.0, 4.0, 10.0])
    all_means = [np.mean(scores[list(rows)]) for rows in product(range(4), repeat=4)]
    for level in (0.5, 0.9):
        low, high = np.quantile(
            all_means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf"
        )
        found = returns.mean_run_interval(scores, level=level, num_resamples=200_000)
        assert (found.value, found.num, found.level) == (3.75, 4, level)
        assert found.low == pytest.approx(low, abs=1e-9)
        assert found.high == pytest.approx(high, abs=1e-9)


def test_tasks_are_resampled_apart():
    """The variance of the mean over tasks is the sum of the tasks' own: no common draw of runs.

    Column 2 is column 1 mirrored: resampled together, every mean would be 0 and the interval a point.
    """
    column = np.arange(10.0) - 4.5
    table = np.stack([column, -column], axis=1)
    found = returns.mean_run_interval(table, num_resamples=40_000)
    deviation = np.sqrt(2 * column.var() / 10) / 2  # of the mean of two independent means
    assert found.value == 0.0
    assert found.high == pytest.approx(1.96 * deviation, rel=0.03)
    assert found.low == pytest.approx(-1.96 * deviation, rel=0.03)


def test_a_seed_gives_the_same_interval_again_and_chunks_do_not_matter(monkeypatch):
    first = returns.interquartile_mean_interval(SCORES, seed=3)
    assert returns.interquartile_mean_interval(SCORES, seed=3) == first
    other = returns.interquartile_mean_interval(SCORES, seed=4)
    assert other.value == first.value
    assert other.low != first.low
    monkeypatch.setattr(intervals, "CHUNK", SCORES.size * 999)
    assert returns.interquartile_mean_interval(SCORES, seed=3).low == pytest.approx(
        first.low, abs=0.03
    )


def test_the_interval_covers_about_as_often_as_it_says():
    """The mean of ten normal runs: a 95 % percentile interval covers 0.90 of the time.

    A normal interval with the deviation of the sample and no small-sample correction covers
    P(|t_9| < 1.96 * sqrt(9 / 10)) = 0.906.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(400):
        found = returns.mean_run_interval(rng.normal(size=10), num_resamples=400, seed=i)
        hits += found.low < 0 < found.high
    assert 0.86 < hits / 400 < 0.94


def test_a_curve_is_its_points():
    """Each point of a curve has the interquartile mean and nearly the interval of its column."""
    curves = np.random.default_rng(0).normal(size=(10, 3)) * [1, 5, 0] + [0, 10, 7]
    middle, low, high = returns.interquartile_curve(curves, num_resamples=20_000)
    for i in range(3):
        alone = returns.interquartile_mean_interval(curves[:, i], num_resamples=20_000)
        assert middle[i] == pytest.approx(alone.value)
        assert low[i] == pytest.approx(alone.low, abs=0.1)
        assert high[i] == pytest.approx(alone.high, abs=0.1)
    assert (low[2], middle[2], high[2]) == (7, 7, 7)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: returns.mean([]), r"found shape \(0,\)"),
        (lambda: returns.mean(3.0), r"found shape \(\)"),
        (lambda: returns.median_task([[1.0, 2.0], [np.nan, 3.0]]), r"scores\[1, 0\] is nan"),
        (lambda: returns.mean_run_interval([1.0, 2.0], level=95), "level must be between 0 and 1"),
        (lambda: returns.mean_run_interval([1.0], num_resamples=9), "at least 100 resamples"),
        (lambda: returns.interquartile_curve([1.0, 2.0]), r"\[runs, points\], found shape \(2,\)"),
    ],
)
def test_wrong_input_is_told(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


# --- rliable itself, where it is installed


@pytest.mark.parametrize("num_tasks", [1, 6])
@pytest.mark.parametrize("num_runs", [3, 10])
def test_aggregates_agree_with_rliable(num_tasks, num_runs):
    metrics = pytest.importorskip("rliable.metrics")
    scores = SCORES[:num_runs, :num_tasks]
    assert returns.interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores))
    assert returns.mean(scores) == pytest.approx(metrics.aggregate_mean(scores))
    assert returns.median_task(scores) == pytest.approx(metrics.aggregate_median(scores))
    assert returns.optimality_gap(scores, target=4.0) == pytest.approx(
        metrics.aggregate_optimality_gap(scores, 4.0)
    )


@pytest.mark.parametrize("num_tasks", [1, 6])
def test_intervals_agree_with_rliable(num_tasks):
    """Quantiles over rliable's own resamples; its wrapper around them needs an old `arch`."""
    library = pytest.importorskip("rliable.library")
    metrics = pytest.importorskip("rliable.metrics")
    scores = SCORES[:, :num_tasks]
    theirs = library.StratifiedBootstrap.__new__(library.StratifiedBootstrap)
    theirs._num_items, theirs._args_shape, theirs._task_bootstrap = 10, scores.shape, False
    theirs._strata_indices = theirs._get_strata_indices()
    before = np.random.get_state()
    np.random.seed(0)
    draws = [metrics.aggregate_iqm(scores[theirs.update_indices()]) for _ in range(4000)]
    np.random.set_state(before)
    low, high = np.quantile(draws, [0.025, 0.975])
    ours = returns.interquartile_mean_interval(scores)
    assert ours.low == pytest.approx(low, abs=0.05 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.05 * (high - low))
