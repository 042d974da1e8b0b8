"""Tiny causal language models of many families, each with what is peculiar to it made to matter.

    folder = model_folder("gemma2-caps", tmp_path / "model")   # a whole Hugging Face folder

A shape is a config of `transformers` and a sentence: what a trainer must not forget. Weights are
random from a fixed seed and large enough that attention, windows, caps and gates all move the
numbers; `without` are settings that take the peculiarity away and leave the weights their shapes,
so that a test can see that it mattered. Nothing of ours is imported.

Left out, with the reason: BART, BERT and other encoders that can be asked to decode (not trained
to chat); Zamba, Falcon-H1, Kimi and xLSTM (Jamba, Bamba and Qwen3-Next stand for hybrids); models
that see or hear.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shapes.gemmas import GEMMAS, QWENS
from shapes.llamas import LLAMAS, MISTRALS
from shapes.older import OLDER, PHIS, RECURRENT
from shapes.others import OTHERS, SCALED
from shapes.shape import LAYERS, STD, Shape
from tiny_models import tiny_tokenizer

SHAPES: dict[str, Shape] = {
    **LLAMAS,
    **MISTRALS,
    **PHIS,
    **QWENS,
    **GEMMAS,
    **SCALED,
    **OTHERS,
    **OLDER,
    **RECURRENT,
}

__all__ = ["LAYERS", "SHAPES", "Shape", "config_of", "draw_weights", "model_folder"]


def config_of(shape: Shape, tokenizer: Any) -> Any:
    """The shape's config, for a vocabulary of `tokenizer`."""
    from transformers import AutoConfig

    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(shape.model_type, **special | dict(shape.settings))


@torch.no_grad()
def draw_weights(model: Any, *, seed: int) -> None:
    """Matrices from N(0, STD²); 0.3 of noise on every vector that is a weight, a bias or a sink.

    Rates of recurrent states (decays, time steps) stay as the family begins them.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        kind = name.rpartition(".")[2]
        if any(word in name for word in ("A_log", "dt_", "time_", "recurrent_param", "rg_lru")):
            continue
        if value.dim() > 1:
            value.copy_(STD * noise)
        elif kind in ("weight", "bias", "sinks"):
            value.add_(0.3 * noise)


def model_folder(name: str, folder: str | Path) -> Path:
    """Write the shape's model, tokenizer and chat template; returns the folder."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    shape, folder = SHAPES[name], Path(folder)
    tokenizer = tiny_tokenizer(shape.tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model = AutoModelForCausalLM.from_config(config_of(shape, tokenizer), dtype=torch.float32)
    draw_weights(model, seed=shape.seed)
    eos = tokenizer.eos_token_id
    if shape.tokenizer == "qwen":
        eos = [eos, tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    model.generation_config.eos_token_id = eos
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
