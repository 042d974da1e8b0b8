"""Phi's kin, the families before Llama, and those that carry a state."""

from __future__ import annotations

from shapes.shape import BASE, CONTEXT, GPT, LAYERS, WINDOW, Shape

PHIS: dict[str, Shape] = {
    "phi": Shape(
        "Phi",
        "phi",
        BASE | {"partial_rotary_factor": 0.5},
        "attention beside the MLP; an output layer with a bias; half of a head is rotated",
    ),
    "phi3": Shape("Phi-3", "phi3", BASE | {"sliding_window": None}, "joined maps, no window"),
    "phi3-window": Shape(
        "Phi-3",
        "phi3",
        BASE | {"sliding_window": WINDOW},
        "joined maps, and a window in every layer",
        without={"sliding_window": None},
    ),
    "phimoe": Shape(
        "Phi-MoE",
        "phimoe",
        BASE
        | {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "attention_bias": True,
            "lm_head_bias": True,
        },
        "experts by a sparse mixer, a window, biases down to the output layer",
        without={"sliding_window": None},
    ),
    "starcoder2": Shape(
        "StarCoder2", "starcoder2", BASE | {"sliding_window": None}, "layer norms with biases"
    ),
    "starcoder2-window": Shape(
        "StarCoder2",
        "starcoder2",
        BASE | {"sliding_window": WINDOW, "tie_word_embeddings": True},
        "layer norms with biases, and a window in every layer",
        without={"sliding_window": None},
    ),
}

OLDER: dict[str, Shape] = {
    "gpt2": Shape("GPT-2", "gpt2", GPT, "learned positions; joined maps stored transposed"),
    "gpt-neo": Shape(
        "GPT-Neo",
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": LAYERS,
            "num_heads": 4,
            "max_position_embeddings": CONTEXT,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], LAYERS // 2]],
        },
        "learned positions; windows in every other layer, by a mask of its own",
        without={"window_size": CONTEXT},
    ),
    "gpt-neox": Shape(
        "GPT-NeoX",
        "gpt_neox",
        BASE,
        "attention beside the MLP; a quarter of a head is rotated",
        tokenizer="pad",
    ),
    "gptj": Shape(
        "GPT-J",
        "gptj",
        GPT | {"rotary_dim": 4, "tie_word_embeddings": False},
        "an output layer with a bias; rotation in neighbouring pairs",
    ),
    "codegen": Shape(
        "CodeGen",
        "codegen",
        GPT | {"rotary_dim": 4, "tie_word_embeddings": False},
        "queries, keys and values interleaved in one map",
    ),
    "opt": Shape(
        "OPT",
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "word_embed_proj_dim": 32,
        },
        "learned positions counted by the attention mask",
    ),
    "opt-projected": Shape(
        "OPT",
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
        "embeddings narrower than the layers, projected in and out; norms after",
    ),
    "bloom": Shape(
        "BLOOM",
        "bloom",
        {"hidden_size": 32, "n_layer": LAYERS, "n_head": 4},
        "no positions: scores fall with distance, counted by the attention mask",
    ),
    "mpt": Shape(
        "MPT",
        "mpt",
        {"d_model": 32, "n_layers": LAYERS, "n_heads": 4, "max_seq_len": CONTEXT},
        "no positions: scores fall with distance",
    ),
    "falcon": Shape(
        "Falcon",
        "falcon",
        {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
        "one key for all queries; attention beside the MLP",
    ),
    "falcon-alibi": Shape(
        "Falcon",
        "falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "alibi": True,
            "parallel_attn": False,
            "multi_query": False,
            "bias": True,
        },
        "no positions: scores fall with distance, counted by the attention mask",
    ),
    "persimmon": Shape(
        "Persimmon", "persimmon", BASE, "half of a head is rotated; keys normalised; ReLU²"
    ),
}

RECURRENT: dict[str, Shape] = {
    "mamba": Shape(
        "Mamba",
        "mamba",
        {"hidden_size": 32, "state_size": 8, "num_hidden_layers": LAYERS, "use_mambapy": False},
        "no attention: a state carries all that was read",
    ),
    "mamba2": Shape(
        "Mamba 2",
        "mamba2",
        {
            "hidden_size": 32,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 8,
            "n_groups": 2,
            "num_hidden_layers": LAYERS,
            "chunk_size": 16,
        },
        "no attention: a state carries all that was read, by chunks",
    ),
    "jamba": Shape(
        "Jamba",
        "jamba",
        BASE
        | {
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
        "layers with a state and layers of attention without positions; experts",
    ),
    "bamba": Shape(
        "Bamba",
        "bamba",
        BASE
        | {
            "attn_layer_indices": [1, 3],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 16,
        },
        "layers with a state and layers of attention",
    ),
    "minimax": Shape(
        "MiniMax",
        "minimax",
        BASE | {"head_dim": 8, "num_local_experts": 4, "block_size": 16},
        "linear attention with decay by blocks, in every other layer; experts",
    ),
    "rwkv": Shape(
        "RWKV",
        "rwkv",
        {"hidden_size": 32, "num_hidden_layers": LAYERS, "context_length": CONTEXT},
        "no attention: a state carries all that was read, and only its own name for it",
    ),
}
