"""Keys and values that decoding reads at every step, written in place and never concatenated.

Scores and outputs of attention are one kind of product: each query mixes rows of a table.

    score  = mixture(query [N, g, D], keys   [N, D, T])
    output = mixture(weight [N, g, T], values [N, T, D])

N counts rows × key-value heads and g the queries that share a key. So keys are kept transposed,
in blocks of positions that are each contiguous: a table that is read whole is read at twice the
rate of one with gaps. On a CPU in float32 a mixture is torch's embedding bag (rows of a table,
weighted and summed), measured at 2 to 5 times the rate of a batched matrix product with so few
queries, and 3 times that of scaled_dot_product_attention; elsewhere it is the batched product.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

# Positions in a block of keys: few calls, and few columns read before they are written.
_BLOCK = 32
# Above this many queries to a key, a batched product reads tables less often than bags do.
_MAX_BAGS = 8


def mixture(weight: Tensor, table: Tensor, rows: Tensor | None = None) -> Tensor:
    """Weighted sums of a table's rows: weight [N, g, n] · table [N, n, w] is [N, g, w].

    With `rows` from `bag_rows` it runs as one embedding bag over the contiguous table, which may
    hold more than n rows; without, as a batched product.
    """
    if rows is None:
        return torch.bmm(weight, table[:, : weight.shape[2]])
    num_bags = weight.shape[0] * weight.shape[1]
    starts = torch.arange(0, rows.numel(), weight.shape[2], dtype=rows.dtype)
    flat = table.view(-1, table.shape[2])
    out = torch.embedding_bag(flat, rows.reshape(-1), starts, False, 0, False, weight.reshape(-1))[
        0
    ]
    assert len(out) == num_bags, "one bag for each query"
    return out.view(*weight.shape[:2], -1)


def bag_rows(num_tables: int, num_queries: int, height: int, like: Tensor) -> Tensor | None:
    """Row numbers [N · g, height] of each query's table within all N tables, or None where a
    batched product is the better mixture."""
    if like.device.type != "cpu" or like.dtype != torch.float32 or num_queries > _MAX_BAGS:
        return None
    first = torch.arange(num_tables, dtype=torch.long)[:, None, None] * height
    rows = first + torch.arange(height)
    rows = rows.expand(num_tables, num_queries, height).reshape(-1, height)
    # Half the width is half the traffic; tables of more rows than this do not fit a machine's RAM.
    return rows.to(torch.int32) if num_tables * height < 2**31 else rows


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
        num_queries: int,
        like: Tensor,
    ) -> None:
        """`shape` is (rows, key-value heads, head dimension); `num_queries` share a key."""
        rows, heads, dim = shape
        self.shape, self.capacity, self.num_queries, self.like = shape, capacity, num_queries, like
        self.length = 0
        self.start = 0  # where the blocks of _BLOCK positions begin
        self._number_rows()
        self.keys: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self.values = [like.new_empty((rows, heads, capacity, dim)) for _ in range(num_layers)]

    def begin(self, prompts: PromptKeyValues, rows: Tensor) -> None:
        """Start with copies of the given prompts as the first positions."""
        for layer in range(len(self.keys)):
            self.keys[layer] = [prompts.keys[layer][rows]]
            self.values[layer][:, :, : prompts.length] = prompts.values[layer][rows]
        self.length = self.start = prompts.length

    def _number_rows(self) -> None:
        rows, heads, dim = self.shape
        self.key_rows = bag_rows(rows * heads, self.num_queries, dim, self.like)
        self.value_rows = bag_rows(rows * heads, self.num_queries, self.capacity, self.like)

    def append(self) -> None:
        """Make room for one more position in every layer, which `write` then fills."""
        rows, heads, dim = self.shape
        if (self.length - self.start) % _BLOCK == 0:
            for blocks in self.keys:
                blocks.append(self.like.new_empty((rows, heads, dim, _BLOCK)))
        self.length += 1
        rows_now = self.value_rows
        self.rows_now = None if rows_now is None else rows_now[:, : self.length].contiguous()

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Put one key and one value [rows, heads, D] of each row at the last position."""
        self.keys[layer][-1][:, :, :, (self.length - self.start - 1) % _BLOCK] = key
        self.values[layer][:, :, self.length - 1] = value

    def scores(self, layer: int, query: Tensor) -> list[Tensor]:
        """Products of queries [N, g, D] and keys, in pieces to be joined: [N, g, T] together."""
        pieces = [mixture(query, block.flatten(0, 1), self.key_rows) for block in self.keys[layer]]
        spare = sum(p.shape[2] for p in pieces) - self.length
        pieces[-1] = pieces[-1][:, :, : pieces[-1].shape[2] - spare]
        return pieces

    def mix(self, layer: int, weight: Tensor) -> Tensor:
        """Values mixed by weights [N, g, T]: [N, g, D]."""
        return mixture(weight, self.values[layer].flatten(0, 1), self.rows_now)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (in increasing order)."""
        self.shape = (len(rows), *self.shape[1:])
        for layer, values in enumerate(self.values):
            self.keys[layer] = [block[rows] for block in self.keys[layer]]
            self.values[layer] = values[: len(rows)]
            self.values[layer][:, :, : self.length] = values[rows, :, : self.length]
        self._number_rows()


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
        chosen.length = length
        chosen.keys = [keys[prompts, :, :, :length].contiguous() for keys in self.keys]
        chosen.values = [values[prompts, :, :length].contiguous() for values in self.values]
        return chosen
