"""What a shape of the model zoo is, and the sizes that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiny_models import Family

LAYERS = 4
CONTEXT = 512
WINDOW = 16
STD = 0.3
"""Standard deviation of every matrix: at width 32 a layer then changes its input by about itself."""

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
}
GPT: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": CONTEXT,
    "tie_word_embeddings": True,
}
NO_GROUPS = BASE | {"num_key_value_heads": None}
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

SLIDING, FULL = "sliding_attention", "full_attention"
ALTERNATING = [SLIDING, FULL, SLIDING, FULL]
THETA = {"rope_type": "default", "rope_theta": 10_000.0}


def rope(kind: str, **settings: Any) -> dict[str, Any]:
    """Rotary positions of another kind; THETA's where nothing is said."""
    return {"rope_parameters": THETA | {"rope_type": kind, **settings}}


@dataclass(frozen=True)
class Shape:
    """A family's config, and what is peculiar to it; `family` is the name that people know."""

    family: str
    model_type: str
    settings: Mapping[str, Any]
    peculiar: str
    without: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Family = "chatml"
    seed: int = 0
    """Of the weights: another where two experts tie within rounding, as then either is right."""
