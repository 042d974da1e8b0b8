"""Power fails at any moment: the store opens, and every vote that was acknowledged is there."""

from __future__ import annotations

import random
import uuid

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

from plaudit.feedback import database
from plaudit.feedback import log as log_module
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from store_state import assert_answers_are_those_of_the_log, assert_kept_as_rebuilt

forgetful = pytest.importorskip("forgetful_disk", reason="apsw, which stands in for the disk, "
                                "is not installed")  # fmt: skip


def run(folder, monkeypatch, *, num=60, synchronous=None):
    """(disk, acknowledged): a run of votes, and after how many acts of the disk each was told kept."""
    disk = forgetful.Disk(f"forgetful-{uuid.uuid4().hex}")
    path = folder / "f.sqlite"

    def engines(_url):
        engine = create_engine(
            "sqlite://", module=forgetful.module, poolclass=StaticPool,
            json_serializer=database.json_text,
            creator=lambda: forgetful.connect(path, disk, synchronous=synchronous),
        )  # fmt: skip
        event.listen(engine, "connect", database._prepare_sqlite)
        event.listen(engine, "begin", database._begin_sqlite)
        return engine, engine

    monkeypatch.setattr(log_module, "open_engines", engines)
    acknowledged = {}
    with FeedbackStore(path) as store:
        store.offers.generator = random.Random(1)
        for n in range(40):
            store.add_item(f"i{n}", "p " * 40, ["a " * 40, "b"])
        made = len(disk.acts)
        for name in ("ann", "bob"):
            store.people.add(name)
        store.offers.configure(overlap=2)
        chance = random.Random(2)
        for n in range(num):
            who = chance.choice(("ann", "bob"))
            offers = store.offers.mine(who) or store.offers.draw(who, 3)
            if n % 9 == 8:
                for undone in store.offers.undo_last(who):
                    acknowledged.pop(undone.key)
                continue
            value = {"a": 0, "b": 1, "preference": "a"}
            vote = OfferVote(f"v{n}", offers[0].key, "comparison", value, 1.0)
            assert store.offers.answer(who, [vote])[0].status in ("kept", "surplus")
            acknowledged[vote.key] = len(disk.acts)
    monkeypatch.undo()
    assert any(what == "write" and file == "f.sqlite" for what, file, *_ in disk.acts[made:])
    return disk, acknowledged, made


def lost(disk, acknowledged, point, folder, *, seed):
    """Acknowledged votes that are not there after a power failure; the rest of the store is whole."""
    folder.mkdir()
    for name, content in disk.after(point, seed=seed).items():
        (folder / name).write_bytes(content)
    with FeedbackStore(folder / "f.sqlite") as store:
        with store.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert_answers_are_those_of_the_log(store, ("ann", "bob"))
        assert_kept_as_rebuilt(store, now=0.0)
        there = store.votes_by_key(acknowledged)
        return {key for key, told in acknowledged.items() if told <= point and key not in there}


@pytest.mark.parametrize("num", [8, pytest.param(200, marks=pytest.mark.nightly)])
def test_no_acknowledged_vote_is_lost_with_unsynced_bytes(tmp_path, monkeypatch, num):
    disk, acknowledged, made = run(tmp_path, monkeypatch)
    assert len(acknowledged) > 20
    chance = random.Random(num)
    for k in range(num):
        point = chance.randint(made, len(disk.acts))
        seed = None if k % 2 else k  # all that was not synced is gone, or half of its sectors
        assert lost(disk, acknowledged, point, tmp_path / f"after-{k}", seed=seed) == set(), point


def test_a_store_that_does_not_wait_for_the_disk_would_be_caught(tmp_path, monkeypatch):
    """The same run with synchronous=NORMAL loses votes at the very moments they are told kept."""
    disk, acknowledged, _ = run(tmp_path, monkeypatch, synchronous="NORMAL")
    missing = set()
    for k, told in enumerate(sorted(acknowledged.values())[::8]):
        missing |= lost(disk, acknowledged, told, tmp_path / f"after-{k}", seed=None)
    assert missing
