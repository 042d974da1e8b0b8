"""Figures on people and items: hand work, the functions on whole lists, and what is left out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.feedback import agreement
from plaudit.feedback.agreement import UndefinedAgreement, wilson_interval
from plaudit.feedback.agreement_sums import CategorySums, NumberSums
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.stats import mean_cohen_kappa
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import begun

raters = st.sampled_from("abcd")
said = st.sampled_from(["a", "b", "tie", "both_bad"])
score = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0])


def value_or_reason(coefficient, *values):
    try:
        return pytest.approx(coefficient(*values), abs=1e-12)
    except UndefinedAgreement as reason:
        return str(reason)


@given(st.lists(st.dictionaries(raters, said, max_size=4), max_size=12))
def test_running_sums_of_categories_give_what_whole_lists_give(units):
    sums = CategorySums()
    for unit in units:
        sums.add(unit)
    lists = [list(unit.values()) for unit in units]
    shared = [unit for unit in units if len(unit) > 1]
    for found, coefficient, values in (
        (sums.percent, agreement.percent_agreement, (lists,)),
        (sums.cohen, mean_cohen_kappa, (shared,)),
        (sums.krippendorff, agreement.krippendorff_alpha, (lists, "nominal")),
        (sums.fleiss, agreement.fleiss_kappa, (agreement.category_counts(lists),)),
    ):
        expected = value_or_reason(coefficient, *values)
        if expected == "no unit was rated":
            expected = "no unit was rated twice"
        assert value_or_reason(found) == expected


@given(st.lists(st.dictionaries(raters, score, max_size=4), max_size=12))
def test_running_sums_of_numbers_give_what_whole_lists_give(units):
    sums = NumberSums()
    for unit in units:
        sums.add(unit)
    lists = [list(unit.values()) for unit in units]
    expected = value_or_reason(agreement.krippendorff_alpha, lists, "interval")
    assert value_or_reason(sums.krippendorff) == expected


def test_with_others_counts_each_pair_for_both():
    sums = CategorySums()
    sums.add({"ann": "a", "bob": "a", "eve": "b"})
    sums.add({"ann": "a", "bob": "b"})
    assert sums.with_others() == {"ann": (1, 3), "bob": (1, 3), "eve": (0, 2)}


# --- a store with known habits -----------------------------------------------------------------


def vote(offer, key, preference, seconds=None):
    value = {"a": 0, "b": 1, "preference": preference}
    return OfferVote(key, offer.key, "comparison", value, seconds)


def work(store, who, say, num, *, seconds=None):
    """Answer `num` offers, one by one; `say` gives the preference for an offer."""
    with store.batch():
        for n in range(num):
            (offer,) = store.offers.draw(who, 1)
            took = seconds(n) if seconds else None
            store.offers.answer(who, [vote(offer, f"{who}/{n}", say(offer), took)])


def better(offer):
    """The true side: of every item one and the same."""
    return "ab"[int(offer.item_key[1:]) % 2]


def first_shown(offer):
    return "ab"[offer.shown[0]]


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        store.offers.generator = random.Random(5)
        yield store


def test_an_honest_person_and_one_with_a_habit_are_told_apart(store):
    begun(store, 100, ("honest", "left", "new"), overlap=2, repeat_share=0.3)
    work(store, "honest", better, 90, seconds=lambda n: n % 3)
    work(store, "left", first_shown, 90)
    work(store, "new", better, 5)
    honest, left, new = store.quality.per_person()
    assert (honest.num_votes, honest.median_seconds, honest.note) == (90, 1.0, "")
    repeats = [v for v in store.votes(rater="honest") if v.purpose == "repeat"]
    assert len(repeats) > 5
    assert (honest.self_agreement.num, honest.self_agreement.share) == (len(repeats), 1.0)
    low, high = wilson_interval(len(repeats), len(repeats))
    assert (honest.self_agreement.low, honest.self_agreement.high) == (low, high)
    assert left.self_agreement.share == 0.0  # the swapped copy gets the other answer
    assert left.self_agreement.num > 5
    assert (left.first_shown.share, left.first_shown.num) == (1.0, 90)
    assert honest.first_shown.low < 0.5 < honest.first_shown.high
    assert left.first_shown.low > 0.9
    assert new.note == "too few votes: 5, 40 needed"
    assert (new.self_agreement, new.first_shown, new.with_others) == (None, None, None)
    both = {v.item_key for v in store.votes(rater="honest")}
    both &= {v.item_key for v in store.votes(rater="left")}
    assert honest.with_others.num >= len(both)


def test_agreement_is_the_one_of_the_whole_list(store):
    begun(store, 60, ("ann", "bob", "eve"), overlap=2, repeat_share=0.2)
    chance = random.Random(3)
    for who in ("ann", "bob", "eve"):
        work(store, who, lambda o: better(o) if chance.random() < 0.8 else "tie", 39)
    found = store.quality.agreement()
    units = {}
    for v in store.votes():
        if v.purpose == "repeat":
            continue  # what was said the second time says nothing of others
        units.setdefault(v.item_key, {})[v.rater] = v.value["preference"]
    two = [list(unit.values()) for unit in units.values() if len(unit) > 1]
    assert found.num_units == len(two) > 30
    assert found.values["percent"] == pytest.approx(agreement.percent_agreement(two))
    assert found.values["krippendorff"] == pytest.approx(
        agreement.krippendorff_alpha(two, "nominal")
    )
    shared = [unit for unit in units.values() if len(unit) > 1]
    assert found.values["cohen"] == pytest.approx(mean_cohen_kappa(shared))
    assert found.values["fleiss"] == pytest.approx(
        agreement.fleiss_kappa(agreement.category_counts(two))
    )
    assert found.reasons == {"score_krippendorff": "too few votes: 0 on items with two raters, "
                             "40 needed"}  # fmt: skip
    assert (found.surplus, found.overlap) == (0, 2)


def test_only_the_uniform_draws_count(store):
    """Those chosen for their waiting agree by construction here; they must not be seen."""
    begun(store, 120, ("ann", "bob"), overlap=2, repeat_share=0.0, policy="waiting",
          uniform_share=0.5)  # fmt: skip
    uniform = lambda o: "a" if o.policy == "waiting" else better(o)  # noqa: E731
    work(store, "ann", uniform, 90)
    work(store, "bob", uniform, 90)
    votes = store.votes()
    drawn = {}
    for v in votes:
        if v.policy == "uniform":
            drawn.setdefault(v.item_key, {})[v.rater] = v.value["preference"]
    two = [unit for unit in drawn.values() if len(unit) == 2]
    found = store.quality.agreement()
    assert found.num_units == len(two) > 20
    assert {v.policy for v in votes} == {"uniform", "waiting"}


def test_items_have_spread_surplus_skips_and_flags(store):
    begun(store, 3, ("ann", "bob", "eve"), overlap=3, repeat_share=0.0)
    offers = {
        who: {o.item_key: o for o in store.offers.draw(who, 3)} for who in ("ann", "bob", "eve")
    }
    for who, preference in (("ann", "a"), ("bob", "a"), ("eve", "b")):
        store.offers.answer(who, [vote(offers[who]["i0"], f"{who}0", preference)])
    store.offers.answer("ann", [
        OfferVote("s", offers["ann"]["i1"].key, "skip", {}),
        OfferVote("f", offers["ann"]["i2"].key, "flag", {"text": "odd"}),
    ])  # fmt: skip
    store.offers.configure(overlap=2)
    first, second, third = store.quality.per_item()
    assert (first.key, first.num_answers, first.surplus) == ("i0", 3, 1)
    assert first.spread == pytest.approx(2 / 3)  # of three pairs, two differ
    assert (second.num_skips, second.num_flags, second.spread) == (1, 0, None)
    assert (third.num_skips, third.num_flags) == (0, 1)
    assert [i.key for i in store.quality.per_item(after=1, limit=1)] == ["i1"]
    assert store.quality.agreement().surplus == 1
    for page in ({"limit": 0}, {"limit": 10_000}, {"after": -1}):
        with pytest.raises(UserError, match="expected 1 to 1000"):
            store.quality.per_item(**page)


def test_scores_have_their_own_coefficient_and_spread(store):
    with store.batch():
        for n in range(30):
            store.add_item(f"i{n}", "p", ["x"])
    for who in ("ann", "bob"):
        store.people.add(who)
    store.offers.configure(overlap=2)
    chance, units = random.Random(1), {}
    for who in ("ann", "bob"):
        for offer in store.offers.draw(who, 30):
            value = round(chance.random(), 2)
            units.setdefault(offer.item_key, []).append(value)
            said = OfferVote(
                f"{who}{offer.key}", offer.key, "score", {"segment": 0, "score": value}
            )
            assert store.offers.answer(who, [said])[0].status == "kept"
    expected = agreement.krippendorff_alpha(list(units.values()), "interval")
    assert store.quality.agreement().values["score_krippendorff"] == pytest.approx(expected)
    one = store.quality.per_item(limit=1)[0]
    low, high = sorted(units["i0"])
    assert one.spread == pytest.approx((high - low) / 2)
