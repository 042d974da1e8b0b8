"""What cannot be asked of a store is refused in a sentence, on every kind of question."""

from __future__ import annotations

import pytest

from plaudit.feedback.stats import rater_stats
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as made:
        made.add_item("a", "hi", ["one", "two"])
        made.add_comparison("a", "ann", "a")
        yield made


@pytest.mark.parametrize("page", [{"limit": -1}, {"limit": 1.5}, {"limit": True}, {"limit": 2**40}])
def test_pages_are_asked_for_by_whole_numbers(store, page) -> None:
    for ask in (store.items, store.votes, store.comparisons, store.scores):
        with pytest.raises(UserError, match=r"limit is .*, expected a whole number from 0"):
            ask(**page)
        with pytest.raises(UserError, match="after is"):
            ask(after=2**70)
    with pytest.raises(UserError, match="limit is"):
        store.open_items("ann", **page)
    assert store.open_items("bob", limit=0) == []


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_a_name_that_nobody_can_have_is_refused(store, name) -> None:
    asked = (
        lambda: store.votes(rater=name),
        lambda: store.comparisons(rater=name),
        lambda: store.open_items(name),
        lambda: store.undo(rater=name),
        lambda: rater_stats(store, name),
    )
    for ask in asked:
        with pytest.raises(UserError, match="a rater's name is"):
            ask()


def test_a_vote_that_no_log_could_hold_is_not_there(store) -> None:
    for vote in (0, -1, 2, 2**70):
        with pytest.raises(UserError, match=f"there is no vote {vote}; the log ends at 1"):
            store.undo(vote)


def test_nothing_is_added_inside_a_reading(store) -> None:
    with store.reading(), pytest.raises(UserError, match="nothing can be added while"):
        store.add_item("b", "ho", ["one", "two"])
    store.add_item("b", "ho", ["one", "two"])
    assert store.size() == (2, 1)


def test_a_score_beyond_all_floats_is_refused(store) -> None:
    with pytest.raises(UserError, match="expected a finite number"):
        store.add_score("a", "ann", 10**400)
