"""Evaluation figures against published numbers, hand work, exact enumeration and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.feedback.stats import wilson_interval
from plaudit.pipelines.figures.statistics import (
    calibration,
    distinct_n,
    matched_distinct_n,
    mean_interval,
    pair_accuracy,
    repetition,
    win_rate,
    words,
)
from plaudit.records.errors import UserError


def test_win_rate_by_hand():
    """Prompt a: pairs (1,2) win, (1,1) tie, (3,2) loss, (3,1) loss: 1.5/4. Prompt b: 0 < 5: 1."""
    got = win_rate([1, 3, 0], [2, 1, 5], ["a", "a", "b"])
    assert got.value == pytest.approx((1.5 / 4 + 1) / 2)
    assert got.num == 2
    assert got.level == 0.95


def test_win_rate_never_compares_across_prompts():
    """Prompt b's answers score far higher before and after; only within-prompt change counts."""
    got = win_rate([0, 0, 100, 100], [1, 1, 99, 99], ["a", "a", "b", "b"])
    assert got.value == 0.5


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 4)),
        min_size=4,
        max_size=24,
    ).filter(lambda rows: len({g for _, _, g in rows}) > 1)
)
@settings(max_examples=40, deadline=None)
def test_win_rate_properties(rows):
    """Swapping sides mirrors the value, a monotone map and row order change nothing."""
    before, after, groups = (list(part) for part in zip(*rows, strict=True))
    got = win_rate(before, after, groups, num_resamples=100)
    assert got.value == pytest.approx(1 - win_rate(after, before, groups, num_resamples=100).value)
    cubed = win_rate([b**3 for b in before], [a**3 for a in after], groups, num_resamples=100)
    assert cubed == got
    flipped = win_rate(before[::-1], after[::-1], groups[::-1], num_resamples=100)
    assert flipped.value == pytest.approx(got.value)
    assert got.low <= got.value + 1e-9
    assert got.high >= got.value - 1e-9


def test_win_rate_coverage_with_sixteen_prompts():
    """Scores N(0, 1) before and N(d_g, 1) after, d_g ~ N(0.4, 0.8²) per prompt.

    Then after − before ~ N(0.4, 2 + 0.8²), so the true rate is Φ(0.4 / √2.64) = 0.5972. In 400
    worlds of 16 prompts with 6 answers each, the share of 95 % intervals that hold it has s.d.
    0.011; resampling answers as if independent must do much worse, or clustering is not tested.
    """
    truth = 0.5 * (1 + math.erf(0.4 / math.sqrt(2.64) / math.sqrt(2)))
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(16), 6).tolist()
    held = naive = 0
    for seed in range(400):
        shift = np.repeat(rng.normal(0.4, 0.8, 16), 6)
        before, after = rng.normal(size=96), rng.normal(size=96) + shift
        got = win_rate(before, after, groups, num_resamples=400, seed=seed)
        held += got.low <= truth <= got.high
        low, high = wilson_interval(int((after > before).sum()), 96)
        shrunk = math.sqrt(6)  # all 36 pairs of a prompt counted as 36 independent trials
        naive += abs(got.value - truth) <= (high - low) / 2 / shrunk
    assert 0.90 <= held / 400 <= 0.98, held / 400
    assert naive / 400 < 0.75, naive / 400


def test_mean_interval_matches_the_normal_theory_and_groups_widen_it():
    """s.e. of 400 draws of N(0, 1) is 1/20; copying each value 4 times must not narrow it."""
    x = np.random.default_rng(3).normal(size=400)
    got = mean_interval(x)
    se = x.std(ddof=1) / 20
    assert got.value == pytest.approx(x.mean())
    assert got.high - got.low == pytest.approx(2 * 1.96 * se, rel=0.06)
    copied = mean_interval(np.repeat(x, 4), np.repeat(np.arange(400), 4).tolist())
    assert (copied.low, copied.high) == pytest.approx((got.low, got.high), abs=1e-9)
    assert mean_interval(np.repeat(x, 4)).high - copied.value < 0.6 * (got.high - got.value)


def test_equal_prompts_give_a_point_and_seeds_repeat():
    flat = mean_interval([0.1] * 7)
    assert (flat.low, flat.value, flat.high) == pytest.approx((0.1, 0.1, 0.1))
    assert mean_interval([1, 2, 5], seed=4) == mean_interval([1, 2, 5], seed=4)


def test_pair_accuracy_by_hand():
    """Kept: right, wrong, right, and a zero margin (½): 2.5 of 4; the two ties are left out."""
    margin = [1.0, 2.0, -1.0, 0.0, 5.0, -5.0]
    said = [1, 0, 0, 1, 0.5, 0.5]
    got = pair_accuracy(margin, said, ["a", "a", "b", "b", "b", "c"])
    assert got.value == pytest.approx(2.5 / 4)
    assert got.num == 2  # prompt c holds only a tie


