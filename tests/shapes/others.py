"""Younger families that differ from Llama by a scale, a norm, a window or their experts."""

from __future__ import annotations

from shapes.shape import BASE, FULL, LAYERS, NO_GROUPS, SLIDING, WINDOW, Shape

SCALED: dict[str, Shape] = {
    "cohere": Shape(
        "Cohere",
        "cohere",
        BASE | {"logit_scale": 0.25, "tie_word_embeddings": True},
        "logits scaled; attention beside the MLP",
        without={"logit_scale": 1.0},
    ),
    "cohere2": Shape(
        "Cohere 2",
        "cohere2",
        BASE
        | {
            "logit_scale": 0.5,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
            "tie_word_embeddings": True,
        },
        "logits scaled, windows, no positions in full layers",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "granite": Shape(
        "Granite",
        "granite",
        BASE
        | {
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.25,
            "tie_word_embeddings": True,
        },
        "embedding, residuals, scores and logits all scaled",
        without={"logits_scaling": 1.0},
    ),
    "granitemoe": Shape(
        "GraniteMoE",
        "granitemoe",
        BASE
        | {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.25,
            "tie_word_embeddings": True,
        },
        "Granite's scales, and experts",
        without={"logits_scaling": 1.0},
    ),
}

OTHERS: dict[str, Shape] = {
    "olmo": Shape(
        "OLMo", "olmo", BASE | {"clip_qkv": 1.0}, "norms without weights; values clipped"
    ),
    "olmo2": Shape("OLMo 2", "olmo2", BASE, "norms after attention and MLP"),
    "olmo3": Shape(
        "OLMo 3",
        "olmo3",
        BASE | {"sliding_window": WINDOW},
        "norms after attention and MLP, windows in three layers of four",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "olmoe": Shape(
        "OLMoE", "olmoe", BASE | {"num_experts": 4, "num_experts_per_tok": 2}, "experts"
    ),
    "stablelm": Shape(
        "StableLM",
        "stablelm",
        BASE | {"use_qkv_bias": True, "qk_layernorm": True},
        "a quarter of a head is rotated; norms for each head",
    ),
    "nemotron": Shape("Nemotron", "nemotron", BASE | {"head_dim": 8}, "norms of 1 + w; ReLU²"),
    "glm": Shape(
        "GLM",
        "glm",
        BASE | {"head_dim": 8, "attention_bias": True, "pad_token_id": None},
        "half of a head is rotated, in neighbouring pairs",
    ),
    "glm4": Shape(
        "GLM-4",
        "glm4",
        BASE | {"head_dim": 8, "attention_bias": True},
        "norms before and after attention and MLP",
    ),
    "helium": Shape("Helium", "helium", BASE | {"head_dim": 8}, "rotation in neighbouring pairs"),
    "smollm3": Shape(
        "SmolLM3",
        "smollm3",
        BASE | {"no_rope_layers": [1, 0, 1, 0]},
        "every other layer has no positions",
        tokenizer="pad",
    ),
    "exaone4": Shape(
        "EXAONE 4",
        "exaone4",
        BASE | {"sliding_window": WINDOW, "sliding_window_pattern": 4},
        "windows in three layers of four; full layers have no positions",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "ernie4_5": Shape(
        "ERNIE 4.5", "ernie4_5", BASE | {"use_bias": True}, "rotation in neighbouring pairs, biases"
    ),
    "diffllama": Shape("DiffLlama", "diffllama", BASE, "the difference of two attentions"),
    "arcee": Shape("Arcee", "arcee", BASE, "ReLU² without a gate"),
    "seed-oss": Shape(
        "Seed-OSS", "seed_oss", BASE | {"head_dim": 8, "attention_bias": True}, "biases of queries"
    ),
    "hunyuan": Shape(
        "HunYuan", "hunyuan_v1_dense", BASE | {"head_dim": 8}, "keys normalised after rotation"
    ),
    "bitnet": Shape("BitNet", "bitnet", BASE, "norms inside attention and MLP"),
    "deepseek-v2": Shape(
        "DeepSeek-V2",
        "deepseek_v2",
        NO_GROUPS
        | {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
        "keys and values of low rank, values narrower than keys, experts",
    ),
    "deepseek-v3": Shape(
        "DeepSeek-V3",
        "deepseek_v3",
        NO_GROUPS
        | {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "num_mtp_layers": 0,
        },
        "keys and values of low rank, experts chosen by groups under a bias",
        seed=1,
    ),
    "gpt-oss": Shape(
        "GPT-OSS",
        "gpt_oss",
        BASE
        | {
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
        },
        "sinks beside the keys, windows in every other layer, experts",
        without={"layer_types": [FULL] * LAYERS},
    ),
    "llama4": Shape(
        "Llama 4",
        "llama4_text",
        BASE
        | {
            "head_dim": 8,
            "intermediate_size_mlp": 64,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": WINDOW,
            "floor_scale": 8,
        },
        "attention within chunks, scores scaled by position, experts",
        without={"layer_types": [FULL] * LAYERS},
    ),
}
