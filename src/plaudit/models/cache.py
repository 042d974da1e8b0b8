"""Keys and values that decoding reads at every step, written in place.

`KeyValues` is ours, for the fused decoder. Keys are kept transposed, [N, D, T], so that scores are
one batched product that reads memory in order; values are [N, T, D]; N counts rows × key-value
heads. Measured against [N, T, D] keys and against scaled_dot_product_attention at one query: 1.5
and 3 times faster on a CPU.
"""

from __future__ import annotations

import copy
from types import EllipsisType

from torch import Tensor


class KeyValues:
    """Keys and values of every layer for a set of rows, with room for `capacity` positions."""

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int],
        capacity: int,
        *,
        like: Tensor,
        zero: bool = False,
    ) -> None:
        """`shape` is (rows, key-value heads, head dimension); unwritten places hold anything,
        or 0 with `zero`."""
        rows, heads, dim = shape
        new = like.new_zeros if zero else like.new_empty
        self.keys = [new((rows, heads, dim, capacity)) for _ in range(num_layers)]
        self.values = [new((rows, heads, capacity, dim)) for _ in range(num_layers)]

    def write(self, layer: int, position: int, key: Tensor, value: Tensor) -> None:
        """Put one key and one value [rows, heads, D] of each row at a position."""
        self.keys[layer][:, :, :, position] = key
        self.values[layer][:, :, position] = value

    def fill(self, layer: int, rows: Tensor, key: Tensor, value: Tensor) -> None:
        """Put keys and values [n, heads, L, D] of n rows at positions 0 … L − 1."""
        length = key.shape[2]
        self.keys[layer][rows, :, :, :length] = key.transpose(2, 3)
        self.values[layer][rows, :, :length] = value

    def copy_rows(self, other: KeyValues, rows: Tensor) -> None:
        """Put the given rows of another cache, which holds fewer positions, at the start."""
        for layer, (keys, values) in enumerate(zip(other.keys, other.values, strict=True)):
            self.keys[layer][:, :, :, : keys.shape[3]] = keys[rows]
            self.values[layer][:, :, : values.shape[2]] = values[rows]

    def read(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys [N, D, length] and values [N, length, D], as views."""
        keys, values = self.keys[layer], self.values[layer]
        return keys.flatten(0, 1)[:, :, :length], values.flatten(0, 1)[:, :length]

    def select(self, rows: Tensor, length: int) -> KeyValues:
        """A cache of its own that holds `length` positions of the given rows."""
        chosen = copy.copy(self)
        chosen.keys = [keys[rows, :, :, :length] for keys in self.keys]
        chosen.values = [values[rows, :, :length] for values in self.values]
        return chosen

    def keep(self, rows: Tensor, length: int) -> None:
        """Drop all rows but these; the buffers shrink in place, layer by layer."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            self.keys[layer] = _shrunk(keys, rows, (..., slice(length)))
            self.values[layer] = _shrunk(values, rows, (..., slice(length), slice(None)))


def _shrunk(buffer: Tensor, rows: Tensor, written: tuple[EllipsisType | slice, ...]) -> Tensor:
    """The first len(rows) rows of the buffer, now holding `rows` where it had been written."""
    kept = buffer[written][rows]
    buffer = buffer[: len(rows)]
    buffer[written] = kept
    return buffer
