"""Votes that answer offers, out to files: which offer, drawn how, and how it stood on the page."""

from __future__ import annotations

import pytest

from plaudit.feedback.exchange import export_feedback, import_feedback
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.rows import read_rows


def work(store):
    """One annotator answers six offers: prefers what stood first, and skips one."""
    for n in range(6):
        store.add_item(f"i{n}", f"p{n}", [f"a{n}", f"b{n}"])
    store.people.add("ann")
    drawn = store.offers.draw("ann", 6)
    answers = []
    for n, offer in enumerate(drawn):
        first = "ab"[offer.shown[0]]
        value = {"a": 0, "b": 1, "preference": first}
        kind, value = ("skip", {}) if n == 5 else ("comparison", value)
        answers.append(OfferVote(f"key{n}", offer.key, kind, value, 2.0 + n, 1.5))
    assert {one.status for one in store.offers.answer("ann", answers)} == {"kept"}
    return {offer.key: offer for offer in drawn}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    where = tmp_path / "f.sqlite"
    if request.param == "postgresql":
        where = request.getfixturevalue("database")
    with FeedbackStore(where) as opened:
        yield opened


def test_every_row_names_its_offer_and_how_it_was_drawn(store, tmp_path):
    offers = work(store)
    export_feedback(store, tmp_path / "pairs.jsonl")
    rows = read_rows(tmp_path / "pairs.jsonl")
    assert len(rows) == 5
    for row in rows:
        offer = offers[row["offer"]]
        assert (row["policy"], row["propensity"]) == (offer.policy, offer.propensity)
        assert 0 < row["propensity"] <= 1
        assert row["order_shown"] == [0, 1]  # what was chosen stood first
        assert row["rater"] == "ann"
    for form in ("arena", "openai", "label-studio", "argilla", "oasst-trees", "hh", "unpaired"):
        ending = ".jsonl" if form != "oasst-trees" else ".jsonl.gz"
        export_feedback(store, tmp_path / f"{form}{ending}", form=form)
        text = str(list(read_rows(tmp_path / f"{form}{ending}")))
        assert all(row["offer"] in text for row in rows)


def test_the_log_tells_offers_and_comes_back_without_them(store, tmp_path):
    offers = work(store)
    export_feedback(store, tmp_path / "log.jsonl", form="votes")
    rows = read_rows(tmp_path / "log.jsonl")
    assert {row["offer"] for row in rows} == set(offers)
    assert {row["purpose"] for row in rows} == {"work"}
    assert {row["visible_seconds"] for row in rows} == {1.5}
    with FeedbackStore(tmp_path / "other.sqlite") as other:
        taken = import_feedback(other, tmp_path / "log.jsonl")
        assert "left out: 6 offers that were answered (they are not made again)" in taken.notes
        assert other.content_digest() == store.content_digest()
        assert [vote.offer for vote in other.votes()] == [None] * 6
        assert [vote.visible_seconds for vote in other.votes()] == [1.5] * 6


def test_formats_come_back_from_the_other_database(store, tmp_path):
    work(store)
    store.add_comparison("i0", "bob", "tie")
    for form in ("arena", "votes"):
        path = tmp_path / f"{form}.jsonl"
        export_feedback(store, path, form=form)
        with FeedbackStore(tmp_path / f"{form}.sqlite") as other:
            import_feedback(other, path)
            assert [c.preference for c in other.comparisons()] == [
                c.preference for c in store.comparisons()
            ]
            export_feedback(other, tmp_path / "again.jsonl", form=form)
            assert len(read_rows(tmp_path / "again.jsonl")) == len(read_rows(path))
