"""Feedback in and out: preferences, labels, scores in the usual columns, and the raw log.

Preferences, labels and scores lose what their columns cannot say, and the reply counts what was
left out. The raw log ("votes") keeps everything, undone votes included: a store read from it has
the same content digest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.feedback.entries import Item, NewVote, Segment
from plaudit.feedback.incoming import items_and_votes, rater_of
from plaudit.feedback.store import FeedbackStore
from plaudit.records.columns import rename_columns
from plaudit.records.datasets import as_kind, named_rows
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import Row, Rows, write_jsonl, write_parquet

FORMS = ("preference", "unpaired", "scores", "votes")
_VOTE_COLUMNS = ("item_key", "item_number", "prompt", "segments", "columns", "vote_key", "kind",
                 "rater", "value", "shown", "seconds", "time", "undoes")  # fmt: skip
_NESTED = ("segments", "columns", "value", "shown")  # written as JSON text in Parquet


@dataclass(frozen=True)
class Exported:
    """How many rows were written, and how many votes could not be said in them, by reason."""

    num_rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """How many rows were read, how many items and votes were new to the store, and how it was read.

    `notes` name the format that was recognised and the columns that were left out.
    """

    num_rows: int
    num_items: int
    num_votes: int
    notes: tuple[str, ...] = ()


def export_feedback(
    store: FeedbackStore, path: str | Path, *, form: str = "preference", rater: str | None = None
) -> Exported:
    """Write active feedback to `path` (.jsonl or .parquet), of one rater or of all.

    Forms: preference (prompt, chosen, rejected, margin where every pair has one), unpaired
    (prompt, completion, label), scores (prompt, completions, scores, rater), votes (the raw log).
    """
    target = Path(path)
    if target.suffix.lower() not in (".jsonl", ".parquet"):
        raise UserError(f"{target}: feedback is written as .jsonl or .parquet")
    makers = {
        "preference": preference_rows,
        "unpaired": unpaired_rows,
        "scores": score_rows,
        "votes": vote_rows,
    }
    if form not in makers:
        raise UserError(
            f"form is {form!r}, expected one of {', '.join(FORMS)}{nearest(form, FORMS)}"
        )
    rows, left_out = makers[form](store, rater=rater)
    if not rows:
        whose = "" if rater is None else f" of {rater!r}"
        lost = ", ".join(f"{num} {reason}" for reason, num in left_out.items())
        raise UserError(
            f"{store.name} holds no feedback{whose} for the form {form!r}"
            f"{f' ({lost})' if lost else ''}; nothing was written"
        )
    if target.suffix.lower() == ".jsonl":
        write_jsonl(target, rows)
    else:
        write_parquet(target, (_flat(row) for row in rows) if form == "votes" else rows)
    return Exported(len(rows), left_out)


def import_feedback(
    store: FeedbackStore,
    path: str | Path,
    *,
    rater: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Imported:
    """Read feedback of any form that `export_feedback` writes, or of a known format, into the store.

    `rater` names who said it (default: the file's name without its ending); a raw log and a column
    `rater` name their own. Importing a file again adds nothing.
    """
    return _import(store, path, rater, columns, ("preference", "unpaired", "scored"), log=True)


def import_comparisons(
    store: FeedbackStore,
    path: str | Path,
    *,
    rater: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Imported:
    """As `import_feedback`, for a file of comparisons and nothing else."""
    return _import(store, path, rater, columns, ("preference",), log=False)


def _import(
    store: FeedbackStore,
    path: str | Path,
    rater: str | None,
    columns: Mapping[str, str] | None,
    kinds: tuple[str, ...],
    *,
    log: bool,
) -> Imported:
    rows = named_rows(path, kinds)
    named = rename_columns(rows, columns) if columns else rows
    who = rater_of(path, rater)
    if log and all(name in named[0] for name in _VOTE_COLUMNS):
        return _add(store, named, *_from_log(named))
    clean, kind = as_kind(named, kinds=kinds)
    return _add(store, clean, *items_and_votes(clean, kind, who))


def preference_rows(
    store: FeedbackStore, *, rater: str | None = None
) -> tuple[list[Row], dict[str, int]]:
    """prompt, chosen, rejected and, where every pair has one, margin; ties are left out."""
    comparisons = store.comparisons(rater=rater)
    decided = [c for c in comparisons if c.chosen is not None]
    left_out = Counter(_LEFT_OUT[c.preference] for c in comparisons if c.chosen is None)
    with_margin = all(c.margin is not None for c in decided)
    if not with_margin:
        left_out["margins (not every pair has one)"] = sum(c.margin is not None for c in decided)
    rows = []
    for c in decided:
        row: Row = {"prompt": c.prompt, "chosen": c.chosen, "rejected": c.rejected}
        rows.append(row | {"margin": c.margin} if with_margin else row)
    return rows, _positive(left_out)


def unpaired_rows(
    store: FeedbackStore, *, rater: str | None = None
) -> tuple[list[Row], dict[str, int]]:
    """prompt, completion, label: the chosen true, the rejected and both of "both bad" false.

    Scores of exactly 1 and 0 are labels too; ties and other scores are left out.
    """
    rows: list[Row] = []
    left_out: Counter[str] = Counter()

    def add(prompt: Any, completion: Any, label: bool) -> None:
        rows.append({"prompt": prompt, "completion": completion, "label": label})

    for c in store.comparisons(rater=rater):
        if c.preference == "tie":
            left_out["ties"] += 1
            continue
        add(c.prompt, c.a, c.preference == "a")
        add(c.prompt, c.b, c.preference == "b")
    for score in store.scores(rater=rater):
        if score.score in (0, 1):
            add(score.prompt, score.answer, bool(score.score))
        else:
            left_out["scores other than 0 and 1"] += 1
    return rows, dict(left_out)


def score_rows(
    store: FeedbackStore, *, rater: str | None = None
) -> tuple[list[Row], dict[str, int]]:
    """prompt, completions, scores, rater: one row for each item and rater."""
    rows: dict[tuple[str, str], Row] = {}
    for score in store.scores(rater=rater):
        row = rows.setdefault(
            (score.item_key, score.rater),
            {"prompt": score.prompt, "completions": [], "scores": [], "rater": score.rater},
        )
        row["completions"].append(score.answer)
        row["scores"].append(float(score.score))
    return list(rows.values()), {}


def vote_rows(
    store: FeedbackStore, *, rater: str | None = None
) -> tuple[list[Row], dict[str, int]]:
    """The whole log, a row for each vote and for each item without one; undone votes too.

    With a rater named: that rater's votes, and the undos of them by whatever hand.
    """
    numbered = {item.key: (n, item) for n, item in enumerate(store.items(), start=1)}
    votes = store.votes(active=False)
    key_of = {vote.id: vote.key for vote in votes}
    rows = []
    left_out: Counter[str] = Counter()
    kept: set[int] = set()
    for vote in votes:
        if rater is not None and vote.undoes is None and vote.rater != rater:
            continue
        if vote.undoes is not None and vote.undoes not in kept:
            left_out["undos of other raters' votes"] += vote.rater == rater
            continue
        kept.add(vote.id)
        said = {
            "vote_key": vote.key,
            "kind": vote.kind,
            "rater": vote.rater,
            "value": dict(vote.value),
            "shown": None if vote.shown is None else list(vote.shown),
            "seconds": vote.seconds,
            "time": vote.time,
            "undoes": None if vote.undoes is None else key_of[vote.undoes],
        }
        rows.append(_item_columns(*numbered[vote.item_key]) | said)
    if rater is None:
        judged = {vote.item_key for vote in votes}
        nothing = dict.fromkeys(_VOTE_COLUMNS[5:])
        rows += [
            _item_columns(*both) | nothing for key, both in numbered.items() if key not in judged
        ]
    return rows, _positive(left_out)


_LEFT_OUT = {"tie": "ties", "both_bad": "both bad"}


def _add(
    store: FeedbackStore, rows: Rows, items: Iterable[Item], votes: Iterable[NewVote]
) -> Imported:
    with store.batch():
        before = store.size()
        store.add_items(items)
        store.add_votes(votes)
        after = store.size()
    return Imported(len(rows), after[0] - before[0], after[1] - before[1], rows.notes)


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: num for reason, num in counts.items() if num}


def _item_columns(number: int, item: Item) -> Row:
    segments = [
        {"text": s.text, "kind": s.kind, "model": s.model, "extra": dict(s.extra)}
        for s in item.segments
    ]
    return {
        "item_key": item.key,
        "item_number": number,
        "prompt": item.prompt,
        "segments": segments,
        "columns": dict(item.columns),
    }


def _flat(row: Row) -> Row:
    return {name: json.dumps(row[name]) if name in _NESTED else row[name] for name in row}


def _from_log(rows: Rows) -> tuple[Iterable[Item], list[NewVote]]:
    items: dict[int, Item] = {}
    votes = []
    for index, flat in enumerate(rows):
        where = rows.where(index)
        row = {name: _nested(flat, name, where) for name in _VOTE_COLUMNS}
        item = _logged_item(row, where)
        number = row["item_number"]
        if not isinstance(number, int) or items.setdefault(number, item) != item:
            raise UserError(f"{where}: item_number {number!r} is not this item's own number")
        if row["kind"] is not None:
            votes.append(_logged_vote(row, item.key, where))
    return [items[number] for number in sorted(items)], votes


def _logged_item(row: Row, where: str) -> Item:
    fields = {"text", "kind", "model", "extra"}
    segments, columns = row["segments"], row["columns"]
    if not isinstance(segments, list) or not isinstance(columns, dict):
        raise UserError(f"{where}: 'segments' must be a list and 'columns' an object")
    for segment in segments:
        if not isinstance(segment, dict) or segment.keys() != fields:
            raise UserError(f"{where}: a segment must have {', '.join(sorted(fields))}")
        if not isinstance(segment["kind"], str) or not isinstance(segment["extra"], dict):
            raise UserError(f"{where}: a segment's kind must be a text and its extra an object")
        if not isinstance(segment["model"], str | None):
            raise UserError(f"{where}: a segment's model must be a text or null")
    parts = tuple(Segment(**segment) for segment in segments)
    return Item(row["item_key"], row["prompt"], parts, columns)


def _logged_vote(row: Row, item_key: str, where: str) -> NewVote:
    shown = row["shown"]
    if not isinstance(row["value"], dict) or not isinstance(shown, list | None):
        raise UserError(f"{where}: 'value' must be an object and 'shown' a list or null")
    for name in ("vote_key", "kind", "rater", "undoes"):
        if not isinstance(row[name], str) and not (name == "undoes" and row[name] is None):
            raise UserError(f"{where}: {name!r} is {row[name]!r}, expected a text")
    return NewVote(
        row["vote_key"], item_key, row["rater"], row["kind"], row["value"],
        None if shown is None else tuple(shown), row["seconds"], row["time"], row["undoes"],
    )  # fmt: skip


def _nested(row: Row, name: str, where: str) -> Any:
    if name not in row:
        raise UserError(f"{where}: no column {name!r}, which a vote log needs")
    value = row[name]
    if name not in _NESTED or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise UserError(f"{where}: {name!r} is not JSON ({error})") from None
