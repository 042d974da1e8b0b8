"""Keys and values that decoding reads at every step, written in place and never concatenated.

Scores and outputs of attention are one kind of product: each query mixes rows of a table.

    score  = mixture(query [N, g, D], keys   [N, D, T])
    output = mixture(weight [N, g, T], values [N, T, D])

N counts rows × key-value heads and g the queries that share a key. So keys are kept transposed,
in blocks of positions that are each contiguous: a table that is read whole is read at twice the
rate of one with gaps. On a processor in float32 `kernels` reads caches of its own instead.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

# Positions in a block of keys: few calls, and few columns read before they are written.
_BLOCK = 32


def mixture(weight: Tensor, table: Tensor) -> Tensor:
    """Weighted sums of a table's first n rows: weight [N, g, n] · table [N, ≥ n, w] is [N, g, w]."""
    return torch.bmm(weight, table[:, : weight.shape[2]])


class KeyValues:
    """Keys and values of every layer for a set of rows, with room for `capacity` positions.

    A step is `append`, then for each layer `write`, `scores` and `mix`.
    """

    def __init__(
        self,
        num_layers: int,
        shape: tuple[int, int, int],
        capacity: int,
        *,
        like: Tensor,
    ) -> None:
        """`shape` is (rows, key-value heads, head dimension)."""
        rows, heads, dim = shape
        self.shape, self.like = shape, like
        self.length = 0
        self.start = 0  # where the blocks of _BLOCK positions begin
        self.keys: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self.values = [like.new_empty((rows, heads, capacity, dim)) for _ in range(num_layers)]

    def begin(self, prompts: PromptKeyValues, rows: Tensor) -> None:
        """Start with copies of the given prompts as the first positions."""
        for layer in range(len(self.keys)):
            self.keys[layer] = [prompts.keys[layer][rows]]
            self.values[layer][:, :, : prompts.length] = prompts.values[layer][rows]
        self.length = self.start = prompts.length

    def append(self) -> None:
        """Make room for one more position in every layer, which `write` then fills."""
        rows, heads, dim = self.shape
        if (self.length - self.start) % _BLOCK == 0:
            for blocks in self.keys:
                blocks.append(self.like.new_empty((rows, heads, dim, _BLOCK)))
        self.length += 1

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Put one key and one value [rows, heads, D] of each row at the last position."""
        self.keys[layer][-1][:, :, :, (self.length - self.start - 1) % _BLOCK] = key
        self.values[layer][:, :, self.length - 1] = value

    def scores(self, layer: int, query: Tensor) -> list[Tensor]:
        """Products of queries [N, g, D] and keys, in pieces to be joined: [N, g, T] together."""
        pieces = [mixture(query, block.flatten(0, 1)) for block in self.keys[layer]]
        spare = sum(p.shape[2] for p in pieces) - self.length
        pieces[-1] = pieces[-1][:, :, : pieces[-1].shape[2] - spare]
        return pieces

    def mix(self, layer: int, weight: Tensor) -> Tensor:
        """Values mixed by weights [N, g, T]: [N, g, D]."""
        return mixture(weight, self.values[layer].flatten(0, 1))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (in increasing order)."""
        self.shape = (len(rows), *self.shape[1:])
        for layer, values in enumerate(self.values):
            self.keys[layer] = [block[rows] for block in self.keys[layer]]
            self.values[layer] = values[: len(rows)]
            self.values[layer][:, :, : self.length] = values[rows, :, : self.length]


class PromptKeyValues:
    """Keys [P, heads, D, L] and values [P, heads, L, D] of whole prompts in every layer."""

    def __init__(
        self, num_layers: int, shape: tuple[int, int, int], length: int, *, like: Tensor
    ) -> None:
        """`shape` is (prompts, key-value heads, head dimension)."""
        prompts, heads, dim = shape
        self.length = length
        # Zeros, as padding is read and weighted by 0, and 0 · NaN is not 0.
        self.keys = [like.new_zeros((prompts, heads, dim, length)) for _ in range(num_layers)]
        self.values = [like.new_zeros((prompts, heads, length, dim)) for _ in range(num_layers)]
        self._in_blocks: dict[int, tuple[Tensor, Tensor]] = {}

    def in_blocks(self, layer: int, block: int) -> tuple[Tensor, Tensor]:
        """Keys in blocks of positions, [P, heads, blocks · D · block] numbers, and values
        [P, heads, blocks · block, D]; made once, when the prompts have been read."""
        if layer not in self._in_blocks:
            keys, values = self.keys[layer], self.values[layer]
            spare = whole_blocks(self.length, block) - self.length
            keys = F.pad(keys, (0, spare))
            keys = keys.view(*keys.shape[:3], -1, block).transpose(2, 3).contiguous()
            self._in_blocks[layer] = keys, F.pad(values, (0, 0, 0, spare))
        return self._in_blocks[layer]

    def fill(self, layer: int, prompts: Tensor, key: Tensor, value: Tensor) -> None:
        """Put keys and values [n, heads, l, D] of n prompts at positions 0 … l − 1."""
        length = key.shape[2]
        self.keys[layer][prompts, :, :, :length] = key.transpose(2, 3)
        self.values[layer][prompts, :, :length] = value

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys [P · heads, D, L] and values [P · heads, L, D]."""
        return self.keys[layer].flatten(0, 1), self.values[layer].flatten(0, 1)

    def select(self, prompts: Tensor, length: int) -> PromptKeyValues:
        """The given prompts, up to `length` positions, in tensors of their own."""
        chosen = copy.copy(self)
        chosen.length, chosen._in_blocks = length, {}
        chosen.keys = [keys[prompts, :, :, :length].contiguous() for keys in self.keys]
        chosen.values = [values[prompts, :, :length].contiguous() for values in self.values]
        return chosen


def whole_blocks(number: int, block: int) -> int:
    """The number rounded up to whole blocks."""
    return -(-number // block) * block
