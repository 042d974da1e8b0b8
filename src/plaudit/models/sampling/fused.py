"""One-token steps of Llama-shaped models, written for speed at 1 to 100 rows.

Serves LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM of transformers
when `fits` holds: plain linear maps, full attention in every layer, and rotary positions that do
not depend on the length of the sequence. Any other model goes to `hosted`.

How a step differs from the model's own forward, with the same result up to rounding:
- query, key and value weights are one matrix, whose rows are ordered by key-value head:
  its queries, its key, its value. So a view of one product is what the batched attention reads.
- the two halves of a query or key are interleaved, which makes the rotation of Su et al. 2021 one
  product of complex numbers in place; scores do not see the order. It also scales the queries.
- grouped queries meet their shared key in one product; no key or value is repeated.
- answers to one prompt read its keys together: attention to the prompt is one product for a prompt
  and a key-value head, attention to the answer's own tokens another, under one softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plaudit.models.sampling.cache import PromptKeyValues
from plaudit.models.sampling.fused_answers import FusedAnswers
from plaudit.models.sampling.fused_prefix import FusedPrefix
from plaudit.models.sampling.packed import Linear, linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CLASSES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Kinds of rotary scaling whose frequencies are fixed when the model is made.
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
# Prompt tokens read in one pass: bounds the memory of a prefill, and the padding in it.
_PREFILL_TOKENS = 1024


def fits(model: PreTrainedModel) -> bool:
    """Whether `FusedDecoder` computes what this model computes."""
    config: Any = model.config
    if type(model).__name__ not in _CLASSES or "transformers" not in type(model).__module__:
        return False
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (window and window < config.max_position_embeddings):
        return False
    base: Any = model.base_model
    if base.rotary_emb.rope_type not in _FIXED_ROPE:
        return False
    maps = [model.get_output_embeddings()]
    for layer in base.layers:
        attention, mlp = layer.self_attn, layer.mlp
        maps += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        maps += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return all(type(m) is nn.Linear for m in maps)


@dataclass(frozen=True)
class _Layer:
    """One decoder layer: the model's own norms, and its weights in the layout of a step."""

    norm_in: nn.Module
    qkv: Linear
    qk_norm: tuple[Tensor, float] | None
    out: Linear
    norm_mid: nn.Module
    gate: Linear
    up: Linear
    down: Linear
    activation: nn.Module


