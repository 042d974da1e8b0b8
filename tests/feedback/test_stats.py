"""The figures of a store, by hand, and the lines that say them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.feedback.stats import feedback_stats, mean_cohen_kappa, render, wilson_interval
from plaudit.feedback.store import FeedbackStore


def lines_of(stats):
    """The rendered lines without their padding."""
    return [" ".join(line.split()) for line in render(stats)]


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        yield opened


def test_the_fifty_proposals_through_the_store(store):
    """Cohen's example: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no. κ = 0.4, agreement 0.7.

    Fleiss: yes 55 and no 45 of 100, P_e = 0.505, κ = (0.7 - 0.505) / 0.495 = 0.3939;
    alpha = 1 - (1 - 0.3939)(99/100) = 0.4.
    """
    pairs = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    with store.batch():
        for n, said in enumerate(pairs):
            store.add_item(f"i{n}", "p", ["yes", "no"])
            for rater, preference in zip(("ann", "bob"), said, strict=True):
                store.add_comparison(f"i{n}", rater, preference)
    stats = feedback_stats(store)
    assert stats.agreement["percent"] == pytest.approx(0.7)
    assert stats.agreement["cohen"] == pytest.approx(0.4)
    assert stats.agreement["fleiss"] == pytest.approx((0.7 - 0.505) / 0.495)
    assert stats.agreement["krippendorff"] == pytest.approx(1 - (0.3 / 0.495) * 0.99)
    assert stats.undefined == {}
    assert "Cohen's kappa (mean) 0.400" in lines_of(stats)
    assert json.loads(json.dumps(asdict(stats)))["num_votes"] == 100


def test_counts_sides_and_pace(store):
    for n in range(4):
        store.add_item(f"i{n}", "p", ["x", "y"])
    store.add_comparison("i0", "ann", "a", order_shown="ab", seconds=2)
    store.add_comparison("i1", "ann", "a", order_shown="ba", seconds=4)
    store.add_comparison("i2", "ann", "b", order_shown="ba", seconds=9)
    store.add_comparison("i0", "bob", "tie", order_shown="ab")
    store.add_comparison("i1", "bob", "both_bad")
    store.add_score("i1", "bob", 0.5)
    store.add_comparison("i2", "bob", "a", order_shown="ab")
    store.undo(rater="bob")
    stats = feedback_stats(store)
    assert (stats.num_items, stats.num_unjudged, stats.num_votes) == (4, 1, 6)
    assert stats.num_undone == 1
    assert stats.by_kind == {"score": 1, "comparison": 5}
    assert stats.by_rater == {"ann": {"comparison": 3}, "bob": {"comparison": 2, "score": 1}}
    assert (stats.preferences["a"], stats.preferences["b"]) == (2, 1)
    assert (stats.num_ties, stats.num_both_bad) == (1, 1)
    # shown first and chosen: i0 and i2 of i0, i1, i2
    assert (stats.first_shown.num, stats.first_shown.share) == (3, pytest.approx(2 / 3))
    assert (stats.seconds.num, stats.seconds.median, stats.seconds.mean) == (3, 4, 5)
    lines = lines_of(stats)
    assert "votes 6 (1 more undone)" in lines
    assert "seconds a vote median 4.0, mean 5.0" in lines
    assert "alpha of scores not defined: no unit was rated twice" in lines


def test_sides_of_a_pair_do_not_matter_to_agreement(store):
    """Ann is asked (0, 1) and bob (1, 0): "a" of the one is "b" of the other."""
    for n, (ann, bob) in enumerate([("a", "b"), ("b", "a"), ("tie", "tie")]):
        store.add_item(f"i{n}", "p", ["x", "y"])
        store.add_comparison(f"i{n}", "ann", ann, positions=(0, 1))
        store.add_comparison(f"i{n}", "bob", bob, positions=(1, 0))
    assert feedback_stats(store).agreement["percent"] == 1


def test_a_raters_latest_vote_counts_for_agreement(store):
    store.add_item("i", "p", ["x", "y"])
    for rater, preference in (("ann", "a"), ("bob", "b"), ("ann", "b")):
        store.add_comparison("i", rater, preference)
    assert feedback_stats(store).agreement["percent"] == 1


def test_what_is_undefined_is_none_with_the_reason_and_is_said(store):
    for n in range(3):
        store.add_item(f"i{n}", "p", ["x", "y"])
        store.add_comparison(f"i{n}", "ann", "a")
        store.add_comparison(f"i{n}", "bob", "a")
    stats = feedback_stats(store)
    assert stats.agreement["percent"] == 1
    for name in ("cohen", "fleiss", "krippendorff"):
        assert stats.agreement[name] is None
        assert name in stats.undefined
    assert "Fleiss' kappa not defined: every rating is the same" in lines_of(stats)
    store.add_comparison("i0", "cat", "b")
    assert "Fleiss' kappa needs equally many" in "\n".join(render(feedback_stats(store)))


def test_an_empty_store_has_figures_too(store):
    stats = feedback_stats(store)
    assert (stats.num_items, stats.num_votes, stats.first_shown, stats.seconds) == (
        0,
        0,
        None,
        None,
    )
    assert stats.agreement == {}
    assert render(stats)[0].startswith("items")


def test_cohen_is_averaged_over_pairs_of_raters_where_it_is_defined():
    # ann-bob: κ = 1; ann-cat: p_o 0.5, p_e 0.5, κ = 0; bob-cat share no unit with variation
    units = [
        {"ann": "a", "bob": "a"},
        {"ann": "b", "bob": "b"},
        {"ann": "a", "cat": "a"},
        {"ann": "b", "cat": "a"},
        {"bob": "a", "cat": "a"},
    ]
    assert mean_cohen_kappa(units) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson's score interval).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_published_table(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_solve_the_score_equation(case):
    """Both ends solve (p̂ − p)² = z² p(1 − p)/n, and failures mirror successes."""
    k, n = case
    got, mirror = wilson_interval(k, n), wilson_interval(n - k, n)
    z = 1.959963984540054
    for p in got:
        assert (k / n - p) ** 2 == pytest.approx(z * z * p * (1 - p) / n, abs=1e-12)
    assert got == pytest.approx((1 - mirror[1], 1 - mirror[0]))
