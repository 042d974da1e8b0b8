"""Llamas with every kind of head and of rotary positions, and what Mistral made of them."""

from __future__ import annotations

from typing import Any

from shapes.shape import ALTERNATING, BASE, FULL, LAYERS, WINDOW, Shape, rope


def _llama(peculiar: str, **settings: Any) -> Shape:
    return Shape("Llama", "llama", BASE | settings, peculiar)


LLAMAS: dict[str, Shape] = {
    "llama": _llama("an output layer of its own; fewer keys than queries"),
    "llama-tied": _llama("the output layer is the embedding", tie_word_embeddings=True),
    "llama-mha": _llama("a key for every query", num_key_value_heads=4),
    "llama-mqa": _llama("one key for all queries", num_key_value_heads=1),
    "llama-biases": _llama("biases in every map", attention_bias=True, mlp_bias=True),
    "llama-head-dim": _llama("heads wider than width / heads", head_dim=16),
    "llama-linear": Shape(
        "Llama",
        "llama",
        BASE | rope("linear", factor=4.0),
        "positions divided by a factor",
        without=rope("default"),
    ),
    "llama-dynamic": Shape(
        "Llama",
        "llama",
        BASE | rope("dynamic", factor=2.0),
        "a base frequency that grows with texts beyond the context",
    ),
    "llama3": Shape(
        "Llama 3",
        "llama",
        BASE
        | rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
        "low frequencies stretched; a BOS that tokenizer and template both write",
        without=rope("default"),
        tokenizer="bos",
    ),
    "llama-yarn": Shape(
        "Llama",
        "llama",
        BASE | rope("yarn", factor=8.0, original_max_position_embeddings=64),
        "frequencies stretched by parts, attention scaled",
        without=rope("default"),
    ),
}

MISTRALS: dict[str, Shape] = {
    "mistral": Shape("Mistral", "mistral", BASE | {"sliding_window": None}, "no window"),
    "mistral-window": Shape(
        "Mistral",
        "mistral",
        BASE | {"sliding_window": WINDOW},
        "every layer sees a window, which no layer_types say",
        without={"sliding_window": None},
    ),
    "ministral": Shape(
        "Ministral",
        "ministral",
        BASE | {"sliding_window": WINDOW, "layer_types": ALTERNATING, "head_dim": 8},
        "windows in every other layer",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "ministral3": Shape(
        "Ministral 3",
        "ministral3",
        BASE
        | {"head_dim": 8, "tie_word_embeddings": True}
        | rope(
            "yarn",
            factor=8.0,
            original_max_position_embeddings=16,
            llama_4_scaling_beta=0.5,
            mscale=1.0,
            mscale_all_dim=1.0,
            beta_fast=32.0,
            beta_slow=1.0,
        ),
        "queries scaled by their position",
    ),
    "mixtral": Shape(
        "Mixtral",
        "mixtral",
        BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        "experts chosen for each token",
    ),
    "mixtral-window": Shape(
        "Mixtral",
        "mixtral",
        BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
        "experts, and a window in every layer",
        without={"sliding_window": None},
    ),
}
