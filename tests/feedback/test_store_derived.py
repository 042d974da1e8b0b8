"""What the store keeps beside its log is what the log says: by generated actions, and by age."""

from __future__ import annotations

import itertools
import json
import sqlite3
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracles import feedback_log as slow
from plaudit.feedback import derived
from plaudit.feedback.entries import (
    NewVote,
    comparison_vote,
    edit_vote,
    ranking_vote,
    score_vote,
    words_vote,
)
from plaudit.feedback.stats import feedback_stats, rater_stats
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import LOG_1, assert_answers_are_those_of_the_log, assert_kept_as_rebuilt, steps

RATERS = ("ann", "bob", "Ann", "eve")
SEGMENTS = 3

number = st.integers(0, 40)
seconds = st.sampled_from([None, 0.0, 0.1, 1 / 3, 7.0, 1e300])
rater = st.sampled_from(RATERS[:3])


@st.composite
def said(draw):
    """A vote on the item `number` of those that are there."""
    who, item, took = draw(rater), draw(number), draw(seconds)
    kind = draw(st.sampled_from(["comparison", "comparison", "score", "ranking", "edit", "words"]))
    details = {"seconds": took}
    if kind == "comparison":
        a, b = draw(st.permutations(range(SEGMENTS)))[:2]
        answer = draw(st.sampled_from(["a", "b", "tie", "both_bad"]))
        details |= {"positions": (a, b), "order_shown": draw(st.sampled_from([None, "ab", "ba"]))}
        return item, lambda key: comparison_vote(key, who, answer, **details)
    if kind == "score":
        score, segment = draw(st.sampled_from([0, 1, 0.5, -2.25, 0.1])), draw(st.integers(0, 2))
        return item, lambda key: score_vote(key, who, score, segment=segment, **details)
    if kind == "ranking":
        return item, lambda key: ranking_vote(key, who, [[1], [0, 2]], **details)
    if kind == "edit":
        return item, lambda key: edit_vote(key, who, "better", **details)
    return item, lambda key: words_vote(key, who, "odd", **details)


action = st.one_of(
    st.tuples(st.just("items"), st.integers(1, 4)),
    st.tuples(st.just("votes"), st.lists(said(), min_size=1, max_size=6)),
    st.tuples(st.just("undo last"), rater),
    st.tuples(st.just("undo"), number, rater),
    st.tuples(st.just("undo all"), st.lists(number, min_size=1, max_size=4), rater),
    st.tuples(st.just("fail"), st.lists(said(), min_size=1, max_size=3)),
)


def act(store, what, *words):
    """One action; what the store refuses leaves it as it was."""
    num_items, num_votes = store.size()
    if what == "items":
        with store.batch():
            for n in range(num_items, num_items + words[0]):
                store.add_item(f"i{n}", f"p{n}", [f"a{n}", "b", "c"])
    elif what == "votes":
        store.add_votes([make(f"i{item % num_items}") for item, make in words[0]])
    elif what == "undo last":
        expected = slow.last_vote(slow.read(store), words[0])
        if expected is None:
            with pytest.raises(UserError, match="has no vote to undo"):
                store.undo(rater=words[0])
            return
        store.undo(rater=words[0])
        assert slow.read(store).votes[-1].undoes == expected
    elif what == "undo" and num_votes:
        target = words[0] % num_votes + 1
        if slow.read(store).votes[target - 1].active:
            store.undo(target, rater=words[1])
        else:
            with pytest.raises(UserError, match="is already undone"):
                store.undo(target, rater=words[1])
    elif what == "undo all" and num_votes:  # as an import does: of the undone too, and twice
        log = slow.read(store).votes
        targets = [log[n % num_votes] for n in words[0]]
        store.add_votes(
            NewVote(None, t.item_key, words[1], "undo", {}, undoes=t.key) for t in targets
        )
    elif what == "fail":
        act(store, "votes", words[0])  # stays
        before = store.content_digest()
        with pytest.raises(UserError, match="no item 'nobody'"):
            fail(store, words[0])
        assert store.content_digest() == before


def fail(store, votes):
    with store.batch():
        act(store, "votes", votes)
        act(store, "items", 1)
        store.add_comparison("nobody", "ann", "a")


SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


@settings(max_examples=25, **SLOW)
@given(st.lists(action, max_size=14))
def test_every_answer_is_that_of_the_whole_log_read_slowly(actions):
    with FeedbackStore(":memory:") as store:
        act(store, "items", 2)
        for one in actions:
            act(store, *one)
        assert_answers_are_those_of_the_log(store, RATERS)
        assert_kept_as_rebuilt(store)


