"""What is derived from the log, kept in tables of its own in the transaction of the log's entry.

An entry stands unless an undo that stands takes it back; so an undo of an undo brings a vote back.
An undo changes its target, and where that is an undo too, what that took back, and so on: the cost
of an entry grows with such a chain, never with the log. What another program appended to the log
(a Plaudit that kept no derived tables) is caught up with before the next question is answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from plaudit.feedback.answered import MANY, add_answered, chunks, remove_answered
from plaudit.feedback.derived_tables import RaterRow, StandingRow, StandingUndoRow, TallyRow
from plaudit.feedback.pool import count_answers
from plaudit.feedback.readings import Entry
from plaudit.feedback.tables import ItemRow, MetaRow, VoteRow

_MARK = "derived_through"  # the last entry that the derived tables know
CATCH_UP = 10_000
"""Entries caught up with in one transaction, so that no other writer waits too long."""

_ENTRY = select(
    VoteRow.id, VoteRow.item_id, VoteRow.rater, VoteRow.kind, VoteRow.value, VoteRow.shown,
    VoteRow.seconds, VoteRow.undoes, VoteRow.time, VoteRow.offer,
)  # fmt: skip

# Statements are made once: to make one costs as much as to run it.
_LAST = select(
    select(MetaRow.value).where(MetaRow.name == _MARK).scalar_subquery(),
    select(func.max(VoteRow.id)).scalar_subquery(),
)
_OLD = _ENTRY.where(VoteRow.id.in_(MANY))
_NUM_UNDOS = (
    select(StandingUndoRow.undoes, func.count())
    .where(StandingUndoRow.undoes.in_(MANY))
    .group_by(StandingUndoRow.undoes)
)
_STANDS = {table: insert(table) for table in (StandingRow, StandingUndoRow)}
_FALLS = {table: delete(table).where(table.vote_id.in_(MANY)) for table in _STANDS}
# the least of an index, not EXISTS: PostgreSQL could read all votes of a rater for that
_ONE = select(func.min(StandingRow.vote_id)).where(
    StandingRow.item_id == ItemRow.id, StandingRow.rater == bindparam("rater")
)
_ANSWERED = select(ItemRow.id).where(ItemRow.id.in_(MANY), _ONE.scalar_subquery().is_not(None))
_RATERS = select(RaterRow.rater).where(RaterRow.rater.in_(MANY))
_NEW_RATER = insert(RaterRow)
_MORE_ANSWERED = (
    update(RaterRow)
    .where(RaterRow.rater == bindparam("who"))
    .values(num_answered=RaterRow.num_answered + bindparam("more"))
)
_TALLY_KEY = ("rater", "kind", "answer", "first_won")
_TALLIES = select(TallyRow.__table__).where(TallyRow.rater.in_(MANY))
_NEW_TALLY = insert(TallyRow)
_TALLY_CHANGE = update(TallyRow).where(
    *(getattr(TallyRow, name) == bindparam(f"old_{name}") for name in _TALLY_KEY)
)
_NEW_MARK = insert(MetaRow)
_MARK_CHANGE = update(MetaRow).where(MetaRow.name == _MARK).values(value=bindparam("last"))


def is_current(connection: Connection) -> bool:
    """Whether the derived tables know the whole log."""
    known, last = connection.execute(_LAST).one()
    return int(known or 0) == (last or 0)


def catch_up(connection: Connection, limit: int | None = None) -> None:
    """Read entries that the derived tables lack, at most `limit`, under the write lock."""
    known, _ = connection.execute(_LAST).one()
    query = _ENTRY.where(VoteRow.id > int(known or 0)).order_by(VoteRow.id).limit(limit)
    derive(connection, [Entry(*row) for row in connection.execute(query)])


def derive(connection: Connection, entries: Sequence[Entry]) -> None:
    """Take in entries just appended, in order, which follow the last one known."""
    if not entries:
        return
    up, down = _changes(connection, entries)
    votes_up = _by_rater(entry for entry in up if entry.undoes is None)
    votes_down = _by_rater(entry for entry in down if entry.undoes is None)
    before = _answered(connection, votes_up, surely=votes_down)
    _write_standing(connection, up, down)
    count_answers(connection, up, down)
    after = _answered(connection, votes_down, surely=votes_up)
    _tally(connection, entries, up, down)
    _count_raters(connection, {e.rater for e in entries}, before, after)
    for rater in after:
        add_answered(connection, rater, after[rater] - before[rater])
        remove_answered(connection, rater, sorted(before[rater] - after[rater]))
    _remember(connection, entries[-1].id)


# --- what stands -------------------------------------------------------------------------------


def _changes(connection: Connection, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Entries that stand and were not known to, and those that did and do no longer."""
    new = {entry.id: entry for entry in entries}
    old, undone_by = _old(connection, entries)
    stood = {id_ for id_ in old if not undone_by[id_]}
    known = old | new

    def change(entry: Entry, by: int) -> None:
        """An undo begins (1) or ceases (-1) to stand; on along the chain while that matters."""
        while entry.undoes is not None:
            target = known[entry.undoes]
            before = undone_by[target.id]
            undone_by[target.id] += by
            if bool(before) == bool(undone_by[target.id]):
                return
            entry, by = target, -by

    for entry in entries:
        change(entry, 1)
    up = [e for e in known.values() if not undone_by[e.id] and e.id not in stood]
    down = [e for e in old.values() if undone_by[e.id] and e.id in stood]
    return up, down


