"""Tile coding: a vector of numbers as the few tiles that it lies in, one in each of several
tilings that are shifted against each other.

Tiles are counted, not hashed: every tile of every tiling has its own place in the weights, so two
points share a weight only where they share a tile. Numbers outside the range are refused.
Source: Sutton & Barto 2018, section 9.5.4; Miller & Glanz 1996 for the shifts by odd numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from plaudit.mdp.compiled import compiled
from plaudit.mdp.learning.episodes import check_count
from plaudit.mdp.learning.learned import Floats, Ints
from plaudit.records.errors import UserError


class TileCoding:
    """Tilings over a box, low [k] to high [k].

    Tiling t is shifted in dimension i by (t · (2i + 1) mod n) / n of a tile's width, n tilings; so
    a tiling has one tile more in each dimension than `num_tiles`. n a power of two of at least 4k
    spreads the shifts best.
    num_tiles: tiles across the box, one number or one for each dimension.
    Check: in one dimension points m/n of a tile apart share n - m tiles.
    """

    def __init__(
        self,
        low: ArrayLike,
        high: ArrayLike,
        *,
        num_tiles: int | ArrayLike = 8,
        num_tilings: int = 8,
    ) -> None:
        self.low, self.high = _ends(low, high)
        self.num_tilings = check_count(num_tilings, "num_tilings")
        self.num_tiles = _per_dimension(num_tiles, self.low.size)
        odd = 2 * np.arange(self.low.size) + 1
        shifts = np.arange(self.num_tilings)[:, None] * odd % self.num_tilings
        self._offset = np.ascontiguousarray(shifts / self.num_tilings, dtype=np.float64)
        self._scale = self.num_tiles / (self.high - self.low)
        self._across = self.num_tiles + 1

    @classmethod
    def of_box(
        cls, space: Any, *, num_tiles: int | ArrayLike = 8, num_tilings: int = 8
    ) -> TileCoding:
        """Tilings over a Gymnasium Box of one dimension and finite bounds."""
        if not hasattr(space, "low") or not hasattr(space, "high"):
            raise UserError(f"space: {space!r} has no bounds; expected a Box")
        return cls(space.low, space.high, num_tiles=num_tiles, num_tilings=num_tilings)

    @property
    def num_features(self) -> int:
        """Tiles in all tilings together."""
        return int(self.num_tilings * np.prod(self._across))

    def active(self, points: ArrayLike) -> Ints:
        """The active tiles [..., num_tilings] of points [..., k], each from 0 to num_features."""
        given = np.asarray(points, dtype=np.float64)
        if given.ndim == 0 or given.shape[-1] != self.low.size:
            raise UserError(f"points: shape {given.shape}; expected [..., {self.low.size}]")
        flat = np.ascontiguousarray(given.reshape(-1, self.low.size))
        out = np.empty((flat.shape[0], self.num_tilings), np.int64)
        fault = active_tiles(
            self.low, self.high, self._scale, self._offset, self._across, flat, out
        )
        if fault >= 0:
            row, i = divmod(fault, self.low.size)
            raise UserError(
                f"points: dimension {i} has {flat[row, i]:.6g}; "
                f"expected {self.low[i]:.6g} to {self.high[i]:.6g}"
            )
        return out.reshape(*given.shape[:-1], self.num_tilings)

    def features(self, points: ArrayLike) -> sparse.csr_array:
        """Rows of ones at the active tiles, [N, num_features], for points [N, k]."""
        active = self.active(points)
        if active.ndim != 2:
            raise UserError(f"points: {active.ndim} dimensions; expected [N, {self.low.size}]")
        indptr = np.arange(active.shape[0] + 1) * self.num_tilings
        shape = (active.shape[0], self.num_features)
        return sparse.csr_array((np.ones(active.size), active.ravel(), indptr), shape=shape)

    def __repr__(self) -> str:
        return f"TileCoding({self.num_tilings} tilings of {self.num_tiles.tolist()} tiles)"


@compiled
def active_tiles(
    low: Floats,
    high: Floats,
    scale: Floats,
    offset: Floats,
    across: Ints,
    points: Floats,
    out: NDArray[np.int64],
) -> int:
    """Fill out [N, n] with the tiles of points [N, k]; -1, or row·k + i of a point outside."""
    for row in range(points.shape[0]):
        for i in range(low.size):
            if not (low[i] <= points[row, i] <= high[i]):
                return row * low.size + i
        for tiling in range(offset.shape[0]):
            tile = tiling
            for i in range(low.size):
                place = (points[row, i] - low[i]) * scale[i] + offset[tiling, i]
                tile = tile * across[i] + int(place)
            out[row, tiling] = tile
    return -1


def _ends(low: ArrayLike, high: ArrayLike) -> tuple[Floats, Floats]:
    ends = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    if ends[0].ndim != 1 or ends[0].shape != ends[1].shape or not ends[0].size:
        raise UserError(
            f"low and high: shapes {ends[0].shape} and {ends[1].shape}; expected one shape [k]"
        )
    for i in range(ends[0].size):
        if not (np.isfinite(ends[0][i]) and np.isfinite(ends[1][i])):
            raise UserError(
                f"dimension {i} runs from {ends[0][i]} to {ends[1][i]}; tiles need finite bounds, "
                "so give low and high of your own"
            )
        if ends[0][i] >= ends[1][i]:
            raise UserError(
                f"dimension {i} runs from {ends[0][i]} to {ends[1][i]}; low is not below"
            )
    return ends


def _per_dimension(num_tiles: int | ArrayLike, size: int) -> Ints:
    given = np.asarray(num_tiles)
    if given.ndim == 0:
        given = np.full(size, given)
    if given.shape != (size,) or not np.issubdtype(given.dtype, np.integer) or (given < 1).any():
        raise UserError(f"num_tiles: {num_tiles!r}; expected {size} whole numbers of 1 or more")
    return given.astype(np.int64)
