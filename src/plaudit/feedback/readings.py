"""Entries as rows of the log and back: what counts as content, and the readings of a vote.

Pure functions between `entries.py` and the store; content is everything except times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plaudit.feedback.entries import Comparison, Item, NewVote, Score, Vote, canonical
from plaudit.records.errors import UserError

SEGMENT_FIELDS = ("position", "kind", "text", "model", "extra")
VOTE_FIELDS = ("item_id", "rater", "kind", "value", "shown", "undoes")


@dataclass(frozen=True)
class Known:
    """What the log already holds under a key."""

    id: int
    content: Any
    num_segments: int = 0
    offer: int | None = None


@dataclass(frozen=True)
class Entry:
    """A row of `votes`, as far as the derived tables need it."""

    id: int
    item_id: int
    rater: str
    kind: str
    value: Any
    shown: Any
    seconds: float | None
    undoes: int | None
    time: float
    offer: int | None


def entry_of_row(row: Mapping[str, Any]) -> Entry:
    """The entry of a row that is about to be a row of `votes`."""
    return Entry(*(row[name] for name in Entry.__dataclass_fields__))


def item_content(item: Item) -> dict[str, Any]:
    """The columns of the item's row, and of the rows of its segments, without ids."""
    where = f"item {item.key!r}"
    head = canonical({"prompt": item.prompt, "columns": dict(item.columns)}, where)
    segments = [
        {
            "position": position,
            "kind": segment.kind,
            "text": canonical(segment.text, where),
            "model": segment.model,
            "extra": canonical(dict(segment.extra), where),
        }
        for position, segment in enumerate(item.segments)
    ]
    return {"item": head, "segments": segments}


def vote_content(vote: NewVote, item_id: int, known: Mapping[str, Known]) -> dict[str, Any]:
    """The columns of the vote's row, without id, key and times; `known` holds the vote undone."""
    undoes = None
    if vote.undoes is not None or vote.kind == "undo":
        target = known.get(vote.undoes or "")
        if target is None or vote.kind != "undo" or target.content["item_id"] != item_id:
            raise UserError(
                f"{vote.kind} of item {vote.item_key!r}: there is no vote {vote.undoes!r} to undo"
            )
        undoes = target.id
    return {
        "item_id": item_id,
        "rater": vote.rater,
        "kind": vote.kind,
        "value": canonical(dict(vote.value), f"vote on item {vote.item_key!r}"),
        "shown": None if vote.shown is None else list(vote.shown),
        "undoes": undoes,
    }


def require_same(before: Any, after: Any, what: str, where: str) -> None:
    """UserError where a key that is there already is added again with other content."""
    if before != after:
        raise UserError(f"{where}: {what} is already there with other content; use another key")


def vote_of_row(row: Any, *, active: bool) -> Vote:
    """A row of `votes`, joined with its item's key."""
    shown = None if row.shown is None else tuple(row.shown)
    return Vote(
        row.id, row.key, row.item_key, row.rater, row.kind, row.value, shown, row.seconds,
        row.time, row.undoes, active, row.visible_seconds, row.offer_key, row.purpose, row.policy,
        row.propensity,
    )  # fmt: skip


def comparison_of(vote: Vote, item: Item) -> Comparison:
    """A comparison vote together with the texts it compared."""
    a, b = vote.value["a"], vote.value["b"]
    first, second = item.segments[a], item.segments[b]
    return Comparison(
        item_key=item.key,
        prompt=item.prompt,
        a=first.text,
        b=second.text,
        preference=vote.value["preference"],
        strength=vote.value.get("strength"),
        margin=vote.value.get("margin"),
        rater=vote.rater,
        order_shown=None if vote.shown is None else "ab" if vote.shown[0] == a else "ba",
        seconds=vote.seconds,
        time=vote.time,
        vote_id=vote.id,
        positions=(a, b),
        model_a=first.model,
        model_b=second.model,
        columns=item.columns,
        extra_a=first.extra,
        extra_b=second.extra,
    )


def score_of(vote: Vote, item: Item) -> Score:
    """A score vote together with the text it judged."""
    position = vote.value["segment"]
    segment = item.segments[position]
    return Score(
        item_key=item.key,
        prompt=item.prompt,
        answer=segment.text,
        score=vote.value["score"],
        rater=vote.rater,
        seconds=vote.seconds,
        time=vote.time,
        vote_id=vote.id,
        position=position,
        model=segment.model,
        columns=item.columns,
    )
