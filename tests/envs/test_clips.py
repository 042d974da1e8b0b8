"""Clips are pieces of real episodes, found again by their seed, and films of them keep every frame."""

from __future__ import annotations

import zlib

import gymnasium
import numpy as np
import pytest

from plaudit.envs import clips
from plaudit.envs.clips import film_of, record_clips, strip_of
from plaudit.envs.settings import WorldSettings
from plaudit.envs.video import write_webm
from plaudit.records.errors import UserError

CARTPOLE = WorldSettings(env="CartPole-v1")


@pytest.fixture(scope="module")
def some():
    return list(record_clips(CARTPOLE, None, 4, seed=3))


def test_clips_are_equally_long_and_from_different_episodes(some):
    lengths = {(len(c.frames), len(c.obs), len(c.action), len(c.reward)) for c in some}
    [(steps, *others)] = lengths
    assert set(others) == {steps}
    assert len({c.episode for c in some}) == 4
    assert some[0].fps == 50


def test_the_same_seed_gives_the_same_clips_and_another_others(some):
    again = list(record_clips(CARTPOLE, None, 4, seed=3))
    for one, other in zip(some, again, strict=True):
        assert np.array_equal(one.frames, other.frames)
        assert (one.start, one.action) == (other.start, other.action)
    [other] = record_clips(CARTPOLE, None, 1, seed=4)
    assert other.action != some[0].action


def test_obs_and_frames_are_those_of_the_actions(some):
    """CartPole by hand: from the clip's first state, its actions lead through its observations."""
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array").unwrapped
    for clip in some:
        env.reset(seed=0)
        env.state = np.asarray(clip.obs[0], np.float64)
        for time, action in enumerate(clip.action):
            assert np.allclose(env.state, clip.obs[time], atol=1e-4)
            if time == 0:
                assert np.array_equal(env.render(), clip.frames[0])
            env.step(action)
        assert clip.reward.tolist() == [1.0] * len(clip.action)
    env.close()


def test_a_policy_plays_and_clips_can_be_too_long():
    def left(obs):
        return np.zeros(1, np.int64)

    [clip] = record_clips(CARTPOLE, left, 1, seed=0, seconds=0.1)
    assert clip.action == [0] * 5
    with pytest.raises(UserError, match=r"last \d+ steps or fewer, and only 0 of 20 last the 100"):
        list(record_clips(CARTPOLE, left, 1, seed=0, seconds=2))
    with pytest.raises(UserError, match="clips of 0 s"):
        list(record_clips(CARTPOLE, left, 1, seed=0, seconds=0))


def frames(num=11, height=6, width=10):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(num)]


def test_a_strip_is_a_png_of_every_frame_in_its_place():
    made = frames()
    data, kind = strip_of(made, 25)
    assert kind == "image/png;frames=11;columns=8;fps=25"
    picture = read_png(data)
    assert picture.shape == (12, 80, 3)
    for number, frame in enumerate(made):
        y, x = divmod(number, 8)
        assert np.array_equal(picture[y * 6 : y * 6 + 6, x * 10 : x * 10 + 10], frame)


def read_png(data):
    """By Pillow where it is installed, else by hand: one IDAT, filter 2."""
    image = pytest.importorskip("PIL.Image")
    import io

    return np.asarray(image.open(io.BytesIO(data)))


def test_the_check_sums_of_a_png():
    data, _ = strip_of(frames(1), 25)
    at, kinds = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(
            data[at + 8 + size : at + 12 + size], "big"
        )
        kinds.append(kind)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_webm_holds_every_frame_and_the_same_bytes_again(tmp_path, some):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    data, kind = film_of(some[0].frames, some[0].fps)
    assert kind == "video/webm;fps=50"
    assert data[:4] == b"\x1aE\xdf\xa3"
    assert film_of(some[0].frames, some[0].fps)[0] == data
    write_webm(tmp_path / "a.webm", some[0].frames, some[0].fps)
    assert ffmpeg.count_frames_and_secs(str(tmp_path / "a.webm"))[0] == len(some[0].frames)


def test_without_an_encoder_a_clip_is_a_strip(monkeypatch):
    monkeypatch.setattr(clips, "find_spec", lambda name: None)
    assert film_of(frames(), 25)[1].startswith("image/png;frames=11")
