"""Low-rank adapters on the linear maps of a top: W + (α/r)·B·A, with W frozen.

    adapted = with_adapters(top, rank=8, seed=0)     a copy that trains A and B alone
    merge(adapted, top)                              writes W + (α/r)·B·A into the plain top

The modules are peft's own, so what is trained here is what `peft` loads. The plain top stays plain:
the sampler and everything that saves a model read merged weights there. B starts at zero, so an
adapter that was never trained changes nothing. Left out: dropout, biases, embeddings and heads.
Source: Hu et al. 2021 (2106.09685).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plaudit.models.backbone import Decoder
from plaudit.records.errors import UserError
from plaudit.records.folders import new_folder

if TYPE_CHECKING:
    from plaudit.models.formats.load import LanguageModel

ALPHA_PER_RANK = 2.0
"""α/r, as in the examples of peft (rank 16, α 32): the scale does not change with the rank."""

_NAME = "default"  # peft's name for the one adapter of a model


def _maps(base: nn.Module) -> list[str]:
    """The linear maps of a decoder by name."""
    return [name for name, module in base.named_modules() if isinstance(module, nn.Linear)]


def _config(names: list[str], rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=ALPHA_PER_RANK * rank, target_modules=names, lora_dropout=0.0
    )


def with_adapters(top: Decoder, *, rank: int, seed: int) -> Decoder:
    """A copy of the top with an adapter on every linear map; nothing else of it learns.

    Raises UserError for a rank below 1 or beyond the smallest map, and for a model without plain
    linear maps. Check: before training, it computes what `top` computes.
    """
    from peft import inject_adapter_in_model

    names = _maps(top.base)
    if not names:
        raise UserError(
            f"{type(top.base).__name__} has no plain linear maps for adapters: use lora_rank=0"
        )
    most = min(min(m.weight.shape) for m in _plain(top, names).values())
    if not 1 <= rank <= most:
        raise UserError(f"lora_rank is {rank}, but the model's maps allow ranks from 1 to {most}")
    adapted = copy.deepcopy(top).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_config(names, rank), adapted.base, adapter_name=_NAME)
    return adapted


def adapter_parameters(adapted: Decoder) -> dict[str, nn.Parameter]:
    """A and B of every map by name: all that learns."""
    return {name: p for name, p in adapted.named_parameters() if p.requires_grad}


@torch.no_grad()
def merge(adapted: Decoder, top: Decoder) -> None:
    """Write W + (α/r)·B·A into the plain top's own weights, in place."""
    layers = _adapted(adapted)
    for name, plain in _plain(top, list(layers)).items():
        layer = layers[name]
        plain.weight.copy_(layer.base_layer.weight + layer.get_delta_weight(_NAME))


def save_adapter(
    folder: str | Path, lm: LanguageModel, adapted: Decoder, *, split: int, rank: int
) -> Path:
    """Write the adapter as peft does; returns the folder.

    `peft.PeftModel.from_pretrained(base, folder)` gives the merged model's numbers, where `base` is
    the model that `lm` was read from. `split` is the layer below which the top was cut.
    """
    from safetensors.torch import save_file

    layers = _adapted(adapted)
    place = Path(folder)
    config = _config(sorted({name.rsplit(".", 1)[-1] for name in layers}), rank)
    config.task_type, config.inference_mode = "CAUSAL_LM", True
    config.base_model_name_or_path = lm.source
    if split:
        config.layers_to_transform = list(range(split, lm.model.config.num_hidden_layers))
        config.layers_pattern = "layers"
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        start = f"base_model.model.{lm.model.base_model_prefix}.{_whole_name(name, split)}"
        for part in ("lora_A", "lora_B"):
            tensors[f"{start}.{part}.weight"] = getattr(layer, part)[_NAME].weight.detach()
    with new_folder(place) as made:
        save_file(tensors, made / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(made)
    return place


def _plain(top: Decoder, names: list[str]) -> dict[str, Any]:
    return {name: top.base.get_submodule(name) for name in names}


def _adapted(adapted: Decoder) -> dict[str, Any]:
    """peft's layers by the name of the map that each wraps."""
    return {n: m for n, m in adapted.base.named_modules() if hasattr(m, "get_delta_weight")}


def _whole_name(name: str, split: int) -> str:
    """A map's name in the whole model: a top counts its layers from 0."""
    parts = name.split(".")
    if parts[0] == "layers":
        parts[1] = str(int(parts[1]) + split)
    return ".".join(parts)