@settings(max_examples=8, **SLOW)
@given(st.lists(action, max_size=6), st.lists(action, max_size=4))
def test_in_an_open_batch_answers_are_those_of_what_it_added(before, inside):
    """The batch is read through its own connection; what it says is what it then commits."""
    with FeedbackStore(":memory:") as store:
        act(store, "items", 2)
        for one in before:
            act(store, *one)
        with store.batch():
            for what, *words in inside:
                if what in ("items", "votes"):
                    act(store, what, *words)
            asked = [store.open_items(r, limit=3) for r in RATERS]
            told = [store.votes(), store.comparisons(), store.scores()]
            figures = feedback_stats(store), [rater_stats(store, r) for r in RATERS]
        assert asked == [store.open_items(r, limit=3) for r in RATERS]
        assert told == [store.votes(), store.comparisons(), store.scores()]
        assert figures == (feedback_stats(store), [rater_stats(store, r) for r in RATERS])
        assert_answers_are_those_of_the_log(store, RATERS)


@settings(max_examples=20, **SLOW)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40))
def test_runs_never_touch_and_cover_what_is_answered(choices):
    with FeedbackStore(":memory:") as store:
        act(store, "items", 10)
        stands = {}
        for vote, item in choices:
            if vote and item not in stands:
                stands[item] = store.add_comparison(f"i{item}", "ann", "a")
            elif not vote and item in stands:
                store.undo(stands.pop(item))
        with store.reading() as connection:
            rows = connection.exec_driver_sql(
                'SELECT "first", "last" FROM answered_runs ORDER BY "first"'
            ).all()
    assert {n for first, last in rows for n in range(first - 1, last)} == set(stands)
    for (_, last), (first, _) in itertools.pairwise(rows):
        assert first > last + 1


# --- stores of an earlier Plaudit --------------------------------------------------------------

OLD_SCHEMA = LOG_1 + "INSERT INTO plaudit_feedback VALUES ('schema_version', '1');"
_ITEM = "INSERT INTO items VALUES (?, ?, '\"p\"', '{\"n\": 1}')"
_SEGMENT = "INSERT INTO segments VALUES (?, ?, ?, 'text', '\"answer\"', 'm', '{}')"
_VOTE_COLUMNS = 'id, "key", item_id, rater, kind, value, shown, seconds, time, undoes'
_VOTE = f"INSERT INTO votes ({_VOTE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 5.0, ?)"


def old_rows(connection, num, *, start=0):
    """What the Plaudit before wrote: items with two votes, the second of every third undone,
    and every ninth of those undos undone again."""
    vote = connection.execute("SELECT coalesce(max(id), 0) FROM votes").fetchone()[0]
    for n in range(start, start + num):
        connection.execute(_ITEM, (n + 1, f"i{n}"))
        for k in range(2):
            connection.execute(_SEGMENT, (2 * n + k + 1, n + 1, k))
        value = json.dumps({"a": 0, "b": 1, "preference": ("a", "b", "tie")[n % 3]})
        rows = [
            ("ann", "comparison", value, "[1, 0]", 1.5 + n, None),
            ("bob", "score", '{"segment": 1, "score": 0.25}', "[1]", None, None),
        ]
        if n % 3 == 0:
            rows.append(("bob", "undo", "{}", "null", None, vote + 2))
        if n % 9 == 0:
            rows.append(("ann", "undo", "{}", "null", None, vote + 3))
        for who, kind, said_, shown, took, undoes in rows:
            vote += 1
            row = (vote, f"v{vote}", n + 1, who, kind, said_, shown, took, undoes)
            connection.execute(_VOTE, row)


def old_file(path: Path, num: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD_SCHEMA)
        connection.execute("PRAGMA journal_mode=WAL")
        old_rows(connection, num)
    connection.close()


def test_a_file_of_the_old_schema_opens_and_answers(tmp_path):
    path = tmp_path / "old.sqlite"
    old_file(path, 30)
    before = dump(path)
    with FeedbackStore(path, create=False) as store:
        assert store.size() == (30, 74)
        assert_answers_are_those_of_the_log(store, RATERS)
        assert_kept_as_rebuilt(store)
        assert [item.key for item in store.open_items("bob", limit=2)] == ["i3", "i6"]
        assert dump(path) == before  # the log itself is untouched
        store.undo(rater="bob")
        store.add_score("i3", "bob", 1)
        assert_answers_are_those_of_the_log(store, RATERS)
        assert_kept_as_rebuilt(store)


def test_an_old_file_that_may_not_be_written_is_one_sentence(tmp_path):
    path = tmp_path / "old.sqlite"
    old_file(path, 3)
    with pytest.raises(UserError, match="is read-only, and this Plaudit must write to a store"):
        FeedbackStore(f"sqlite:///file:{path}?mode=ro&uri=true")


