"""The steps of `fused.FusedDecoder` on a processor in float32: one token for each row.

Every row has a slot in the cache that it never leaves: rows are dropped and others begin without a
key or value being moved. See `kernels` for how these lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from plaudit.models.sampling.cache import PromptKeyValues, whole_blocks
from plaudit.models.sampling.fused_prefix import FusedPrefix
from plaudit.models.sampling.packed import flat


class Kerneled(Protocol):
    """What answering asks of `fused.FusedDecoder`."""

    split: int | None
    layers: list[Any]
    dim: int
    kv_heads: int
    group: int
    scaling: float
    kernels: Any

    @property
    def stepped(self) -> list[Any]: ...

    @property
    def embedding(self) -> Tensor: ...

    def rotation(self, num_positions: int) -> tuple[Tensor, Tensor]: ...

    def project(self, layer: Any, x: Tensor) -> Tensor: ...

    def finish(self, layer: Any, x: Tensor, attended: Tensor) -> Tensor: ...

    def step_logits(self, x: Tensor) -> Tensor: ...


class KernelAnswers:
    """Rows being answered; see `stepping.Answers`."""

    idle_steps = 0.0

    def __init__(
        self, decoder: Kerneled, prefix: FusedPrefix, group: Sequence[int], num_steps: int
    ) -> None:
        self.decoder, self.prefix = decoder, prefix
        self.block = int(decoder.kernels.BLOCK)
        self.cosine, self.sine = decoder.rotation(prefix.width + num_steps)
        heads, dim = decoder.kv_heads, decoder.dim
        self.num_steps = num_steps
        self.room = whole_blocks(num_steps, self.block)
        shape = (len(group), heads, self.room, dim)
        every = range(len(decoder.layers))
        self.keys = [decoder.embedding.new_empty(shape) for _ in every]
        self.values = [decoder.embedding.new_empty(shape) for _ in every]
        self.prompts = [prefix.cache.in_blocks(i, self.block) for i in every]
        room = whole_blocks(prefix.cache.length, self.block)
        self.sizes = (heads, decoder.group, dim, room, self.room)
        self.group = torch.tensor(group)
        self.slot = torch.arange(len(group))
        self.count = torch.zeros(len(group), dtype=torch.long)
        self._sort()

    def step(self, token: Tensor) -> tuple[Tensor, Tensor | None]:
        decoder, split = self.decoder, self.decoder.split
        x, hidden = F.embedding(token, decoder.embedding), None
        turns = self._turns()
        for i in range(len(decoder.layers)):
            if i == split:
                hidden = x
            x = self._layer(i, x, turns)
        self.count += 1
        return decoder.step_logits(x), hidden

    def trunk(self, token: Tensor) -> Tensor:
        decoder, split = self.decoder, self.decoder.split
        assert split is not None, "no split, so no trunk"
        x, turns = F.embedding(token, decoder.embedding), self._turns()
        for i in range(split):
            x = self._layer(i, x, turns)
        return x

    def keep(self, rows: Tensor) -> None:
        self.group, self.slot, self.count = self.group[rows], self.slot[rows], self.count[rows]
        self._sort()

    def add(self, group: Sequence[int]) -> None:
        """Begin further rows behind the others, row i with prompt group[i]: no more rows in all than
        there were at the start."""
        free = torch.ones(len(self.keys[0]), dtype=torch.bool)
        free[self.slot] = False
        slots = free.nonzero()[: len(group), 0]
        self.group = torch.cat([self.group, torch.tensor(group)])
        self.slot = torch.cat([self.slot, slots])
        self.count = torch.cat([self.count, torch.zeros_like(slots)])
        self._sort()

    def as_prefix(self, rows: Tensor, counts: Sequence[int]) -> FusedPrefix:
        """See `stepping.Answers`: keys and values of prompt and answer, one behind the other."""
        decoder, prefix = self.decoder, self.prefix
        group, slot = self.group[rows], self.slot[rows]
        asked = prefix.length[group]
        length = asked + torch.tensor(counts)
        width, num_own = int(length.max()), max(counts)
        shape = (len(rows), decoder.kv_heads, decoder.dim)
        cache = PromptKeyValues(len(decoder.layers), shape, width, like=decoder.embedding)
        own = torch.arange(num_own) < torch.tensor(counts)[:, None]
        row, at = own.nonzero(as_tuple=True)
        place = asked[row] + at
        for i in range(len(decoder.layers)):
            most = min(width, prefix.cache.length)
            cache.keys[i][..., :most] = prefix.cache.keys[i][group][..., :most]
            cache.values[i][:, :, :most] = prefix.cache.values[i][group][:, :, :most]
            keys = self.keys[i].view(
                len(self.keys[i]), decoder.kv_heads, -1, decoder.dim, self.block
            )
            of_row = keys[slot[row], :, at // self.block, :, at % self.block]
            cache.keys[i][row, :, :, place] = of_row
            cache.values[i][row, :, place] = self.values[i][slot[row], :, at]
        return FusedPrefix(length, cache, None, prefix.logits[:0], None)

    def _turns(self) -> tuple[Any, Any]:
        """Cosines and sines of each row's position."""
        if len(self.count) and int(self.count.max()) >= self.num_steps:
            raise IndexError("a row was fed more tokens than it has places for")
        position = self.prefix.length[self.group] + self.count
        return flat(self.cosine[position]), flat(self.sine[position])

    def _layer(self, i: int, x: Tensor, turns: tuple[Any, Any]) -> Tensor:
        decoder = self.decoder
        layer = decoder.stepped[i]
        qkv = decoder.project(layer, x)
        attended = x.new_empty((len(x), decoder.kv_heads * decoder.group * decoder.dim))
        decoder.kernels.attend(
            flat(qkv),
            *turns,
            decoder.scaling,
            *self.asked,
            *(flat(of_prompts) for of_prompts in self.prompts[i]),
            self.slot.numpy(),
            self.count.numpy(),
            flat(self.keys[i]),
            flat(self.values[i]),
            self.sizes,
            flat(attended),
        )
        return decoder.finish(layer, x, attended)

    def _sort(self) -> None:
        """Rows in the order of their prompts: the order, where each begins, its number and length."""
        order = self.group.argsort(stable=True)
        count = self.group.bincount()
        prompt = count.nonzero()[:, 0]
        count = count[prompt]
        starts = F.pad(count.cumsum(0), (1, 0))
        length = self.prefix.length[prompt]
        self.asked = tuple(x.numpy() for x in (order, starts, prompt, length))
