"""The raw log: every entry with its item, undone votes and undos too, and items without a vote.

A store read from it has the same content digest. In a file of texts alone (CSV) and in Parquet, lists
and objects are JSON. Offers are told (key, purpose, policy, propensity) but not made again: that a
vote answered one is how it came about, not what it says. Items keep the numbers of their store, so they
are put in that order whatever the order of the rows; what is needed for it is kept on disk meanwhile.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from plaudit.feedback import questions as ask
from plaudit.feedback import walk
from plaudit.feedback.entries import Item, NewVote, Segment, Vote, check_item, check_vote
from plaudit.feedback.formats.base import Format, Judged, Reading, digest
from plaudit.feedback.formats.spool import Kept
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.tables import VoteRow
from plaudit.feedback.walk import walk_votes
from plaudit.records.columns import parse_number
from plaudit.records.errors import UserError, nearest
from plaudit.records.row_files import ENDINGS, without_apostrophe
from plaudit.records.rows import Row

COLUMNS = ("item_key", "item_number", "prompt", "segments", "columns", "vote_key", "kind",
           "rater", "value", "shown", "seconds", "time", "undoes")  # fmt: skip
LATER = ("visible_seconds", "offer", "purpose", "policy", "propensity")
"""Columns that files of an earlier Plaudit lack."""
NESTED = ("prompt", "segments", "columns", "value", "shown")
_MARKED = ("[", '"')
"""How a prompt begins that is written as JSON where columns have one type each."""
_NUMBERS = ("item_number", "seconds", "time", "visible_seconds", "propensity")


# --- writing -----------------------------------------------------------------------------------


def vote_rows(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
    """A row for each entry and for each item without one.

    With a rater named: that rater's votes, and the undos of them by whatever hand.
    """
    num_items, _ = store.size()
    for vote, item, number in walk_votes(store, active=False):
        if rater is not None and not _concerns(store, vote, rater):
            others = vote.undoes is not None and vote.rater == rater
            left_out["undos of other raters' votes"] += others
            continue
        yield _item_columns(item, number) | _vote_columns(store, vote)
    if rater is None:
        nothing = dict.fromkeys((*COLUMNS[5:], *LATER))
        for item, number in _without_entries(store, num_items):
            yield _item_columns(item, number) | nothing


def flat(row: Row) -> Row:
    """The row for a file whose columns have one type each: lists and objects as JSON."""
    made = dict(row)
    for name in NESTED:
        value = row[name]
        is_text = name == "prompt" and isinstance(value, str) and value[:1] not in _MARKED
        made[name] = value if is_text or value is None else json.dumps(value)
    return made


def _concerns(store: FeedbackStore, vote: Vote, rater: str) -> bool:
    """Whether the vote, or the one at the end of a chain of undos, is the rater's."""
    while vote.undoes is not None:
        vote = _by_id(store, vote.undoes)
    return vote.rater == rater


def _by_id(store: FeedbackStore, id_: int) -> Vote:
    with store.reading() as connection:
        vote = ask.vote_by_id(connection, id_)
    assert vote is not None  # an undo names an entry before it
    return vote


def _without_entries(store: FeedbackStore, num_items: int) -> Iterator[tuple[Item, int]]:
    page = walk.PAGE
    for after in range(0, num_items, page):
        last = min(after + page, num_items)
        with store.reading() as connection:
            here = VoteRow.item_id.between(after + 1, last)
            judged = set(connection.scalars(select(VoteRow.item_id).where(here).distinct()))
            if len(judged) == last - after:
                continue
            items = ask.items(connection, after=after, limit=last - after)
        for number, item in enumerate(items, start=after + 1):
            if number not in judged:
                yield item, number


def _item_columns(item: Item, number: int) -> Row:
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


def _vote_columns(store: FeedbackStore, vote: Vote) -> Row:
    return {
        "vote_key": vote.key,
        "kind": vote.kind,
        "rater": vote.rater,
        "value": dict(vote.value),
        "shown": None if vote.shown is None else list(vote.shown),
        "seconds": vote.seconds,
        "time": vote.time,
        "undoes": None if vote.undoes is None else _by_id(store, vote.undoes).key,
        "visible_seconds": vote.visible_seconds,
        "offer": vote.offer,
        "purpose": vote.purpose,
        "policy": vote.policy,
        "propensity": vote.propensity,
    }


# --- reading -----------------------------------------------------------------------------------


