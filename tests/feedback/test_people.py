"""Who may enter, with what, and how it ends."""

from __future__ import annotations

import sqlite3
import time

import pytest

from plaudit.feedback import people as of
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import assert_answers_are_those_of_the_log, assert_kept_as_rebuilt


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        yield store


def test_an_invitation_is_used_once(store):
    token = store.people.invite("ann")
    assert len(token) >= 43  # 256 bits
    session, ann = store.people.enter(token)
    assert (ann.name, ann.role, ann.lang, ann.paused) == ("ann", "annotator", "en", False)
    assert store.people.who(session) == ann
    assert session != token
    for wrong, message in ((token, "was used already"), ("x", "is not known"), (session, "known")):
        with pytest.raises(UserError, match=message):
            store.people.enter(wrong)
    again, _ = store.people.enter(store.people.invite("ann"))
    assert store.people.who(again).id == ann.id
    assert [person.name for person in store.people.annotators()] == ["ann"]


def test_an_invitation_expires(store, monkeypatch):
    token = store.people.invite("ann", days=2)
    later = time.time() + 2 * 86_400 + 1
    monkeypatch.setattr(of.clock, "time", lambda: later)
    with pytest.raises(UserError, match="has expired; ask for a new link"):
        store.people.enter(token)
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(UserError, match="expected more than 0"):
            store.people.invite("bob", days=days)


def test_a_session_ends_when_left_idle_or_erased_and_a_bearer_only_when_told(store):
    session, _ = store.people.enter(store.people.invite("ann"))
    other, _ = store.people.enter(store.people.invite("ann"))
    bearer = store.people.bearer("ann")
    store.people.leave(session)
    store.people.leave("unknown")
    assert store.people.who(session) is None
    assert store.people.who(other).name == "ann"
    later = time.time() + of.IDLE_SECONDS + 1
    assert store.people.who(other, now=later) is None
    assert store.people.who(bearer, now=later).name == "ann"
    store.people.leave(bearer)
    assert store.people.who(bearer) is None
    assert store.people.who("") is None
    assert store.people.who("\ud800") is None


def test_last_seen_is_written_at_most_once_a_minute(store):
    session, _ = store.people.enter(store.people.invite("ann"))
    began = store.people.last_seen()["ann"]
    store.people.who(session, now=began + of.SEEN_SECONDS - 1)
    assert store.people.last_seen()["ann"] == began
    store.people.who(session, now=began + of.SEEN_SECONDS + 1)
    assert store.people.last_seen()["ann"] == began + of.SEEN_SECONDS + 1


def test_no_token_is_in_the_file(store, tmp_path):
    token = store.people.invite("ann")
    session, _ = store.people.enter(token)
    bearer = store.people.bearer("ann")
    unused = store.people.invite("ann")
    store.close()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ann" in held
    for secret in (token, session, bearer, unused):
        assert secret.encode() not in held


def test_names_roles_and_keys_are_checked(store):
    store.people.add("ann", lang="zh")
    for name, message in (
        ("", "not empty"), (" ann", "no space around"), ("a" * 101, "at most 100"),
        ("a\u202eb", "cannot be seen"), ("a\nb", "cannot be seen"), ("a\0", "no database"),
        ("ann", "already"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            store.people.add(name)
    with pytest.raises(UserError, match="the role is 'boss', expected admin, annotator, viewer"):
        store.people.add("bob", role="boss")
    with pytest.raises(UserError, match=r"nobody called .anm."):
        store.people.pause("anm", True)
    with pytest.raises(UserError, match="there already with the role annotator"):
        store.people.invite("ann", role="admin")
    changed = store.people.set("ann", lang="en", keys={"tie": "0"}, letters=False)
    assert (changed.lang, changed.keys, changed.letters) == ("en", {"tie": "0"}, False)
    assert store.people.set("ann", keys={}).letters is False
    for keys in ({"tie": 3}, {"tie": "x" * 41}, {str(n): "x" for n in range(65)}):
        with pytest.raises(UserError, match="keys must map"):
            store.people.set("ann", keys=keys)
    store.people.add("admin", role="admin")
    store.people.invite("admin")  # as what they are
    assert store.people.named("admin").role == "admin"


def fill(store):
    for n in range(4):
        store.add_item(f"i{n}", "p", ["a", "b"])
    store.people.add("Ann Example")
    (first, *_) = store.offers.draw("Ann Example", 3)
    said = {"a": 0, "b": 1, "preference": "a"}
    store.offers.answer("Ann Example", [OfferVote("v", first.key, "comparison", said, 2.0)])


def test_a_paused_person_holds_nothing_and_gets_nothing(store):
    fill(store)
    assert len(store.offers.mine("Ann Example")) == 2
    assert store.people.pause("Ann Example", True).paused
    assert store.offers.mine("Ann Example") == []
    assert store.offers.draw("Ann Example", 3) == []
    assert not store.offers.waiting("Ann Example")
    store.people.pause("Ann Example", False)
    assert len(store.offers.draw("Ann Example", 3)) == 3


def test_erasing_replaces_the_name_everywhere_and_keeps_the_votes(store, tmp_path):
    fill(store)
    session, _ = store.people.enter(store.people.invite("Ann Example"))
    unused = store.people.invite("Ann Example")
    erased = store.people.erase("Ann Example")
    assert erased.paused
    assert store.people.who(session) is None
    with pytest.raises(UserError, match="used already"):
        store.people.enter(unused)
    (vote,) = store.votes()
    assert (vote.rater, vote.key) == (erased.name, "v")
    assert_answers_are_those_of_the_log(store, (erased.name,))
    assert_kept_as_rebuilt(store, now=0.0)
    store.close()
    raw = sqlite3.connect(tmp_path / "f.sqlite")
    assert "Ann Example" not in "\n".join(raw.iterdump())
    raw.close()


def test_two_who_use_one_invitation_at_once_are_one(store):
    from concurrent.futures import ThreadPoolExecutor

    token = store.people.invite("ann")

    def enter(_):
        try:
            return store.people.enter(token)[0]
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        sessions = [session for session in pool.map(enter, range(8)) if session]
    assert len(sessions) == 1
