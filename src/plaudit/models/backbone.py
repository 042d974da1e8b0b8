"""A decoder cut at a layer: one frozen trunk, and the tops that share it.

When only the layers from `split` up are trained, every role of RLHF (actor, reference, critic,
reward model) has the same lower layers. The trunk is computed once for a token; each role then
adds its own cheap top: its layers, the final norm and a head.

    hidden = trunk(token)                  layers[:split], shared and frozen
    output = top(hidden)                   layers[split:] and the norm, one copy for each role

The cut keeps the model's own modules and forward code: a trunk or a top is the model's decoder
with some of its layers taken out. Rows are either packed, under a mask of ours (layers of full and
of windowed attention), or hold one answer each, under the model's own masks (any other kind).
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plaudit.models.layout import Layout
from plaudit.models.linear import fast_linear
from plaudit.models.rewired import with_modules
from plaudit.models.shared_attention import shared_attention
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def num_layers(model: PreTrainedModel) -> int:
    """How many decoder layers the model has."""
    return int(model.config.num_hidden_layers)


def check_split(model: PreTrainedModel, split: int) -> None:
    """Raise `UserError` unless the model can be cut below layer `split` (0: not cut at all)."""
    base: Any = model.base_model
    total = num_layers(model)
    name = type(model).__name__
    if getattr(model, "_is_stateful", False):
        raise UserError(
            f"{name} keeps a recurrent state, which training here does not support: use a model "
            "whose layers are all of attention"
        )
    if base is model or not hasattr(base, "config"):
        raise UserError(
            f"{name} has no decoder apart from its head, which training here needs: use another "
            "model"
        )
    if not 0 <= split < total:
        raise UserError(
            f"cannot cut a model of {total} layers below layer {split}: "
            f"train between 1 and {total} of its layers"
        )
    if split and not all(hasattr(base, name) for name in ("layers", "norm", "embed_tokens")):
        raise UserError(
            f"{name} cannot be cut below layer {split}, as its decoder is not of "
            f"the Llama shape: train all {total} of its layers"
        )


class Decoder(nn.Module):
    """Some of a decoder's layers: inputs are token ids or hidden states in a layout."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor, layout: Layout) -> Tensor:
        """Hidden states [R, L, H] for token ids [R, L] or hidden states [R, L, H]."""
        given: dict[str, Any] = {
            "inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs
        }
        attention: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if layout.is_packed:
            masks = given["attention_mask"] = self._packed_masks(layout)
            given["position_ids"] = layout.position
            every = [*masks.values()] if isinstance(masks, dict) else [masks]
            attention = shared_attention(layout, every)
        # Else rows are padded on the right, which no real token sees: the model's own masks and
        # positions serve, and none that grows with the square of the length is made here.
        with fast_linear(), attention:
            out = self.base(**given, use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _packed_masks(self, layout: Layout) -> Tensor | dict[str, Tensor]:
        """The mask of a packed layout, or one for each kind of layer where there are windows."""
        config: Any = self.base.config
        dtype = next(self.base.parameters()).dtype
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        if not kinds:
            return layout.attention(dtype, window=window)
        if kinds == {"full_attention"}:
            return layout.attention(dtype)
        return {
            "full_attention": layout.attention(dtype),
            "sliding_attention": layout.attention(dtype, window=window),
        }


def _part_of(base: Any, layers: slice, **modules: nn.Module) -> Decoder:
    """A decoder with some of its layers, and a config that counts no others."""
    chosen = nn.ModuleList(base.layers[layers])
    part = with_modules(base, layers=chosen, **modules)
    part.config = copy.copy(base.config)
    for name, value in vars(base.config).items():
        if isinstance(value, list | tuple) and len(value) == len(base.layers):
            part.config.__dict__[name] = value[layers]
    part.config.__dict__["num_hidden_layers"] = len(chosen)
    return Decoder(part)


def trunk_of(model: PreTrainedModel, split: int) -> Decoder:
    """The embedding and layers[:split], frozen, sharing the model's own weights."""
    check_split(model, split)
    base: Any = model.base_model
    if split == 0:
        raise UserError("a model trained in all its layers has no frozen trunk to share")
    return _part_of(base, slice(split), norm=nn.Identity()).requires_grad_(False)


def top_of(model: PreTrainedModel, split: int) -> Decoder:
    """layers[split:] and the final norm, sharing the model's own weights.

    With `split` 0 this is the whole decoder, and its inputs are token ids.
    """
    check_split(model, split)
    base: Any = model.base_model
    if split == 0:
        return Decoder(base)
    empty = nn.Module()  # a top never embeds: its inputs are the trunk's hidden states
    top = _part_of(base, slice(split, None), embed_tokens=empty)
    if hasattr(base, "embedding_multiplier"):  # which the trunk has applied
        top.base.__dict__["embedding_multiplier"] = 1.0
    return top


def copy_top(top: Decoder) -> Decoder:
    """A top with weights of its own."""
    return copy.deepcopy(top)


def gather_places(hidden: Tensor, index: Tensor) -> Tensor:
    """hidden [R, L, H] at flat places `index` [...]: [..., H].

    Answers to one prompt share the place that predicts their first token. By index_select its
    gradients are added in the order of `index`; those of advanced indexing by whichever thread
    comes first, so that a run with two threads could not be repeated bit for bit.
    """
    flat = hidden.reshape(-1, hidden.shape[-1])
    return flat.index_select(0, index.flatten()).view(*index.shape, flat.shape[1])


class ScalarHead(nn.Module):
    """One number from a hidden state, w·h + b.

    A reward model's score has no bias, since only differences of scores are learned and the
    standard sequence classifier stores none; a critic's value has one. Starts at zero.
    """

    def __init__(self, width: int, *, bias: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, dtype=dtype)) if bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.weight, self.bias).squeeze(-1)
