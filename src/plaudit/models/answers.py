"""Answers as a batch: those that somebody gave, and the texts of those that were drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec


@dataclass(frozen=True)
class Given:
    """What follows a prompt: token ids, and which of them are to be learned (all, by default)."""

    ids: tuple[int, ...]
    chosen: tuple[bool, ...] | None = None


def given_answers(
    examples: Sequence[tuple[Prompt, Given | tuple[int, ...]]], *, pad_id: int
) -> Trajectories:
    """Prompts with what followed them: given, not drawn, so under the model's own softmax."""
    answers = [x if isinstance(x, Given) else Given(x) for _, x in examples]
    longest = max(len(answer.ids) for answer in answers)
    token = torch.full((len(answers), longest), pad_id, dtype=torch.int64)
    there = torch.zeros((len(answers), longest), dtype=torch.bool)
    chosen = torch.zeros_like(there)
    for row, answer in enumerate(answers):
        n = len(answer.ids)
        token[row, :n] = torch.tensor(answer.ids, dtype=torch.int64)
        there[row, :n] = True
        chosen[row, :n] = True if answer.chosen is None else torch.tensor(answer.chosen)
    num = len(answers)
    return Trajectories(
        prompts=tuple(prompt for prompt, _ in examples),
        group=torch.arange(num),
        token=token,
        there=there,
        chosen=chosen,
        logp=torch.zeros(there.shape),
        terminated=torch.ones(num, dtype=torch.bool),
        truncated=torch.zeros(num, dtype=torch.bool),
        version=torch.zeros(num, dtype=torch.int64),
        texts=("",) * num,
        sampling=Sampling(max_new_tokens=max(longest, 1)),
    )


def turns(there: Iterable[bool], chosen: Iterable[bool]) -> list[tuple[int, int]]:
    """The policy's turns in one row, as [begin, end): runs of chosen tokens."""
    found: list[tuple[int, int]] = []
    begin: int | None = None
    marks = [bool(t and c) for t, c in zip(there, chosen, strict=True)]
    for place, mark in enumerate([*marks, False]):
        if mark and begin is None:
            begin = place
        elif not mark and begin is not None:
            found.append((begin, place))
            begin = None
    return found


def texts_of(token: Tensor, there: Tensor, chosen: Tensor, codec: TextCodec) -> tuple[str, ...]:
    """What the policy wrote in each row of [B, T]: its turns, separated by an empty line."""
    texts = []
    for ids, real, own in zip(token.tolist(), there.tolist(), chosen.tolist(), strict=True):
        spans = turns(real, own)
        texts.append("\n\n".join(codec.decode(ids[begin:end]) for begin, end in spans))
    return tuple(texts)
