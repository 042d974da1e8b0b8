"""Which items a person is shown next, and with what probability each was chosen.

Two policies. "uniform": every item that the person may have is equally likely. "waiting": the one
that has waited longest. With "waiting", a share of the draws is uniform all the same: figures on
agreement come from that share alone, because items chosen for a reason are not like the others.
Of `eligible` items a uniform draw gives each with probability 1/eligible; with uniform share u the
one that waited longest is given with 1 - u + u/eligible, the others with u/eligible.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, exists, func, select

from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.derived_tables import AnswerRow, LeaseRow, OpenItemRow
from plaudit.feedback.pool import states
from plaudit.feedback.tables import OfferRow

POLICIES = ("uniform", "waiting")
REPEAT_AFTER = 20
"""A repeat comes at least so many offers after the first."""
_REPEAT_WITHIN = 2_000
"""And of an offer among so many of the latest."""
FEW = 200
"""So few open items are all read rather than tried one after another."""
_ROUNDS = 12

_HELD = select(LeaseRow.item_id).where(
    LeaseRow.item_id == OpenItemRow.item_id, LeaseRow.annotator_id == bindparam("who")
)
_SAID = select(AnswerRow.item_id).where(
    AnswerRow.item_id == OpenItemRow.item_id, AnswerRow.annotator_id == bindparam("who")
)
_OPEN = select(OpenItemRow.spot, OpenItemRow.item_id).where(~exists(_HELD), ~exists(_SAID))
_BLINDLY = select(OpenItemRow.spot, OpenItemRow.item_id).where(OpenItemRow.spot.in_(MANY))
_AT = _OPEN.where(OpenItemRow.spot.in_(MANY))
_FIRST = _OPEN.order_by(OpenItemRow.since, OpenItemRow.spot).limit(
    bindparam("limit", type_=Integer)
)
_ALL = _OPEN.order_by(OpenItemRow.spot)

_AGAIN = OfferRow.__table__.alias("again")
_REPEATABLE = (
    select(OfferRow.__table__)
    .join(AnswerRow, AnswerRow.offer_id == OfferRow.id)
    .where(
        OfferRow.annotator_id == bindparam("who"),
        OfferRow.turn.in_(MANY),
        OfferRow.purpose != "repeat",
        OfferRow.ask.in_(("compare", "rank")),
        AnswerRow.num_said > 0,
        ~exists(
            select(_AGAIN.c.id).where(
                _AGAIN.c.item_id == OfferRow.item_id,
                _AGAIN.c.annotator_id == OfferRow.annotator_id,
                _AGAIN.c.purpose == "repeat",
            )
        ),
    )
)

_MINE_HELD = LeaseRow.__table__.alias("mine")
_ANSWERERS = (
    select(func.count(AnswerRow.annotator_id.distinct()))
    .where(AnswerRow.item_id == LeaseRow.item_id, AnswerRow.is_work == 1, AnswerRow.num_said > 0)
    .scalar_subquery()
)
_UNFINISHED = (
    LeaseRow.is_work == 1,
    bindparam("overlap") > _ANSWERERS,
    ~exists(
        select(AnswerRow.item_id).where(
            AnswerRow.item_id == LeaseRow.item_id, AnswerRow.annotator_id == bindparam("who")
        )
    ),
)
_TAIL = (
    select(LeaseRow.item_id)
    .where(
        *_UNFINISHED,
        ~exists(
            select(_MINE_HELD.c.item_id).where(
                _MINE_HELD.c.item_id == LeaseRow.item_id,
                _MINE_HELD.c.annotator_id == bindparam("who"),
            )
        ),
    )
    .group_by(LeaseRow.item_id)
    .having(func.max(LeaseRow.made) <= bindparam("before"))
    .order_by(func.max(LeaseRow.made), LeaseRow.item_id)
    .limit(1)
)
_SOMETHING = select(exists(select(LeaseRow.item_id).where(*_UNFINISHED)))


@dataclass(frozen=True)
class Choice:
    """An item for somebody, why it, and how probable it was among how many."""

    item_id: int
    purpose: str
    policy: str
    propensity: float | None
    eligible: int
    first: Any = None  # the offer that a repeat repeats


def choose_work(
    connection: Connection,
    who: int,
    num: int,
    *,
    num_open: int,
    eligible: int,
    policy: str,
    uniform_share: float,
    generator: random.Random,
) -> list[Choice]:
    """At most `num` different open items that the person neither holds nor answered."""
    num = min(num, eligible)
    if num <= 0:
        return []
    if policy == "uniform":
        items = _uniform(connection, who, num, num_open, eligible, generator)
        return [
            Choice(item, "work", "uniform", 1 / (eligible - k), eligible - k)
            for k, item in enumerate(items)
        ]
    waiting = list(connection.execute(_FIRST, {"who": who, "limit": num}).scalars("item_id"))
    blind = _uniform(connection, who, num, num_open, eligible, generator)
    chosen: list[Choice] = []
    taken: set[int] = set()
    for k in range(num):
        first = next(item for item in waiting if item not in taken)
        left, share = eligible - k, uniform_share
        if generator.random() < share:
            item, by = next(item for item in blind if item not in taken), "uniform"
        else:
            item, by = first, "waiting"
        taken.add(item)
        chance = share / left + (1 - share) * (item == first)
        chosen.append(Choice(item, "work", by, chance, left))
    return chosen


@dataclass(frozen=True)
class Wish:
    """Somebody wants `num` items; of the open ones they hold or answered `num_blocked`."""

    who: int
    num: int
    num_blocked: int


def choose_together(
    connection: Connection,
    wishes: Sequence[Wish],
    *,
    num_open: int,
    overlap: int,
    generator: random.Random,
) -> list[list[Choice]]:
    """Uniform work for many people, one after another, with a few statements for all of them.

    Where too few of the blind tries pass, somebody gets less than they wish.
    """
    tries = [
        generator.sample(range(1, num_open + 1), min(num_open, 2 * wish.num + 6)) for wish in wishes
    ]
    item_at: dict[int, int] = {}
    for chunk in chunks(spot for some in tries for spot in some):
        rows = connection.execute(_BLINDLY, {"many": chunk})
        item_at |= {row.spot: row.item_id for row in rows}
    now = states(connection, item_at.values())
    left = num_open
    blocked = {wish.who: wish.num_blocked for wish in wishes}
    chosen: list[list[Choice]] = []
    for wish, spots in zip(wishes, tries, strict=True):
        mine: list[Choice] = []
        for spot in spots:
            item = item_at[spot]
            state = now[item]
            if len(state.takers) >= overlap or wish.who in state.blocked:
                continue
            if len(mine) == wish.num:
                break
            eligible = left - blocked[wish.who]
            mine.append(Choice(item, "work", "uniform", 1 / eligible, eligible))
            state.takers.add(wish.who)
            if len(state.takers) < overlap:
                blocked[wish.who] += 1
            else:
                left -= 1
                for other in state.blocked & blocked.keys():
                    blocked[other] -= 1
            state.blocked.add(wish.who)
        chosen.append(mine)
    return chosen


def _uniform(
    connection: Connection,
    who: int,
    num: int,
    num_open: int,
    eligible: int,
    generator: random.Random,
) -> list[int]:
    """`num` of the `eligible` items in random order: blind tries, which the blocked ones fail.

    The order of the tries is random, so whichever come first of those that pass are as well.
    """
    found: dict[int, None] = {}
    if num_open > FEW:
        for _ in range(_ROUNDS):
            size = min(num_open, 2 * num + 4)
            spots = generator.sample(range(1, num_open + 1), size)
            rows = connection.execute(_AT, {"who": who, "many": spots})
            item_at = {row.spot: row.item_id for row in rows}
            found |= dict.fromkeys(item_at[spot] for spot in spots if spot in item_at)
            if len(found) >= num:
                return list(found)[:num]
    rest = list(connection.execute(_ALL, {"who": who}).scalars("item_id"))
    assert len(rest) == eligible, f"{len(rest)} items are open to {who}, {eligible} were counted"
    generator.shuffle(rest)
    return rest[:num]


def choose_repeat(
    connection: Connection, who: int, turn: int, taken: set[int], generator: random.Random
) -> Choice | None:
    """An item that the person answered at least `REPEAT_AFTER` offers ago, for the second time."""
    begin, end = max(1, turn - _REPEAT_WITHIN), turn - REPEAT_AFTER
    if end < begin:
        return None
    turns = generator.sample(range(begin, end + 1), min(8, end + 1 - begin))
    rows = connection.execute(_REPEATABLE, {"who": who, "many": turns})
    found = {row.turn: row for row in rows if row.item_id not in taken}
    first = next((found[turn] for turn in turns if turn in found), None)
    if first is None:
        return None
    return Choice(first.item_id, "repeat", "repeat", None, 0, first)


def choose_held(connection: Connection, who: int, *, overlap: int, before: float) -> Choice | None:
    """What others have held longest, at least since `before`, where nothing else is left."""
    values = {"who": who, "overlap": overlap, "before": before}
    item = connection.scalar(_TAIL, values)
    return None if item is None else Choice(item, "work", "tail", 1.0, 1)


def is_unfinished(connection: Connection, who: int, *, overlap: int) -> bool:
    """Whether somebody holds an item that lacks votes and that this person has not answered."""
    return bool(connection.scalar(_SOMETHING, {"who": who, "overlap": overlap}))
