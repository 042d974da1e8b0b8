"""`plaudit studio --clips`: pairs of an untrained or a trained agent, added once."""

from __future__ import annotations

import pytest

from plaudit.feedback.media import Media
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from plaudit.studio.clips import add_clips
from studio.test_command import enter, studio, until_link_of


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("pygame")
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        yield opened


def test_clips_of_random_actions_are_added_once(store, tmp_path):
    num, steps = add_clips(store, "CartPole-v1", num=2, seconds=0.2)
    assert (num, steps) == (2, 10)
    files = sorted(tmp_path.glob("feedback.media/*.webm"))
    assert len(files) == 4
    assert add_clips(store, "CartPole-v1", num=2, seconds=0.2) == (0, 10)
    assert sorted(tmp_path.glob("feedback.media/*")) == files
    for item in store.items():
        for segment in item.segments:
            extra = segment.extra
            assert Media.beside(store).find(extra["media"]["digest"]) is not None
            assert (len(extra["obs"]), len(extra["action"]), len(extra["reward"])) == (10, 10, 10)
            assert (segment.kind, segment.text, segment.model) == ("clip", "", "random")


def test_clips_of_an_agent_are_its_own(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from plaudit.cli.main import main

    keys = ["--steps", "256", "--num_envs", "2", "--name", "short"]
    assert main(["run", "control/ppo", *keys]) == 0
    num, _ = add_clips(store, "CartPole-v1", agent="short", num=1, seconds=0.1)
    assert num == 1
    [item] = store.items()
    assert item.segments[0].model == "agent"


def test_a_world_that_draws_nothing_or_is_not_there(store):
    with pytest.raises(UserError, match="CartPole"):
        add_clips(store, "CartPol-v1", num=1)
    assert store.size() == (0, 0)


def test_the_command_makes_them_and_opens(tmp_path):
    pytest.importorskip("pygame")
    words = ["--store", "f.sqlite", "--clips", "CartPole-v1", "--num-clips", "1"]
    with studio(tmp_path, *words, "--clip-seconds", "0.1") as process:
        lines, address, token = until_link_of(process, "admin")
        assert lines[0] == "1 new pairs of clips of CartPole-v1, 5 steps each\n"
        with enter(address, token) as admin:
            [offer] = admin.post("/api/v1/offers", json={"n": 1}).json()["offers"]
            for segment in offer["segments"]:
                film = admin.get(f"/api/v1/media/{segment['media']['digest']}")
                assert film.status_code == 200
                assert film.content[:4] == b"\x1aE\xdf\xa3"
