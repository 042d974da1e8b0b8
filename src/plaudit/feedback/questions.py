"""Questions to the log, each one or a few statements whose cost is that of their answer.

Functions of an open connection; the store holds the transaction around them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, func, select

from plaudit.feedback.answered import MANY, chunks, open_numbers
from plaudit.feedback.derived_tables import (
    AnswerRow,
    RaterRow,
    StandingRow,
    StandingUndoRow,
    TallyRow,
)
from plaudit.feedback.entries import Item, Segment, Vote
from plaudit.feedback.readings import SEGMENT_FIELDS, VOTE_FIELDS, Known, vote_of_row
from plaudit.feedback.tables import ItemRow, OfferRow, SegmentRow, VoteRow


@dataclass(frozen=True)
class Which:
    """Which entries are meant: of a kind, of a rater, later than entry `after`, at most `limit`."""

    kind: str | None = None
    rater: str | None = None
    after: int | None = None
    limit: int | None = None

    def of(
        self, query: Select[Any], id_: Any, kind: ColumnElement[str], rater: ColumnElement[str]
    ) -> Select[Any]:
        """The query with these conditions on its columns, in the order of the log."""
        if self.kind is not None:
            query = query.where(kind == self.kind)
        if self.rater is not None:
            query = query.where(rater == self.rater)
        if self.after is not None:
            query = query.where(id_ > self.after)
        return query.order_by(id_).limit(self.limit)

    def of_standing(self, query: Select[Any]) -> Select[Any]:
        """The same for a query of `standing_votes`."""
        here = StandingRow.__table__.c
        return self.of(query, here.vote_id, here.kind, here.rater)


def last_id(connection: Connection, table: type[ItemRow] | type[SegmentRow] | type[VoteRow]) -> int:
    """The id of the newest row, which is how many there are; 0 where there is none."""
    return connection.scalar(select(func.max(table.id))) or 0


# --- votes -------------------------------------------------------------------------------------

_VOTE = (
    VoteRow.__table__,
    ItemRow.key.label("item_key"),
    OfferRow.key.label("offer_key"),
    OfferRow.purpose,
    OfferRow.policy,
    OfferRow.propensity,
)


def standing_votes(connection: Connection, which: Which) -> list[Vote]:
    """Votes that stand, without undos."""
    query = (
        select(*_VOTE)
        .select_from(StandingRow)
        .join(VoteRow, VoteRow.id == StandingRow.vote_id)
        .join(ItemRow, ItemRow.id == StandingRow.item_id)
        .outerjoin(OfferRow, OfferRow.id == VoteRow.offer)
    )
    rows = _page(connection, which, query, StandingRow.__table__.c.vote_id, which.of_standing)
    return [vote_of_row(row, active=True) for row in rows]


def _page(
    connection: Connection,
    which: Which,
    query: Select[Any],
    id_: ColumnElement[int],
    narrow: Callable[[Select[Any]], Select[Any]],
) -> Iterable[Any]:
    """Rows of a query, narrowed; where there is a limit, ids are chosen first and joined then.

    PostgreSQL may else join the whole log before it counts to the limit.
    """
    if which.limit is None:
        yield from connection.execute(narrow(query))
        return
    for chunk in chunks(connection.scalars(narrow(select(id_)))):
        yield from connection.execute(query.where(id_.in_(chunk)).order_by(id_))


def _everything() -> Select[Any]:
    stands = func.coalesce(StandingRow.vote_id, StandingUndoRow.vote_id).is_not(None)
    return (
        select(*_VOTE, stands.label("stands"))
        .select_from(VoteRow)
        .join(ItemRow, ItemRow.id == VoteRow.item_id)
        .outerjoin(OfferRow, OfferRow.id == VoteRow.offer)
        .outerjoin(StandingRow, StandingRow.vote_id == VoteRow.id)
        .outerjoin(StandingUndoRow, StandingUndoRow.vote_id == VoteRow.id)
    )


def all_votes(connection: Connection, which: Which) -> list[Vote]:
    """Every entry, undone or not, undos included."""
    here = VoteRow.__table__.c

    def narrow(query: Select[Any]) -> Select[Any]:
        return which.of(query, here.id, here.kind, here.rater)

    rows = _page(connection, which, _everything(), here.id, narrow)
    return [vote_of_row(row, active=bool(row.stands)) for row in rows]


_BY_KEY = _everything().where(VoteRow.key.in_(MANY))
_BY_ID = _everything().where(VoteRow.id == bindparam("id"))
_LAST_OF = select(func.max(StandingRow.vote_id)).where(StandingRow.rater == bindparam("rater"))


def votes_by_key(connection: Connection, keys: Iterable[str]) -> dict[str, Vote]:
    """Those of the entries `keys` that are there."""
    found: dict[str, Vote] = {}
    for chunk in chunks(keys):
        rows = connection.execute(_BY_KEY, {"many": chunk})
        found |= {row.key: vote_of_row(row, active=bool(row.stands)) for row in rows}
    return found


def vote_by_id(connection: Connection, vote_id: int) -> Vote | None:
    """One entry, if it is there."""
    row = connection.execute(_BY_ID, {"id": vote_id}).one_or_none()
    return None if row is None else vote_of_row(row, active=bool(row.stands))


def last_standing_id(connection: Connection, rater: str) -> int | None:
    """The rater's newest vote that stands."""
    return connection.scalar(_LAST_OF, {"rater": rater})


