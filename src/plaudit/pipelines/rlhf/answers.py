"""Drawing answers to many prompts, in chunks, so that a killed job loses one chunk at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from plaudit.models.answers import texts_of
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.roles import Actor
from plaudit.records.sampling import Sampling
from plaudit.records.state import Saved
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec

ROWS = 256
"""Answers drawn at a time: the matrix products of a decode step are efficient from 64 rows on."""

NAMES = ("token", "there", "logp", "terminated")
"""Fields kept of a batch of one turn."""


def draw_answers(
    actor: Actor,
    prompts: Sequence[Prompt],
    *,
    num_answers: int,
    sampling: Sampling,
    seed: int,
    also: Callable[[Trajectories], Mapping[str, Tensor]] = lambda batch: {},
    saved: Saved | None = None,
) -> Iterator[Event]:
    """`num_answers` answers to each prompt; the last checkpoint's arrays hold them all.

    `also` gives further arrays of a chunk to keep, one entry for each answer or each prompt. Read
    the answers back with `answers_from`.
    """
    size = max(1, ROWS // num_answers)
    starts = range(0, len(prompts), size)
    arrays: dict[str, Tensor] = {}
    begin = 0
    if saved is not None:
        arrays, begin = dict(saved[0]), int(saved[1]["step"])
    for step in range(begin, len(starts)):
        chunk = prompts[starts[step] : starts[step] + size]
        key = np.random.SeedSequence((seed, 4, step)).generate_state(1)[0]
        batch = actor.generate(chunk, num_answers=num_answers, sampling=sampling, seed=int(key))
        fields = {**{name: getattr(batch, name) for name in NAMES}, **also(batch)}
        arrays = _joined(arrays, {name: x.cpu() for name, x in fields.items()})
        yield Rollout(step + 1, _samples(batch), {})
        metrics = {
            "answer/length": float(batch.chosen.sum() / len(batch)),
            "answer/finished": float(batch.terminated.float().mean()),
            "policy/nll": float(-(batch.logp * batch.chosen).sum() / batch.chosen.sum()),
        }
        yield Step(step + 1, len(starts), metrics)
        kept = arrays
        yield Checkpoint(
            step + 1,
            lambda kept=kept, at=step + 1: (kept, {"step": at}),  # type: ignore[misc]
        )
    yield Done(len(starts))


def answers_from(
    arrays: Mapping[str, Tensor],
    prompts: Sequence[Prompt],
    *,
    num_answers: int,
    sampling: Sampling,
    codec: TextCodec,
) -> Trajectories:
    """The answers that `draw_answers` kept, grouped by prompt."""
    require_own(arrays, "token")
    token, there = arrays["token"], arrays["there"]
    return Trajectories.of_answers(
        prompts=prompts,
        group=torch.arange(len(prompts)).repeat_interleave(num_answers),
        token=token,
        mask=there,
        logp=arrays["logp"],
        terminated=arrays["terminated"],
        texts=texts_of(token, there, there, codec),
        sampling=sampling,
    )


def require_own(arrays: Mapping[str, Tensor], name: str) -> None:
    """UserError unless a finished stage kept what this version keeps."""
    if not any(kept.startswith(name) for kept in arrays):
        raise UserError(
            f"what the run kept has no {name!r}: it was begun by another version of Plaudit, so "
            "finish it with that one, or start it anew",
            new_run=True,
        )


def _joined(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rows of both, the shorter ones padded with zeros along time to the width of the longer."""
    if not first:
        return dict(second)
    joined = {}
    for name in second:
        parts = [first[name], second[name]]
        if parts[0].dim() > 1:
            width = max(part.shape[1] for part in parts)
            parts = [_widened(part, width) for part in parts]
        joined[name] = torch.cat(parts)
    return joined


def _widened(x: Tensor, width: int) -> Tensor:
    if x.shape[1] == width:
        return x
    return torch.cat([x, x.new_zeros((x.shape[0], width - x.shape[1], *x.shape[2:]))], dim=1)


def _samples(batch: Trajectories) -> list[dict[str, Any]]:
    groups = batch.group.tolist()
    first = {g: row for row, g in reversed(list(enumerate(groups)))}
    return [
        {"prompt": batch.prompts[g].text, "completion": batch.texts[row]}
        for g, row in sorted(first.items())
    ][:2]
