"""The last few observations shown together, the latest last; the first of an episode repeated.

Each piece of an observation is stacked by itself: a vector of n numbers becomes k·n, an image of c
channels k·c. The frames of one episode never follow those of another. Of a mask of actions only the latest is
shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from plaudit.envs.worlds import Array, Transition, Worlds, check_kind
from plaudit.records.spaces import ObsSpec
from plaudit.records.state import Saved


def stacked_spec(spec: ObsSpec, num_frames: int) -> ObsSpec:
    """Of `num_frames` observations of `spec` together."""
    first, *rest = spec.shape
    pieces = tuple(
        piece
        if piece.kind == "mask"
        else replace(
            piece,
            shape=(num_frames * piece.shape[0], *piece.shape[1:]),
            sizes=num_frames * piece.sizes,
        )
        for piece in spec.pieces
    )
    shown = num_frames * (first - spec.num_barred) + spec.num_barred
    return ObsSpec((shown, *rest), spec.dtype, pieces)


def stacked(frames: Sequence[Array], spec: ObsSpec) -> Array:
    """One observation of `stacked_spec` from observations of `spec`, the latest last."""
    num_frames = len(frames)
    out = np.empty(stacked_spec(spec, num_frames).shape, spec.dtype)
    if spec.num_barred:
        out[-spec.num_barred :] = frames[-1][-spec.num_barred :]
    for begin, size in _segments(spec):
        for place, frame in enumerate(frames):
            to = num_frames * begin + place * size
            out[to : to + size] = frame[begin : begin + size]
    return out


def _segments(spec: ObsSpec) -> list[tuple[int, int]]:
    """(begin, size) along the first axis of what is stacked by itself."""
    if len(spec.pieces) == 1:
        return [(0, spec.shape[0])]
    found, begin = [], 0
    for piece in spec.pieces:
        if piece.kind != "mask":
            found.append((begin, piece.size))
        begin += piece.size
    return found


class Stacked:
    """Worlds that show their last `num_frames` observations."""

    def __init__(self, worlds: Worlds, num_frames: int) -> None:
        self.worlds, self.num_frames = worlds, num_frames
        self.num_envs, self.action_spec = worlds.num_envs, worlds.action_spec
        self.gives_state, self.statistics = worlds.gives_state, worlds.statistics
        self.obs_spec = stacked_spec(worlds.obs_spec, num_frames)
        self._segments = _segments(worlds.obs_spec)
        self._num_barred = worlds.obs_spec.num_barred
        self._stack: Array = np.empty((0,))

    def reset(self) -> Array:
        """Begins an episode in every copy."""
        self._stack = self._repeated(self.worlds.reset())
        return self._stack

    def step(self, actions: Array) -> Transition:
        """Acts; `next_obs` ends in where the actions led, `obs` in what to act on next."""
        moved = self.worlds.step(actions)
        next_obs = np.empty_like(self._stack)
        for begin, size, end in self._places():
            next_obs[:, begin : end - size] = self._stack[:, begin + size : end]
        self._set_latest(next_obs, moved.next_obs)
        obs = next_obs
        # Off the mask an environment that resets a step late shows its new episode.
        begun = moved.boundary | ~moved.mask
        if begun.any():
            obs = next_obs.copy()
            obs[begun] = self._repeated(moved.obs[begun])
        self._stack = obs
        return Transition(
            obs,
            next_obs,
            moved.reward,
            moved.terminated,
            moved.truncated,
            moved.mask,
            moved.episodes,
        )

    def _places(self) -> list[tuple[int, int, int]]:
        """(begin, size of one frame, end) of each segment in the stack."""
        k = self.num_frames
        return [(k * begin, size, k * (begin + size)) for begin, size in self._segments]

    def _set_latest(self, stack: Array, latest: Array) -> None:
        for (begin, size), (_, _, end) in zip(self._segments, self._places(), strict=True):
            stack[:, end - size : end] = latest[:, begin : begin + size]
        self._set_mask(stack, latest)

    def _set_mask(self, stack: Array, latest: Array) -> None:
        if self._num_barred:
            stack[:, -self._num_barred :] = latest[:, -self._num_barred :]

    def _repeated(self, obs: Array) -> Array:
        stack = np.empty((len(obs), *self.obs_spec.shape), self.obs_spec.dtype)
        for (start, size), (begin, _, end) in zip(self._segments, self._places(), strict=True):
            for to in range(begin, end, size):
                stack[:, to : to + size] = obs[:, start : start + size]
        self._set_mask(stack, obs)
        return stack

    def state(self) -> Saved:
        """The worlds' and the observations shown."""
        arrays, facts = self.worlds.state()
        kept = {f"worlds.{name}": array for name, array in arrays.items()}
        return {"stack": self._stack, **kept}, {"worlds": facts}

    def restore(self, saved: Saved) -> Array:
        """Goes on from there; episodes that begin anew begin with their first observation."""
        obs = self.worlds.restore(inner(saved))
        self._stack = saved[0]["stack"] if self.gives_state else self._repeated(obs)
        return self._stack

    def close(self) -> None:
        """Ends the copies."""
        self.worlds.close()


def inner(saved: Saved) -> Saved:
    """What was saved of the worlds within, under names that begin with `worlds.`."""
    arrays, facts = saved
    check_kind(facts, "worlds")
    prefix = "worlds."
    kept: dict[str, Any] = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    return kept, facts["worlds"]
