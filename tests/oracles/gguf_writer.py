"""Writes small GGUF files, so that reading them can be tested without any model."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(v: Any) -> tuple[int, bytes]:
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, string(v)
    kinds = [value(x) for x in v]
    return 9, struct.pack("<IQ", kinds[0][0], len(kinds)) + b"".join(raw for _, raw in kinds)


def write_gguf(
    path: Path,
    facts: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]],
    *,
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """`tensors`: name → (NumPy shape, type number, bytes)."""
    if alignment != 32:
        facts = {**facts, "general.alignment": alignment}
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts))
    for key, fact in facts.items():
        kind, raw = value(fact)
        out += string(key) + struct.pack("<I", kind) + raw
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        out += string(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", n) for n in reversed(shape))
        out += struct.pack("<IQ", kind, len(data))
        data += raw
    path.write_bytes(out + b"\0" * (-len(out) % alignment) + data)
    return path


def pairs_from_halves(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rotary rows in llama.cpp's order: coordinate 0, its partner D/2, 1, 1 + D/2, …"""
    rows = []
    dim = len(weight) // num_heads
    for head in range(num_heads):
        for i in range(dim // 2):
            rows += [head * dim + i, head * dim + i + dim // 2]
    return weight[rows]


def tokenizer_facts(tokenizer: Any, pre: str = "gpt-2") -> dict[str, Any]:
    """The facts that describe a byte-level fast tokenizer."""
    import json

    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = set(tokenizer.all_special_tokens) | {
        str(t) for t in tokenizer.added_tokens_decoder.values() if t.special
    }
    facts = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if t in special else 1 for t in tokens],
        "tokenizer.ggml.merges": [" ".join(m) for m in model["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": tokenizer.bos_token is not None,
    }
    if tokenizer.bos_token is not None:
        facts["tokenizer.ggml.bos_token_id"] = tokenizer.bos_token_id
    if tokenizer.pad_token is not None:
        facts["tokenizer.ggml.padding_token_id"] = tokenizer.pad_token_id
    if tokenizer.chat_template:
        facts["tokenizer.chat_template"] = tokenizer.chat_template
    return facts
