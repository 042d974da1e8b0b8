"""From rows of a file to batches of tokens: texts to learn, pairs to compare, answers with labels.

Equal prompts become one, and an answer that stands in several comparisons is tokenised once. A row
that is longer than it may be is left out, never cut, and whoever calls is told which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plaudit.models.answers import Answered
from plaudit.models.conversations import learned_turns, own_turns, plain_text
from plaudit.models.text import TextCodec
from plaudit.pipelines.rlhf.opinions import Opinions, held_out_prompts
from plaudit.pipelines.rlhf.sources import at_row
from plaudit.records.columns import parse_number
from plaudit.records.errors import UserError
from plaudit.records.pairs import Pairs
from plaudit.records.rows import Row, Rows, brief
from plaudit.records.turns import answer_text, canonical_messages
from plaudit.records.types import Trajectories


class LeftOut(list[int]):
    """Indices of rows longer than `limit` tokens, in the file's order.

    `what` names the limit: max_length, or the model's context where that is what limits. `lengths`
    are those of every row, of its prompt and of each answer to it.
    """

    def __init__(self, codec: TextCodec, max_length: int | None) -> None:
        super().__init__()
        self.limit = codec.context if max_length is None else max_length
        self.what = "the model's context" if max_length is None else "max_length"
        self.lengths: list[tuple[int, ...]] = []
        if self.limit > codec.context:
            raise UserError(
                f"max_length is {self.limit:,}, but the model's context is {codec.context:,} tokens"
            )

    def fits(self, made: Answered, *places: int) -> bool:
        """Whether the next row, of these answers to one prompt, is short enough; else it is left out."""
        prompt = len(made.prompts[made.group[places[0]]].ids)
        self.lengths.append((prompt, *(len(made.answers[place].ids) for place in places)))
        i = len(self.lengths) - 1
        if self.tokens(i) > self.limit:
            self.append(i)
        return self.tokens(i) <= self.limit

    def tokens(self, i: int) -> int:
        """Of row i: its prompt with the longest answer."""
        prompt, *answers = self.lengths[i]
        return prompt + max(answers)


def examples(
    rows: Rows, kind: str, codec: TextCodec, *, max_length: int | None
) -> tuple[Trajectories, LeftOut]:
    """What fine-tuning learns, and the rows left out as too long.

    `kind` is messages (every turn of the assistant is learned), prompt-completion or text; a row that
    is there twice counts twice.
    """
    made, left_out, kept = Answered(codec), LeftOut(codec, max_length), []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            place = _example(made, row, kind)
        if left_out.fits(made, place):
            kept.append(place)
    _require_some(rows, kept, left_out)
    return made.batch(kept), left_out


def compared(rows: Rows, codec: TextCodec, *, max_length: int | None) -> tuple[Opinions, LeftOut]:
    """Comparisons, and the rows left out as too long.

    A column `share` is the share of votes for the chosen answer (1 where there is none, ½ a tie),
    `margin` by how much it should lead. An answer compared with itself says nothing and is left out;
    `said_of_equal` tells of those.
    """
    made, left_out = Answered(codec), LeftOut(codec, max_length)
    shares, has_margin = _shares(rows), "margin" in rows[0]
    found: list[tuple[int, int, float, float]] = []
    fitting: list[int] = []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            a, b = (made.row(row["prompt"], answer_text(row[n])) for n in ("chosen", "rejected"))
        if not left_out.fits(made, a, b):
            continue
        fitting.append(i)
        if a != b:
            found.append((a, b, shares[i], float(row["margin"]) if has_margin else 0.0))
    _require_some(rows, fitting, left_out)
    if not found:
        raise UserError(f"{rows.source}: both answers of every row are equal: nothing is compared")
    used = sorted({row for pair in found for row in pair[:2]})
    columns = list(zip(*found, strict=True))
    pairs = Pairs(columns[0], columns[1], columns[2], columns[3] if has_margin else ())
    return Opinions(made.batch(used), pairs.among(used)), left_out


def labelled(
    rows: Rows, codec: TextCodec, *, max_length: int | None
) -> tuple[Trajectories, Tensor, LeftOut]:
    """Answers, whether each is good [B], and the rows left out as too long.

    An answer that was labelled twice is two rows: both opinions count.
    """
    made, left_out, kept, is_good = Answered(codec), LeftOut(codec, max_length), [], []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            place = made.row(row["prompt"], answer_text(row["completion"]))
        if left_out.fits(made, place):
            kept.append(place)
            is_good.append(bool(row["label"]))
    _require_some(rows, kept, left_out)
    return made.batch(kept), torch.tensor(is_good), left_out


def said_of_long(rows: Rows, left_out: LeftOut) -> str | None:
    """A sentence on rows that were left out; None without any."""
    if not left_out:
        return None
    index = max(left_out, key=left_out.tokens)
    is_one = len(left_out) == 1
    return (
        f"{len(left_out):,} of {len(rows):,} rows {'is' if is_one else 'are'} longer than "
        f"{left_out.what}, {left_out.limit:,} tokens, and left out "
        f"({'it' if is_one else 'the longest'} is {rows.where(index)}: {left_out.tokens(index):,} tokens)"
    )


def said_of_equal(rows: Rows) -> str | None:
    """A sentence on comparisons of an answer with itself; None without any."""
    equal = [
        i
        for i, row in enumerate(rows)
        if answer_text(row["chosen"]) == answer_text(row["rejected"])
    ]
    if not equal:
        return None
    verbs = ("compares", "is") if len(equal) == 1 else ("compare", "are")
    return (
        f"{len(equal):,} of {len(rows):,} rows {verbs[0]} an answer with itself and {verbs[1]} left "
        f"out, the first in {rows.where(equal[0])}"
    )


def split_examples(
    batch: Trajectories, extra: Mapping[str, Tensor], *, share: float, seed: int
) -> tuple[tuple[Trajectories, dict[str, Tensor]], tuple[Trajectories, dict[str, Tensor]]]:
    """(to learn, to judge by): whole prompts are held out, with what belongs to their rows; none of
    them where the share is 0."""
    held = held_out_prompts(len(batch.prompts), share=share, seed=seed) if share else set()
    group = batch.group.tolist()
    parts = []
    for wanted in (False, True):
        rows = [row for row, g in enumerate(group) if (g in held) == wanted]
        parts.append((batch.select(rows), {name: x[rows] for name, x in extra.items()}))
    return parts[0], parts[1]


def _example(made: Answered, row: Row, kind: str) -> int:
    """The place of a row that fine-tuning learns."""
    if kind == "prompt-completion":
        answer = answer_text(row["completion"])
        place = made.row(row["prompt"], answer)
        made.codec.require_closed(made.prompts[made.group[place]], answer)
        return place
    if kind == "text":
        return made.whole(row["text"], *plain_text(made.codec, row["text"]), row["text"])
    prompt, given = learned_turns(made.codec, row["messages"])
    turns = canonical_messages(row["messages"])
    said = "\n\n".join(turns[i]["content"] for i in own_turns(turns))
    return made.whole(prompt.messages, prompt, given, said)


def _require_some(rows: Rows, kept: Sequence[int], left_out: LeftOut) -> None:
    if not kept:
        index = min(left_out, key=left_out.tokens)
        raise UserError(
            f"{rows.source}: all {len(rows):,} rows are longer than {left_out.limit:,} tokens "
            f"({left_out.what}); the shortest is {rows.where(index)}: {left_out.tokens(index):,} tokens"
        )


def _shares(rows: Rows) -> list[float]:
    """Of the votes for each row's chosen answer."""
    if "share" in rows.left_out:
        raise UserError(f"the column 'share' cannot be used: {rows.left_out['share']}")
    if not any("share" in row for row in rows):
        return [1.0] * len(rows)
    shares = []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            value: Any = row.get("share")
            if rows.only_texts and isinstance(value, str):
                value = parse_number(value)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0.0 <= value <= 1.0:
                said = brief(row["share"]) if "share" in row else "missing"
                raise UserError(
                    f"'share' is {said}, expected the chosen answer's share of votes, from 0 to 1, in "
                    "every row; a column that means something else needs another name "
                    "(--columns other=share)"
                )
            shares.append(float(value))
    return shares
