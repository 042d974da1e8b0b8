"""Which items may be offered, and to whom not: derived from offers, releases and answers.

An item's *takers* are those who answered it as work and those who hold it as work; it is open while
they are fewer than the overlap, and done once enough answered. A person is *blocked* from an item
that they hold or answered, by a skip too. Whatever changes an item goes through `changing`, which
compares before with after; the cost is that of the items changed, never of the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update

from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.derived_tables import (
    AnnotatorStateRow,
    AnswerRow,
    LeaseRow,
    OpenItemRow,
    PoolRow,
    StandingUndoRow,
)
from plaudit.feedback.readings import Entry
from plaudit.feedback.tables import OfferRow, ReleaseRow, VoteRow

ANSWERS = {
    "compare": "comparison",
    "score": "score",
    "rank": "ranking",
    "words": "words",
    "edit": "edit",
}
"""The kind of vote that answers an ask; others on the same offer are remarks."""
PASSES = ("skip", "flag")
"""Kinds that leave an item unanswered and are the end of its offer."""

# Statements are made once: to make one costs as much as to run it.
_POOL = select(PoolRow.__table__)
_POOL_CHANGE = update(PoolRow).values(through=bindparam("to"), num_done=bindparam("done"))
_TAKEN = select(LeaseRow.item_id, LeaseRow.annotator_id, LeaseRow.is_work).where(
    LeaseRow.item_id.in_(MANY)
)
_SAID = select(
    AnswerRow.item_id, AnswerRow.annotator_id, AnswerRow.is_work, AnswerRow.num_said
).where(AnswerRow.item_id.in_(MANY))
_NEW_LEASE, _NEW_ANSWER, _NEW_OPEN = insert(LeaseRow), insert(AnswerRow), insert(OpenItemRow)
_END_LEASE = delete(LeaseRow).where(LeaseRow.offer_id.in_(MANY))
_ANSWERED = select(AnswerRow.__table__).where(AnswerRow.offer_id.in_(MANY))
_END_ANSWER = delete(AnswerRow).where(AnswerRow.offer_id.in_(MANY))
_ANSWER_CHANGE = (
    update(AnswerRow)
    .where(AnswerRow.offer_id == bindparam("of"))
    .values(num_said=bindparam("said"), num_passed=bindparam("passed"))
)
_OFFERS = select(OfferRow.__table__).where(OfferRow.id.in_(MANY))
_RELEASED = select(ReleaseRow.offer_id).where(ReleaseRow.offer_id.in_(MANY))
_UNDO = VoteRow.__table__.alias("undo")
IS_ANSWER = or_(*(and_(OfferRow.ask == ask, VoteRow.kind == kind) for ask, kind in ANSWERS.items()))
"""Of a vote joined with its offer: whether it answers it."""
_UNDONE = (
    select(VoteRow.offer, func.max(_UNDO.c.time))
    .select_from(StandingUndoRow)
    .join(VoteRow, VoteRow.id == StandingUndoRow.undoes)
    .join(OfferRow, OfferRow.id == VoteRow.offer)
    .join(_UNDO, _UNDO.c.id == StandingUndoRow.vote_id)
    .where(or_(IS_ANSWER, VoteRow.kind.in_(PASSES)))
    .group_by(VoteRow.offer)
)
_EXPIRED = select(LeaseRow.offer_id, LeaseRow.item_id).where(LeaseRow.expires <= bindparam("now"))
_NUM_OPEN = select(func.max(OpenItemRow.spot))
_SPOTS = select(OpenItemRow.spot, OpenItemRow.item_id, OpenItemRow.since).where(
    OpenItemRow.spot.in_(MANY)
)
_SPOT_OF = select(OpenItemRow.spot, OpenItemRow.item_id).where(OpenItemRow.item_id.in_(MANY))
_CLOSE = delete(OpenItemRow).where(OpenItemRow.spot.in_(MANY))
_BLOCK = (
    update(AnnotatorStateRow)
    .where(AnnotatorStateRow.annotator_id == bindparam("who"))
    .values(num_blocked=AnnotatorStateRow.num_blocked + bindparam("more"))
)


@dataclass
class Pool:
    """The pool's own row."""

    through: int
    num_done: int
    overlap: int


@dataclass
class State:
    """Of one item: who takes it, who answered it, and who is blocked from it."""

    takers: set[int] = field(default_factory=set)
    answerers: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)


def pool_of(connection: Connection) -> Pool | None:
    """The pool, or None where nobody has asked for an offer yet."""
    row = connection.execute(_POOL).one_or_none()
    return None if row is None else Pool(row.through, row.num_done, row.overlap)


