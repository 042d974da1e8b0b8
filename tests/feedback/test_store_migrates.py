"""Stores of schema 1, made by its own statements and filled as it filled them, brought to schema 2."""

from __future__ import annotations

import sqlite3

import pytest

from plaudit.feedback.migrate import SCHEMA_VERSION
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import LOG_1, assert_answers_are_those_of_the_log, assert_kept_as_rebuilt

# as SQLAlchemy wrote it for schema 1, log and derived tables
SCHEMA_1 = (
    LOG_1
    + """
CREATE TABLE standing_votes (
    vote_id INTEGER NOT NULL, item_id INTEGER NOT NULL, rater TEXT NOT NULL, kind TEXT NOT NULL,
    low INTEGER, high INTEGER, said TEXT, score FLOAT(53), PRIMARY KEY (vote_id));
CREATE INDEX ix_standing_item_rater ON standing_votes (item_id, rater, vote_id);
CREATE INDEX ix_standing_rater ON standing_votes (rater, vote_id);
CREATE INDEX ix_standing_rater_kind ON standing_votes (rater, kind, vote_id);
CREATE INDEX ix_standing_kind ON standing_votes (kind, vote_id);
CREATE TABLE standing_undos (
    vote_id INTEGER NOT NULL, undoes INTEGER NOT NULL, PRIMARY KEY (vote_id));
CREATE INDEX ix_standing_undos_undoes ON standing_undos (undoes);
CREATE TABLE tallies (
    rater TEXT NOT NULL, kind TEXT NOT NULL, answer TEXT NOT NULL, first_won INTEGER NOT NULL,
    num INTEGER NOT NULL, num_undone INTEGER NOT NULL, num_timed INTEGER NOT NULL,
    seconds TEXT NOT NULL, PRIMARY KEY (rater, kind, answer, first_won));
CREATE TABLE raters (rater TEXT NOT NULL, num_answered INTEGER NOT NULL, PRIMARY KEY (rater));
CREATE TABLE answered_runs (
    rater TEXT NOT NULL, "first" INTEGER NOT NULL, "last" INTEGER NOT NULL,
    PRIMARY KEY (rater, "first"));
CREATE INDEX ix_answered_runs_last ON answered_runs (rater, "last");
INSERT INTO plaudit_feedback VALUES ('schema_version', '1');
INSERT INTO plaudit_feedback VALUES ('derived_through', '4');
INSERT INTO items VALUES (1, 'i0', '"p"', '{"n": 1}');
INSERT INTO items VALUES (2, 'i1', '"p"', '{}');
INSERT INTO segments VALUES (1, 1, 0, 'text', '"x"', 'm', '{}');
INSERT INTO segments VALUES (2, 1, 1, 'text', '"y"', NULL, '{}');
INSERT INTO segments VALUES (3, 2, 0, 'text', '"z"', NULL, '{}');
INSERT INTO votes VALUES (1, 'v1', 1, 'ann', 'comparison',
    '{"a": 0, "b": 1, "preference": "b"}', '[1, 0]', 1.5, 5.0, NULL);
INSERT INTO votes VALUES (2, 'v2', 2, 'ann', 'score', '{"segment": 0, "score": 0.25}', '[0]',
    NULL, 6.0, NULL);
INSERT INTO votes VALUES (3, 'v3', 2, 'ann', 'undo', '{}', 'null', NULL, 7.0, 2);
INSERT INTO votes VALUES (4, 'v4', 2, 'bob', 'words', '{"segment": null, "text": "hm"}', 'null',
    NULL, 8.0, NULL);
INSERT INTO standing_votes VALUES (1, 1, 'ann', 'comparison', 0, 1, 'b', NULL);
INSERT INTO standing_votes VALUES (4, 2, 'bob', 'words', NULL, NULL, NULL, NULL);
INSERT INTO standing_undos VALUES (3, 2);
INSERT INTO tallies VALUES ('ann', 'comparison', 'b', 1, 1, 0, 1, '3/2');
INSERT INTO tallies VALUES ('ann', 'score', '', -1, 0, 1, 0, '0');
INSERT INTO tallies VALUES ('ann', 'undo', '', -1, 1, 0, 0, '0');
INSERT INTO tallies VALUES ('bob', 'words', '', -1, 1, 0, 0, '0');
INSERT INTO raters VALUES ('ann', 1);
INSERT INTO raters VALUES ('bob', 1);
INSERT INTO answered_runs VALUES ('ann', 1, 1);
INSERT INTO answered_runs VALUES ('bob', 2, 2);
"""
)
DIGEST_1 = "0ea032b64d393c15bc20b08724d77867eaeb5c75ad866d35a71bfc25661372e7"
"""The content digest of that store as a Plaudit of schema 1 gives it."""


def check(where):
    with FeedbackStore(where, create=False) as store:
        assert store.content_digest() == DIGEST_1
        assert_answers_are_those_of_the_log(store, ("ann", "bob"))
        assert_kept_as_rebuilt(store)
        assert [(v.key, v.offer, v.visible_seconds) for v in store.votes()] == [
            ("v1", None, None), ("v4", None, None)
        ]  # fmt: skip
        store.people.add("ann")
        offers = store.offers.draw("ann", 2)  # what was said without an offer fills nothing
        assert {o.item_key for o in offers} == {"i0", "i1"}
        offer = next(o for o in offers if o.item_key == "i1")
        vote = OfferVote("v5", offer.key, "score", {"segment": 0, "score": 1}, 2.0, 1.0)
        assert store.offers.answer("ann", [vote])[0].status == "kept"
    with FeedbackStore(where) as store:
        (new,) = store.votes(after=4)
        assert (new.offer, new.visible_seconds, new.purpose) == (offer.key, 1.0, "work")
        assert store.size() == (2, 5)
        assert_answers_are_those_of_the_log(store, ("ann", "bob"))
        assert_kept_as_rebuilt(store, now=0.0)


def old_file(path):
    with sqlite3.connect(path) as raw:
        raw.executescript(SCHEMA_1)
        raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    return path


def test_a_file_of_schema_1_is_brought_up_to_date_in_place(tmp_path):
    check(old_file(tmp_path / "old.sqlite"))


def test_a_database_of_schema_1_is_brought_up_to_date_in_place(database):
    import psycopg

    with psycopg.connect(database, autocommit=True) as raw:
        raw.execute(SCHEMA_1)
    check(database)


def test_a_migration_that_dies_leaves_schema_1(tmp_path, monkeypatch):
    path = old_file(tmp_path / "old.sqlite")
    with sqlite3.connect(path) as raw:
        before = list(raw.iterdump())
    raw.close()

    def dies(_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr("plaudit.feedback.migrate._add_columns", dies)
    with pytest.raises(RuntimeError):
        FeedbackStore(path)
    with sqlite3.connect(path) as raw:
        assert list(raw.iterdump()) == before
    raw.close()
    monkeypatch.undo()
    check(path)


def test_an_older_plaudit_and_a_newer_store_are_told_apart(tmp_path):
    path = tmp_path / "f.sqlite"
    FeedbackStore(path).close()
    with sqlite3.connect(path) as raw:
        marks = dict(raw.execute("SELECT name, value FROM plaudit_feedback"))
        assert marks["schema_version"] == str(SCHEMA_VERSION) == "2"
        raw.execute("UPDATE plaudit_feedback SET value = '3' WHERE name = 'schema_version'")
    raw.close()
    with pytest.raises(UserError, match="has feedback schema 3, this Plaudit reads 2; upgrade"):
        FeedbackStore(path)
