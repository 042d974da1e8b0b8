"""Draws: what people are shown next is chosen, written down and put into their hands.

Those who ask at once are served with a few statements for all of them; whoever needs more than
blind tries (few items are left, or those waiting longest come first) is served alone, after them.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from plaudit.feedback import questions as ask
from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.choice import (
    FEW,
    Choice,
    Wish,
    choose_held,
    choose_repeat,
    choose_together,
    choose_work,
)
from plaudit.feedback.derived_tables import AnnotatorStateRow, LeaseRow, OpenItemRow, PoolRow
from plaudit.feedback.entries import Item
from plaudit.feedback.offered import Offer, OfferSettings, settings_of, settings_value
from plaudit.feedback.pool import Pool, State, lease_row, settle, states, sweep
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
"""Votes of which the median is taken..."""
_MEDIAN_FOR = 60.0
"""...once in so many seconds."""

_PERSON = select(AnnotatorRow.__table__).where(AnnotatorRow.name == bindparam("name"))
_PEOPLE = (
    select(AnnotatorRow.__table__, AnnotatorStateRow.turn, AnnotatorStateRow.num_blocked)
    .outerjoin(AnnotatorStateRow, AnnotatorStateRow.annotator_id == AnnotatorRow.id)
    .where(AnnotatorRow.name.in_(MANY))
)
_MINE = AnnotatorStateRow.annotator_id == bindparam("who")
_STATE = select(AnnotatorStateRow.turn, AnnotatorStateRow.num_blocked).where(_MINE)
_TURN = update(AnnotatorStateRow).where(_MINE).values(turn=bindparam("to"))
_NEW_STATE = insert(AnnotatorStateRow)
_NUM_HELD = (
    select(LeaseRow.annotator_id, func.count())
    .where(LeaseRow.annotator_id.in_(MANY))
    .group_by(LeaseRow.annotator_id)
)
_LAST_ITEM = select(func.max(ItemRow.id))
_CONTEXT = select(
    settings_value().label("settings"),
    select(PoolRow.through).scalar_subquery().label("through"),
    select(PoolRow.num_done).scalar_subquery().label("num_done"),
    select(PoolRow.overlap).scalar_subquery().label("overlap"),
    _LAST_ITEM.scalar_subquery().label("last_item"),
    select(func.max(OfferRow.id)).scalar_subquery().label("last_offer"),
    select(func.max(OpenItemRow.spot)).scalar_subquery().label("num_open"),
)
_NEW_OFFER, _NEW_LEASE = insert(OfferRow), insert(LeaseRow)


@dataclass(frozen=True)
class Draw:
    """Somebody asks for offers."""

    annotator: str
    num: int
    asks: str
    now: float


@dataclass
class _Context:
    """What a draw needs to know of the store."""

    pool: Pool
    settings: OfferSettings
    last_offer: int
    num_open: int


@dataclass
class _Person:
    """What a draw needs to know of a person."""

    id: int
    name: str
    turn: int
    num_blocked: int
    is_new: bool
    num_held: int = 0


@dataclass
class _Served:
    """A draw, whose it is, and what was chosen for it."""

    draw: Draw
    person: _Person
    choices: list[Choice] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)


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
        raise _nobody(connection, name)
    return who


def state_of(connection: Connection, who: int) -> tuple[int, int]:
    """(offers that a person had, open items that they may not have)."""
    row = connection.execute(_STATE, {"who": who}).one_or_none()
    return (0, 0) if row is None else (row.turn, row.num_blocked)


def last_item(connection: Connection) -> int:
    """How many items there are."""
    return connection.scalar(_LAST_ITEM) or 0


def up_to_date(connection: Connection, now: float) -> Pool:
    """The pool with every item of the log, and without leases that have expired."""
    return _context(connection, now).pool


def offer_of(row: Any, item: Item, expires: float) -> Offer:
    """The offer of a row of `offers` with its item."""
    return Offer(
        row.key, item.key, row.ask, item.prompt, item.segments, tuple(row.shown), row.purpose,
        row.policy, row.propensity, row.eligible, row.made, expires, item.columns,
    )  # fmt: skip


class Desk:
    """Serves draws inside an open transaction. `generator` chooses; medians are remembered."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator
        self._medians: dict[str, tuple[float, float]] = {}

    def serve(self, connection: Connection, draws: Sequence[Draw]) -> list[list[Offer] | UserError]:
        """New offers for each, or the sentence why there are none."""
        now = max(draw.now for draw in draws)
        context = _context(connection, now)
        served, results = _who_is_served(connection, draws)
        if context.settings.policy == "uniform" and context.num_open > FEW:
            together = list({id(one.person): one for one in reversed(served)}.values())
            self._choose_together(connection, context, together)
            self._give(connection, context, together)
        for one in served:
            short = one.draw.num - len(one.offers)
            if short > 0:
                rest = _Served(replace(one.draw, num=short), one.person)
                context = _context(connection, now)
                self._choose_alone(connection, context, rest)
                self._give(connection, context, [rest])
                one.offers += rest.offers
        given = iter(served)
        return [next(given).offers if result is None else result for result in results]

    def _choose_together(
        self, connection: Connection, context: _Context, served: Sequence[_Served]
    ) -> None:
        repeats = []
        wishes = []
        for one in served:
            mine = one.person
            num = min(one.draw.num, MOST_HELD - mine.num_held)
            eligible = context.num_open - mine.num_blocked
            repeats.append(self._repeats(connection, context, mine, min(num, eligible)))
            wishes.append(Wish(mine.id, max(0, num - len(repeats[-1])), mine.num_blocked))
        chosen = choose_together(
            connection, wishes, num_open=context.num_open, overlap=context.pool.overlap,
            generator=self.generator,
        )  # fmt: skip
        for one, work, again in zip(served, chosen, repeats, strict=True):
            one.choices = self._mixed(work, again)

    def _choose_alone(self, connection: Connection, context: _Context, one: _Served) -> None:
        mine, settings = one.person, context.settings
        _, mine.num_blocked = state_of(connection, mine.id)
        num = min(one.draw.num, MOST_HELD - mine.num_held)
        eligible = context.num_open - mine.num_blocked
        repeats = self._repeats(connection, context, mine, min(num, eligible))
        work = choose_work(
            connection, mine.id, num - len(repeats), num_open=context.num_open, eligible=eligible,
            policy=settings.policy, uniform_share=settings.uniform_share, generator=self.generator,
        )  # fmt: skip
        one.choices = self._mixed(work, repeats)
        if not one.choices and not mine.num_held:
            before = one.draw.now - settings.tail_seconds
            overlap = context.pool.overlap
            held = choose_held(connection, mine.id, overlap=overlap, before=before)
            one.choices = [] if held is None else [held]

    def _repeats(
        self, connection: Connection, context: _Context, mine: _Person, num: int
    ) -> list[Choice]:
        """Repeats by chance, among `num` offers."""
        repeats: list[Choice] = []
        for _ in range(num):
            if self.generator.random() < context.settings.repeat_share:
                taken = {choice.item_id for choice in repeats}
                turn = mine.turn + 1
                one = choose_repeat(connection, mine.id, turn, taken, self.generator)
                repeats += [] if one is None else [one]
        return repeats

    def _mixed(self, work: Sequence[Choice], repeats: Sequence[Choice]) -> list[Choice]:
        """Work in its order, with the repeats put in at random places."""
        mixed = list(work)
        for repeat in repeats:
            mixed.insert(self.generator.randint(0, len(mixed)), repeat)
        return mixed

    def _give(self, connection: Connection, context: _Context, served: Sequence[_Served]) -> None:
        """Write the offers down, and who holds them."""
        numbers = [choice.item_id for one in served for choice in one.choices]
        if not numbers:
            return
        items = ask.items_by_id(connection, numbers)
        before = states(connection, items)
        after = {
            item: State(set(state.takers), set(state.answerers), set(state.blocked))
            for item, state in before.items()
        }
        rows: list[_NewOffer] = []
        for one in served:
            expires = one.draw.now + self._lease_seconds(connection, one, context.settings)
            for choice in one.choices:
                one.person.turn += 1
                one.person.num_held += 1
                row = self._row(context, one, choice, items[choice.item_id], expires)
                rows.append(row)
                one.offers.append(offer_of(row, items[row.item_id], expires))
                after[row.item_id].blocked.add(row.annotator_id)
                if row.purpose != "repeat":
                    after[row.item_id].takers.add(row.annotator_id)
        people = {one.person.id: one.person for one in served if one.choices}
        connection.execute(_NEW_OFFER, [vars(row) | {"shown": list(row.shown)} for row in rows])
        connection.execute(_NEW_LEASE, [lease_row(row, row.expires) for row in rows])
        new = [one for one in people.values() if one.is_new]
        if new:
            begin = [{"annotator_id": one.id, "turn": 0, "num_blocked": 0} for one in new]
            connection.execute(_NEW_STATE, begin)
            for fresh in new:
                fresh.is_new = False
        connection.execute(_TURN, [{"who": id_, "to": one.turn} for id_, one in people.items()])
        settle(connection, context.pool, before, after, now=served[0].draw.now)

    def _row(
        self, context: _Context, one: _Served, choice: Choice, item: Item, expires: float
    ) -> _NewOffer:
        context.last_offer += 1
        asked, shown = task_of(item, one.draw.asks, choice.first, self.generator)
        why = (choice.purpose, choice.policy, choice.propensity, choice.eligible)
        what = (choice.item_id, one.person.id, one.person.turn, asked, shown)
        return _NewOffer(context.last_offer, new_key(), *what, *why, one.draw.now, expires)

    def _lease_seconds(
        self, connection: Connection, one: _Served, settings: OfferSettings
    ) -> float:
        name, now = one.person.name, one.draw.now
        when, median = self._medians.get(name, (-_MEDIAN_FOR, 0.0))
        if abs(now - when) >= _MEDIAN_FOR:
            seconds = ask.recent_seconds(connection, name, _RECENT)
            median = statistics.median(seconds) if seconds else 0.0
            self._medians[name] = now, median
        longest = LONGEST * settings.lease_seconds
        return min(max(settings.lease_seconds, MEDIANS * median), longest)


