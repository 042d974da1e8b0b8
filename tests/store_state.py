"""Everything that a store answers, beside what its whole log says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import asdict

from sqlalchemy import select

from oracles import feedback_log as slow
from plaudit.feedback.database import lock_for_writing
from plaudit.feedback.derived import catch_up
from plaudit.feedback.drawing import up_to_date
from plaudit.feedback.pool import pool_of
from plaudit.feedback.rebuild import rebuild
from plaudit.feedback.stats import feedback_stats, rater_stats
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.tables import LOG, Base, MetaRow


def rows_of(connection):
    """The rows of all derived tables, as sets; of open items, the items and the spots apart."""
    tables = [table for name, table in Base.metadata.tables.items() if name not in LOG]
    rows = {
        table.name: {tuple(row) for row in connection.execute(select(table))} for table in tables
    }
    opened = rows.pop("open_items")
    rows["open spots"] = {spot for spot, _, _ in opened}
    assert rows["open spots"] == set(range(1, len(opened) + 1))
    return rows | {"open items": {item for _, item, _ in opened}}


def rebuilt(store, *, now=None):
    """The derived tables as they are made from the whole log at once; nothing is kept."""
    with store._writer.connect() as connection:
        lock_for_writing(connection)
        pool = pool_of(connection)
        for name, table in Base.metadata.tables.items():
            if name not in LOG:
                connection.execute(table.delete())
        connection.execute(MetaRow.__table__.delete().where(MetaRow.name == "derived_through"))
        catch_up(connection)
        if pool is not None:
            rebuild(connection, overlap=pool.overlap, now=now)
        rows = rows_of(connection)
        connection.rollback()
    return rows


def assert_answers_are_those_of_the_log(store, raters):
    log = slow.read(store)
    last = len(log.votes)
    assert store.size() == (len(log.items), last)
    assert store.items() == log.items
    assert store.items(after=1, limit=2) == log.items[1:3]
    for active in (True, False):
        assert store.votes(active=active) == slow.votes(log, active=active)
        for rater in raters:
            which = {"active": active, "rater": rater}
            assert store.votes(**which) == slow.votes(log, **which)
        page = {"active": active, "after": last // 2, "limit": 2}
        assert store.votes(**page) == slow.votes(log, **page)
    assert store.comparisons() == slow.comparisons(log)
    assert store.scores() == slow.scores(log)
    for rater in raters:
        page = {"rater": rater, "after": last // 3, "limit": 2}
        assert store.comparisons(**page) == slow.comparisons(log, **page)
        assert store.scores(rater=rater) == slow.scores(log, rater=rater)
        assert store.open_items(rater) == slow.open_items(log, rater)
        for limit in (0, 1, 3):
            assert store.open_items(rater, limit=limit) == slow.open_items(log, rater, limit)
        assert asdict(rater_stats(store, rater)) == slow.rater_stats(log, rater)
    expected = slow.stats(log)
    found = asdict(feedback_stats(store))
    assert found == expected
    # JSON keeps the order of dictionaries, so that is part of the answer
    assert [list(of) for of in found["by_rater"].values()] == [
        list(of) for of in expected["by_rater"].values()
    ]
    assert list(found["by_rater"]) == list(expected["by_rater"])
    keys = [vote.key for vote in log.votes]
    assert store.votes_by_key([*keys, "none"]) == {vote.key: vote for vote in log.votes}


def assert_kept_as_rebuilt(store, *, now=None):
    """The same rows either way; with offers, as of `now`, when what has expired is swept."""
    with store.batch(), store.reading() as connection:
        if pool_of(connection) is not None:
            up_to_date(connection, now)
        kept = rows_of(connection)
    assert kept == rebuilt(store, now=now)


RATER = textwrap.dedent(
    """
    import sys
    from plaudit.feedback.store import FeedbackStore
    where, rater, other = sys.argv[1:]
    store = FeedbackStore(where)
    for n in range(30):
        with store.batch():
            store.add_item(f"k{n}", "p", ["a", "b"])
        for item in store.open_items(rater, limit=2):
            store.add_comparison(item.key, rater, "a", order_shown="ab", seconds=n)
        if n % 3 == 0:
            undone = store.undo(rater=rater)
            if n % 2 == 0:
                store.undo(undone, rater=other)
    """
)


def two_raters_at_once(where):
    """Two processes on one store, each a rater; afterwards nothing is lost and nothing doubled."""
    pairs = (("x", "y"), ("y", "x"))
    command = [sys.executable, "-c", RATER, str(where)]
    both = [subprocess.Popen([*command, *pair]) for pair in pairs]
    assert [process.wait() for process in both] == [0, 0]
    with FeedbackStore(where) as store:
        assert store.size()[0] == 30
        log = store.votes(active=False)
        assert [vote.id for vote in log] == list(range(1, len(log) + 1))
        for rater, _ in pairs:
            by_me = [v for v in log if v.rater == rater]
            assert sum(v.kind == "undo" and v.undoes is not None for v in by_me) == 10 + 5
            mine = store.votes(rater=rater)
            keys = [v.item_key for v in mine]
            assert len(keys) == len(set(keys))  # what is open is asked once
            assert len(keys) + len(store.open_items(rater)) == 30
            said = sum(v.kind == "comparison" for v in by_me)
            assert said - len(mine) == 5  # ten were taken back, five of them came again


def begun(store, num_items, people, **settings):
    """Pairs to be compared, people, and how offers are made."""
    with store.batch():
        for n in range(num_items):
            store.add_item(f"i{n}", "p", ["x", "y"])
        for name in people:
            store.people.add(name)
        store.offers.configure(**settings)


def steps(store, act):
    """How many instructions SQLite's machine runs, in tens."""
    count = [0]

    def tick():
        count[0] += 1
        return 0

    raws = []
    for engine in (store._engine, store._write_engine):
        with engine.connect() as connection:
            raws.append(connection.connection.driver_connection)
    for raw in raws:
        raw.set_progress_handler(tick, 10)
    act(store)
    for raw in raws:
        raw.set_progress_handler(None, 10)
    return count[0]


LOG_1 = """
CREATE TABLE plaudit_feedback (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE items (
    id INTEGER NOT NULL, "key" TEXT NOT NULL, prompt JSON NOT NULL, columns JSON NOT NULL,
    PRIMARY KEY (id), UNIQUE ("key"));
CREATE TABLE segments (
    id INTEGER NOT NULL, item_id INTEGER NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL,
    text JSON NOT NULL, model TEXT, extra JSON NOT NULL, PRIMARY KEY (id),
    UNIQUE (item_id, position), FOREIGN KEY(item_id) REFERENCES items (id));
CREATE TABLE votes (
    id INTEGER NOT NULL, "key" TEXT NOT NULL, item_id INTEGER NOT NULL, rater TEXT NOT NULL,
    kind TEXT NOT NULL, value JSON NOT NULL, shown JSON NOT NULL, seconds FLOAT(53),
    time FLOAT(53) NOT NULL, undoes INTEGER, PRIMARY KEY (id), UNIQUE ("key"),
    FOREIGN KEY(item_id) REFERENCES items (id), FOREIGN KEY(undoes) REFERENCES votes (id));
CREATE INDEX ix_votes_rater ON votes (rater);
CREATE INDEX ix_votes_item_id ON votes (item_id);
"""
"""The log of schema 1, as SQLAlchemy wrote it."""