def _old(connection: Connection, entries: Sequence[Entry]) -> tuple[dict[int, Entry], Counter[int]]:
    """Older entries that the new ones may change, and how many standing undos each has."""
    old: dict[int, Entry] = {}
    undone_by: Counter[int] = Counter()
    wanted = {e.undoes for e in entries if e.undoes is not None} - {e.id for e in entries}
    while wanted:
        found: dict[int, Entry] = {}
        for chunk in chunks(sorted(wanted)):
            rows = connection.execute(_OLD, {"many": chunk})
            found |= {row.id: Entry(*row) for row in rows}
            for target, num in connection.execute(_NUM_UNDOS, {"many": chunk}):
                undone_by[target] = num
        old |= found
        wanted = {e.undoes for e in found.values() if e.undoes is not None} - old.keys()
    return old, undone_by


def _write_standing(connection: Connection, up: Sequence[Entry], down: Sequence[Entry]) -> None:
    for table in _FALLS:
        gone = [e.id for e in down if (e.undoes is None) == (table is StandingRow)]
        for chunk in chunks(gone):
            connection.execute(_FALLS[table], {"many": chunk})
    votes = [_standing(entry) for entry in up if entry.undoes is None]
    undos = [{"vote_id": e.id, "undoes": e.undoes} for e in up if e.undoes is not None]
    if votes:
        connection.execute(_STANDS[StandingRow], votes)
    if undos:
        connection.execute(_STANDS[StandingUndoRow], undos)


def _standing(entry: Entry) -> dict[str, Any]:
    value = entry.value
    row: dict[str, Any] = {
        "vote_id": entry.id, "item_id": entry.item_id, "rater": entry.rater, "kind": entry.kind,
        "low": None, "high": None, "said": None, "score": None,
    }  # fmt: skip
    if entry.kind == "score":
        return row | {"low": value["segment"], "high": value["segment"], "score": value["score"]}
    if entry.kind != "comparison":
        return row
    a, b, said = value["a"], value["b"], value["preference"]
    if a > b:
        a, b, said = b, a, {"a": "b", "b": "a"}.get(said, said)
    return row | {"low": a, "high": b, "said": said}


# --- who answered what -------------------------------------------------------------------------


def _by_rater(votes: Iterable[Entry]) -> dict[str, set[int]]:
    items: defaultdict[str, set[int]] = defaultdict(set)
    for vote in votes:
        items[vote.rater].add(vote.item_id)
    return dict(items)


