"""Which items a rater has answered, kept as runs of consecutive items, so that open ones are gaps.

Runs of one rater never touch: behind each there is an open item. The next k open items are
therefore found in the first k + 1 runs, however many items were answered before. Items are numbered
from 1 without gaps (`tables.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, Integer, bindparam, delete, insert, select

from plaudit.feedback.derived_tables import RunRow

_CHUNK = 500  # values in one query; SQLite allows 32,766, older builds 999
_PAGE = 1000  # runs read at once where no limit is given
T = TypeVar("T")

MANY: BindParameter[Any] = bindparam("many", expanding=True)
"""The values of an IN, in a statement that is made once."""

_RUNS = select(RunRow.first, RunRow.last).where(RunRow.rater == bindparam("rater"))
_NEXT = (
    _RUNS.where(RunRow.first > bindparam("after"))
    .order_by(RunRow.first)
    .limit(bindparam("page", type_=Integer))
)
_BEFORE = _RUNS.where(RunRow.last.in_(MANY))
_BEHIND = _RUNS.where(RunRow.first.in_(MANY))
_AROUND = _RUNS.where(RunRow.first <= bindparam("item")).order_by(RunRow.first.desc()).limit(1)
_DELETE = delete(RunRow).where(RunRow.rater == bindparam("rater"), RunRow.first.in_(MANY))
_INSERT = insert(RunRow)


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Distinct values in order, as many at a time as one query takes."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), _CHUNK):
        yield distinct[start : start + _CHUNK]


def open_numbers(
    connection: Connection, rater: str, num_items: int, *, limit: int | None = None
) -> list[int]:
    """Items 1 to `num_items` that are in no run of the rater, at most `limit` of them, in order."""
    wanted = num_items if limit is None else limit
    found: list[int] = []
    begin = 1
    for first, last in _runs(connection, rater, page=min(wanted + 1, _PAGE)):
        found += range(begin, min(first, begin + wanted - len(found)))
        if len(found) >= wanted:
            return found
        begin = last + 1
    return found + list(range(begin, min(num_items + 1, begin + wanted - len(found))))


def _runs(connection: Connection, rater: str, *, page: int) -> Iterator[tuple[int, int]]:
    after = 0
    while True:
        rows = connection.execute(_NEXT, {"rater": rater, "after": after, "page": page}).all()
        yield from ((row.first, row.last) for row in rows)
        if len(rows) < page:
            return
        after = rows[-1].first


def add_answered(connection: Connection, rater: str, items: Iterable[int]) -> None:
    """Count items that were open as answered: neighbouring runs grow together."""
    new = _consecutive(sorted(items))
    before: dict[int, int] = {}
    for query, edges in (
        (_BEFORE, [first - 1 for first, _ in new]),
        (_BEHIND, [last + 1 for _, last in new]),
    ):
        for chunk in chunks(edges):
            rows = connection.execute(query, {"rater": rater, "many": chunk})
            before |= {row.first: row.last for row in rows}
    end_of = dict(before)
    begin_of = {last: first for first, last in end_of.items()}
    for first, last in new:
        begin = begin_of.pop(first - 1, first)
        end = end_of.pop(last + 1, last)
        end_of[begin], begin_of[end] = end, begin
    _replace(connection, rater, before, end_of)


def remove_answered(connection: Connection, rater: str, items: Iterable[int]) -> None:
    """Count answered items as open again: the run around each is cut in two."""
    for item in items:
        row = connection.execute(_AROUND, {"rater": rater, "item": item}).one()
        parts = ((row.first, item - 1), (item + 1, row.last))
        left = {first: last for first, last in parts if first <= last}
        _replace(connection, rater, {row.first: row.last}, left)


def _consecutive(items: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for item in items:
        if runs and runs[-1][1] == item - 1:
            runs[-1] = runs[-1][0], item
        else:
            runs.append((item, item))
    return runs


def _replace(
    connection: Connection, rater: str, before: dict[int, int], after: dict[int, int]
) -> None:
    gone = [first for first, last in before.items() if after.get(first) != last]
    for chunk in chunks(gone):
        connection.execute(_DELETE, {"rater": rater, "many": chunk})
    rows = [
        {"rater": rater, "first": first, "last": last}
        for first, last in after.items()
        if before.get(first) != last
    ]
    if rows:
        connection.execute(_INSERT, rows)
