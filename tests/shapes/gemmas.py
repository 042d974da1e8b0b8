"""Qwens and Gemmas: windows in some layers, soft caps, normalised keys."""

from __future__ import annotations

from shapes.shape import BASE, FULL, LAYERS, MOE, NO_GROUPS, SLIDING, WINDOW, Shape

QWENS: dict[str, Shape] = {
    "qwen2": Shape("Qwen2", "qwen2", BASE, "biases of queries, keys and values", tokenizer="qwen"),
    "qwen2-window": Shape(
        "Qwen2",
        "qwen2",
        BASE | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
        "windows in the upper layers alone, so that a cut falls between the kinds",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "qwen2-moe": Shape(
        "Qwen2-MoE",
        "qwen2_moe",
        BASE | MOE | {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 2},
        "experts in every other layer, one shared by all tokens",
    ),
    "qwen3": Shape(
        "Qwen3", "qwen3", BASE | {"head_dim": 8}, "queries and keys normalised", tokenizer="qwen"
    ),
    "qwen3-moe": Shape(
        "Qwen3-MoE", "qwen3_moe", BASE | MOE | {"head_dim": 8}, "experts, keys normalised"
    ),
    "qwen3-next": Shape(
        "Qwen3-Next",
        "qwen3_next",
        BASE
        | MOE
        | {
            "head_dim": 8,
            "shared_expert_intermediate_size": 32,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        "a recurrent state in three layers of four",
    ),
}

GEMMAS: dict[str, Shape] = {
    "gemma": Shape(
        "Gemma",
        "gemma",
        BASE | {"head_dim": 8, "tie_word_embeddings": True},
        "embeddings times √width, norms of 1 + w",
        tokenizer="bos",
    ),
    "gemma2": Shape(
        "Gemma 2",
        "gemma2",
        BASE
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "layer_types": [FULL] * LAYERS,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": True,
        },
        "four norms a layer; no window, no caps",
    ),
    "gemma2-window": Shape(
        "Gemma 2",
        "gemma2",
        BASE
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": True,
        },
        "windows in every other layer",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "gemma2-caps": Shape(
        "Gemma 2",
        "gemma2",
        BASE
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 2.5,
            "tie_word_embeddings": True,
        },
        "scores of attention and logits capped by tanh",
        without={"final_logit_softcapping": None},
    ),
    "gemma3": Shape(
        "Gemma 3",
        "gemma3_text",
        BASE
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": WINDOW,
            "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
            "tie_word_embeddings": True,
        },
        "windows and full attention with frequencies of their own",
        without={"layer_types": [FULL] * LAYERS},
        tokenizer="bos",
    ),
    "recurrent-gemma": Shape(
        "RecurrentGemma",
        "recurrent_gemma",
        NO_GROUPS
        | {
            "head_dim": 8,
            "lru_width": 32,
            "attention_window_size": WINDOW,
            "tie_word_embeddings": True,
            "logits_soft_cap": 2.5,
        },
        "recurrent blocks, windows, capped logits; generates with a state of its own",
        without={"logits_soft_cap": 1e4},
    ),
}
