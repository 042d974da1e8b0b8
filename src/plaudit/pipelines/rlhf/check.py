"""What `plaudit run rlhf --check` says: what the job would do, and about how long that takes.

The time is measured on this machine by a few steps of a draw and one training pass, and scaled by the job's
counts: every answer counts as long as it may be, so a job whose answers end sooner takes less.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from plaudit.lm.loop import CrossEntropy
from plaudit.models.answers import given_answers
from plaudit.models.sampling.draw import draw, uniforms
from plaudit.pipelines.rlhf.refusals import improver_keys, pairs_of, taught_by
from plaudit.records.rows import Rows
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt

if TYPE_CHECKING:
    from plaudit.engine.local import LocalActor, SharedBackbone
    from plaudit.pipelines.rlhf.config import RLHFConfig

DRAWN_ROWS, DRAWN_TOKENS = 64, 2
"""The short draw: answers side by side, from where steps are about as quick as in the job's larger
draws, and the steps that are timed, after one that makes what they reuse."""

TRAINED_ROWS = 2
"""Answers in the one training pass that is timed."""


@dataclass(frozen=True)
class Work:
    """What a stage has to do: answers to draw, and tokens to pass through the trained layers.

    A training pass counts as 1 for each token, reading alone as a third.
    """

    name: str
    what: str
    answers: int = 0
    tokens: float = 0.0


def works(
    config: RLHFConfig,
    train: Sequence[Prompt],
    held_out: Sequence[Prompt],
    *,
    source: str,
    given: Rows | None,
    demonstrated: Sequence[int],
) -> list[Work]:
    """The stages in order; `given` comparisons of a file, `demonstrated` tokens of each example."""
    feedback, longest = config.feedback, config.sampling.max_new_tokens
    num = feedback.answers_per_prompt
    asked = sum(len(prompt.ids) for prompt in train) / len(train)
    stages = []
    if demonstrated:
        steps = math.ceil(len(demonstrated) / config.sft.batch_size) * config.sft.num_epochs
        what = f"{steps:,} steps over {len(demonstrated):,} wanted answers"
        stages.append(Work("sft", what, tokens=sum(demonstrated) * config.sft.num_epochs))
    for name, prompts in (("answers_train", train), ("answers_held_out", held_out)):
        what = f"{num * len(prompts):,} answers to {len(prompts):,} prompts"
        stages.append(Work(name, what, num * len(prompts)))
    if given is not None:
        taught, num_prompts, _ = taught_by(given, seed=config.seed)
        rows = 2 * taught
        what = f"{len(given):,} comparisons of {given.source}, of which {taught:,} teach"
    else:
        num_prompts, rows = len(train), num * len(train)
        what = _votes(config, source, pairs_of(config) * (len(train) + len(held_out)))
    stages.append(Work("feedback", what))
    epochs = config.reward_model.num_epochs
    steps = math.ceil(num_prompts / config.reward_model.prompts_per_step) * epochs
    tokens = (num_prompts * asked + rows * longest) * (epochs + 1)
    stages.append(Work("reward_model", f"{steps:,} steps", tokens=tokens))
    stages.append(_improvement(config, asked))
    what = f"{num * len(held_out):,} answers to {len(held_out):,} prompts"
    tokens = num * len(held_out) * longest
    return [*stages, Work("answers_after", what, num * len(held_out), tokens)]


def _improvement(config: RLHFConfig, asked: float) -> Work:
    """What the chosen way of improving does, by its keys; `asked` is a prompt's mean length."""
    keys = improver_keys(config)
    names = ("num_steps", "prompts_per_step", "answers_per_prompt")
    if not all(hasattr(keys, name) for name in names):
        return Work(config.improve, "as its keys say")
    num_steps, prompts, answers = (int(getattr(keys, name)) for name in names)
    drawn, passes = prompts * answers, 2 * getattr(keys, "num_epochs", 1) + 1
    tokens = prompts * asked + drawn * config.sampling.max_new_tokens
    what = f"{num_steps:,} steps of {drawn:,} answers to {prompts:,} prompts"
    return Work(config.improve, what, num_steps * drawn, num_steps * tokens * passes)


def _votes(config: RLHFConfig, source: str, pairs: int) -> str:
    feedback = config.feedback
    if source == "people":
        wanted = min(feedback.votes_wanted, pairs)
        return f"up to {pairs:,} pairs shown to people; goes on after {wanted:,} votes"
    if source == "reward":
        return f"up to {pairs:,} pairs compared by {config.reward}"
    return (
        f"up to {pairs:,} pairs, {feedback.votes_per_pair} votes each of "
        f"{feedback.num_annotators} simulated annotators"
    )


