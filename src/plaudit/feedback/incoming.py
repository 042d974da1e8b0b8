"""Rows of comparisons, labels or scores as entries of the log, and comparisons read without one.

Keys are digests of content, so that a file imported again adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
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
from plaudit.records.rows import Row, Rows, file_stem
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


def items_and_votes(rows: Rows, kind: str, rater: str) -> tuple[list[Item], list[NewVote]]:
    """Items and votes of clean rows; the same row twice is two votes on one item."""
    if kind == "preference":
        return _of_comparisons(comparisons_of(rows, rater))
    items: list[Item] = []
    votes: list[NewVote] = []
    seen: Counter[str] = Counter()
    mine = {*KINDS[kind], "rater"}
    for index, row in enumerate(rows):
        where = rows.where(index)
        who = check_name(row.get("rater", rater), f"{where}: 'rater'")
        extra = {name: value for name, value in row.items() if name not in mine}
        texts = [row["completion"]] if kind == "unpaired" else list(row["completions"])
        item = _item(kind, row["prompt"], texts, extra, where)
        said = {name: row[name] for name in KINDS[kind]}
        key = _vote_key(item, said, who, seen, where)
        items.append(item)
        if kind == "unpaired":
            votes.append(score_vote(item.key, who, int(row["label"]), key=key))
            continue
        for position, score in enumerate(row["scores"]):
            name = f"{key}/{position}"
            votes.append(score_vote(item.key, who, score, key=name, segment=position))
    return items, votes


def _of_comparisons(comparisons: list[FileComparison]) -> tuple[list[Item], list[NewVote]]:
    items: list[Item] = []
    votes: list[NewVote] = []
    seen: Counter[str] = Counter()
    for c in comparisons:
        item = _item("preference", c.prompt, [c.chosen, c.rejected], c.extra, c.where)
        said = {"prompt": c.prompt, "chosen": c.chosen, "rejected": c.rejected}
        key = _vote_key(item, said, c.rater, seen, c.where)
        items.append(item)
        votes.append(comparison_vote(item.key, c.rater, "a", key=key, margin=c.margin))
    return items, votes


def _item(kind: str, prompt: Text, texts: list[Any], extra: Mapping[str, Any], where: str) -> Item:
    key = f"{kind}-{_digest([prompt, texts, extra], where)}"
    return Item(key, prompt, tuple(Segment(text) for text in texts), extra)


def _vote_key(item: Item, said: Row, rater: str, seen: Counter[str], where: str) -> str:
    """A key of its own for every time that this rater says this."""
    name = f"{_digest(said, where)}/{rater}"
    seen[name] += 1
    return f"{item.key}/{rater}/{seen[name]}"


def _digest(value: Any, where: str) -> str:
    text = json.dumps(canonical(value, where), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
