"""The store on real SQLite files: idempotence, undo, other processes, kill -9, wrong files."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.feedback.database import database_url, open_engine, use_write_ahead_log
from plaudit.feedback.entries import (
    Item,
    NewVote,
    Segment,
    comparison_vote,
    edit_vote,
    ranking_vote,
    score_vote,
    words_vote,
)
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import (
    assert_answers_are_those_of_the_log,
    assert_kept_as_rebuilt,
    two_raters_at_once,
)


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        yield opened


def fill(store, num, *, start=0):
    """A job's feedback stage: the same entries whenever it runs."""
    store.add_items(
        Item(f"i{n}", f"prompt {n}", (Segment(f"a{n}", model="m"), Segment(f"b{n}")), {"n": n})
        for n in range(start, start + num)
    )
    store.add_votes(
        comparison_vote(
            f"i{n}", f"r{r}", ("a", "b", "tie")[(n + r) % 3], key=f"i{n}/r{r}", order_shown="ba"
        )
        for n in range(start, start + num)
        for r in range(2)
    )


def test_what_is_added_is_read_back(store):
    talk = [{"role": "user", "content": "hello \U0001f642"}]
    store.add_item(
        "k", talk, ["first", Segment("second", model="smol", extra={"t": 0.7})], {"x": 1}
    )
    store.add_comparison(
        "k", "ann", "b", strength=2, margin=0.5, order_shown="ba", seconds=3.5, time=100.0
    )
    began = time.time()
    store.add_score("k", "bob", 0.25, segment=1)
    [said] = store.comparisons()
    assert (said.prompt, said.a, said.b, said.preference) == (talk, "first", "second", "b")
    assert (said.chosen, said.rejected) == ("second", "first")
    assert (said.strength, said.margin, said.rater, said.seconds) == (2, 0.5, "ann", 3.5)
    assert (said.order_shown, said.time, said.model_b, said.columns) == (
        "ba",
        100.0,
        "smol",
        {"x": 1},
    )
    [score] = store.scores()
    assert (score.answer, score.score, score.model) == ("second", 0.25, "smol")
    assert began <= score.time <= time.time()
    assert store.votes(kind="comparison")[0].shown == (1, 0)


def test_a_comparison_of_later_segments_keeps_sides(store):
    store.add_item("k", "p", ["zero", "one", "two"])
    store.add_comparison("k", "ann", "a", positions=(2, 1), order_shown="ab")
    [said] = store.comparisons()
    assert (said.a, said.b, said.chosen, said.order_shown) == ("two", "one", "two", "ab")
    assert store.votes()[0].shown == (2, 1)


def test_odd_texts_come_back_as_they_were(store):
    odd = ["\x00 nul", "\ud83d half a pair", "\u2028 line", "", "é" * 10_000]
    store.add_item("odd", "p", odd)
    assert [s.text for s in store.items()[0].segments] == odd
    assert store.add_item("odd", "p", odd) == 1


def test_adding_again_changes_nothing_and_other_content_is_refused(store):
    fill(store, 20)
    digest = store.content_digest()
    fill(store, 20)
    assert store.content_digest() == digest
    assert store.size() == (20, 40)
    with pytest.raises(UserError, match="item 'i3' is already there with other content"):
        store.add_item("i3", "another prompt", ["a3", "b3"])
    with pytest.raises(UserError, match="vote 'i3/r0' is already there with other content"):
        store.add_comparison("i3", "r0", "both_bad", key="i3/r0")
    assert store.content_digest() == digest


def test_the_same_key_twice_in_one_call(store):
    one = Item("k", "p", (Segment("a"), Segment("b")))
    assert store.add_items([one, one]) == [1, 1]
    vote = comparison_vote("k", "r", "a", key="v")
    assert store.add_votes([vote, vote]) == [1, 1]
    with pytest.raises(UserError, match="other content"):
        store.add_votes([comparison_vote("k", "r", x, key="w") for x in ("a", "b")])
    assert store.size() == (1, 1)


def test_an_error_inside_a_batch_leaves_nothing_of_it(store):
    fill(store, 3)
    digest = store.content_digest()

    def failing_stage():
        with store.batch():
            fill(store, 5, start=10)
            store.add_comparison("nobody", "r", "a")

    with pytest.raises(UserError, match="no item 'nobody'"):
        failing_stage()
    assert store.content_digest() == digest
    fill(store, 5, start=10)
    assert store.votes()[-1].id == store.size()[1]  # no gap where the lost batch was


