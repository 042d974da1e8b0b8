"""Films of an episode, read back frame by frame."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from plaudit.envs.make import make_worlds
from plaudit.envs.settings import WorldSettings
from plaudit.envs.video import record_episode
from plaudit.envs.worlds import Episode
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("strange_envs.py"))
PAINTED = WorldSettings(env=f"{FILE}:Painted-v0", frame_stack=2)


def script(actions):
    """A policy that acts so, and the observations it was shown."""
    shown, left = [], list(actions)

    def policy(obs):
        shown.append(obs[0].tolist())
        return np.array([left.pop(0)])

    return policy, shown


def test_a_gif_shows_every_step_of_the_episode(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    policy, shown = script([0, 0, 1])
    episode = record_episode(PAINTED, policy, tmp_path / "new" / "film.gif", seed=0)
    assert episode == Episode(0, 11 + 12 + 13, 3)
    assert shown == [[1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 2]]
    with Image.open(tmp_path / "new" / "film.gif") as film:
        frames = []
        for place in range(film.n_frames):
            film.seek(place)
            assert film.info["duration"] == 200  # 5 frames a second
            frames.append(np.asarray(film.convert("RGB")))
    assert [frame.shape for frame in frames] == [(7, 9, 3)] * 4
    assert [int(frame.mean()) for frame in frames] == [0, 20, 40, 60]


# The reader of imageio-ffmpeg leaves its pipes to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_mp4_shows_every_step_of_the_episode(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    policy, _ = script([0] * 5 + [2])
    record_episode(PAINTED, policy, tmp_path / "film.mp4", seed=0)
    reader = ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    facts = next(reader)
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert facts["size"] == (10, 8)  # padded to even numbers
    assert facts["fps"] == 5
    bright = [int(frame.reshape(8, 10, 3)[:6, :8].mean()) for frame in frames]
    assert bright == pytest.approx([0, 20, 40, 60, 80, 100, 120], abs=8)


def test_the_episode_is_the_first_of_worlds_with_that_seed(tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("pygame")
    settings = WorldSettings(env="CartPole-v1")
    shown = []

    def policy(obs):
        shown.append(obs)
        return np.array([1])

    episode = record_episode(settings, policy, tmp_path / "cart.gif", seed=4, max_frames=3)
    worlds = make_worlds(settings, seed=4)
    obs = worlds.reset()
    for seen in shown:
        assert np.array_equal(seen, obs)
        moved = worlds.step(np.array([1]))
        obs = moved.obs
    assert moved.episodes == [episode]
    worlds.close()


def test_sentences(tmp_path, monkeypatch):
    policy, _ = script([1])
    with pytest.raises(UserError, match=r"video file .*film.avi must end in .mp4, .webm or .gif"):
        record_episode(PAINTED, policy, tmp_path / "film.avi", seed=0)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"needs imageio_ffmpeg.* pip install 'plaudit\[gym\]'"):
        record_episode(PAINTED, policy, tmp_path / "film.mp4", seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env", ["Counting-v0", "Blank-v0"])
def test_an_environment_that_draws_nothing_is_told(tmp_path, env):
    pytest.importorskip("PIL")
    policy, _ = script([1])
    settings = WorldSettings(env=f"{FILE}:{env}")
    with pytest.raises(UserError, match=rf"{env} draws no pictures"):
        record_episode(settings, policy, tmp_path / "film.gif", seed=0)
    assert list(tmp_path.iterdir()) == []