_NEWEST_OF = (
    select(StandingRow.vote_id)
    .where(StandingRow.rater == bindparam("rater"))
    .order_by(StandingRow.vote_id.desc())
    .limit(bindparam("page", type_=Integer))
)
_SECONDS_OF = select(VoteRow.seconds).where(
    VoteRow.id.in_(_NEWEST_OF), VoteRow.seconds.is_not(None)
)
_NUM_SINCE = select(func.count()).where(
    StandingRow.rater == bindparam("rater"), StandingRow.vote_id >= bindparam("first")
)
_TIME_OF = select(VoteRow.time).where(VoteRow.id == bindparam("id"))
_ANSWERED = select(AnswerRow.offer_id).where(AnswerRow.offer_id.in_(MANY), AnswerRow.num_said > 0)


def last_standing_ids(connection: Connection, rater: str, num: int) -> list[int]:
    """The rater's newest votes that stand, the newest first."""
    return list(connection.scalars(_NEWEST_OF, {"rater": rater, "page": num}))


def recent_seconds(connection: Connection, rater: str, num: int) -> list[float]:
    """How long those of the rater's newest `num` votes took that say so."""
    return list(connection.scalars(_SECONDS_OF, {"rater": rater, "page": num}))


def num_since(connection: Connection, rater: str, first: int) -> int:
    """How many of the rater's votes stand that are not older than vote `first`."""
    return connection.scalar(_NUM_SINCE, {"rater": rater, "first": first}) or 0


def first_since(connection: Connection, when: float) -> int:
    """The first vote not older than `when`, by halving: later votes have later times."""
    low, high = 1, last_id(connection, VoteRow) + 1
    while low < high:
        middle = (low + high) // 2
        if (connection.scalar(_TIME_OF, {"id": middle}) or 0.0) < when:
            low = middle + 1
        else:
            high = middle
    return low


def answered_offers(connection: Connection, offers: Iterable[int]) -> set[int]:
    """Those of the offers that have their answer."""
    found: set[int] = set()
    for chunk in chunks(offers):
        found.update(connection.scalars(_ANSWERED, {"many": chunk}))
    return found


def rater_names(connection: Connection) -> list[str]:
    """Everybody who has an entry in the log."""
    return list(connection.scalars(select(RaterRow.rater)))


# --- counts ------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """A row of `tallies`, with its exact sum of seconds."""

    rater: str
    kind: str
    answer: str
    first_won: int
    num: int
    num_undone: int
    num_timed: int
    seconds: Fraction