def test_pair_accuracy_interval_follows_prompts_not_pairs():
    """10 prompts of 50 pairs that agree within a prompt: spread as 10 trials, not as 500."""
    groups = np.repeat(np.arange(10), 50).tolist()
    margin = np.repeat([1.0] * 7 + [-1.0] * 3, 50)
    got = pair_accuracy(margin, np.ones(500), groups)
    alone = pair_accuracy(margin, np.ones(500), list(range(500)))
    assert got.value == pytest.approx(0.7)
    assert got.high - got.low > 4 * (alone.high - alone.low)


def test_calibration_by_hand():
    """Bins of 0.5: {0.1, 0.3} happened 1 of 2, {0.6, 1.0, 0.8} happened 3 of 3.

    error = 2/5·|0.2 − 0.5| + 3/5·|0.8 − 1| = 0.24.
    """
    got = calibration([0.1, 0.3, 0.6, 1.0, 0.8], [1, 0, 1, 1, 1], bins=2)
    assert got.error == pytest.approx(0.24)
    assert [(b.low, b.high, b.num) for b in got.table] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert got.table[1].prob == pytest.approx(0.8)
    assert got.table[1].outcome == 1.0


def test_calibration_of_honest_and_overconfident_forecasts():
    """Honest forecasts leave only noise; reporting σ(4 logit p) for p must show a large error."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.02, 0.98, 20_000)
    y = (rng.uniform(size=p.size) < p).astype(float)
    sharp = p**4 / (p**4 + (1 - p) ** 4)
    assert calibration(p, y).error < 0.012
    assert calibration(sharp, y).error > 0.12
    assert len(calibration(np.full(4, 0.55), [0, 1, 1, 0]).table) == 1


def test_words_and_distinct_by_hand():
    """ "It's a dog. A dog!" -> it's a dog . a dog ! : bigrams (a dog) twice, so 5 of 6."""
    assert words("It's a dog. A dog!") == ["it's", "a", "dog", ".", "a", "dog", "!"]
    assert distinct_n(["It's a dog. A dog!"], 2) == pytest.approx(5 / 6)
    # Bigrams must not cross answers: (a b), (b a) and not (b b).
    assert distinct_n(["a b", "b a"], 2) == 1.0
    assert distinct_n(["a b", "a b"], 2) == 0.5


def test_matched_distinct_removes_length():
    """The longer corpus repeats its vocabulary only because it is longer: matched, both are 1."""
    short, long = ["a b", "c d"], ["a b a b", "c d c d"]
    assert distinct_n(long, 1) == 0.5
    assert matched_distinct_n(short, long, 1) == (1.0, 1.0)


def test_matched_distinct_counts_equally_many():
    """Cut to 3 and 1 words. Before: a b c | d, 4 of 4; after: x x x | x, 1 of 4."""
    assert matched_distinct_n(["a b c", "d e f"], ["x x x y y", "x"], 1) == (1.0, 0.25)
    assert matched_distinct_n(["a b c", "d e f"], ["x x x y y", "x"], 2) == (1.0, 0.5)


@pytest.mark.parametrize(("k", "share"), [(1, 0.0), (2, 0.0), (3, 0.0), (4, 0.5), (12, 0.9)])
def test_repetition_of_one_word(k, share):
    """k equal words have k − 2 trigrams, one of them new."""
    assert repetition(" ".join(["Railway"] * k)) == pytest.approx(share)
    assert repetition("every word here is a different one") == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1, 2], level=95), "between 0 and 1, found 95"),
        (lambda: mean_interval([]), "at least one number"),
        (lambda: mean_interval([1, float("nan")]), r"values\[1\] is nan"),
        (lambda: mean_interval([1, 2], ["a", "a"]), "at least two prompts"),
        (lambda: mean_interval([1, 2], num_resamples=5), "at least 100"),
        (lambda: mean_interval([1, 2], ["a"]), "1 group names for 2 entries"),
        (lambda: win_rate([1, 2], [1], ["a", "b"]), "2 before and 1 after"),
        (lambda: pair_accuracy([1], [0.5], ["a"]), "all 1 pairs are ties"),
        (lambda: pair_accuracy([1], [2], ["a"]), "must be 1"),
        (lambda: calibration([1.2], [1]), "found 1.2"),
        (lambda: calibration([0.2], [0.5]), "0 or 1"),
        (lambda: distinct_n(["one"], 2), "has 2 words"),
        (lambda: distinct_n(["one"], 0), "n=0"),
        (lambda: matched_distinct_n(["a"], [], 1), "1 before and 0 after"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()