def _answered(
    connection: Connection, asked: Mapping[str, set[int]], *, surely: Mapping[str, set[int]]
) -> dict[str, set[int]]:
    """Of both, the items of each rater on which a vote of theirs stands: all of `surely`."""
    found: dict[str, set[int]] = {}
    for rater in {**asked, **surely}:
        known = surely.get(rater, set())
        found[rater] = set(known)
        for chunk in chunks(sorted(asked.get(rater, set()) - known)):
            found[rater].update(connection.scalars(_ANSWERED, {"rater": rater, "many": chunk}))
    return found


def _count_raters(
    connection: Connection,
    raters: Iterable[str],
    before: dict[str, set[int]],
    after: dict[str, set[int]],
) -> None:
    new = dict.fromkeys(raters, 0)
    for rater in after:
        new[rater] = len(after[rater]) - len(before[rater])
    known: set[str] = set()
    for chunk in chunks(new):
        known.update(connection.scalars(_RATERS, {"many": chunk}))
    rows = [{"rater": rater, "num_answered": num} for rater, num in new.items()]
    if fresh := [row for row in rows if row["rater"] not in known]:
        connection.execute(_NEW_RATER, fresh)
    changed = [{"who": rater, "more": num} for rater, num in new.items() if num and rater in known]
    if changed:
        connection.execute(_MORE_ANSWERED, changed)


# --- who said what how often -------------------------------------------------------------------


@dataclass
class _Tally:
    num: int = 0
    num_undone: int = 0
    num_timed: int = 0
    seconds: Fraction = Fraction(0)

    def add(self, entry: Entry, by: int) -> None:
        self.num += by
        if entry.seconds is not None:
            self.num_timed += by
            self.seconds += by * Fraction(entry.seconds)


_Key = tuple[str, str, str, int]


def _key(entry: Entry) -> _Key:
    answer, first_won = "", -1
    if entry.kind == "comparison":
        answer = entry.value["preference"]
        if entry.shown and answer in ("a", "b"):
            first_won = int(entry.shown[0] == entry.value[answer])
    return entry.rater, entry.kind, answer, first_won


def _tally(
    connection: Connection, entries: Sequence[Entry], up: Sequence[Entry], down: Sequence[Entry]
) -> None:
    """Add what changed to the sums; entries are undone from the start until they stand."""
    change: defaultdict[_Key, _Tally] = defaultdict(_Tally)
    for entry in entries:
        change[_key(entry)].num_undone += 1
    for by, flipped in ((1, up), (-1, down)):
        for entry in flipped:
            tally = change[_key(entry)]
            tally.add(entry, by)
            tally.num_undone -= by
    known = set()
    for chunk in chunks(rater for rater, *_ in change):
        for row in connection.execute(_TALLIES, {"many": chunk}):
            key = (row.rater, row.kind, row.answer, row.first_won)
            if key not in change:
                continue
            known.add(key)
            tally = change[key]
            tally.num += row.num
            tally.num_undone += row.num_undone
            tally.num_timed += row.num_timed
            tally.seconds += Fraction(row.seconds)
    rows = {key: _tally_row(key, tally) for key, tally in change.items()}
    if fresh := [row for key, row in rows.items() if key not in known]:
        connection.execute(_NEW_TALLY, fresh)
    changed = [
        {f"old_{name}": part for name, part in zip(_TALLY_KEY, key, strict=True)}
        | {name: value for name, value in rows[key].items() if name not in _TALLY_KEY}
        for key in known
    ]
    if changed:
        connection.execute(_TALLY_CHANGE, changed)


def _tally_row(key: _Key, tally: _Tally) -> dict[str, Any]:
    rater, kind, answer, first_won = key
    return {
        "rater": rater, "kind": kind, "answer": answer, "first_won": first_won, "num": tally.num,
        "num_undone": tally.num_undone, "num_timed": tally.num_timed,
        "seconds": str(tally.seconds),
    }  # fmt: skip


# --- how far the derived tables go -------------------------------------------------------------


def _remember(connection: Connection, last: int) -> None:
    if connection.execute(_MARK_CHANGE, {"last": str(last)}).rowcount == 0:
        connection.execute(_NEW_MARK, {"name": _MARK, "value": str(last)})
