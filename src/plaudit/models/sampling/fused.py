"""One-token steps of Llama-shaped models, written for speed at 1 to 100 rows.

Serves LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM of transformers
when `fits` holds: plain linear maps, full attention in every layer, and rotary positions that do
not depend on the length of the sequence. Any other model goes to `hosted`.

How a step differs from the model's own forward, with the same result up to rounding:
- query, key and value weights are one matrix, whose rows are ordered by key-value head:
  its queries, its key, its value. So a view of one product is what the batched attention reads.
- answers to one prompt read its keys together, under one softmax with their own.
- grouped queries meet their shared key together; no key or value is repeated.
- on a processor, in float32, all between two matrix products is one call (`kernels`).
`byte_decoder` is the same with products of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plaudit.models.sampling.cache import PromptKeyValues
from plaudit.models.sampling.fused_answers import FusedAnswers
from plaudit.models.sampling.fused_prefix import FusedPrefix
from plaudit.models.sampling.kernel_answers import KernelAnswers
from plaudit.models.sampling.packed import AsItIs, Linear, can_pack, flat, linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CLASSES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Kinds of rotary scaling whose frequencies are fixed when the model is made.
_FIXED_ROPE = ("default", "linear", "llama3", "yarn")
# Prompt tokens read in one pass: bounds the memory of a prefill, and the padding in it.
_PREFILL_TOKENS = 512


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
    """With the map of `up` behind it where that is None."""
    up: Linear | None
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
        self.kernels: Any = None
        self.make: Callable[..., Linear] = linear

    @property
    def stepped(self) -> list[Any]:
        """The layers that steps are made of; prompts are read by `layers`."""
        return self.layers

    @property
    def embedding(self) -> Tensor:
        weight: Tensor = self.base.embed_tokens.weight
        return weight

    @property
    def refills(self) -> bool:
        return self.kernels is not None

    def refresh(self) -> None:
        self.kernels = kernels_for(self.model, self.dim)
        # One by one, so that a layer's memory serves the next: fresh pages cost more than copies.
        for i, layer in enumerate(self.base.layers):
            self.layers[i] = self._layer(layer)
        head: Any = self.model.get_output_embeddings()
        self.head = AsItIs(head.weight, head.bias)

    def release(self) -> None:
        self.layers = [None] * len(self.layers)
        self.head = None

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return _Layer(
            norm_in=layer.input_layernorm,
            qkv=self._qkv(attention),
            qk_norm=self._qk_norm(attention),
            out=self._map(attention.o_proj),
            norm_mid=layer.post_attention_layernorm,
            gate=self._joined(mlp.gate_proj, mlp.up_proj)
            if self.kernels
            else self._map(mlp.gate_proj),
            up=None if self.kernels else self._map(mlp.up_proj),
            down=self._map(mlp.down_proj),
            activation=mlp.act_fn,
        )

    def _qkv(self, attention: Any) -> Linear:
        """One map onto [kv_heads, group + 2, dim]: queries, key, value of each key-value head."""
        maps = (attention.q_proj, attention.k_proj, attention.v_proj)

        def joined(parts: Sequence[Tensor]) -> Tensor:
            split = [p.reshape(self.kv_heads, -1, self.dim, *p.shape[1:]) for p in parts]
            return torch.cat(split, 1).flatten(0, 2)

        biases = None if maps[0].bias is None else joined([m.bias for m in maps])
        return self.make(joined([m.weight for m in maps]), biases)

    def _joined(self, gate: Any, up: Any) -> Linear:
        """One map onto both, one behind the other."""
        biases = None if gate.bias is None else torch.cat([gate.bias, up.bias])
        return self.make(torch.cat([gate.weight, up.weight]), biases)

    def _map(self, module: Any) -> Linear:
        return self.make(module.weight, module.bias)

    def _qk_norm(self, attention: Any) -> tuple[Tensor, float] | None:
        """Weights [group + 1, dim] of the norms of queries and keys (Qwen3), and their epsilon."""
        if not hasattr(attention, "q_norm"):
            return None
        q, k = (m.weight.reshape(1, 1, self.dim) for m in (attention.q_norm, attention.k_norm))
        weight = torch.cat([q.expand(1, self.group, -1), k], 1)[0]
        return weight, float(attention.q_norm.variance_epsilon)

    def rotation(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [num_positions, dim / 2] of the angles that positions turn by."""
        position = torch.arange(num_positions, device=self.embedding.device)[None]
        turns = self.base.rotary_emb(self.embedding[:1, None], position)
        wide = torch.promote_types(turns[0].dtype, torch.float32)
        cosine, sine = (x[0, :, : self.dim // 2].to(wide).contiguous() for x in turns)
        return cosine, sine

    def project(self, layer: _Layer, x: Tensor) -> Tensor:
        """Queries, keys, values [n, kv_heads, group + 2, dim] of x [n, H], not yet rotated."""
        qkv = layer.qkv(self.norm(layer.norm_in, x))
        qkv = qkv.view(len(x), self.kv_heads, self.group + 2, self.dim)
        if layer.qk_norm is not None:
            weight, epsilon = layer.qk_norm
            qk = qkv[:, :, :-1]
            wide = qk.float()
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
            qk.copy_(weight * wide.to(qk.dtype))
        return qkv

    def rotated(self, qkv: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """`qkv` with queries and keys turned by the angles of n rows (Su et al. 2021), in place;
        queries carry the scaling too."""
        cosine, sine = cosine[:, None, None], sine[:, None, None]
        for part, size in ((qkv[:, :, :-2], self.scaling), (qkv[:, :, -2:-1], 1.0)):
            a, b = part.to(cosine.dtype).chunk(2, -1)
            c, s = cosine * size, sine * size
            part.copy_(torch.cat([a * c - b * s, b * c + a * s], -1))
        return qkv

    def finish(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer after attention: x + out(attended), then x + mlp(norm(x))."""
        x = layer.out.plus(attended, x)
        h = self.norm(layer.norm_mid, x)
        gate = layer.gate(h)
        if layer.up is None:
            width = gate.shape[1] // 2
            self.kernels.gated(flat(gate), width)
            gate = gate.view(-1)[: len(x) * width].view(-1, width)
        else:
            gate = layer.activation(gate).mul_(layer.up(h))
        return layer.down.plus(gate, x)

    def norm(self, module: Any, x: Tensor) -> Tensor:
        """x / rms(x) · weight; in float32 by one operator, else as the module computes it."""
        if self.kernels is not None:
            out = torch.empty_like(x)
            self.kernels.normed(flat(x), flat(module.weight), module.variance_epsilon, flat(out))
            return out
        if x.dtype != torch.float32:
            of_module: Tensor = module(x)
            return of_module
        return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.base.norm, x))
        return logits

    def step_logits(self, x: Tensor) -> Tensor:
        """`logits` as steps make them."""
        return self.logits(x)

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
        cosine, sine = (t.repeat(len(chunk), 1) for t in self.rotation(width))
        x = F.embedding(token.to(device).flatten(), self.embedding)
        for i, layer in enumerate(self.layers):
            if i == self.split and hidden is not None:
                hidden[index, :width] = x.view(*token.shape, -1) * real[..., None]
            qkv = self.rotated(self.project(layer, x), cosine, sine)
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
        turns = self.rotation(int(position.max()) + 1)
        cosine, sine = (t[position.flatten()] for t in turns)
        row, place = real.nonzero(as_tuple=True)
        x = F.embedding(token.flatten(), self.embedding)
        for i, layer in enumerate(self.layers):
            qkv = self.rotated(self.project(layer, x), cosine, sine)
            qkv = qkv.view(*token.shape, *qkv.shape[1:])
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

    def start(
        self, prefix: FusedPrefix, group: Sequence[int], num_steps: int
    ) -> FusedAnswers | KernelAnswers:
        if self.kernels is None:
            return FusedAnswers(self, prefix, group, num_steps)
        return KernelAnswers(self, prefix, group, num_steps)


def kernels_for(model: Any, dim: int) -> Any:
    """The module `kernels` where it serves this model, else None."""
    config, weight = model.config, model.get_output_embeddings().weight
    if not can_pack(weight) or config.hidden_act != "silu":
        return None
    from plaudit.models.sampling import kernels  # numba takes half a second

    widths = (config.hidden_size, config.intermediate_size)
    fits = dim % kernels.UNIT == 0 and all(w % kernels.BLOCK == 0 for w in widths)
    return kernels if fits else None


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