def tallies(connection: Connection, rater: str | None = None) -> list[Tally]:
    """What a rater, or everybody, said how often; undos too."""
    query = select(TallyRow.__table__)
    if rater is not None:
        query = query.where(TallyRow.rater == rater)
    return [
        Tally(
            row.rater, row.kind, row.answer, row.first_won, row.num, row.num_undone,
            row.num_timed, Fraction(row.seconds),
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def num_answered(connection: Connection, rater: str) -> int:
    """On how many items a vote of the rater stands."""
    return connection.scalar(select(RaterRow.num_answered).where(RaterRow.rater == rater)) or 0


def num_judged(connection: Connection) -> int:
    """On how many items a vote of anybody stands."""
    judged = select(StandingRow.item_id).distinct().subquery()
    return connection.scalar(select(func.count()).select_from(judged)) or 0


def first_votes(connection: Connection) -> dict[tuple[str, str], int]:
    """The first standing vote of each rater and kind."""
    kinds = select(TallyRow.rater, TallyRow.kind).where(TallyRow.num > 0).distinct().subquery()
    mine = (StandingRow.rater == kinds.c.rater, StandingRow.kind == kinds.c.kind)
    first = select(func.min(StandingRow.vote_id)).where(*mine).scalar_subquery()
    rows = connection.execute(select(kinds.c.rater, kinds.c.kind, first))
    return {(rater, kind): vote_id for rater, kind, vote_id in rows}


def ratings(connection: Connection, kind: str) -> Iterable[Any]:
    """(item, low, high, rater, rating) of the standing comparisons or scores, in order."""
    here = StandingRow.__table__.c
    rating = here.score if kind == "score" else here.said
    query = select(here.item_id, here.low, here.high, here.rater, rating)
    return connection.execute(query.where(here.kind == kind).order_by(here.vote_id))


def median_seconds(connection: Connection, num_timed: int) -> float:
    """The median time of the `num_timed` standing votes that say."""
    seconds: ColumnElement[float] = VoteRow.__table__.c.seconds
    query = (
        select(seconds)
        .join(StandingRow, StandingRow.vote_id == VoteRow.id)
        .where(seconds.is_not(None))
        .order_by(seconds)
    )
    middle = query.offset((num_timed - 1) // 2).limit(2 - num_timed % 2)
    return statistics.median(connection.scalars(middle).all())


# --- items -------------------------------------------------------------------------------------


def items(
    connection: Connection, *, after: int | None = None, limit: int | None = None
) -> list[Item]:
    """Items later than the item `after`, in the order they were added."""
    ids = select(ItemRow.id).order_by(ItemRow.id).limit(limit)
    if after is not None:
        ids = ids.where(ItemRow.id > after)
    return list(_items(connection, ids if (after, limit) != (None, None) else None).values())


def items_by_id(connection: Connection, ids: Iterable[int]) -> dict[int, Item]:
    """These items, by id."""
    found: dict[int, Item] = {}
    for chunk in chunks(ids):
        found |= _items(connection, chunk)
    return found


def open_items(connection: Connection, rater: str, limit: int | None) -> list[Item]:
    """Items on which no vote of the rater stands, in the order they were added."""
    numbers = open_numbers(connection, rater, last_id(connection, ItemRow), limit=limit)
    found: dict[int, Item] = {}
    for chunk in chunks(numbers):
        found |= _items(connection, chunk)
    return list(found.values())


def items_judged(connection: Connection, which: Which) -> dict[str, Item]:
    """The items of standing votes, by key."""
    if which == Which(which.kind):  # nearly all of them: one pass in order is quickest
        ids = select(StandingRow.item_id).where(StandingRow.kind == which.kind).distinct()
    elif which.limit is not None:  # as in `_page`
        numbers = connection.scalars(which.of_standing(select(StandingRow.item_id))).all()
        found: dict[int, Item] = {}
        for chunk in chunks(numbers):
            found |= _items(connection, chunk)
        return {item.key: item for item in found.values()}
    else:
        ids = select(which.of_standing(select(StandingRow.item_id)).subquery().c.item_id)
    return {item.key: item for item in _items(connection, ids).values()}


def _items(connection: Connection, ids: Select[Any] | Sequence[int] | None) -> dict[int, Item]:
    """Items by id, in that order; all where `ids` is None."""
    wanted = ids.subquery().select() if isinstance(ids, Select) else ids
    segment_query, item_query = select(SegmentRow.__table__), select(ItemRow.__table__)
    if wanted is not None:
        segment_query = segment_query.where(SegmentRow.item_id.in_(wanted))
        item_query = item_query.where(ItemRow.id.in_(wanted))
    segments: dict[int, list[Segment]] = {}
    order = (SegmentRow.item_id, SegmentRow.position)
    for row in connection.execute(segment_query.order_by(*order)):
        segment = Segment(row.text, row.kind, row.model, row.extra)
        segments.setdefault(row.item_id, []).append(segment)
    rows = connection.execute(item_query.order_by(ItemRow.id))
    return {r.id: Item(r.key, r.prompt, tuple(segments[r.id]), r.columns) for r in rows}


# --- what an entry to be added must be compared with -------------------------------------------


def known_items(connection: Connection, keys: Iterable[str]) -> dict[str, Known]:
    """Id and content of those of the items `keys` that are there."""
    known: dict[str, Known] = {}
    for chunk in chunks(keys):
        here = ItemRow.key.in_(chunk)
        segments: dict[int, list[dict[str, Any]]] = {}
        for row in connection.execute(
            select(SegmentRow.__table__)
            .join(ItemRow, ItemRow.id == SegmentRow.item_id)
            .where(here)
            .order_by(SegmentRow.item_id, SegmentRow.position)
        ):
            fields = {name: getattr(row, name) for name in SEGMENT_FIELDS}
            segments.setdefault(row.item_id, []).append(fields)
        for row in connection.execute(select(ItemRow.__table__).where(here)):
            head = {"prompt": row.prompt, "columns": row.columns}
            content = {"item": head, "segments": segments[row.id]}
            known[row.key] = Known(row.id, content, len(segments[row.id]))
    return known


_SIZES = select(
    ItemRow.key,
    ItemRow.id,
    select(func.count()).where(SegmentRow.item_id == ItemRow.id).scalar_subquery(),
).where(ItemRow.key.in_(MANY))
_KNOWN_VOTES = select(VoteRow.__table__).where(VoteRow.key.in_(MANY))


def item_sizes(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(id, number of segments) of those of the items `keys` that are there."""
    sizes: dict[str, tuple[int, int]] = {}
    for chunk in chunks(keys):
        rows = connection.execute(_SIZES, {"many": chunk})
        sizes |= {key: (id_, size) for key, id_, size in rows}
    return sizes


def known_votes(connection: Connection, keys: Iterable[str]) -> dict[str, Known]:
    """Id and content of those of the entries `keys` that are there."""
    known: dict[str, Known] = {}
    for chunk in chunks(keys):
        rows = connection.execute(_KNOWN_VOTES, {"many": chunk})
        for row in rows:
            content = {name: getattr(row, name) for name in VOTE_FIELDS}
            known[row.key] = Known(row.id, content, offer=row.offer)
    return known
