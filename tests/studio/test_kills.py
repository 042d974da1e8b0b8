"""The server is killed under load, again and again: nothing that was acknowledged is lost, nothing is
there twice, and once the clients are back nothing is lost at all."""

from __future__ import annotations

import asyncio
import random

import pytest

from crowd import crowd, served, works
from plaudit.feedback.store import FeedbackStore
from postgres_server import fresh_database, postgres_server
from studio.conftest import pairs


def killed(where: str, folder, *, kills: int, seconds: float, annotators: int = 30) -> None:
    """Asserts it for `kills` kills at random moments of so many seconds."""
    with FeedbackStore(where) as store:
        store.add_items(pairs(3000))
        for n in range(annotators):
            store.people.add(f"annotator-{n}")
        tokens = [store.people.bearer(f"annotator-{n}") for n in range(annotators)]
    with served(where, folder / "log") as server:
        tally, people = crowd(server.port, tokens, per_minute=200)

        async def go() -> None:
            draw = random.Random(kills)
            work = asyncio.create_task(works(people, seconds, patience=300))
            checked = 0
            for _ in range(kills):
                await asyncio.sleep(draw.uniform(0.2, 1.0) * seconds / kills)
                server.kill()
                acknowledged = list(tally.acknowledged)
                with FeedbackStore(where) as store:
                    found = store.votes_by_key(acknowledged[checked:])
                assert found.keys() == set(acknowledged[checked:])
                checked = len(acknowledged)
                await asyncio.to_thread(server.start)
            await work

        asyncio.run(go())
        assert server.stop() == 0
    assert tally.refused == []
    assert len(tally.acknowledged) == len(tally.cast) > annotators
    with FeedbackStore(where) as store:
        votes = [vote for vote in store.votes() if vote.rater.startswith("annotator-")]
    assert sorted(vote.key for vote in votes) == sorted(tally.cast)
    assert len({vote.offer for vote in votes}) == len(votes)


def test_three_kills_lose_and_double_nothing(tmp_path):
    killed(str(tmp_path / "f.sqlite"), tmp_path, kills=3, seconds=5)


@pytest.mark.nightly
def test_twenty_kills_lose_and_double_nothing(tmp_path):
    killed(str(tmp_path / "f.sqlite"), tmp_path, kills=20, seconds=40)


@pytest.mark.nightly
def test_twenty_kills_lose_and_double_nothing_on_postgresql(tmp_path):
    with postgres_server() as server, fresh_database(server) as where:
        killed(where, tmp_path, kills=20, seconds=40)
