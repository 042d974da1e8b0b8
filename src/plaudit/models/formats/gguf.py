"""A GGUF file made into a Hugging Face folder, once: weights, config, tokenizer, template.

    name in the file        name in the folder                       change
    token_embd.weight       model.embed_tokens.weight                lm_head is tied without output.weight
    blk.0.attn_q.weight     model.layers.0.self_attn.q_proj.weight   llama: rotary order undone per head

Weights become float32, tensor by tensor, so memory holds one tensor at a time. The folder is kept
in a cache under the file's fingerprint. Read are the architectures llama and qwen2, and byte-level
BPE tokenizers whose pre-tokenizer is known exactly. Left out: mixtures of experts, scaled rotary
frequencies, SentencePiece tokenizers.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.models.formats.gguf_file import GgufFile
from plaudit.models.formats.gguf_tokenizer import build_tokenizer
from plaudit.models.formats.safetensors_file import write_float32
from plaudit.models.formats.save import save_tokenizer
from plaudit.records.errors import UserError
from plaudit.records.files import write_json
from plaudit.records.folders import new_folder

CONVERTER = 1
"""Part of the fingerprint: raised whenever a conversion would come out differently."""

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BIASED = {"llama": (), "qwen2": ("attn_q", "attn_k", "attn_v")}


def convert(gguf_path: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The folder for a GGUF file, converted now or before; the cache names it by content.

    The cache is `cache_dir`, else $PLAUDIT_CACHE/models, else ~/.cache/plaudit/models. Raises
    UserError for a file that is damaged or holds what is not read.
    """
    path = Path(gguf_path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no GGUF file {path}")
    cache = cache_root() / "models" if cache_dir is None else Path(cache_dir)
    place = cache / f"{path.stem}-{_fingerprint(path)}"
    if not (place / "model.safetensors").is_file():
        file = GgufFile(path)
        try:
            config = _config(file)
            names = _names(file, config)
            tokenizer = build_tokenizer(path, file.facts)
            with new_folder(place) as folder:
                save_tokenizer(folder, tokenizer)
                write_json(folder / "config.json", config)
                write_json(folder / "generation_config.json", _generation(file.facts))
                shapes = {new: file.places[old].shape for old, new in names.items()}
                tensors = (_tensor(file, config, old) for old in names)
                write_float32(folder / "model.safetensors", shapes, tensors)
        finally:
            file.close()
    return place


def cache_root() -> Path:
    """$PLAUDIT_CACHE, or `plaudit` in the user's cache folder."""
    own = os.environ.get("PLAUDIT_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plaudit"


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return f"{digest.hexdigest()}-{CONVERTER}"


def _config(file: GgufFile) -> dict[str, Any]:
    """config.json from the file's facts."""
    arch = file.facts.get("general.architecture")
    if arch not in _CLASSES:
        raise UserError(
            f"{file.path} holds the architecture {arch!r}: read are {', '.join(_CLASSES)}"
        )
    scaling = file.facts.get(f"{arch}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in file.places:
        raise UserError(f"{file.path} scales its rotary frequencies, which is not read")
    width = _number(file, f"{arch}.embedding_length")
    heads = _number(file, f"{arch}.attention.head_count")
    head_dim = _number(file, f"{arch}.attention.key_length", width // heads)
    if _number(file, f"{arch}.rope.dimension_count", head_dim) != head_dim:
        raise UserError(f"{file.path} rotates only part of each head, which is not read")
    if "token_embd.weight" not in file.places:
        raise UserError(f"{file.path} has no tensor 'token_embd.weight'")
    theta = _shortest(_number(file, f"{arch}.rope.freq_base", 10000.0))
    token = file.facts.get
    return {
        "architectures": [_CLASSES[arch]],
        "model_type": arch,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": _number(file, f"{arch}.feed_forward_length"),
        "num_hidden_layers": _number(file, f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _number(file, f"{arch}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": _number(file, f"{arch}.context_length"),
        "rms_norm_eps": _shortest(_number(file, f"{arch}.attention.layer_norm_rms_epsilon")),
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "rope_theta": theta,  # where transformers 4 looks
        "tie_word_embeddings": "output.weight" not in file.places,
        "vocab_size": file.places["token_embd.weight"].shape[0],
        "bos_token_id": token("tokenizer.ggml.bos_token_id"),
        "eos_token_id": token("tokenizer.ggml.eos_token_id"),
        "pad_token_id": token("tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
    }


def _generation(facts: dict[str, Any]) -> dict[str, Any]:
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    stops = sorted({facts[key] for key in keys if key in facts})
    made = {
        "bos_token_id": facts.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": facts.get("tokenizer.ggml.padding_token_id"),
    }
    return {key: value for key, value in made.items() if value is not None}


def _number(file: GgufFile, key: str, default: float | None = None) -> Any:
    """A positive number among the file's facts; UserError where it is absent or something else."""
    value = file.facts.get(key, default)
    if value is None:
        raise UserError(f"{file.path} does not say {key!r}, which is needed")
    if not isinstance(value, int | float) or value <= 0:
        raise UserError(f"{file.path}: {key!r} must be one positive number, but it is {value!r}")
    return value


def _shortest(value: float) -> float:
    """The decimal that a float32 was written from: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _names(file: GgufFile, config: dict[str, Any]) -> dict[str, str]:
    """Every tensor of the file with its name in the folder, after checking names and shapes."""
    names, shapes = dict(_WHOLE), _shapes(config)
    if config["tie_word_embeddings"]:
        del names["output.weight"]
    for n in range(config["num_hidden_layers"]):
        for old, new in _LAYER.items():
            names[f"blk.{n}.{old}.weight"] = f"model.layers.{n}.{new}.weight"
        for old in _BIASED[config["model_type"]]:
            names[f"blk.{n}.{old}.bias"] = f"model.layers.{n}.{_LAYER[old]}.bias"
    missing, unknown = sorted(names.keys() - file.places), sorted(file.places.keys() - names)
    if missing:
        raise UserError(f"{file.path} has no tensor {missing[0]!r}")
    if unknown:
        raise UserError(
            f"{file.path} has a tensor {unknown[0]!r}, which a plain {config['model_type']} has not"
        )
    for name in names:
        wanted, found = shapes[re.sub(r"^blk\.\d+\.", "", name)], file.places[name].shape
        if found != wanted:
            raise UserError(f"{file.path}: {name!r} has shape {found}, but {wanted} is expected")
    return names


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, vocab = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    linear = {
        "token_embd": (vocab, width),
        "output": (vocab, width),
        "attn_q": (q, width),
        "attn_k": (kv, width),
        "attn_v": (kv, width),
        "attn_output": (width, q),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    norms = dict.fromkeys(("attn_norm", "ffn_norm", "output_norm"), (width,))
    biases = {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    return biases | {f"{name}.weight": shape for name, shape in (linear | norms).items()}


def _tensor(file: GgufFile, config: dict[str, Any], name: str) -> NDArray[np.float32]:
    value = file.read(name)
    if config["model_type"] == "llama":
        if name.endswith("attn_q.weight"):
            return halves_from_pairs(value, config["num_attention_heads"])
        if name.endswith("attn_k.weight"):
            return halves_from_pairs(value, config["num_key_value_heads"])
    return value


def halves_from_pairs(weight: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Rows of a rotary projection [heads·D, H], from llama.cpp's order to that of transformers.

    The file keeps the two coordinates of a rotation next to each other (0, D/2, 1, D/2+1, …);
    transformers keeps all first coordinates, then all second ones.
    """
    paired = weight.reshape(num_heads, -1, 2, weight.shape[-1])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(weight.shape)
