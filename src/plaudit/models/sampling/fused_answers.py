"""The steps of `fused.FusedDecoder`: one token for each row, attention included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from plaudit.models.sampling.cache import KeyValues, PromptKeyValues
from plaudit.models.sampling.fused_prefix import FusedPrefix


class Stepped(Protocol):
    """What answering asks of `fused.FusedDecoder`: its weights, and the parts of a step."""

    split: int | None
    layers: list[Any]
    dim: int
    kv_heads: int
    group: int

    @property
    def embedding(self) -> Tensor: ...

    def rotation(self, num_positions: int) -> tuple[Tensor, Tensor]: ...

    def project(self, layer: Any, x: Tensor) -> Tensor: ...

    def rotated(self, qkv: Tensor, cosine: Tensor, sine: Tensor) -> Tensor: ...

    def finish(self, layer: Any, x: Tensor, attended: Tensor) -> Tensor: ...

    def logits(self, x: Tensor) -> Tensor: ...


class FusedAnswers:
    """Rows being answered; see `stepping.Answers`.

    Where prompts have several answers, the prompt's keys and values stay in the prefix, read once
    for all of them. Where each has one, they are copied in front of the answer's own, so that a
    step is one attention.
    """

    idle_steps = 0.5

    def __init__(
        self, decoder: Stepped, prefix: FusedPrefix, group: Sequence[int], num_steps: int
    ) -> None:
        self.decoder = decoder
        device = decoder.embedding.device
        self.group = torch.tensor(group, device=device)
        self.shared = len(group) > len(set(group))
        width = prefix.width
        self.position = prefix.length[self.group]
        self.rotation = decoder.rotation(width + num_steps)
        self.own = KeyValues(
            len(decoder.layers),
            (len(group), decoder.kv_heads, decoder.dim),
            num_steps if self.shared else width + num_steps,
            like=decoder.embedding,
        )
        self.prefix = prefix
        if not self.shared:
            self.own.begin(prefix.cache, self.group)
            self.bias = None if prefix.bias is None else prefix.bias[self.group][:, None]
        else:
            self._arrange()

    def step(self, token: Tensor) -> tuple[Tensor, Tensor | None]:
        decoder, split = self.decoder, self.decoder.split
        rotation = self._advance()
        x = F.embedding(token, decoder.embedding)
        hidden = None
        for i in range(len(decoder.layers)):
            if i == split:
                hidden = x
            x = self._layer(i, x, rotation)
        self.position = self.position + 1
        return decoder.logits(x), hidden

    def trunk(self, token: Tensor) -> Tensor:
        decoder, split = self.decoder, self.decoder.split
        assert split is not None, "no split, so no trunk"
        rotation = self._advance()
        x = F.embedding(token, decoder.embedding)
        for i in range(split):
            x = self._layer(i, x, rotation)
        return x

    def keep(self, rows: Tensor) -> None:
        self.own.keep(rows)
        self.group, self.position = self.group[rows], self.position[rows]
        if self.shared:
            self._arrange()
        elif self.bias is not None:
            self.bias = self.bias[rows]

    def as_prefix(self, rows: Tensor, counts: Sequence[int]) -> FusedPrefix:
        """See `stepping.Answers`: keys and values of prompt and answer, one behind the other."""
        decoder = self.decoder
        rows = rows.to(self.group.device)
        asked = self.prefix.length[self.group[rows]]
        length = asked + torch.tensor(counts, device=rows.device)
        width, gap = int(length.max()), self.prefix.cache.length
        # Where a place of the row stands among the prompt's places and its own behind them.
        place = torch.arange(width, device=rows.device).expand(len(rows), -1)
        source = torch.where(place < asked[:, None], place, place - asked[:, None] + gap)
        source = source.masked_fill(place >= length[:, None], 0)
        shape = (len(rows), decoder.kv_heads, decoder.dim)
        cache = PromptKeyValues(len(decoder.layers), shape, width, like=decoder.embedding)
        for i in range(len(decoder.layers)):
            keys, values = self._whole(i, rows)
            at = source[:, None, None, :].expand(-1, *keys.shape[1:3], -1)
            cache.keys[i] = keys.gather(3, at)
            at = source[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
            cache.values[i] = values.gather(2, at)
        return FusedPrefix(length, cache, None, self.prefix.logits[:0], None)

    def _whole(self, i: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [R, heads, D, L + T] and values [R, heads, L + T, D] of prompts and answers."""
        keys = torch.cat([block[rows] for block in self.own.keys[i]], 3)
        values = self.own.values[i][rows]
        if not self.shared:
            return keys, values
        of_prompt, group = self.prefix.cache, self.group[rows]
        return (
            torch.cat([of_prompt.keys[i][group], keys], 3),
            torch.cat([of_prompt.values[i][group], values], 2),
        )

    def _advance(self) -> tuple[Tensor, Tensor]:
        """Make room for one more token; cosines and sines [R, dim / 2] of its rotation."""
        self.own.append()
        cosine, sine = self.rotation
        return cosine[self.position], sine[self.position]

    def _layer(self, i: int, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        decoder = self.decoder
        layer = decoder.layers[i]
        qkv = decoder.rotated(decoder.project(layer, x), *rotation)
        self.own.write(i, qkv[:, :, -2], qkv[:, :, -1])
        query = qkv.flatten(0, 1)[:, :-2]
        scores = self.own.scores(i, query)
        if self.shared:
            attended = self._attend_shared(i, query, scores)
        else:
            if self.bias is not None:  # the first piece is the prompt
                prompt_score = scores[0].view(len(x), -1, scores[0].shape[2])
                prompt_score += self.bias
            attended = self.own.mix(i, torch.cat(scores, -1).softmax(-1))
        return decoder.finish(layer, x, attended.view(len(x), -1))

    def _attend_shared(self, i: int, query: Tensor, own_scores: list[Tensor]) -> Tensor:
        """Attention over the prompt and the row's own tokens under one softmax: [N, group, dim]."""
        keys, values = self.prefix.cache.read(i)
        length = self.prefix.cache.length
        score = torch.bmm(self._by_prompt(query), keys)
        if self.bias is not None:
            score.view(self.num_prompts, -1, length).add_(self.bias)
        weight = torch.cat([self._by_row(score), *own_scores], -1).softmax(-1)
        out = torch.bmm(self._by_prompt(weight[..., :length]), values)
        return self._by_row(out) + self.own.mix(i, weight[..., length:])

    def _arrange(self) -> None:
        """Find each row's place in a rectangle of prompts × answers; drop prompts without rows."""
        count = self.group.bincount()
        prompts = count.nonzero()[:, 0]
        group, count = ((count > 0).cumsum(0) - 1)[self.group], count[prompts]
        if len(prompts) < len(self.prefix.length):
            self.prefix = self.prefix.select(prompts)
        self.group = group
        self.bias = None if self.prefix.bias is None else self.prefix.bias[:, None]
        self.num_prompts, self.num_places = len(prompts), int(count.max())
        self.place = self.row = None
        if int(count.min()) < self.num_places:
            first = count.cumsum(0) - count
            rank = torch.arange(len(group), device=group.device) - first[group]
            self.place = group * self.num_places + rank
            self.row = group.new_zeros(self.num_prompts * self.num_places)
            self.row[self.place] = torch.arange(len(group), device=group.device)

    def _by_prompt(self, x: Tensor) -> Tensor:
        """[rows × kv_heads, group, n] to [prompts × kv_heads, places × group, n]."""
        heads, n = self.decoder.kv_heads, x.shape[-1]
        x = x.view(-1, heads, *x.shape[1:])
        if self.row is not None:
            x = x[self.row]
        x = x.view(self.num_prompts, self.num_places, *x.shape[1:]).transpose(1, 2)
        return x.reshape(self.num_prompts * heads, -1, n)

    def _by_row(self, x: Tensor) -> Tensor:
        """The inverse of `_by_prompt`."""
        heads, n = self.decoder.kv_heads, x.shape[-1]
        x = x.view(self.num_prompts, heads, self.num_places, -1, n).transpose(1, 2).flatten(0, 1)
        if self.place is not None:
            x = x[self.place]
        return x.reshape(-1, x.shape[2], n)
