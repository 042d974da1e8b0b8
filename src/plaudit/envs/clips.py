"""Clips of episodes, all equally long: what was drawn, seen, done and rewarded in them, and films of it.

An episode is its seed and its actions, so it is played twice: once without drawing, to learn how long it
is and to choose where its clip begins, and once up to the clip's end, drawing only that. A film is
VP9 in WebM where imageio-ffmpeg is installed, else one PNG of all frames in a grid.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.copies import Copy
from plaudit.envs.make import make_copy
from plaudit.envs.settings import WorldSettings
from plaudit.envs.spaces import action_codec
from plaudit.envs.stack import stacked
from plaudit.envs.video import FPS, Frame, Policy, draw_without_a_screen, frame_of, write_webm
from plaudit.envs.worlds import Array
from plaudit.records.errors import UserError

SECONDS = 1.5
"""How long a clip is where nothing is said: 1 to 2 s in Christiano et al. 2017, section 2.2.3."""
MOST_TRIES = 20
"""Episodes that are played for each clip before they are found to be too short."""
LARGEST_SIDE = 640
"""Pixels; larger frames are shown at every second or third pixel, so that a page of clips is small."""
_COLUMNS = 8


@dataclass(frozen=True)
class Clip:
    """T steps of an episode: frames, obs [T, ...] as encoded, action and reward [T], from step `start`.

    Frame t shows what the agent saw before action t. `seed` and `episode` find the episode again.
    """

    frames: list[Frame]
    fps: float
    obs: Array
    action: list[Any]
    reward: NDArray[np.float64]
    seed: int
    episode: int
    start: int


@dataclass(frozen=True)
class _Played:
    episode: int
    actions: list[Any]


def record_clips(
    settings: WorldSettings,
    policy: Policy | None,
    num: int,
    *,
    seed: int,
    seconds: float | None = None,
) -> Iterator[Clip]:
    """One clip of each of `num` episodes, from a place drawn uniformly; actions at random without policy.

    Where no length is asked for, clips are `SECONDS` long, or as long as a quarter of the episodes are
    shorter. Raises UserError where too few episodes are as long as was asked, and as `record_episode`.
    """
    if num < 1:
        raise UserError(f"{num} clips were asked for, expected at least 1")
    if seconds is not None and not 0 < seconds <= 60:
        raise UserError(f"clips of {seconds} s were asked for, expected more than 0, to 60")
    draw_without_a_screen()
    copy = make_copy(settings, seed=seed, index=0, render_mode="rgb_array")
    try:
        fps = float(copy.env.metadata.get("render_fps") or FPS)
        asked = max(1, round(fps * (SECONDS if seconds is None else seconds)))
        chosen, length = _long_enough(copy, settings, policy, num, asked, seed, seconds is None)
    finally:
        copy.close()
    draw = np.random.default_rng((seed, num))
    copy = make_copy(settings, seed=seed, index=0, render_mode="rgb_array")
    try:
        for played in chosen:
            start = int(draw.integers(len(played.actions) - length + 1))
            yield _again(copy, settings, played, start, length, fps, seed)
    finally:
        copy.close()


def _long_enough(
    copy: Copy,
    settings: WorldSettings,
    policy: Policy | None,
    num: int,
    asked: int,
    seed: int,
    may_be_shorter: bool,
) -> tuple[list[_Played], int]:
    act = _random(copy, seed) if policy is None else _acting(copy, settings, policy)
    played: list[_Played] = []
    while len(played) < num * MOST_TRIES:
        played.append(_play(copy, act))
        fitting = [one for one in played if len(one.actions) >= asked]
        if len(fitting) == num:
            return fitting, asked
        if may_be_shorter and len(played) == 2 * num:
            lengths = sorted(len(one.actions) for one in played)
            asked = min(asked, lengths[len(lengths) // 4])
            return [one for one in played if len(one.actions) >= asked][:num], asked
    lengths = sorted(len(one.actions) for one in played)
    raise UserError(
        f"half of the episodes of {settings.env} last {lengths[len(lengths) // 2]} steps or fewer, and "
        f"only {len(fitting)} of {len(played)} last the {asked} of a clip: ask for shorter clips"
    )


Act = Callable[[NDArray[Any], bool], Any]
"""What to do, given an encoded observation [...] and whether the episode begins with it."""


def _acting(copy: Copy, settings: WorldSettings, policy: Policy) -> Act:
    codec = action_codec(copy.env.action_space)
    seen: deque[NDArray[Any]] = deque(maxlen=settings.frame_stack)

    def act(row: NDArray[Any], begins: bool) -> Any:
        seen.extend([row.copy()] * (settings.frame_stack if begins else 1))
        return codec.rows(policy(stacked(list(seen), copy.obs.spec)[None]))[0]

    return act


def _random(copy: Copy, seed: int) -> Act:
    """An action of the space, among those that a mask in the observation allows."""
    space = copy.env.action_space
    space.seed(seed)
    barred = copy.obs.spec.num_barred

    def act(row: NDArray[Any], begins: bool) -> Any:
        found = space.sample(mask=row[-barred:].astype(np.int8)) if barred else space.sample()
        return int(found) if isinstance(found, np.integer) else found

    return act


def _play(copy: Copy, act: Act) -> _Played:
    row = np.empty((1, *copy.obs.spec.shape), copy.obs.spec.dtype)
    copy.begin(row, 0)
    actions: list[Any] = []
    end = 0
    while not end:
        action = act(row[0], not actions)
        actions.append(np.copy(action) if isinstance(action, np.ndarray) else action)
        _, end = copy.step(action, row, 0)
    return _Played(copy.episode, actions)


def _again(
    copy: Copy,
    settings: WorldSettings,
    played: _Played,
    start: int,
    length: int,
    fps: float,
    seed: int,
) -> Clip:
    """The episode once more, drawn from `start` on."""
    row = np.empty((1, *copy.obs.spec.shape), copy.obs.spec.dtype)
    while copy.episode < played.episode:
        copy.begin(row, 0)
    frames, obs, rewards = [], [], []
    for time, action in enumerate(played.actions[: start + length]):
        if time >= start:
            frames.append(_smaller(frame_of(copy.render(), settings.env)))
            obs.append(row[0].copy())
        reward, end = copy.step(action, row, 0)
        if end and time + 1 < len(played.actions):
            raise copy.unrepeated()
        if time >= start:
            rewards.append(reward)
    done = [a.tolist() if isinstance(a, np.ndarray) else a for a in played.actions]
    actions = done[start : start + length]
    told = np.array(rewards, np.float64)
    return Clip(frames, fps, np.stack(obs), actions, told, seed, played.episode, start)


def _smaller(frame: Frame) -> Frame:
    """Every n-th pixel of a frame that is larger than `LARGEST_SIDE` by n."""
    by = -(-max(frame.shape[:2]) // LARGEST_SIDE)
    return np.ascontiguousarray(frame[::by, ::by])


# --- films -------------------------------------------------------------------------------------


def film_of(frames: list[Frame], fps: float) -> tuple[bytes, str]:
    """A film that every browser can show, and its media type with what a page must know of it."""
    if find_spec("imageio_ffmpeg") is None:
        return strip_of(frames, fps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.webm"
        write_webm(path, frames, fps)
        return path.read_bytes(), f"video/webm;fps={fps:g}"


def strip_of(frames: list[Frame], fps: float) -> tuple[bytes, str]:
    """One PNG of all frames, row by row in a grid, and its media type with their number."""
    height, width = frames[0].shape[:2]
    columns = min(_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    grid = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, frame in enumerate(frames):
        y, x = divmod(number, columns)
        grid[y * height : (y + 1) * height, x * width : (x + 1) * width] = frame
    return _png(grid), f"image/png;frames={len(frames)};columns={columns};fps={fps:g}"


def _png(picture: Frame) -> bytes:
    """RGB of 8 bits, each line as its difference from the one above (PNG's filter 2)."""
    height, width = picture.shape[:2]
    lines = picture.reshape(height, width * 3)
    above = np.vstack([np.zeros((1, width * 3), np.uint8), lines[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), lines - above])

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
