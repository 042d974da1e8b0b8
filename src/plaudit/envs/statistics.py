"""Running mean and variance of observations, which they are scaled by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from plaudit.records.state import Saved

Array = NDArray[Any]

CLIP = 10.0
"""Largest size of a scaled observation or reward, as usual since OpenAI's baselines (2017)."""

EPSILON = 1e-8
"""Added to the variance, from the same source."""

F = TypeVar("F", bound=Callable[..., None])


def compiled(function: F) -> F:
    """One pass of machine code."""
    return cast(F, njit(cache=True, error_model="numpy")(function))


class Statistics:
    """Mean and variance of what was seen so far, number by number, in float64."""

    def __init__(self, size: int, kept: NDArray[np.bool_] | None = None) -> None:
        """`kept` [size] says which numbers `apply` leaves as they are."""
        self.mean = np.zeros(size)
        self.var = np.ones(size)
        self.count = np.zeros(1)
        self.kept = kept

    def update(self, values: Array, mask: NDArray[np.bool_]) -> None:
        """Adds the rows [B, size] that are on the mask.

        With n rows of mean m and sum of squares s about it, and N seen before, d = m - mean:
        mean += d n / (N + n);  var = (N var + s + d² N n / (N + n)) / (N + n).
        Source: Chan, Golub and LeVeque 1979, equation 2.1.
        """
        _update(values, mask, self.mean, self.var, self.count)

    def apply(self, obs: Array) -> Array:
        """clip((obs - mean) / sqrt(var + 1e-8), ±10) as float32, of rows [..., size]."""
        rows = np.ascontiguousarray(obs, np.float32).reshape(-1, len(self.mean))
        out = np.empty(rows.shape, np.float32)
        _apply(rows, self.mean, self.var, self.count, out)
        if self.kept is not None:
            out[:, self.kept] = rows[:, self.kept]
        return out.reshape(obs.shape)

    def copy_from(self, other: Statistics) -> None:
        """Takes over what another has seen."""
        self.mean[:], self.var[:], self.count[:] = other.mean, other.var, other.count

    def state(self) -> Saved:
        """All of it."""
        arrays = {name: getattr(self, name).copy() for name in ("mean", "var", "count")}
        return arrays if self.kept is None else {**arrays, "kept": self.kept.copy()}, {}

    def restore(self, saved: Saved) -> None:
        """Goes on from there."""
        arrays, _ = saved
        self.mean, self.var, self.count = (
            np.array(arrays[name], np.float64) for name in ("mean", "var", "count")
        )

    @classmethod
    def from_saved(cls, saved: Saved) -> Statistics:
        """Those that gave `saved`."""
        made = cls(len(saved[0]["mean"]), saved[0].get("kept"))
        made.restore(saved)
        return made


@compiled
def _update(values: Array, mask: Array, mean: Array, var: Array, count: Array) -> None:
    num = 0
    for row in range(len(mask)):
        num += mask[row]
    if num == 0:
        return
    before, total = count[0], count[0] + num
    for place in range(len(mean)):
        added = 0.0
        for row in range(len(mask)):
            if mask[row]:
                added += values[row, place]
        own_mean = added / num
        squares = 0.0
        for row in range(len(mask)):
            if mask[row]:
                squares += (values[row, place] - own_mean) ** 2
        delta = own_mean - mean[place]
        mean[place] += delta * num / total
        squares += var[place] * before + delta * delta * before * num / total
        var[place] = squares / total
    count[0] = total


@compiled
def _apply(obs: Array, mean: Array, var: Array, count: Array, out: Array) -> None:
    for place in range(len(mean)):
        scale = 1.0 if count[0] < 2 else 1.0 / np.sqrt(var[place] + EPSILON)
        for row in range(len(obs)):
            scaled = (obs[row, place] - mean[place]) * scale
            out[row, place] = min(max(scaled, -CLIP), CLIP)
