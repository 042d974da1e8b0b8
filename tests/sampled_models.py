"""Models of the sampler's two paths, small and far from uniform."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 40
STOPS = (3, 7, 11)
PAD = 0
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.25,  # far from uniform, so that attention matters
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WIDE: dict[str, Any] = {
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.15,
}
KERNELED = ("wide llama", "wide llama, one query a key", "wide qwen3, biased")
# Lengths that differ, repeat, and reach 1.
PROMPTS = [[(5 * i + 3 * j) % VOCABULARY for j in range(n)] for i, n in enumerate((5, 9, 1, 9))]

FUSED = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "tied, biased, wide heads": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, head_dim=16, attention_bias=True, tie_word_embeddings=True)
    ),
    "one query a key": lambda: LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_key_value_heads": 4})),
    "llama3 rope": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SHAPE,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
    # In float32 these three step by kernels.
    "wide llama": lambda: LlamaForCausalLM(LlamaConfig(**{**SHAPE, **WIDE})),
    "wide llama, one query a key": lambda: LlamaForCausalLM(
        LlamaConfig(**{**SHAPE, **WIDE, "num_key_value_heads": 6})
    ),
    "wide qwen3, biased": lambda: Qwen3ForCausalLM(
        Qwen3Config(**{**SHAPE, **WIDE}, attention_bias=True)
    ),
}
HOSTED = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=4,
            n_head=4,
            n_positions=96,
            initializer_range=0.25,
            bos_token_id=None,
            eos_token_id=None,
        )
    ),
    "sliding mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=8)),
    "dynamic rope": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SHAPE,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        )
    ),
}


def make(name: str, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {**FUSED, **HOSTED}[name]().to(dtype).eval()
