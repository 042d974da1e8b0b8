"""What people hold, and so many more that each holds what they ask for: the question a page asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from plaudit.feedback import questions as ask
from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.derived_tables import LeaseRow
from plaudit.feedback.drawing import Draw, offer_of
from plaudit.feedback.offered import Offer
from plaudit.feedback.tables import AnnotatorRow, OfferRow

_HELD = (
    select(OfferRow.__table__, LeaseRow.expires.label("until"))
    .join(LeaseRow, LeaseRow.offer_id == OfferRow.id)
    .where(LeaseRow.annotator_id == bindparam("who"), LeaseRow.expires > bindparam("now"))
    .order_by(OfferRow.id)
)
_ALL_HELD = (
    select(OfferRow.__table__, LeaseRow.expires.label("until"), AnnotatorRow.name.label("holder"))
    .join(LeaseRow, LeaseRow.offer_id == OfferRow.id)
    .join(AnnotatorRow, AnnotatorRow.id == LeaseRow.annotator_id)
    .where(AnnotatorRow.name.in_(MANY))
    .order_by(OfferRow.id)
)


@dataclass(frozen=True)
class Hold:
    """Somebody wants to hold `num` offers: those they hold, in the order drawn, and new ones."""

    annotator: str
    num: int
    asks: str
    now: float


def held_by(connection: Connection, who: int, now: float) -> Sequence[Any]:
    """Rows of what one person holds, in the order drawn, with `until` when."""
    return connection.execute(_HELD, {"who": who, "now": now}).all()


def offers_of(connection: Connection, rows: Sequence[Any]) -> list[Offer]:
    """The offers of rows of `held_by`."""
    items = ask.items_by_id(connection, [row.item_id for row in rows])
    return [offer_of(row, items[row.item_id], row.until) for row in rows]


def held_at_once(connection: Connection, holds: Sequence[Hold]) -> list[list[Offer]]:
    """What each of several people holds, at most as many as they want."""
    rows: dict[str, list[Any]] = {hold.annotator: [] for hold in holds}
    for chunk in chunks(rows):
        for row in connection.execute(_ALL_HELD, {"many": chunk}):
            rows[row.holder].append(row)
    mine = [
        [row for row in rows[hold.annotator] if row.until > hold.now][: hold.num] for hold in holds
    ]
    numbers = {row.item_id for some in mine for row in some}
    items = ask.items_by_id(connection, numbers) if numbers else {}
    return [[offer_of(row, items[row.item_id], row.until) for row in some] for some in mine]


def draw_for(hold: Hold, held: Sequence[Offer]) -> Draw | None:
    """What is still to be drawn, if anything."""
    short = hold.num - len(held)
    return Draw(hold.annotator, short, hold.asks, hold.now) if short > 0 else None