def test_ten_thousand_votes_in_one_batch_take_seconds(store):
    began = time.process_time()
    with store.batch():
        fill(store, 5_000)
    assert time.process_time() - began < 20
    assert len(store.comparisons()) == 10_000


def test_open_items_are_those_without_an_active_vote(store):
    fill(store, 3)
    assert [item.key for item in store.open_items("new")] == ["i0", "i1", "i2"]
    store.add_comparison("i1", "new", "a")
    assert [item.key for item in store.open_items("new")] == ["i0", "i2"]
    undone = store.undo(rater="new")
    assert len(store.open_items("new")) == 3
    store.undo(undone)
    assert [item.key for item in store.open_items("new")] == ["i0", "i2"]


def test_undo_goes_back_through_a_raters_votes(store):
    store.add_item("k", "p", ["a", "b"])
    for preference in ("a", "b", "tie"):
        store.add_comparison("k", "ann", preference)
    store.add_comparison("k", "bob", "both_bad")
    store.undo(rater="ann")
    store.undo(rater="ann")
    assert [(c.rater, c.preference) for c in store.comparisons()] == [
        ("ann", "a"),
        ("bob", "both_bad"),
    ]
    store.undo(rater="ann")
    with pytest.raises(UserError, match="'ann' has no vote to undo"):
        store.undo(rater="ann")
    with pytest.raises(UserError, match="did you mean 'ann'"):
        store.undo(rater="anne")
    with pytest.raises(UserError, match="vote 1 is already undone"):
        store.undo(1)
    with pytest.raises(UserError, match="there is no vote 99"):
        store.undo(99)
    assert len(store.votes(active=False)) == 7  # nothing is ever taken out of the log


def test_undo_with_a_key_is_done_once(store):
    fill(store, 1)
    first = store.undo(1, key="u")
    assert store.undo(1, key="u") == first
    with pytest.raises(UserError, match="other content"):
        store.undo(2, key="u")
    assert len(store.comparisons()) == 1


actions = st.lists(
    st.one_of(
        st.tuples(st.just("vote"), st.sampled_from(["ann", "bob"]), st.integers(0, 4)),
        st.tuples(st.just("undo"), st.sampled_from(["ann", "bob"]), st.integers(0, 30)),
    ),
    max_size=12,
)


def act(store, action):
    """Does one action; gives the id of its entry, or None where it was refused."""
    what, rater, n = action
    if what == "undo":
        active = [v for v in store.votes(active=False) if v.active]
        return store.undo(active[n % len(active)].id, rater=rater) if active else None
    votes = [
        comparison_vote("k", rater, "a"),
        score_vote("k", rater, 0.5, segment=1),
        ranking_vote("k", rater, [[1], [0]]),
        edit_vote("k", rater, "better"),
        words_vote("k", rater, "odd"),
    ]
    return store.add_votes([votes[n]])[0]


def state(store):
    return (
        [(v.id, v.kind, v.rater, v.value) for v in store.votes()],
        store.comparisons(),
        store.scores(),
        store.open_items("ann"),
        store.open_items("bob"),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions, actions.filter(bool))
def test_undo_after_any_action_restores_the_state(tmp_path_factory, history, more):
    with FeedbackStore(tmp_path_factory.mktemp("undo") / "f.sqlite") as store:
        store.add_item("k", "p", ["a", "b"])
        for action in history:
            act(store, action)
        before = state(store)
        entry = act(store, more[0])
        if entry is None:
            return
        after = state(store)
        undone = store.undo(entry)
        assert state(store) == before
        store.undo(undone)
        assert state(store) == after


ADDER = textwrap.dedent(
    """
    import sys
    from plaudit.feedback.store import FeedbackStore
    store = FeedbackStore(sys.argv[1])
    for n in range(60):
        with store.batch():
            store.add_item(f"shared{n}", f"p{n}", ["a", "b"])
            store.add_comparison(f"shared{n}", sys.argv[2], "a", key=f"{sys.argv[2]}/{n}")
    """
)


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path):
    """SQLite refuses a change of journal at once while another makes it; nobody may see that."""
    for trial in range(30):
        engines = [open_engine(database_url(tmp_path / f"{trial}.sqlite")) for _ in range(4)]
        together = threading.Barrier(len(engines))

        def begin(engine, together=together):
            together.wait()
            use_write_ahead_log(engine)

        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(begin, engines))
        for engine in engines:
            engine.dispose()


