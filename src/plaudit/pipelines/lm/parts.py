"""The model of a language-model job: its tokenizer before its weights, then the actor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from plaudit.engine.devices import device_of, dtype_of
from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone, check_layers
from plaudit.engine.tops import LoRA
from plaudit.models.formats.load import ModelFolder, find_folder, model_files, read_folder
from plaudit.models.text import TextCodec
from plaudit.pipelines.lm.config import TOP_LAYERS, ModelKeys
from plaudit.records.fingerprints import Fingerprint, of_files
from plaudit.records.sampling import Precision
from plaudit.records.types import Trajectories

KEPT_STATES = 1 << 30
"""Bytes of a frozen trunk's states that are kept of given data: 1 GiB; more is computed again."""


@dataclass(frozen=True)
class Parts:
    """What the stages of a job share."""

    codec: TextCodec
    backbone: SharedBackbone
    actor: LocalActor

    def remember(self, name: str, *batches: Trajectories) -> None:
        """Keep the trunk's states of data that is read again and again, if they are not too many."""
        size = self.backbone.width * self.backbone.dtype.itemsize
        places = sum(int(b.there.sum()) + sum(len(p.ids) for p in b.prompts) for b in batches)
        if places * size <= KEPT_STATES:
            for batch in batches:
                self.backbone.remember(name, batch)


def read_model(config: ModelKeys) -> ModelFolder:
    """The folder with its tokenizer and template; no weights yet."""
    folder = read_folder(config.model, template=config.template)
    if folder.num_layers is not None and config.num_top_layers is not None:
        check_layers(config.num_top_layers, folder.num_layers)
    return folder


def make_parts(
    config: ModelKeys, folder: ModelFolder, *, longest: int, precision: Precision = "float32"
) -> Parts:
    """The weights, cut where the config says, and the actor; `longest` row in tokens."""
    lm = folder.load(dtype=dtype_of(config.dtype), device=device_of(config.device))
    layers = config.num_top_layers or min(TOP_LAYERS, int(lm.model.config.num_hidden_layers))
    backbone = SharedBackbone(
        lm, num_top_layers=layers, longest=longest, sampler_precision=precision
    )
    lora = LoRA(config.lora_rank, config.seed) if config.lora_rank else None
    return Parts(folder.codec, backbone, LocalActor(backbone, adam=config.adam, lora=lora))


def longest_of(batches: Iterable[Trajectories]) -> int:
    """Tokens of the longest row, its prompt included."""
    return max(
        len(batch.prompts[g].ids) + int(n)
        for batch in batches
        for g, n in zip(batch.group.tolist(), batch.there.sum(1).tolist(), strict=True)
    )


def model_fingerprint(config: ModelKeys) -> Fingerprint:
    """Of the files that the model is read from."""
    folder = find_folder(config.model)
    return of_files(folder, model_files(folder))
