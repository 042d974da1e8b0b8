"""Rows of comparisons, labels or scores as entries of the log, and comparisons read without one.

Keys are digests of content, so that a file imported again adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.feedback.entries import (
    Item,
    NewVote,
    Segment,
    canonical,
    check_name,
    comparison_vote,
    score_vote,
)
from plaudit.records.columns import KINDS
from plaudit.records.datasets import read_dataset
from plaudit.records.rows import Rows, file_stem
from plaudit.records.types import Text


class FileComparison(NamedTuple):
    """A comparison as a file has it; `where` names the file and the line, for refusals."""

    where: str
    prompt: Text
    chosen: Text
    rejected: Text
    margin: float | None
    rater: str
    extra: Mapping[str, Any]


def read_comparisons(
    path: str | Path, columns: Mapping[str, str] | None = None, *, rater: str | None = None
) -> list[FileComparison]:
    """The comparisons of a file, as `import_comparisons` takes them in; needs no store and no model."""
    rows, _ = read_dataset(path, columns=columns, kinds=("preference",))
    return comparisons_of(rows, rater_of(path, rater))


def comparisons_of(rows: Rows, rater: str) -> list[FileComparison]:
    """Clean rows of comparisons with their origin; `rater` said those that name nobody."""
    mine = {*KINDS["preference"], "margin", "rater"}
    return [
        FileComparison(
            rows.where(index),
            row["prompt"],
            row["chosen"],
            row["rejected"],
            row.get("margin"),
            check_name(row.get("rater", rater), f"{rows.where(index)}: 'rater'"),
            {name: value for name, value in row.items() if name not in mine},
        )
        for index, row in enumerate(rows)
    ]


def rater_of(path: str | Path, rater: str | None) -> str:
    """Who said what a file holds: the name given, else the file's own without its ending."""
    return check_name(file_stem(path) if rater is None else rater, "the rater's name")


class Said(NamedTuple):
    """How a row's votes were made, where the file says: the order shown, and seconds, of all or each."""

    shown: tuple[int, ...] | None = None
    seconds: float | list[float | None] | None = None

    def order(self) -> str | None:
        """The order of a pair."""
        return None if self.shown is None else "ab" if self.shown[0] == 0 else "ba"

    def seconds_of(self, position: int) -> float | None:
        """How long the vote on one of several answers took."""
        if isinstance(self.seconds, list):
            return self.seconds[position] if position < len(self.seconds) else None
        return self.seconds


Count = Callable[[str], int]
"""How often a name has come, this time included."""


def judged_rows(
    rows: Rows, kind: str, rater: str, said: Sequence[Said], count: Count
) -> Iterator[tuple[str, Item, list[NewVote]]]:
    """Each clean row as an item with votes; the same row twice is two votes on one item."""
    if kind == "preference":
        for c, manner in zip(comparisons_of(rows, rater), said, strict=True):
            yield c.where, *_of_comparison(c, manner, count)
        return
    mine = {*KINDS[kind], "rater"}
    for index, row in enumerate(rows):
        where = rows.where(index)
        who = check_name(row.get("rater", rater), f"{where}: 'rater'")
        extra = {name: value for name, value in row.items() if name not in mine}
        texts = [row["completion"]] if kind == "unpaired" else list(row["completions"])
        item = _item(kind, row["prompt"], texts, extra, where)
        key = f"{item.key}/{who}"
        key = f"{key}/{count(key)}"
        manner = said[index]
        if kind == "unpaired":
            label, seconds = int(row["label"]), manner.seconds_of(0)
            yield where, item, [score_vote(item.key, who, label, key=key, seconds=seconds)]
            continue
        scores = [int(s) for s in row["labels"]] if kind == "labelled" else row["scores"]
        yield where, item, [
            score_vote(item.key, who, score, key=f"{key}/{position}", segment=position,
                       seconds=manner.seconds_of(position))
            for position, score in enumerate(scores)
        ]  # fmt: skip


def _of_comparison(c: FileComparison, said: Said, count: Count) -> tuple[Item, list[NewVote]]:
    item = _item("preference", c.prompt, [c.chosen, c.rejected], c.extra, c.where)
    texts = {"prompt": c.prompt, "chosen": c.chosen, "rejected": c.rejected}
    said_here = f"{_digest(texts, c.where)}/{c.rater}"  # whatever its other columns are
    vote = comparison_vote(
        item.key,
        c.rater,
        "a",
        key=f"{item.key}/{c.rater}/{count(said_here)}",
        margin=c.margin,
        order_shown=said.order(),
        seconds=said.seconds_of(0),
    )
    return item, [vote]


def _item(kind: str, prompt: Text, texts: list[Any], extra: Mapping[str, Any], where: str) -> Item:
    key = f"{kind}-{_digest([prompt, texts, extra], where)}"
    return Item(key, prompt, tuple(Segment(text) for text in texts), extra)


def _digest(value: Any, where: str) -> str:
    text = json.dumps(canonical(value, where), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
