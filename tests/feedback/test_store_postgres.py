"""The same store on PostgreSQL: a server named in PLAUDIT_TEST_POSTGRES, or one started here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plaudit.feedback.entries import Item, Segment, comparison_vote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from postgres_server import free_port
from store_state import (
    assert_answers_are_those_of_the_log,
    assert_kept_as_rebuilt,
    two_raters_at_once,
)


def fill(store, num):
    with store.batch():
        store.add_items(
            Item(f"i{n}", "p", (Segment("\x00 é \ud83d"), Segment("b")), {"x": [n, None, 0.1]})
            for n in range(num)
        )
        store.add_votes(
            comparison_vote(f"i{n}", "r", "a", key=f"v{n}", order_shown="ba") for n in range(num)
        )


def test_the_log_is_the_one_that_sqlite_holds(database, tmp_path):
    """Ids, order and content alike, also after a batch that failed and one that was repeated."""

    def failing_stage(store):
        with store.batch():
            fill(store, 10)
            store.add_comparison("nobody", "r", "a")

    digests = []
    for where in (database, tmp_path / "f.sqlite"):
        with FeedbackStore(where) as store:
            with pytest.raises(UserError, match="no item 'nobody'"):
                failing_stage(store)
            assert store.size() == (0, 0)
            fill(store, 1_200)
            fill(store, 1_200)
            store.undo(7, key="u")
            store.undo(1201, key="uu")
            store.undo(3, key="u3")
            assert len(store.comparisons()) == 1_199
            assert len(store.open_items("r")) == 1
            digests.append(store.content_digest())
    assert digests[0] == digests[1]


def test_two_processes_create_and_fill_one_database(database):
    code = (
        "import sys\nfrom plaudit.feedback.store import FeedbackStore\n"
        "store = FeedbackStore(sys.argv[1])\n"
        "for n in range(40):\n"
        "    with store.batch():\n"
        "        store.add_item(f'k{n}', 'p', ['a', 'b'])\n"
        "        store.add_comparison(f'k{n}', sys.argv[2], 'a', key=f'{sys.argv[2]}/{n}')\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, database, name]) for name in "xy"]
    assert [process.wait() for process in both] == [0, 0]
    with FeedbackStore(database) as store:
        assert store.size() == (40, 80)
        assert [v.id for v in store.votes()] == list(range(1, 81))


def test_raters_in_processes_of_their_own_lose_and_double_nothing(database):
    two_raters_at_once(database)
    with FeedbackStore(database) as store:
        assert_kept_as_rebuilt(store)
        assert_answers_are_those_of_the_log(store, ("x", "y", "z"))


def test_a_database_of_a_plaudit_without_derived_tables_gets_them(database):
    import psycopg

    with FeedbackStore(database) as store:
        fill(store, 30)
        store.undo(7)
        store.undo(31)
        store.undo(9)
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("standing_votes", "standing_undos", "tallies", "raters", "answered_runs"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DELETE FROM plaudit_feedback WHERE name = 'derived_through'")
    with FeedbackStore(database) as store:
        assert_answers_are_those_of_the_log(store, ("r", "nobody"))
        assert_kept_as_rebuilt(store)
        assert [item.key for item in store.open_items("r")] == ["i8"]


def test_killed_in_a_batch_nothing_of_it_stays(database):
    code = (
        "import sys\nfrom plaudit.feedback.store import FeedbackStore\n"
        "store = FeedbackStore(sys.argv[1])\n"
        "with store.batch():\n"
        "    store.add_item('k', 'p', ['a', 'b'])\n"
        "    print('now', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"now\n"
        process.kill()
    with FeedbackStore(database) as store:
        fill(store, 3)  # waits until the server has seen that the other is gone
        assert store.size() == (3, 3)


def test_errors_are_sentences_without_the_password(database):
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE recipes (name text)")
    with pytest.raises(UserError, match=r"database of something else \(tables recipes\)"):
        FeedbackStore(database)
    nowhere = f"postgresql://me:secret@127.0.0.1:{free_port()}/none"
    with pytest.raises(UserError, match="refused") as caught:
        FeedbackStore(nowhere)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
