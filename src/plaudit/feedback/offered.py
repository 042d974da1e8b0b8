"""What offers are made of: the offer, the votes on it, what became of them, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, ScalarSelect, insert, select, update

from plaudit.feedback.choice import POLICIES
from plaudit.feedback.entries import Segment
from plaudit.feedback.tables import SettingRow
from plaudit.records.errors import UserError, nearest
from plaudit.records.types import Text

_NAME = "offers"
_SETTINGS = select(SettingRow.value).where(SettingRow.name == _NAME)


@dataclass(frozen=True)
class OfferSettings:
    """How work is given out. `policy` is "uniform" or "waiting" (`choice.py`).

    `overlap` people answer each item. An item held for `tail_seconds` may be offered to somebody
    idle as well when no other is left.
    """

    overlap: int = 1
    repeat_share: float = 0.1
    uniform_share: float = 0.2
    lease_seconds: float = 600.0
    policy: str = "uniform"
    tail_seconds: float = 60.0


@dataclass(frozen=True)
class Offer:
    """An item in somebody's hands: segments in stored order, and the positions in the order shown."""

    key: str
    item_key: str
    ask: str
    prompt: Text
    segments: tuple[Segment, ...]
    shown: tuple[int, ...]
    purpose: str
    policy: str
    propensity: float | None
    eligible: int
    made: float
    expires: float
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Votes of one person that stand, today's of them, and how far the items are."""

    mine: int
    mine_today: int
    done_items: int
    wanted_items: int
    open_items: int


@dataclass(frozen=True)
class OfferVote:
    """What somebody says to an offer, with positions as stored; `key` is the sender's own.

    An undo's value is {"vote": key}, and it needs no offer.
    """

    key: str
    offer: str | None
    kind: str
    value: Mapping[str, Any]
    seconds: float | None = None
    visible_seconds: float | None = None


@dataclass(frozen=True)
class Answers:
    """What somebody says at once, and when it came in."""

    annotator: str
    votes: tuple[OfferVote, ...]
    now: float


@dataclass(frozen=True)
class Answered:
    """What became of a vote: kept, known, surplus or refused; `sentence` says why."""

    key: str
    status: str
    sentence: str = ""


@dataclass(frozen=True)
class Undone:
    """A vote that was taken back, and its offer, which its person holds again (if any)."""

    key: str
    offer: Offer | None


def settings_value() -> ScalarSelect[Any]:
    """The settings as they are kept, for a larger query; `settings_of` reads them."""
    return _SETTINGS.scalar_subquery()


def settings_of(value: Any) -> OfferSettings:
    """Settings that are kept, or those that hold where none are."""
    return OfferSettings() if value is None else OfferSettings(**value)


def read_settings(connection: Connection) -> OfferSettings:
    """How work is given out."""
    return settings_of(connection.scalar(_SETTINGS))


def check_settings(settings: OfferSettings) -> None:
    overlap: object = settings.overlap
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 1 <= overlap <= 1000:
        raise UserError(f"overlap is {overlap!r}, expected a whole number from 1 to 1000")
    if settings.policy not in POLICIES:
        hint = nearest(str(settings.policy), POLICIES)
        raise UserError(f"policy is {settings.policy!r}, expected {' or '.join(POLICIES)}{hint}")
    limits = {"repeat_share": (0, 1), "uniform_share": (0, 1), "lease_seconds": (1, 1e7),
              "tail_seconds": (0, 1e7)}  # fmt: skip
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise UserError(f"{name} is {value!r}, expected a number from {low} to {high:g}")


def write_settings(connection: Connection, settings: OfferSettings) -> None:
    """Keep them in the store, for every process that uses it."""
    here, value = SettingRow.name == _NAME, asdict(settings)
    if connection.execute(update(SettingRow).where(here).values(value=value)).rowcount == 0:
        connection.execute(insert(SettingRow), {"name": _NAME, "value": value})
