"""One-token steps of any causal language model of transformers, through its own forward.

Slower than `fused`, and right wherever the model itself is: prompts are padded on the left under
an attention mask, read once, and copied to their answers. Layers of plain attention keep keys and
values in buffers written in place; other kinds (sliding windows, recurrent states) keep the cache
that transformers gives them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class HostedPrefix:
    """Prompts that have been read; see `stepping.Prefix`."""

    cache: DynamicCache
    attention: Tensor
    """1 on prompt tokens, 0 on the padding at their left, [P, L]."""
    logits: Tensor
    hidden: Tensor | None


class WrittenInPlace(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A layer's keys and values [rows, heads, length, D] as views of buffers with spare room."""

    def __init__(self, layer: Any, capacity: int) -> None:
        super().__init__()
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True
        self.buffers = [
            x.new_empty((*x.shape[:2], capacity, x.shape[3])) for x in (layer.keys, layer.values)
        ]
        self.length = 0
        self.update(layer.keys, layer.values)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        stop = self.length + key_states.shape[2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : stop] = new
        self.length = stop
        self.keys, self.values = (buffer[:, :, :stop] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        rows = len(indices)
        for buffer in self.buffers:
            buffer[:rows, :, : self.length] = buffer[indices, :, : self.length]
        self.buffers = [buffer[:rows] for buffer in self.buffers]
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)


class HostedDecoder:
    """A causal model stepped through its own forward."""

    refills = False

    def __init__(self, model: PreTrainedModel, split: int | None) -> None:
        self.model = model
        self.split = split
        accepted = inspect.signature(model.forward).parameters
        self.takes_position = "position_ids" in accepted
        self.takes_logits_to_keep = "logits_to_keep" in accepted

    def refresh(self) -> None:
        """Nothing to do: the model's own weights are used."""

    def release(self) -> None:
        """Nothing to do."""

    def forward(
        self, token: Tensor, attention: Tensor, cache: DynamicCache
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the last place [n, V], and hidden states [n, L, H] of all of `token` [n, L]."""
        given: dict[str, Any] = {}
        if self.takes_position:
            position = (attention.cumsum(-1) - 1).clamp(min=0)
            given["position_ids"] = position[:, -token.shape[1] :]
        if self.takes_logits_to_keep:
            given["logits_to_keep"] = 1
        out = self.model(
            input_ids=token,
            attention_mask=attention,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=self.split is not None,
            **given,
        )
        hidden = None if self.split is None else out.hidden_states[self.split]
        return out.logits[:, -1], hidden

    def prefill(self, prompts: Sequence[Sequence[int]]) -> HostedPrefix:
        token, attention = self._left_padded(prompts)
        width = token.shape[1]
        cache = DynamicCache(config=self.model.config)
        logits, padded = self.forward(token, attention, cache)
        hidden = None
        if padded is not None:  # moved to the left
            hidden = torch.zeros_like(padded)
            for row, p in enumerate(prompts):
                hidden[row, : len(p)] = padded[row, width - len(p) :]
        return HostedPrefix(cache, attention, logits, hidden)

    def extend(self, prefix: HostedPrefix, tokens: Sequence[Sequence[int]]) -> HostedPrefix:
        """See `stepping.SteppingDecoder`; the padding before a row's new tokens is not attended."""
        token, attention = self._left_padded(tokens)
        attention = torch.cat([prefix.attention, attention], 1)
        logits, _ = self.forward(token, attention, prefix.cache)
        return HostedPrefix(prefix.cache, attention, logits, None)

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids [n, L] with padding before each row, and 1 where they are real."""
        width = max(map(len, rows))
        token = torch.zeros((len(rows), width), dtype=torch.long)
        attention = torch.zeros_like(token)
        for row, ids in enumerate(rows):
            token[row, width - len(ids) :] = torch.tensor(ids)
            attention[row, width - len(ids) :] = 1
        return token.to(self.model.device), attention.to(self.model.device)

    def start(self, prefix: HostedPrefix, group: Sequence[int], num_steps: int) -> HostedAnswers:
        return HostedAnswers(self, prefix, group, num_steps)


class HostedAnswers:
    """Rows being answered; see `stepping.Answers`."""

    idle_steps = 0.5

    def __init__(
        self, decoder: HostedDecoder, prefix: HostedPrefix, group: Sequence[int], num_steps: int
    ) -> None:
        self.decoder = decoder
        index = torch.tensor(group, device=prefix.attention.device)
        self.width = width = prefix.attention.shape[1]
        self.attention = torch.nn.functional.pad(prefix.attention[index], (0, num_steps), value=1)
        self.used = width
        self.cache = copy.deepcopy(prefix.cache)  # other waves may begin from the same prefix
        self.cache.batch_select_indices(index)
        for i, layer in enumerate(self.cache.layers):
            if type(layer) is DynamicLayer:
                self.cache.layers[i] = WrittenInPlace(layer, width + num_steps)

    def step(self, token: Tensor) -> tuple[Tensor, Tensor | None]:
        self.used += 1
        attention = self.attention[:, : self.used]
        logits, hidden = self.decoder.forward(token[:, None], attention, self.cache)
        return logits, None if hidden is None else hidden[:, 0]

    def trunk(self, token: Tensor) -> Tensor:
        _, hidden = self.step(token)
        assert hidden is not None, "no split, so no trunk"
        return hidden

    def as_prefix(self, rows: Tensor, counts: Sequence[int]) -> HostedPrefix | None:
        """See `stepping.Answers`: layers of plain attention alone can be parted by places."""
        layers = self.cache.layers
        if not all(type(layer) in (DynamicLayer, WrittenInPlace) for layer in layers):
            return None
        rows = rows.to(self.attention.device)
        attention = self.attention[rows, : self.width + max(counts)].clone()
        for i, n in enumerate(counts):
            attention[i, self.width + n :] = 0
        # Real places behind the others, in their order, and no more of them than the longest has.
        width = int(attention.sum(1).max())
        source = attention.argsort(dim=1, stable=True)[:, -width:]
        cache = DynamicCache(config=self.decoder.model.config)
        for i, layer in enumerate(layers):
            at = source[:, None, :, None].expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
            of_values = at[..., :1].expand(-1, -1, -1, layer.values.shape[3])
            cache.update(layer.keys[rows].gather(2, at), layer.values[rows].gather(2, of_values), i)
        empty = self.decoder.model.get_input_embeddings().weight.new_empty((0, 0))
        return HostedPrefix(cache, attention.gather(1, source), empty, None)

    def keep(self, rows: Tensor) -> None:
        self.attention = self.attention[rows]
        self.cache.batch_select_indices(rows)
