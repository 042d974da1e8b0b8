"""A decoder cut at a layer: one frozen trunk, and the tops that share it.

When only the layers from `split` up are trained, every role of RLHF (actor, reference, critic,
reward model) has the same lower layers. The trunk is computed once for a token; each role then
adds its own cheap top: its layers, the final norm and a head.

    hidden = trunk(token)                  layers[:split], shared and frozen
    output = top(hidden)                   layers[split:] and the norm, one copy for each role

The cut keeps the model's own modules and forward code: a trunk or a top is the model's decoder
with some of its layers taken out. Left out: decoders that alternate kinds of attention by layer.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plaudit.models.layout import Layout
from plaudit.models.linear import fast_linear
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
    if not 0 <= split < total:
        raise UserError(
            f"cannot cut a model of {total} layers below layer {split}: "
            f"train between 1 and {total} of its layers"
        )
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if len(kinds) > 1 or kinds & {"sliding_attention", "linear_attention"}:
        raise UserError(
            f"{type(model).__name__} mixes kinds of attention ({', '.join(sorted(kinds))}), "
            "which training here does not support: use a model with full attention in every layer"
        )
    if split and not all(hasattr(base, name) for name in ("layers", "norm", "embed_tokens")):
        raise UserError(
            f"{type(model).__name__} cannot be cut below layer {split}, as its decoder is not of "
            f"the Llama shape: train all {total} of its layers"
        )


class Decoder(nn.Module):
    """Some of a decoder's layers: inputs are token ids or hidden states in a packed layout."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: Tensor, layout: Layout) -> Tensor:
        """Hidden states [R, L, H] for token ids [R, L] or hidden states [R, L, H]."""
        given = {"inputs_embeds": inputs} if inputs.is_floating_point() else {"input_ids": inputs}
        dtype = next(self.base.parameters()).dtype
        with fast_linear():
            out = self.base(
                **given,
                attention_mask=layout.attention(dtype),
                position_ids=layout.position,
                use_cache=False,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden


def _with_modules(base: nn.Module, **modules: nn.Module) -> Any:
    """The same module object but for the named children; everything else is shared."""
    clone: Any = copy.copy(base)
    clone.__dict__ = dict(base.__dict__)
    clone.__dict__["_modules"] = {**base._modules, **modules}
    return clone


def trunk_of(model: PreTrainedModel, split: int) -> Decoder:
    """The embedding and layers[:split], frozen, sharing the model's own weights."""
    check_split(model, split)
    base: Any = model.base_model
    if split == 0:
        raise UserError("a model trained in all its layers has no frozen trunk to share")
    trunk = Decoder(
        _with_modules(base, layers=nn.ModuleList(base.layers[:split]), norm=nn.Identity())
    )
    trunk.requires_grad_(False)
    return trunk


def top_of(model: PreTrainedModel, split: int) -> Decoder:
    """layers[split:] and the final norm, sharing the model's own weights.

    With `split` 0 this is the whole decoder, and its inputs are token ids.
    """
    check_split(model, split)
    base: Any = model.base_model
    if split == 0:
        return Decoder(base)
    empty = nn.Module()  # a top never embeds: its inputs are the trunk's hidden states
    return Decoder(
        _with_modules(base, layers=nn.ModuleList(base.layers[split:]), embed_tokens=empty)
    )


def copy_top(top: Decoder) -> Decoder:
    """A top with weights of its own."""
    return copy.deepcopy(top)


def gather_places(hidden: Tensor, index: Tensor) -> Tensor:
    """hidden [R, L, H] at flat places `index` [...]: [..., H]."""
    return hidden.reshape(-1, hidden.shape[-1])[index]


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