def dump(path):
    with sqlite3.connect(path) as connection:
        found = [
            connection.execute(f"SELECT {columns} FROM {table} ORDER BY id").fetchall()
            for table, columns in (("items", "*"), ("segments", "*"), ("votes", _VOTE_COLUMNS))
        ]
    connection.close()
    return found


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_what_another_plaudit_appends_later_is_caught_up_with(tmp_path, monkeypatch, chunk):
    """At opening, at the next question and at the next entry, in chunks of any size."""
    monkeypatch.setattr("plaudit.feedback.log.CATCH_UP", chunk)
    path = tmp_path / "old.sqlite"
    old_file(path, 4)
    with FeedbackStore(path) as store:
        for start, then in ((4, "read"), (9, "write")):
            with sqlite3.connect(path) as raw:
                old_rows(raw, 5, start=start)
            raw.close()
            if then == "write":
                store.add_comparison("i9", "eve", "a")
            assert_answers_are_those_of_the_log(store, RATERS)
            assert_kept_as_rebuilt(store)


def test_a_derived_table_that_was_dropped_is_made_anew(tmp_path):
    path = tmp_path / "old.sqlite"
    old_file(path, 12)
    FeedbackStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE tallies")
    raw.close()
    with FeedbackStore(path) as store:
        assert_answers_are_those_of_the_log(store, RATERS)
        assert_kept_as_rebuilt(store)


# --- cost --------------------------------------------------------------------------------------


def grown(folder, num):
    """A store in which ann answered every item but the last, bob none, and half was undone."""
    store = FeedbackStore(folder / f"{num}-{uuid.uuid4().hex}.sqlite")
    with store.batch():
        act(store, "items", num)
        for k in range(2):
            store.add_votes(
                comparison_vote(f"i{n}", "ann", "a", key=f"{n}/{k}", seconds=n, order_shown="ab")
                for n in range(num - 1)
            )
        store.add_votes(
            NewVote(None, f"i{n}", "eve", "undo", {}, undoes=f"{n}/1") for n in range(num - 1)
        )
        store.add_votes(score_vote(f"i{num - 1}", "ann", 0.5, segment=k) for k in range(3))
        store.undo(rater="ann"), store.undo(rater="ann"), store.undo(rater="ann")
    return store


def nothing_to_undo(store):
    with pytest.raises(UserError, match="has no vote to undo"):
        store.undo(rater="nobody")


QUESTIONS = {
    "open items of one who has nearly all": lambda s: s.open_items("ann", limit=5),
    "open items of one who has none": lambda s: s.open_items("bob", limit=5),
    "stats of one rater": lambda s: rater_stats(s, "ann"),
    "entries since": lambda s: s.votes(active=False, after=s.size()[1] - 5, limit=3),
    "votes since": lambda s: s.votes(after=s.size()[0] - 10, limit=3),
    "votes of a rater since": lambda s: s.votes(rater="ann", after=9, limit=3),
    "comparisons since": lambda s: s.comparisons(after=7, limit=3),
    "comparisons of a rater": lambda s: s.comparisons(rater="ann", limit=3),
    "scores of nobody": lambda s: s.scores(),
    "items since": lambda s: s.items(after=3, limit=3),
    "by key": lambda s: s.votes_by_key(["3/0", "none"]),
    "add a vote": lambda s: s.add_comparison("i3", "bob", "a"),
    "undo": lambda s: s.undo(rater="ann"),
    "undo by number": lambda s: s.undo(5),
    "nothing to undo": lambda s: nothing_to_undo(s),
}


def test_no_answer_costs_more_in_a_longer_log(tmp_path):
    """Counted in instructions of SQLite's machine, of which a scan of the log takes thousands."""
    short, long = grown(tmp_path, 40), grown(tmp_path, 400)
    with short, long:
        for name, question in QUESTIONS.items():
            few, many = steps(short, question), steps(long, question)
            assert many <= few + 25, f"{name}: {few} and {many} tens of instructions"


def test_the_derived_tables_change_with_the_entry_or_not_at_all(tmp_path, monkeypatch):
    with FeedbackStore(tmp_path / "f.sqlite") as store:
        act(store, "items", 3)
        store.add_comparison("i0", "ann", "a")

        def dies(*_):
            raise RuntimeError("in the middle")

        monkeypatch.setattr(derived, "add_answered", dies)
        with pytest.raises(RuntimeError):
            store.add_comparison("i1", "ann", "a")
        monkeypatch.undo()
        assert store.size() == (3, 1)
        assert_answers_are_those_of_the_log(store, RATERS)
        assert_kept_as_rebuilt(store)