def test_two_processes_append_to_one_store(tmp_path):
    """Both create the file, both add the same items: each item once, every vote kept."""
    path = str(tmp_path / "shared.sqlite")
    both = [subprocess.Popen([sys.executable, "-c", ADDER, path, name]) for name in ("x", "y")]
    assert [process.wait() for process in both] == [0, 0]
    with FeedbackStore(path, create=False) as store:
        assert store.size() == (60, 120)
        for rater in ("x", "y"):
            keys = [v.key for v in store.votes(rater=rater)]
            assert keys == [f"{rater}/{n}" for n in range(60)]


def test_raters_in_processes_of_their_own_lose_and_double_nothing(tmp_path):
    """Each answers what is open, takes back every third answer and half of those takings-back."""
    path = tmp_path / "f.sqlite"
    two_raters_at_once(path)
    with FeedbackStore(path) as store:
        assert_kept_as_rebuilt(store)
        assert_answers_are_those_of_the_log(store, ("x", "y", "z"))


def test_threads_take_turns(store):
    def work(name):
        for n in range(20):
            store.add_item(f"{name}{n}", "p", ["a", "b"])
            store.add_comparison(f"{name}{n}", name, "a")

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.size() == (60, 60)
    assert [v.id for v in store.votes()] == list(range(1, 61))


FEEDBACK_STAGE = textwrap.dedent(
    """
    import sys
    from plaudit.feedback.entries import Item, Segment, comparison_vote
    from plaudit.feedback.store import FeedbackStore
    store = FeedbackStore(sys.argv[1])
    for chunk in range(6):
        with store.batch():
            for n in range(chunk * 30, chunk * 30 + 30):
                store.add_items([Item(f"i{n}", f"p{n}", (Segment("a"), Segment("b")))])
                store.add_votes([comparison_vote(f"i{n}", "r", "a", key=f"i{n}/r")])
                if n == int(sys.argv[2]):
                    print("now", flush=True)
                    sys.stdin.read()  # killed here, inside an open batch
    """
)