def told(
    config: RLHFConfig,
    backbone: SharedBackbone,
    actor: LocalActor,
    train: Sequence[Prompt],
    held_out: Sequence[Prompt],
    stages: Sequence[Work],
) -> Iterator[str]:
    """Model, prompts, stages, first prompt, and the time, in lines to print."""
    model, codec = backbone.lm.model, backbone.lm.codec
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in actor.learner.parameters.values())
    layers = int(model.config.num_hidden_layers)
    how = f"adapters of rank {config.lora_rank} on the top" if config.lora_rank else "the top"
    yield (
        f"Model: {backbone.lm.source} ({type(model).__name__}), {layers} layers, {_many(total)} "
        f"parameters; the policy trains {how} {layers - backbone.split} layers, "
        f"{_many(trained)} parameters"
    )
    lengths = sorted(len(prompt.ids) for prompt in (*train, *held_out))
    yield (
        f"Prompts: {config.prompts}, {len(train):,} to train on and {len(held_out):,} held out, of "
        f"{lengths[0]:,} to {lengths[-1]:,} tokens (median {median(lengths):,.0f}); the model "
        f"takes {codec.context:,}"
    )
    yield "Stages:"
    yield from (f"  {work.name:17} {work.what}" for work in stages)
    yield "The first prompt, as the model reads it:"
    yield from (f"  {line}" for line in codec.tokenizer.decode(train[0].ids).splitlines())
    seconds = seconds_of(config, backbone, actor, train, stages)
    longest = config.sampling.max_new_tokens
    yield (
        f"Time: about {said(seconds)} on this machine as it is now, if answers run to "
        f"{longest:,} tokens"
    )


def seconds_of(
    config: RLHFConfig,
    backbone: SharedBackbone,
    actor: LocalActor,
    prompts: Sequence[Prompt],
    stages: Sequence[Work],
) -> float:
    """Time of the stages, from a short draw and one training pass; the actor is spoilt by it."""
    answers, tokens = sum(w.answers for w in stages), sum(w.tokens for w in stages)
    each = _seconds_per_drawn(actor, prompts, config.sampling)
    drawing = each * answers * config.sampling.max_new_tokens
    return drawing + _seconds_per_trained(backbone, actor, prompts) * tokens


@torch.no_grad()
def _seconds_per_drawn(actor: LocalActor, prompts: Sequence[Prompt], sampling: Sampling) -> float:
    """Seconds per token of an answer, the reading of the prompts left out."""
    asked = [prompt.ids for prompt in prompts[:4]]
    group = [p for p in range(len(asked)) for _ in range(DRAWN_ROWS // len(asked))]
    decoder = actor.backbone.sampler.decoder
    decoder.refresh()
    prefix = decoder.prefill(asked)
    answers = decoder.start(prefix, group, 1 + DRAWN_TOKENS)
    logits, u = prefix.logits[group], uniforms(0, range(len(group)), 1 + DRAWN_TOKENS)
    begun = 0.0
    for t in range(1 + DRAWN_TOKENS):
        if t == 1:
            begun = time.perf_counter()
        token, _ = draw(logits, u[:, t].to(logits.device), sampling)
        logits, _ = answers.step(token)
    took = time.perf_counter() - begun
    actor.backbone.sampler.release()
    return took / (DRAWN_TOKENS * len(group))


def _seconds_per_trained(
    backbone: SharedBackbone, actor: LocalActor, prompts: Sequence[Prompt]
) -> float:
    """Seconds per token of a training pass of the policy on prompts as if they were answers."""
    chosen = (list(prompts) * TRAINED_ROWS)[:TRAINED_ROWS]
    codec = backbone.lm.codec
    given = [(p, p.ids[: codec.context - len(p.ids)]) for p in chosen]
    whole = given_answers(given, pad_id=codec.pad_id)
    backbone.remember("check", whole)
    took = 0.0
    for data in (whole.select([0]), whole):  # the first pass also makes what the next one reuses
        begun = time.perf_counter()
        actor.update(data, CrossEntropy(), denominator=int(data.chosen.sum()), lr=0.0)
        took = time.perf_counter() - begun
    return took / sum(len(p.ids) + len(ids) for p, ids in given)


def said(seconds: float) -> str:
    """A time as it can be known beforehand: two digits at most."""
    if seconds < 90:
        return f"{max(1, round(seconds, -1 if seconds > 20 else 0)):.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _many(num: int) -> str:
    if num < 1_000_000:
        return f"{num:,}"
    return f"{num / 1e6:,.1f} million" if num < 1e9 else f"{num / 1e9:,.1f} billion"
