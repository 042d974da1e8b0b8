"""One draw: what somebody is shown next is chosen, written down and put into their hands."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from plaudit.feedback import questions as ask
from plaudit.feedback.choice import Choice, choose_held, choose_repeat, choose_work
from plaudit.feedback.derived_tables import AnnotatorStateRow, LeaseRow
from plaudit.feedback.entries import Item
from plaudit.feedback.offered import Offer, OfferSettings, read_settings
from plaudit.feedback.pool import Pool, changing, lease_row, num_open, pool_of, sweep
from plaudit.feedback.rebuild import extend, rebuild
from plaudit.feedback.tables import AnnotatorRow, ItemRow, OfferRow
from plaudit.feedback.tasks import new_key, task_of
from plaudit.records.errors import UserError, nearest

MOST_HELD = 60
"""Offers that one person holds at once."""
MEDIANS = 5
"""A lease is at least so many times as long as the person's median time for a vote..."""
LONGEST = 6
"""...and at most so many times `lease_seconds`, whatever the times that were reported."""
_RECENT = 50
"""Votes of which the median is taken."""

_PERSON = select(AnnotatorRow.__table__).where(AnnotatorRow.name == bindparam("name"))
_MINE = AnnotatorStateRow.annotator_id == bindparam("who")
_STATE = select(AnnotatorStateRow.turn, AnnotatorStateRow.num_blocked).where(_MINE)
_TURN = update(AnnotatorStateRow).where(_MINE).values(turn=bindparam("to"))
_NEW_STATE = insert(AnnotatorStateRow)
_NUM_HELD = select(func.count()).where(LeaseRow.annotator_id == bindparam("who"))
_LAST = select(
    select(func.max(ItemRow.id)).scalar_subquery(), select(func.max(OfferRow.id)).scalar_subquery()
)
_NEW_OFFER, _NEW_LEASE = insert(OfferRow), insert(LeaseRow)


@dataclass(frozen=True)
class Draw:
    """Somebody asks for offers."""

    annotator: str
    num: int
    asks: str
    now: float


@dataclass(frozen=True)
class _NewOffer:
    """A row of `offers` that is about to be one."""

    id: int
    key: str
    item_id: int
    annotator_id: int
    turn: int
    ask: str
    shown: tuple[int, ...]
    purpose: str
    policy: str
    propensity: float | None
    eligible: int
    made: float
    expires: float


def person(connection: Connection, name: str) -> Any:
    """The row of an annotator; UserError where there is none of this name."""
    who = connection.execute(_PERSON, {"name": name}).one_or_none()
    if who is None:
        names = connection.scalars(select(AnnotatorRow.name))
        raise UserError(f"there is nobody called {name!r}{nearest(name, names)}")
    return who


def state_of(connection: Connection, who: int) -> tuple[int, int]:
    """(offers that a person had, open items that they may not have)."""
    row = connection.execute(_STATE, {"who": who}).one_or_none()
    return (0, 0) if row is None else (row.turn, row.num_blocked)


def last_item(connection: Connection) -> int:
    """How many items there are."""
    return connection.execute(_LAST).one()[0] or 0


def up_to_date(connection: Connection, now: float) -> Pool:
    """The pool with every item of the log, and without leases that have expired."""
    pool = pool_of(connection)
    if pool is None:
        return rebuild(connection, overlap=read_settings(connection).overlap, now=now)
    last = last_item(connection)
    if pool.through < last:
        extend(connection, pool, last, now=now)
    sweep(connection, pool, now)
    return pool


def draw_offers(connection: Connection, draw: Draw, generator: random.Random) -> list[Offer]:
    """New offers for somebody; UserError, before anything is written, for one who is not asked."""
    who = person(connection, draw.annotator)
    if who.role == "viewer":
        raise UserError(f"{draw.annotator!r} may look, but is not asked")
    if who.paused:
        return []
    settings = read_settings(connection)
    pool = up_to_date(connection, draw.now)
    turn, num_blocked = state_of(connection, who.id)
    held = connection.scalar(_NUM_HELD, {"who": who.id}) or 0
    num = min(draw.num, MOST_HELD - held)
    choices = _choices(connection, who.id, num, turn, num_blocked, settings, generator)
    if not choices and not held:
        before = draw.now - settings.tail_seconds
        one = choose_held(connection, who.id, overlap=pool.overlap, before=before)
        choices = [] if one is None else [one]
    if not choices:
        return []
    if turn == 0:
        _begin(connection, who.id)
    items = ask.items_by_id(connection, [choice.item_id for choice in choices])
    expires = draw.now + _lease_seconds(connection, who.name, settings)
    rows = _rows(connection, draw, who.id, turn, choices, items, expires, generator)
    connection.execute(_NEW_OFFER, [vars(row) | {"shown": list(row.shown)} for row in rows])
    with changing(connection, pool, items, now=draw.now):
        connection.execute(_NEW_LEASE, [lease_row(row, row.expires) for row in rows])
        connection.execute(_TURN, {"who": who.id, "to": turn + len(rows)})
    return [offer_of(row, items[row.item_id], row.expires) for row in rows]


def offer_of(row: Any, item: Item, expires: float) -> Offer:
    """The offer of a row of `offers` with its item."""
    return Offer(
        row.key, item.key, row.ask, item.prompt, item.segments, tuple(row.shown), row.purpose,
        row.policy, row.propensity, row.eligible, row.made, expires, item.columns,
    )  # fmt: skip


def _begin(connection: Connection, who: int) -> None:
    if connection.execute(_STATE, {"who": who}).one_or_none() is None:
        connection.execute(_NEW_STATE, {"annotator_id": who, "turn": 0, "num_blocked": 0})


def _choices(
    connection: Connection,
    who: int,
    num: int,
    turn: int,
    num_blocked: int,
    settings: OfferSettings,
    generator: random.Random,
) -> list[Choice]:
    """Repeats by chance, and work for the rest; no repeats where there is no work."""
    there = num_open(connection)
    eligible = there - num_blocked
    repeats: list[Choice] = []
    for _ in range(min(num, eligible)):
        if generator.random() < settings.repeat_share:
            taken = {choice.item_id for choice in repeats}
            one = choose_repeat(connection, who, turn + 1, taken, generator)
            repeats += [] if one is None else [one]
    mixed = choose_work(
        connection, who, num - len(repeats), num_open=there, eligible=eligible,
        policy=settings.policy, uniform_share=settings.uniform_share, generator=generator,
    )  # fmt: skip
    for repeat in repeats:
        mixed.insert(generator.randint(0, len(mixed)), repeat)
    return mixed


def _rows(
    connection: Connection,
    draw: Draw,
    who: int,
    turn: int,
    choices: Sequence[Choice],
    items: Mapping[int, Item],
    expires: float,
    generator: random.Random,
) -> list[_NewOffer]:
    last: int = connection.execute(_LAST).one()[1] or 0
    rows = []
    for k, choice in enumerate(choices, start=1):
        asked, shown = task_of(items[choice.item_id], draw.asks, choice.first, generator)
        why = (choice.purpose, choice.policy, choice.propensity, choice.eligible)
        what = (choice.item_id, who, turn + k, asked, shown)
        rows.append(_NewOffer(last + k, new_key(), *what, *why, draw.now, expires))
    return rows


def _lease_seconds(connection: Connection, rater: str, settings: OfferSettings) -> float:
    seconds = ask.recent_seconds(connection, rater, _RECENT)
    median = statistics.median(seconds) if seconds else 0.0
    longest = LONGEST * settings.lease_seconds
    return min(max(settings.lease_seconds, MEDIANS * median), longest)