def _context(connection: Connection, now: float) -> _Context:
    """The pool and what is beside it, once the pool has every item and no expired lease."""
    row = connection.execute(_CONTEXT).one()
    settings = settings_of(row.settings)
    if row.through is None:
        pool = rebuild(connection, overlap=settings.overlap, now=now)
    else:
        pool = Pool(row.through, row.num_done, row.overlap)
        if pool.through < (row.last_item or 0):
            extend(connection, pool, row.last_item, now=now)
        if not sweep(connection, pool, now) and pool.through == row.through:
            return _Context(pool, settings, row.last_offer or 0, row.num_open or 0)
    num_open = connection.scalar(select(func.max(OpenItemRow.spot))) or 0
    return _Context(pool, settings, row.last_offer or 0, num_open)


def _who_is_served(
    connection: Connection, draws: Sequence[Draw]
) -> tuple[list[_Served], list[UserError | list[Offer] | None]]:
    """Those who may have offers; and for each draw None where it is served, else its result."""
    rows: dict[str, Any] = {}
    for chunk in chunks(draw.annotator for draw in draws):
        rows |= {row.name: row for row in connection.execute(_PEOPLE, {"many": chunk})}
    num_held: Counter[int] = Counter()
    for chunk in chunks(row.id for row in rows.values()):
        for who, num in connection.execute(_NUM_HELD, {"many": chunk}):
            num_held[who] = num
    people = {
        name: _Person(row.id, name, row.turn or 0, row.num_blocked or 0, row.turn is None,
                      num_held[row.id])
        for name, row in rows.items()
    }  # fmt: skip
    served: list[_Served] = []
    results: list[UserError | list[Offer] | None] = []
    for draw in draws:
        row = rows.get(draw.annotator)
        if row is None:
            results.append(_nobody(connection, draw.annotator))
        elif row.role == "viewer":
            results.append(UserError(f"{draw.annotator!r} may look, but is not asked"))
        elif row.paused:
            results.append([])
        else:
            results.append(None)
            served.append(_Served(draw, people[draw.annotator]))
    return served, results


def _nobody(connection: Connection, name: str) -> UserError:
    names = connection.scalars(select(AnnotatorRow.name))
    return UserError(f"there is nobody called {name!r}{nearest(name, names)}")
