"""From rows of a file to batches of tokens: texts to learn, pairs to compare, answers with labels.

Equal prompts become one, and an answer that stands in several comparisons is tokenised once. A row
that is longer than it may be is left out, never cut, and whoever calls is told which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from plaudit.models.answers import Given, given_answers
from plaudit.models.conversations import learned_turns, plain_text
from plaudit.models.text import TextCodec
from plaudit.pipelines.rlhf.opinions import Opinions, held_out_prompts
from plaudit.pipelines.rlhf.sources import at_row
from plaudit.records.errors import UserError
from plaudit.records.pairs import Pairs
from plaudit.records.rows import Row, Rows
from plaudit.records.turns import answer_text, canonical_messages
from plaudit.records.types import Prompt, Text, Trajectories


@dataclass
class Answered:
    """Prompts with their answers, each kept once; `limit` is the longest row in tokens."""

    codec: TextCodec
    limit: int
    prompts: list[Prompt] = field(default_factory=list)
    answers: list[Given] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    _asked: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[int, str], int | None] = field(default_factory=dict)

    def row(self, prompt: Text, answer: str) -> int | None:
        """The row of an answer to a prompt; None where both together are too long."""
        name = json.dumps(canonical_messages(prompt), sort_keys=True)
        if name not in self._asked:
            self._asked[name] = len(self.prompts)
            self.prompts.append(self.codec.prompt(prompt))
        g = self._asked[name]
        if (g, answer) not in self._known:
            ids = self.codec.completion_ids(self.prompts[g], answer)
            self._known[g, answer] = self.add(g, Given(ids), answer)
        return self._known[g, answer]

    def add(self, g: int, given: Given, text: str) -> int | None:
        """One more row of prompt g; None where it is too long."""
        if len(self.prompts[g].ids) + len(given.ids) > self.limit:
            return None
        self.answers.append(given)
        self.texts.append(text)
        self.group.append(g)
        return len(self.answers) - 1

    def batch(self) -> Trajectories:
        """All rows."""
        examples = [(self.prompts[g], x) for g, x in zip(self.group, self.answers, strict=True)]
        whole = given_answers(examples, pad_id=self.codec.pad_id)
        used = sorted(set(self.group))
        new = {g: i for i, g in enumerate(used)}
        return replace(
            whole,
            prompts=tuple(self.prompts[g] for g in used),
            group=torch.tensor([new[g] for g in self.group]),
            texts=tuple(self.texts),
        )


def examples(
    rows: Rows, kind: str, codec: TextCodec, *, max_length: int | None
) -> tuple[Trajectories, list[int]]:
    """What fine-tuning learns, and the rows left out as too long.

    `kind` is messages (every turn of the assistant is learned), prompt-completion or text.
    """
    made, left_out = _empty(codec, max_length), []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            if kind == "prompt-completion":
                answer = answer_text(row["completion"])
                place = made.row(row["prompt"], answer)
                codec.require_closed(row["prompt"], answer)
            else:
                place = _add_whole(made, row, kind)
        if place is None:
            left_out.append(i)
    return _fitting(made, rows, left_out).batch(), left_out


def compared(rows: Rows, codec: TextCodec, *, max_length: int | None) -> tuple[Opinions, list[int]]:
    """Comparisons, and the rows left out as too long.

    A column `share` is the share of votes for the chosen answer (1 where there is none, ½ a tie),
    `margin` by how much it should lead.
    """
    made, left_out = _empty(codec, max_length), []
    found: list[tuple[int, int, float, float]] = []
    has_margin = "margin" in rows[0]
    for i, row in enumerate(rows):
        with at_row(rows, i):
            answers = [answer_text(row[name]) for name in ("chosen", "rejected")]
            a, b = (made.row(row["prompt"], text) for text in answers)
            share = _share(row)
        if a is None or b is None:
            left_out.append(i)
        elif a != b:  # an answer compared with itself says nothing
            found.append((a, b, share, float(row["margin"]) if has_margin else 0.0))
    _fitting(made, rows, left_out)
    if not found:
        raise UserError(f"{rows.source}: both answers of every row are equal: nothing is compared")
    columns = list(zip(*found, strict=True))
    pairs = Pairs(columns[0], columns[1], columns[2], columns[3] if has_margin else ())
    return Opinions(made.batch(), pairs), left_out


def labelled(
    rows: Rows, codec: TextCodec, *, max_length: int | None
) -> tuple[Trajectories, Tensor, list[int]]:
    """Answers, whether each is good [B], and the rows left out as too long.

    An answer that was labelled twice is two rows: both opinions count.
    """
    made, left_out, is_good = _empty(codec, max_length), [], []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            answer = answer_text(row["completion"])
            before = len(made.answers)
            place = made.row(row["prompt"], answer)
            if place is not None and len(made.answers) == before:
                place = made.add(made.group[place], made.answers[place], answer)
        if place is None:
            left_out.append(i)
        else:
            is_good.append(bool(row["label"]))
    return _fitting(made, rows, left_out).batch(), torch.tensor(is_good), left_out


def said_of_long(rows: Rows, left_out: Sequence[int]) -> str | None:
    """A sentence on rows that were left out; None without any."""
    if not left_out:
        return None
    which = "row is" if len(left_out) == 1 else "rows are"
    return (
        f"{len(left_out):,} of {len(rows):,} {which} longer than max_length and left out, the first "
        f"in {rows.where(left_out[0])}"
    )


def split_examples(
    batch: Trajectories, extra: Mapping[str, Tensor], *, share: float, seed: int
) -> tuple[tuple[Trajectories, dict[str, Tensor]], tuple[Trajectories, dict[str, Tensor]]]:
    """(to learn, to judge by): whole prompts are held out, with what belongs to their rows."""
    held = held_out_prompts(len(batch.prompts), share=share, seed=seed)
    group = batch.group.tolist()
    parts = []
    for wanted in (False, True):
        rows = [row for row, g in enumerate(group) if (g in held) == wanted]
        parts.append((batch.select(rows), {name: x[rows] for name, x in extra.items()}))
    return parts[0], parts[1]


def _empty(codec: TextCodec, max_length: int | None) -> Answered:
    limit = codec.context if max_length is None else max_length
    if limit > codec.context:
        raise UserError(
            f"max_length is {limit:,}, but the model's context is {codec.context:,} tokens"
        )
    return Answered(codec, limit)


def _add_whole(made: Answered, row: Row, kind: str) -> int | None:
    """A conversation or a plain text, as a prompt of its own."""
    if kind == "text":
        prompt, given = plain_text(made.codec, row["text"])
    else:
        prompt, given = learned_turns(made.codec, row["messages"])
    made.prompts.append(prompt)
    return made.add(len(made.prompts) - 1, given, "")


def _fitting(made: Answered, rows: Rows, left_out: Sequence[int]) -> Answered:
    if not made.answers:
        raise UserError(
            f"{rows.source}: all {len(rows):,} rows are longer than {made.limit:,} tokens "
            f"(max_length), the first in {rows.where(left_out[0])}"
        )
    return made


def _share(row: Row) -> float:
    """Of the votes for the chosen answer."""
    value = row.get("share", 1.0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 <= value <= 1.0:
        raise UserError(f"'share' is {value!r}, expected a share of votes from 0 to 1")
    return float(value)
