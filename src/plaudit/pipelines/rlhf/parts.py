"""The model of an RLHF job and what is made of it: prompts as tokens, the shared trunk, the actor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plaudit.engine.devices import device_of, dtype_of
from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone, check_layers
from plaudit.engine.tops import LoRA
from plaudit.models.classifier import check_answered, check_classifier, check_kind
from plaudit.models.formats.load import read_folder
from plaudit.models.text import TextCodec
from plaudit.pipelines.rlhf.inputs import Inputs
from plaudit.pipelines.rlhf.refusals import longest_compared
from plaudit.pipelines.rlhf.sources import examples_of, prompts_of
from plaudit.records.types import Prompt


@dataclass(frozen=True)
class Parts:
    """What the stages share.

    `train` and `held_out` are prompts short enough for the model, `examples` the demonstrations:
    prompts with the ids of their wanted answers.
    """

    inputs: Inputs
    codec: TextCodec
    train: list[Prompt]
    held_out: list[Prompt]
    examples: list[tuple[Prompt, tuple[int, ...]]]
    backbone: SharedBackbone
    actor: LocalActor


def make_parts(inputs: Inputs, note: Callable[[str], None]) -> Parts:
    """Refuses all that can be, the cheap first; the weights are read last, which takes longer than
    all refusals."""
    config = inputs.config
    inputs.refuse(note)
    device = device_of(config.device)
    folder = read_folder(config.model, template=config.template)
    if folder.num_layers is not None:
        check_layers(config.num_top_layers, folder.num_layers)
    codec, held = folder.codec, config.num_held_out
    prompts = prompts_of(inputs.prompts, codec, max_new_tokens=config.sampling.max_new_tokens)
    examples = []
    if "demonstrations" in inputs.sources:
        examples = examples_of(inputs.sources["demonstrations"].rows, codec)
    longest = max(len(prompt.ids) for prompt in prompts) + config.sampling.max_new_tokens
    longest = max([longest, *(len(p.ids) + len(ids) for p, ids in examples)])
    if "feedback" in inputs.sources:
        longest = max(longest, longest_compared(inputs.sources["feedback"].rows, codec))
    check_answered(codec)
    check_kind(folder.config)
    lm = folder.load(dtype=dtype_of(config.dtype), device=device)
    backbone = SharedBackbone(
        lm,
        num_top_layers=config.num_top_layers,
        longest=longest,
        sampler_precision=config.sampler_precision,
    )
    lora = LoRA(config.lora_rank, config.seed) if config.lora_rank else None
    actor = LocalActor(backbone, adam=config.adam, lora=lora)
    check_classifier(lm)
    return Parts(inputs, codec, prompts[:-held], prompts[-held:], examples, backbone, actor)