class FusedDecoder:
    """A Llama-shaped model, ready for fast steps. `refresh` copies its weights."""

    def __init__(self, model: PreTrainedModel, split: int | None) -> None:
        base: Any = model.base_model
        self.model = model
        self.base = base
        self.split = split
        attention = base.layers[0].self_attn
        self.dim = int(attention.head_dim)
        self.kv_heads = attention.k_proj.out_features // self.dim
        self.group = attention.q_proj.out_features // attention.k_proj.out_features
        self.scaling = float(attention.scaling)
        self.layers: list[Any] = [None] * len(base.layers)
        self.head: Any = None

    @property
    def embedding(self) -> Tensor:
        weight: Tensor = self.base.embed_tokens.weight
        return weight

    def refresh(self) -> None:
        # One by one, so that a layer's memory serves the next: fresh pages cost more than copies.
        for i, layer in enumerate(self.base.layers):
            self.layers[i] = self._layer(layer)
        head: Any = self.model.get_output_embeddings()
        self.head = linear(head.weight, head.bias)

    def release(self) -> None:
        self.layers = [None] * len(self.layers)
        self.head = None

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return _Layer(
            norm_in=layer.input_layernorm,
            qkv=self._qkv(attention),
            qk_norm=self._qk_norm(attention),
            out=linear(attention.o_proj.weight, attention.o_proj.bias),
            norm_mid=layer.post_attention_layernorm,
            gate=linear(mlp.gate_proj.weight, mlp.gate_proj.bias),
            up=linear(mlp.up_proj.weight, mlp.up_proj.bias),
            down=linear(mlp.down_proj.weight, mlp.down_proj.bias),
            activation=mlp.act_fn,
        )

    def _qkv(self, attention: Any) -> Linear:
        """One map onto [kv_heads, group + 2, dim]: queries, key, value of each key-value head."""
        maps = (attention.q_proj, attention.k_proj, attention.v_proj)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            q, k, v = (p.reshape(self.kv_heads, -1, self.dim, *p.shape[1:]) for p in parts)
            return torch.cat([_interleaved(q), _interleaved(k), v], 1).flatten(0, 2)

        biases = None if maps[0].bias is None else joined([m.bias for m in maps])
        return linear(joined([m.weight for m in maps]), biases)

    def _qk_norm(self, attention: Any) -> tuple[Tensor, float] | None:
        """Weights [group + 1, dim] of the norms of queries and keys (Qwen3), and their epsilon."""
        if not hasattr(attention, "q_norm"):
            return None
        q, k = (m.weight.reshape(1, 1, self.dim) for m in (attention.q_norm, attention.k_norm))
        weight = torch.cat([q.expand(1, self.group, -1), k], 1)
        weight = _interleaved(weight[..., None])[0, ..., 0]
        return weight, float(attention.q_norm.variance_epsilon)

    def rotation(self, num_positions: int) -> Tensor:
        """Complex factors [num_positions, group + 1, dim / 2]: queries' carry the scaling too."""
        position = torch.arange(num_positions, device=self.embedding.device)[None]
        cos, sin = self.base.rotary_emb(self.embedding[:1, None], position)
        wide = torch.promote_types(cos.dtype, torch.float32)
        half = self.dim // 2
        factor = torch.complex(cos[0, :, :half].to(wide), sin[0, :, :half].to(wide))[:, None]
        return torch.cat([(factor * self.scaling).expand(-1, self.group, -1), factor], 1)

    def project(self, layer: _Layer, x: Tensor, rotation: Tensor) -> Tensor:
        """Queries, keys, values [n, kv_heads, group + 2, dim] of x [n, H], rotated in place."""
        qkv = layer.qkv(norm(layer.norm_in, x))
        qkv = qkv.view(len(x), self.kv_heads, self.group + 2, self.dim)
        qk = qkv[:, :, :-1]
        if layer.qk_norm is not None:
            weight, epsilon = layer.qk_norm
            wide = qk.float()
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
            qk.copy_(weight * wide.to(qk.dtype))
        if rotation.real.dtype == qk.dtype:
            pairs = qkv.view(*qkv.shape[:-1], -1, 2)[:, :, :-1]
            torch.view_as_complex(pairs).mul_(rotation)
        else:  # half precision has no complex numbers
            pairs = qk.to(rotation.real.dtype).reshape(*qk.shape[:-1], -1, 2)
            qk.copy_(torch.view_as_real(torch.view_as_complex(pairs) * rotation).flatten(-2))
        return qkv

    def finish(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer after attention: x + out(attended), then x + mlp(norm(x))."""
        x = layer.out.plus(attended, x)
        h = norm(layer.norm_mid, x)
        gate: Tensor = layer.activation(layer.gate(h))
        return layer.down.plus(gate.mul_(layer.up(h)), x)

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(norm(self.base.norm, x))
        return logits

    def prefill(self, prompts: Sequence[Sequence[int]]) -> FusedPrefix:
        lengths = [len(p) for p in prompts]
        width = max(lengths)
        like = self.embedding
        shape = (len(prompts), self.kv_heads, self.dim)
        cache = PromptKeyValues(len(self.layers), shape, width, like=like)
        logits = like.new_empty((len(prompts), self.head.num_out))
        hidden = None
        if self.split is not None:
            hidden = like.new_zeros((len(prompts), width, like.shape[1]))
        for chunk in _chunks(lengths):
            self._read(prompts, chunk, cache, logits, hidden)
        length = torch.tensor(lengths, device=like.device)
        return FusedPrefix(length, cache, self._bias(length, width), logits, hidden)

    def _read(
        self,
        prompts: Sequence[Sequence[int]],
        chunk: Sequence[int],
        cache: PromptKeyValues,
        logits: Tensor,
        hidden: Tensor | None,
    ) -> None:
        """Read the prompts of one chunk, padded on the right, and fill their rows."""
        token, real = _padded([prompts[p] for p in chunk])
        width = token.shape[1]
        device = self.embedding.device
        index, real = torch.tensor(chunk, device=device), real.to(device)
        rotation = self.rotation(width).repeat(len(chunk), 1, 1)[:, None]
        x = F.embedding(token.to(device).flatten(), self.embedding)
        for i, layer in enumerate(self.layers):
            if i == self.split and hidden is not None:
                hidden[index, :width] = x.view(*token.shape, -1) * real[..., None]
            qkv = self.project(layer, x, rotation)
            qkv = qkv.view(*token.shape, *qkv.shape[1:])
            key, value = qkv[:, :, :, -2].transpose(1, 2), qkv[:, :, :, -1].transpose(1, 2)
            query = qkv[:, :, :, :-2].flatten(2, 3).transpose(1, 2)
            out = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=1.0, enable_gqa=self.group > 1
            )
            cache.fill(i, index, key, value)
            x = self.finish(layer, x, out.transpose(1, 2).flatten(2).flatten(0, 1))
        last = x.view(*token.shape, -1)[torch.arange(len(chunk), device=device), real.sum(1) - 1]
        logits[index] = self.logits(last)

    def extend(self, prefix: FusedPrefix, tokens: Sequence[Sequence[int]]) -> FusedPrefix:
        """See `stepping.SteppingDecoder`: the new tokens see all that was read, and each other."""
        new = torch.tensor([len(t) for t in tokens], device=self.embedding.device)
        length = prefix.length + new
        shape = (len(tokens), self.kv_heads, self.dim)
        width = int(length.max())
        cache = PromptKeyValues(len(self.layers), shape, width, like=self.embedding)
        logits = self.embedding.new_empty((len(tokens), self.head.num_out))
        for chunk in _chunks([len(t) for t in tokens]):
            self._read_behind(prefix, tokens, chunk, cache, logits)
        return FusedPrefix(length, cache, self._bias(length, width), logits, None)

    def _read_behind(
        self,
        prefix: FusedPrefix,
        tokens: Sequence[Sequence[int]],
        chunk: Sequence[int],
        cache: PromptKeyValues,
        logits: Tensor,
    ) -> None:
        """Read the new tokens of one chunk of rows, padded on the right, and fill their rows."""
        device = self.embedding.device
        token, real = _padded([tokens[row] for row in chunk])
        token, real, index = token.to(device), real.to(device), torch.tensor(chunk, device=device)
        before, num_new = prefix.length[index], token.shape[1]
        past = int(before.max())
        step = torch.arange(num_new, device=device)
        position = before[:, None] + step
        seen = torch.arange(past, device=device) < before[:, None]
        allowed = torch.cat(
            [
                seen[:, None, :].expand(-1, num_new, -1),
                (step[:, None] >= step).expand(len(chunk), -1, -1),
            ],
            2,
        )[:, None]
        rotation = self.rotation(int(position.max()) + 1)[position.flatten()][:, None]
        row, place = real.nonzero(as_tuple=True)
        x = F.embedding(token.flatten(), self.embedding)
        for i, layer in enumerate(self.layers):
            qkv = self.project(layer, x, rotation).view(*token.shape, self.kv_heads, -1, self.dim)
            key, value = qkv[:, :, :, -2].transpose(1, 2), qkv[:, :, :, -1].transpose(1, 2)
            query = qkv[:, :, :, :-2].flatten(2, 3).transpose(1, 2)
            old_key = prefix.cache.keys[i][index, :, :, :past]
            old_value = prefix.cache.values[i][index, :, :past]
            out = F.scaled_dot_product_attention(
                query,
                torch.cat([old_key.transpose(2, 3), key], 2),
                torch.cat([old_value, value], 2),
                attn_mask=allowed,
                scale=1.0,
                enable_gqa=self.group > 1,
            )
            cache.keys[i][index, :, :, :past] = old_key
            cache.values[i][index, :, :past] = old_value
            at = position[row, place]
            cache.keys[i][index[row], :, :, at] = key.transpose(1, 2)[row, place]
            cache.values[i][index[row], :, at] = value.transpose(1, 2)[row, place]
            x = self.finish(layer, x, out.transpose(1, 2).flatten(2).flatten(0, 1))
        last = x.view(*token.shape, -1)[torch.arange(len(chunk), device=device), real.sum(1) - 1]
        logits[index] = self.logits(last)

    def _bias(self, length: Tensor, width: int) -> Tensor | None:
        """0 on tokens, −inf on padding; None where there is none."""
        if int(length.min()) == width:
            return None
        padding = torch.arange(width, device=length.device) >= length[:, None]
        return self.embedding.new_zeros(padding.shape).masked_fill_(padding, -torch.inf)

    def start(self, prefix: FusedPrefix, group: Sequence[int], num_steps: int) -> FusedAnswers:
        return FusedAnswers(self, prefix, group, num_steps)


def norm(module: nn.Module, x: Tensor) -> Tensor:
    """x / rms(x) · weight; in float32 by one operator, else as the module computes it."""
    if x.dtype != torch.float32:
        out: Tensor = module(x)
        return out
    weight: Any = module.weight
    epsilon: Any = module.variance_epsilon
    return F.rms_norm(x, x.shape[-1:], weight, epsilon)


def _interleaved(weight: Tensor) -> Tensor:
    """Rows [h, n, dim, ...] reordered 0, dim/2, 1, dim/2 + 1, …: pairs that rotate together."""
    halves = weight.reshape(*weight.shape[:2], 2, -1, *weight.shape[3:])
    return halves.transpose(2, 3).flatten(2, 3)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids [n, L] with padding behind each row, and where they are real."""
    width = max(map(len, rows))
    token = torch.zeros((len(rows), width), dtype=torch.long)
    real = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, ids in enumerate(rows):
        token[i, : len(ids)] = torch.tensor(ids)
        real[i, : len(ids)] = True
    return token, real


def _chunks(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Prompts of similar length, at most `_PREFILL_TOKENS` places together (or one prompt)."""
    chunk: list[int] = []
    for p in sorted(range(len(lengths)), key=lambda p: lengths[p]):
        if chunk and lengths[p] * (len(chunk) + 1) > _PREFILL_TOKENS:
            yield chunk
            chunk = []
        chunk.append(p)
    yield chunk
