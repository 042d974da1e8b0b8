"""One episode as a film: MP4 or WebM where imageio-ffmpeg is installed, GIF with Pillow."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.make import make_copy
from plaudit.envs.settings import WorldSettings
from plaudit.envs.spaces import action_codec
from plaudit.envs.stack import stacked
from plaudit.envs.worlds import Array, Episode
from plaudit.records.errors import UserError

FPS = 30
"""Frames a second where the environment does not say."""

Frame = NDArray[np.uint8]
Policy = Callable[[Array], Array]
"""Actions [1, ...] for encoded observations [1, ...], stacked as in training, not normalised."""


def record_episode(
    settings: WorldSettings, policy: Policy, path: str | Path, seed: int, *, max_frames: int = 3000
) -> Episode:
    """Plays the first episode of a copy with that seed and writes what it looked like.

    The ending of `path` says how: .mp4, .webm or .gif. After `max_frames` frames no more are kept, though
    the episode is played to its end. Raises UserError where the environment draws nothing, or where
    the library that writes the film is missing.
    """
    write = _writer(Path(path))
    draw_without_a_screen()
    copy = make_copy(settings, seed=seed, index=0, render_mode="rgb_array")
    try:
        actions = action_codec(copy.env.action_space)
        row = np.empty((1, *copy.obs.spec.shape), copy.obs.spec.dtype)
        copy.begin(row, 0)
        seen = deque([row[0].copy()] * settings.frame_stack, settings.frame_stack)
        frames = [frame_of(copy.render(), settings.env)]
        end = 0
        while not end:
            shown = stacked(list(seen), copy.obs.spec)[None]
            _, end = copy.step(actions.rows(policy(shown))[0], row, 0)
            seen.append(row[0].copy())
            if len(frames) < max_frames:
                frames.append(frame_of(copy.render(), settings.env))
        fps = float(copy.env.metadata.get("render_fps") or FPS)
        write(Path(path), frames, fps)
        return Episode(0, copy.ret, copy.length)
    finally:
        copy.close()


def draw_without_a_screen() -> None:
    """Pygame draws into arrays without a screen, but complains that there is none."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def frame_of(drawn: Any, name: str) -> Frame:
    """What an environment drew; UserError where that is no picture."""
    frame: NDArray[Any] = np.asarray(drawn) if drawn is not None else np.empty(0)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise UserError(f"{name} draws no pictures: render_mode rgb_array gave {_said(drawn)}")
    return frame


def _said(drawn: Any) -> str:
    if drawn is None:
        return "nothing"
    return f"an array of shape {drawn.shape}" if hasattr(drawn, "shape") else f"a {type(drawn)}"


def _writer(path: Path) -> Callable[[Path, list[Frame], float], None]:
    """What writes such a file, so that a missing library is found before the episode."""
    if path.suffix not in (".mp4", ".webm", ".gif"):
        raise UserError(f"video file {path} must end in .mp4, .webm or .gif")
    try:
        if path.suffix == ".gif":
            import_module("PIL.Image")
            return _write_gif
        import_module("imageio_ffmpeg")
        return _write_mp4 if path.suffix == ".mp4" else write_webm
    except ImportError as error:
        other = "; a .gif needs Pillow only" if path.suffix != ".gif" else ""
        raise UserError(
            f"a {path.suffix} video needs {error.name}; install it with:"
            f" pip install 'plaudit[gym]'{other}"
        ) from error


def _write_gif(path: Path, frames: list[Frame], fps: float) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    # Hundredths of a second are GIF's unit, and viewers slow down films with fewer than two.
    duration = max(20, round(100 / fps) * 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def _write_mp4(path: Path, frames: list[Frame], fps: float) -> None:
    """H.264, which browsers without licensed codecs do not play."""
    _write_film(path, frames, fps)


def write_webm(path: Path, frames: list[Frame], fps: float) -> None:
    """VP9, which every browser plays; the same frames give the same bytes."""
    _write_film(
        path,
        frames,
        fps,
        codec="libvpx-vp9",
        quality=None,
        output_params=[
            *("-crf", "30", "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-threads", "1"),
            # One frame shown is one frame kept: a step of the page is a step of the world.
            *("-g", "1000", "-auto-alt-ref", "0", "-fflags", "+bitexact", "-flags:v", "+bitexact"),
        ],
    )


def _write_film(path: Path, frames: list[Frame], fps: float, **how: Any) -> None:
    """Sides are padded to even numbers of pixels, which the usual forms need."""
    imageio_ffmpeg: Any = import_module("imageio_ffmpeg")
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    even = (width + width % 2, height + height % 2)
    film = imageio_ffmpeg.write_frames(str(path), even, fps=fps, macro_block_size=2, **how)
    film.send(None)
    try:
        for frame in frames:
            padding = ((0, even[1] - height), (0, even[0] - width), (0, 0))
            film.send(np.ascontiguousarray(np.pad(frame, padding)))
    finally:
        film.close()
