"""Model folders that `transformers` opens without us, written whole or not at all.

Reward models are in `classifier`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.models.formats.progress_bars import no_progress_bars
from plaudit.models.text import TextCodec
from plaudit.records.files import read_json, write_json
from plaudit.records.folders import new_folder


def save_language_model(folder: str | Path, model: Any, codec: TextCodec) -> Path:
    """Write model, generation config, tokenizer and template; returns the folder.

    `AutoModelForCausalLM` and `AutoTokenizer` read it back with the same numbers.
    """
    place = Path(folder)
    with new_folder(place) as made:
        write_model(made, model)
        save_tokenizer(made, codec.tokenizer)
        stops = sorted(codec.stop_ids)
        facts = read_json(made / "generation_config.json") | {
            "eos_token_id": stops[0] if len(stops) == 1 else stops,
            "pad_token_id": codec.pad_id,
        }
        write_json(made / "generation_config.json", facts)
    return place


def write_model(folder: Path, model: Any) -> None:
    with no_progress_bars():
        model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None:
        # transformers 4 reads the base frequency here, and takes 10,000 in silence without it.
        config.setdefault("rope_theta", theta)
        write_json(folder / "config.json", config)


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write the tokenizer's files under the class name that every version of transformers knows."""
    tokenizer.save_pretrained(folder)
    config = read_json(folder / "tokenizer_config.json")
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(folder / "tokenizer_config.json", config)