def states(connection: Connection, items: Iterable[int]) -> dict[int, State]:
    """Takers, answerers and blocked of each item."""
    found: dict[int, State] = defaultdict(State)
    for chunk in chunks(items):
        for item in chunk:
            found[item] = State()
        for lease in connection.execute(_TAKEN, {"many": chunk}):
            found[lease.item_id].blocked.add(lease.annotator_id)
            if lease.is_work:
                found[lease.item_id].takers.add(lease.annotator_id)
        for row in connection.execute(_SAID, {"many": chunk}):
            found[row.item_id].blocked.add(row.annotator_id)
            if row.is_work and row.num_said:
                found[row.item_id].takers.add(row.annotator_id)
                found[row.item_id].answerers.add(row.annotator_id)
    return found


@contextmanager
def changing(
    connection: Connection, pool: Pool, items: Iterable[int], *, now: float
) -> Iterator[None]:
    """Leases and answers of these items change inside; open items and counts follow."""
    known = [item for item in dict.fromkeys(items) if item <= pool.through]
    before = states(connection, known)
    yield
    settle(connection, pool, before, states(connection, known), now=now)


def settle(
    connection: Connection,
    pool: Pool,
    before: Mapping[int, State],
    after: Mapping[int, State],
    *,
    now: float,
) -> None:
    """Bring open items and counts from what was `before` to what is now."""
    blocked: Counter[int] = Counter()
    opened, closed = [], []
    num_done = pool.num_done
    for item, was in before.items():
        is_ = after[item]
        was_open, is_open = len(was.takers) < pool.overlap, len(is_.takers) < pool.overlap
        num_done += len(is_.answerers) >= pool.overlap
        num_done -= len(was.answerers) >= pool.overlap
        if was_open:
            blocked.subtract(was.blocked)
        if is_open:
            blocked.update(is_.blocked)
        to_the_end = is_.blocked - was.blocked  # where it stays open, it waits anew
        if was_open and (not is_open or to_the_end):
            closed.append(item)
        if is_open and (not was_open or to_the_end):
            opened.append(item)
    close_items(connection, closed)
    open_items(connection, opened, now)
    _block(connection, blocked)
    if num_done != pool.num_done:
        pool.num_done = num_done
        remember(connection, pool)


def remember(connection: Connection, pool: Pool) -> None:
    """Write the pool's own row."""
    connection.execute(_POOL_CHANGE, {"to": pool.through, "done": pool.num_done})


def num_open(connection: Connection) -> int:
    """How many items may be offered."""
    return connection.scalar(_NUM_OPEN) or 0


def open_items(connection: Connection, items: Sequence[int], now: float) -> None:
    """Give each item the next spot."""
    if not items:
        return
    last = num_open(connection)
    rows = [{"spot": last + k, "item_id": item, "since": now} for k, item in enumerate(items, 1)]
    connection.execute(_NEW_OPEN, rows)


def close_items(connection: Connection, items: Sequence[int]) -> None:
    """Take away the spots of items; those from the end move into the holes."""
    if not items:
        return
    holes: dict[int, int] = {}
    for chunk in chunks(items):
        holes |= {row.spot: row.item_id for row in connection.execute(_SPOT_OF, {"many": chunk})}
    last = num_open(connection)
    left = last - len(holes)
    movers: list[Any] = []
    for chunk in chunks(spot for spot in range(left + 1, last + 1) if spot not in holes):
        movers += connection.execute(_SPOTS, {"many": chunk}).all()
    for chunk in chunks([*holes, *(row.spot for row in movers)]):
        connection.execute(_CLOSE, {"many": chunk})
    free = sorted(spot for spot in holes if spot <= left)
    rows = [
        {"spot": spot, "item_id": row.item_id, "since": row.since}
        for spot, row in zip(free, movers, strict=True)
    ]
    if rows:
        connection.execute(_NEW_OPEN, rows)


def _block(connection: Connection, more: Mapping[int, int]) -> None:
    rows = [{"who": who, "more": num} for who, num in more.items() if num]
    if rows:
        connection.execute(_BLOCK, rows)


# --- leases ------------------------------------------------------------------------------------


def lease_row(offer: Any, expires: float) -> dict[str, Any]:
    """The row of an offer that is in somebody's hands."""
    return {
        "offer_id": offer.id, "item_id": offer.item_id, "annotator_id": offer.annotator_id,
        "is_work": int(offer.purpose != "repeat"), "made": offer.made, "expires": expires,
    }  # fmt: skip