@pytest.mark.parametrize("dies_at", [0, 75, 179])
def test_kill_inside_a_batch_then_run_again_ends_in_the_identical_store(tmp_path, dies_at):
    def run(name, stop):
        command = [sys.executable, "-c", FEEDBACK_STAGE, str(tmp_path / name), str(stop)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with run("killed.sqlite", dies_at) as process:
        assert process.stdout.readline() == b"now\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with FeedbackStore(tmp_path / "killed.sqlite") as store:
        whole = dies_at // 30 * 30
        assert store.size() == (whole, whole)  # finished batches, and nothing of the open one
    for name in ("killed.sqlite", "quiet.sqlite"):
        with run(name, -1) as process:
            process.stdin.close()
        assert process.returncode == 0
    with (
        FeedbackStore(tmp_path / "killed.sqlite") as killed,
        FeedbackStore(tmp_path / "quiet.sqlite") as quiet,
    ):
        assert killed.content_digest() == quiet.content_digest()


def test_the_file_is_durable_at_commit_and_one_connection_writes_it(store):
    def told(connection, name):
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    for engine, only_reads in ((store._write_engine, 0), (store._engine, 1)):
        with engine.connect() as connection:
            assert told(connection, "journal_mode") == "wal"
            assert told(connection, "synchronous") == 2  # FULL
            assert told(connection, "foreign_keys") == 1
            assert told(connection, "query_only") == only_reads
            assert (told(connection, "wal_autocheckpoint") == 0) == only_reads
    assert store._write_engine.pool.size() == 1
    assert store._write_engine.pool._max_overflow == 0


def test_wrong_places_and_files(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, only words " * 50)
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.commit()
    foreign.close()
    before = (tmp_path / "foreign.sqlite").read_bytes()
    cases = {
        "notes.txt": "not an SQLite database",
        "foreign.sqlite": "database of something else .tables recipes",
        "no/such/folder.sqlite": "folder .* does not exist",
        ".": "is a folder",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            FeedbackStore(tmp_path / name)
    assert (tmp_path / "foreign.sqlite").read_bytes() == before
    with pytest.raises(UserError, match=r"did you mean 'foreign\.sqlite'"):
        FeedbackStore(tmp_path / "foreing.sqlite", create=False)
    assert not (tmp_path / "foreing.sqlite").exists()
    with pytest.raises(UserError, match="cannot live in 'mysql'"):
        FeedbackStore("mysql://somewhere/feedback")
    with pytest.raises(UserError, match="URL cannot be read"):
        FeedbackStore("postgresql://host:port/name")


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "new.sqlite"
    FeedbackStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE plaudit_feedback SET value = '7' WHERE name = 'schema_version'")
    raw.close()
    with pytest.raises(UserError, match="has feedback schema 7, this Plaudit reads 2"):
        FeedbackStore(path)


def test_a_read_only_store_can_be_read_but_not_written(tmp_path):
    path = tmp_path / "f.sqlite"
    with FeedbackStore(path) as store:
        fill(store, 2)
    with FeedbackStore(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
        assert len(store.comparisons()) == 4
        with pytest.raises(UserError, match="cannot be written: it is read-only"):
            store.undo(1)


def test_a_full_disk_is_one_sentence_and_the_store_stays_whole(store):
    """SQLite's own limit on pages gives the very error that a full disk gives."""
    fill(store, 2)
    digest = store.content_digest()
    with store._write_engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(UserError, match="disk is full; nothing of this batch was kept"):
        fill(store, 3_000)
    assert store.content_digest() == digest


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "f.sqlite"
    with FeedbackStore(path) as store:
        fill(store, 500)
    data = bytearray(path.read_bytes())
    data[4096 * 4 : 4096 * 12] = os.urandom(4096 * 8)
    path.write_bytes(data)
    with (
        pytest.raises(UserError, match=r"f\.sqlite: the database is damaged"),
        FeedbackStore(path) as store,
    ):
        store.comparisons()


@pytest.mark.parametrize(
    ("vote", "message"),
    [
        (lambda: comparison_vote("k", "r", "best"), "expected one of a, b, tie, both_bad"),
        (lambda: comparison_vote("k", "r", "tied"), "did you mean 'tie'"),
        (lambda: comparison_vote("k", "r", "tie", strength=1), "makes no sense with 'tie'"),
        (lambda: comparison_vote("k", "r", "a", strength=0), "expected more than 0"),
        (lambda: comparison_vote("k", "r", "a", margin=float("nan")), "margin is nan"),
        (lambda: comparison_vote("k", "r", "a", order_shown="aa"), "expected 'ab' or 'ba'"),
        (lambda: comparison_vote("k", "r", "a", positions=(1, 1)), "compared with itself"),
        (lambda: comparison_vote("k", "r", "a", positions=(0, 2)), "no segment 2; the item has 2"),
        (lambda: comparison_vote("k", " ", "a"), "rater's name is ' '"),
        (lambda: comparison_vote("k", "r", "a", seconds=-1), "expected 0 or more"),
        (lambda: comparison_vote("k", "r", "a", key="\0"), "no database can keep"),
        (lambda: score_vote("k", "r", float("inf")), "score of item 'k' is inf"),
        (lambda: score_vote("k", "r", True), "expected a finite number"),
        (lambda: score_vote("k", "r", 1, segment=-1), "no segment -1"),
        (lambda: ranking_vote("k", "r", [[0, 1], [1]]), "each once"),
        (lambda: ranking_vote("k", "r", [[0], [5]]), "no segment 5"),
        (lambda: edit_vote("k", "r", " "), "the text is empty"),
        (lambda: words_vote("k", "r", ""), "the text is empty"),
        (lambda: NewVote(None, "k", "r", "comparsion", {}), "did you mean 'comparison'"),
        (lambda: NewVote(None, "k", "r", "undo", {}, undoes="none"), "no vote 'none' to undo"),
        (lambda: NewVote(None, "k", "r", "words", {"text": "x"}), "expected segment, text"),
        (lambda: NewVote(None, "k", "r", "edit", {"segment": 0, "text": 5}), "the text is 5"),
    ],
)
def test_a_wrong_vote_is_refused_in_one_sentence(store, vote, message):
    store.add_item("k", "p", ["a", "b"])
    with pytest.raises(UserError, match=message):
        store.add_votes([vote()])
    assert store.size() == (1, 0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("", "p", ["a"]), "an item's key is ''"),
        (("k", "  ", ["a"]), "the prompt is empty"),
        (("k", "p", []), "no segments to judge"),
        (("k", "p", "text"), "segments is one text"),
        (("k", [{"role": "user"}], ["a"]), "expected a message with role and content"),
        (("k", "p", [5]), "segment 0 is 5, expected a text"),
        (("k", "p", ["a"], {"x": float("nan")}), "cannot be kept as JSON"),
    ],
)
def test_a_wrong_item_is_refused_in_one_sentence(store, item, message):
    with pytest.raises(UserError, match=message):
        store.add_item(*item)
    assert store.size() == (0, 0)
