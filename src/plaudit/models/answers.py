"""Answers as a batch: those that somebody gave, and the texts of those that were drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plaudit.records.sampling import Sampling
from plaudit.records.turns import canonical_messages
from plaudit.records.types import Message, Prompt, Text, Trajectories

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


@dataclass
class Answered:
    """Prompts with what followed them, collected one by one: equal prompts become one, and equal
    answers to it are tokenised once.

    Prompts are equal where their messages are, and a plain text is one turn of the user.
    """

    codec: TextCodec
    prompts: list[Prompt] = field(default_factory=list)
    answers: list[Given] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    _asked: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[int, str], int] = field(default_factory=dict)

    def ask(self, prompt: Text) -> int:
        """The number of a prompt."""
        name = _name(canonical_messages(prompt))
        if name not in self._asked:
            made = self.codec.prompt(prompt)
            self._asked[name] = len(self.prompts)
            self.prompts.append(made)
        return self._asked[name]

    def row(self, prompt: Text, answer: str) -> int:
        """The row of an answer to a prompt."""
        g = self.ask(prompt)
        if (g, answer) not in self._known:
            ids = self.codec.completion_ids(self.prompts[g], answer)
            self._known[g, answer] = self._add(g, Given(ids), answer)
        return self._known[g, answer]

    def whole(self, asked: Text, prompt: Prompt, given: Given, text: str) -> int:
        """A row that is tokenised already; rows of which the same was `asked` share their prompt."""
        g = self._asked.setdefault(_name(canonical_messages(asked)), len(self.prompts))
        if g == len(self.prompts):
            self.prompts.append(prompt)
        return self._add(g, given, text)

    def batch(self, rows: Sequence[int]) -> Trajectories:
        """These rows, in their order, with the prompts they need; one that is named twice is there
        twice."""
        used = sorted({self.group[row] for row in rows})
        new = {g: i for i, g in enumerate(used)}
        examples = [(self.prompts[self.group[row]], self.answers[row]) for row in rows]
        return replace(
            given_answers(examples, pad_id=self.codec.pad_id),
            prompts=tuple(self.prompts[g] for g in used),
            group=torch.tensor([new[self.group[row]] for row in rows]),
            texts=tuple(self.texts[row] for row in rows),
        )

    def _add(self, g: int, given: Given, text: str) -> int:
        self.answers.append(given)
        self.texts.append(text)
        self.group.append(g)
        return len(self.answers) - 1


def _name(messages: Sequence[Message]) -> str:
    return json.dumps(messages, sort_keys=True)


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