def _read(reading: Reading) -> Iterator[Judged]:
    """First all items by number, then all votes; the first time through, no votes."""
    if reading.checked is None:
        reading.kept = {"items": Kept(), "votes": Kept()}
        for where, row in _rows(reading):
            _check(row, where, reading)
    for item in reading.kept["items"].in_order():
        yield Judged(str(reading.path), _item_of(item), ())
    if reading.checked is not None:
        for where, row in _rows(reading):
            if row["kind"] is not None:
                yield Judged(where, None, (_vote_of(row, where),))


def _rows(reading: Reading) -> Iterator[tuple[str, Row]]:
    is_table = reading.path.name.lower().endswith(".parquet")
    for rows in reading.slices():
        for index, row in enumerate(rows):
            where = rows.where(index)
            for name in COLUMNS:
                if name not in row:
                    raise UserError(
                        f"{where}: no column {name!r}, which a vote log needs{nearest(name, row)}"
                    )
            plain = _from_texts(row, where) if rows.only_texts else row
            marked = is_table or rows.only_texts
            yield where, {n: _nested(plain.get(n), n, where, marked) for n in (*COLUMNS, *LATER)}


def _from_texts(row: Row, where: str) -> Row:
    """A row of CSV: an empty cell is null, and numbers are numbers again."""
    made: Row = {}
    for name, cell in row.items():
        if cell == "":
            made[name] = None
        elif name in _NUMBERS:
            made[name] = parse_number(cell)
            if made[name] is None:
                raise UserError(f"{where}: {name!r} is {cell!r}, expected a number")
        else:
            made[name] = without_apostrophe(cell)
    return made


def _nested(value: Any, name: str, where: str, marked: bool) -> Any:
    """What JSON in a text means, where it may be: of a prompt only where prompts are marked."""
    if name not in NESTED or not isinstance(value, str):
        return value
    if name == "prompt" and not (marked and value[:1] in _MARKED):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        if name == "prompt":  # a table of an earlier Plaudit marked none
            return value
        raise UserError(f"{where}: {name!r} is not JSON ({error})") from None


def _check(row: Row, where: str, reading: Reading) -> None:
    """UserError unless the row is sound and says nothing that a row before it contradicts."""
    item = _logged_item(row, where)
    number = row["item_number"]
    whole = isinstance(number, int) and not isinstance(number, bool)
    same = whole and reading.kept["items"].agrees(str(number), _dumped(item), place=number)
    if not same:
        raise UserError(f"{where}: item_number {number!r} is not this item's own number")
    if row["kind"] is None:
        return
    vote = _vote_of(row, where)
    said = digest([item.key, vote.rater, vote.kind, vote.value, vote.shown, vote.undoes])
    votes = reading.kept["votes"]
    if not votes.agrees(str(vote.key), [item.key, said]):
        raise UserError(f"{where}: vote {vote.key!r} is there already with other content")
    try:
        check_vote(vote, len(item.segments))
        if vote.undoes is not None or vote.kind == "undo":
            known = votes.get(str(vote.undoes))
            if vote.kind != "undo" or vote.undoes == vote.key or not known or known[0] != item.key:
                raise UserError(f"there is no vote {vote.undoes!r} to undo")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if row["offer"] is not None:
        reading.left_out["offers that were answered (they are not made again)"] += 1


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
    item = Item(row["item_key"], row["prompt"], parts, columns)
    try:
        check_item(item)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return item


def _dumped(item: Item) -> list[Any]:
    segments = [[s.text, s.kind, s.model, dict(s.extra)] for s in item.segments]
    return [item.key, item.prompt, segments, dict(item.columns)]


def _item_of(dumped: list[Any]) -> Item:
    key, prompt, segments, columns = dumped
    return Item(key, prompt, tuple(Segment(*segment) for segment in segments), columns)


def _vote_of(row: Row, where: str) -> NewVote:
    shown = row["shown"]
    if not isinstance(row["value"], dict) or not isinstance(shown, list | None):
        raise UserError(f"{where}: 'value' must be an object and 'shown' a list or null")
    for name in ("vote_key", "kind", "rater", "undoes"):
        if not isinstance(row[name], str) and not (name == "undoes" and row[name] is None):
            raise UserError(f"{where}: {name!r} is {row[name]!r}, expected a text")
    return NewVote(
        row["vote_key"], row["item_key"], row["rater"], row["kind"], row["value"],
        None if shown is None else tuple(shown), row["seconds"], row["time"], row["undoes"],
        row["visible_seconds"],
    )  # fmt: skip


FORMATS = (
    Format(
        "votes",
        "Plaudit's raw log",
        COLUMNS,
        lambda row: True,
        _read,
        vote_rows,
        "everything, undone votes too",
        ENDINGS,
    ),
)