def sweep(connection: Connection, pool: Pool, now: float) -> bool:
    """End the leases that have expired; says whether there were any."""
    expired = connection.execute(_EXPIRED, {"now": now}).all()
    if expired:
        end_leases(connection, pool, {row.offer_id: row.item_id for row in expired}, now)
    return bool(expired)


def end_leases(connection: Connection, pool: Pool, item_of: Mapping[int, int], now: float) -> None:
    """End leases, given as offer to item."""
    with changing(connection, pool, item_of.values(), now=now):
        for chunk in chunks(item_of):
            connection.execute(_END_LEASE, {"many": chunk})


# --- answers -----------------------------------------------------------------------------------


def count_answers(connection: Connection, up: Sequence[Entry], down: Sequence[Entry]) -> None:
    """Entries on offers begin (`up`) or cease (`down`) to stand; an offer left bare opens again."""
    flips = [(entry, by) for by, some in ((1, up), (-1, down)) for entry in some]
    flips = [(entry, by) for entry, by in flips if entry.offer is not None]
    pool = pool_of(connection) if flips else None
    if pool is None:
        return
    offers: dict[int, Any] = {}
    for chunk in chunks(entry.offer for entry, _ in flips):
        offers |= {row.id: row for row in connection.execute(_OFFERS, {"many": chunk})}
    said: Counter[int] = Counter()
    passed: Counter[int] = Counter()
    for entry, by in flips:
        assert entry.offer is not None
        if entry.kind in PASSES:
            passed[entry.offer] += by
        elif entry.kind == ANSWERS[offers[entry.offer].ask]:
            said[entry.offer] += by
    touched = [offers[id_] for id_ in {**said, **passed}]
    now = max(entry.time for entry, _ in flips)
    with changing(connection, pool, [offer.item_id for offer in touched], now=now):
        _write_answers(connection, touched, said, passed)


def _write_answers(
    connection: Connection, offers: Sequence[Any], said: Counter[int], passed: Counter[int]
) -> None:
    before: dict[int, Any] = {}
    for chunk in chunks(offer.id for offer in offers):
        before |= {row.offer_id: row for row in connection.execute(_ANSWERED, {"many": chunk})}
    new, changed, bare = [], [], []
    for offer in offers:
        row = before.get(offer.id)
        num_said = said[offer.id] + (row.num_said if row else 0)
        num_passed = passed[offer.id] + (row.num_passed if row else 0)
        if row is None and num_said + num_passed:
            new.append(answer_row(offer, num_said, num_passed))
        elif row is not None and num_said + num_passed:
            changed.append({"of": offer.id, "said": num_said, "passed": num_passed})
        elif row is not None:
            bare.append(offer)
    for statement, rows in ((_NEW_ANSWER, new), (_ANSWER_CHANGE, changed)):
        if rows:
            connection.execute(statement, rows)
    for chunk in chunks(row["offer_id"] for row in new):
        connection.execute(_END_LEASE, {"many": chunk})
    for chunk in chunks(offer.id for offer in bare):
        connection.execute(_END_ANSWER, {"many": chunk})
        _reopen(connection, [offer for offer in bare if offer.id in chunk])


def answer_row(offer: Any, num_said: int, num_passed: int) -> dict[str, Any]:
    return {
        "offer_id": offer.id, "item_id": offer.item_id, "annotator_id": offer.annotator_id,
        "is_work": int(offer.purpose != "repeat"), "num_said": num_said, "num_passed": num_passed,
    }  # fmt: skip


def _reopen(connection: Connection, offers: Sequence[Any]) -> None:
    """Offers whose last answer was undone are again in the hands of their person, as long."""
    ids = [offer.id for offer in offers]
    released = set(connection.scalars(_RELEASED, {"many": ids}))
    undone = undone_at(connection, ids)
    rows = [
        lease_row(offer, expiry(offer, undone.get(offer.id)))
        for offer in offers
        if offer.id not in released
    ]
    if rows:
        connection.execute(_NEW_LEASE, rows)


def expiry(offer: Any, undone: float | None) -> float:
    """When a lease ends: an undo gives the person as much time again."""
    end: float = offer.expires
    return end if undone is None else max(end, undone + offer.expires - offer.made)


def undone_at(connection: Connection, offers: Sequence[int] | None = None) -> dict[int, float]:
    """When the votes on offers were last taken back, by undos that stand."""
    query = _UNDONE if offers is None else _UNDONE.where(VoteRow.offer.in_(offers))
    return {row[0]: row[1] for row in connection.execute(query)}
