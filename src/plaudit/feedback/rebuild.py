"""The pool made anew from the log: at the first offer, and when the overlap is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, select, union

from plaudit.feedback.derived_tables import (
    AnnotatorStateRow,
    AnswerRow,
    LeaseRow,
    OpenItemRow,
    PoolRow,
    StandingRow,
)
from plaudit.feedback.pool import (
    IS_ANSWER,
    PASSES,
    Pool,
    expiry,
    lease_row,
    open_items,
    remember,
    undone_at,
)
from plaudit.feedback.tables import ItemRow, OfferRow, ReleaseRow, VoteRow

_ROWS = 10_000
"""Rows written with one statement."""
_TABLES = (AnswerRow, LeaseRow, OpenItemRow, AnnotatorStateRow, PoolRow)


def rebuild(connection: Connection, *, overlap: int, now: float) -> Pool:
    """All of the pool from offers, releases and the votes that stand, as of `now`."""
    for table in _TABLES:
        connection.execute(delete(table))
    _answers(connection)
    _leases(connection, now)
    num_taken = dict(_pairs_by_item(connection, only_said=False))
    num_answered = _pairs_by_item(connection, only_said=True)
    last = connection.scalar(select(func.max(ItemRow.id))) or 0
    for start in range(1, last + 1, _ROWS):
        some = range(start, min(start + _ROWS, last + 1))
        open_items(connection, [i for i in some if num_taken.get(i, 0) < overlap], now)
    _annotators(connection)
    num_done = sum(num >= overlap for _, num in num_answered)
    pool = Pool(last, num_done, overlap)
    row = {"id": 1, "through": last, "num_done": num_done, "overlap": overlap}
    connection.execute(insert(PoolRow), row)
    return pool


def extend(connection: Connection, pool: Pool, last: int, *, now: float) -> None:
    """Take in items added since, up to the item `last`."""
    while pool.through < last:
        to = min(last, pool.through + _ROWS)
        open_items(connection, range(pool.through + 1, to + 1), now)
        pool.through = to
    remember(connection, pool)


def _answers(connection: Connection) -> None:
    said = func.sum(case((IS_ANSWER, 1), else_=0))
    passed = func.sum(case((VoteRow.kind.in_(PASSES), 1), else_=0))
    query = (
        select(
            OfferRow.id, OfferRow.item_id, OfferRow.annotator_id,
            case((OfferRow.purpose == "repeat", 0), else_=1), said, passed,
        )
        .select_from(VoteRow)
        .join(StandingRow, StandingRow.vote_id == VoteRow.id)
        .join(OfferRow, OfferRow.id == VoteRow.offer)
        .group_by(OfferRow.id)
        .having(said + passed > 0)
    )  # fmt: skip
    names = ["offer_id", "item_id", "annotator_id", "is_work", "num_said", "num_passed"]
    connection.execute(insert(AnswerRow).from_select(names, query))


def _leases(connection: Connection, now: float) -> None:
    undone = undone_at(connection)
    query = (
        select(OfferRow.__table__)
        .outerjoin(ReleaseRow, ReleaseRow.offer_id == OfferRow.id)
        .outerjoin(AnswerRow, AnswerRow.offer_id == OfferRow.id)
        .where(ReleaseRow.offer_id.is_(None), AnswerRow.offer_id.is_(None))
    )
    rows: list[dict[str, Any]] = []
    for offer in connection.execute(query):
        end = expiry(offer, undone.get(offer.id))
        if end > now:
            rows.append(lease_row(offer, end))
    if rows:
        connection.execute(insert(LeaseRow), rows)


def _pairs_by_item(connection: Connection, *, only_said: bool) -> Iterator[tuple[int, int]]:
    """(item, number of people who answered it as work, or hold it as work too)."""
    pairs = select(AnswerRow.item_id, AnswerRow.annotator_id)
    pairs = pairs.where(AnswerRow.is_work == 1, AnswerRow.num_said > 0)
    held = select(LeaseRow.item_id, LeaseRow.annotator_id)
    held = held.where(LeaseRow.is_work == 1)
    both = pairs.distinct().subquery() if only_said else union(pairs, held).subquery()
    item = both.c.item_id
    for row in connection.execute(select(item, func.count()).group_by(item)):
        yield row[0], row[1]


def _annotators(connection: Connection) -> None:
    turns = select(OfferRow.annotator_id, func.max(OfferRow.turn)).group_by(OfferRow.annotator_id)
    pairs = union(
        select(AnswerRow.item_id, AnswerRow.annotator_id),
        select(LeaseRow.item_id, LeaseRow.annotator_id),
    ).subquery()
    blocked = (
        select(pairs.c.annotator_id, func.count())
        .join(OpenItemRow, OpenItemRow.item_id == pairs.c.item_id)
        .group_by(pairs.c.annotator_id)
    )
    num_blocked: dict[int, int] = {row[0]: row[1] for row in connection.execute(blocked)}
    rows = [
        {"annotator_id": who, "turn": turn, "num_blocked": num_blocked.get(who, 0)}
        for who, turn in connection.execute(turns)
    ]
    if rows:
        connection.execute(insert(AnnotatorStateRow), rows)
