"""What a store keeps for whoever serves it: settings by name, and the order in which offers were shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from plaudit.feedback.entries import canonical
from plaudit.feedback.tables import OfferRow, SettingRow

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore

MOST_KEYS = 500
"""Keys asked for in one statement: SQLite has room for 999."""
_SHOWN = select(OfferRow.key, OfferRow.shown).where(
    OfferRow.key.in_(bindparam("keys", expanding=True))
)


def setting(store: FeedbackStore, name: str) -> Any:
    """What was kept under `name`, or None."""
    with store.reading() as connection:
        return connection.scalar(select(SettingRow.value).where(SettingRow.name == name))


def keep_setting(store: FeedbackStore, name: str, value: Any) -> None:
    """Keep a value that JSON can hold, in the place of what was kept under `name`."""
    clean = canonical(value, f"the setting {name!r}")
    with store.batch(), store.reading() as connection:
        here = SettingRow.name == name
        if connection.execute(update(SettingRow).where(here).values(value=clean)).rowcount == 0:
            connection.execute(insert(SettingRow), {"name": name, "value": clean})


def orders_shown(store: FeedbackStore, offers: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The stored positions of each offer's segments, in the order shown; unknown keys are left out."""
    keys = list(dict.fromkeys(offers))
    found: dict[str, tuple[int, ...]] = {}
    with store.reading() as connection:
        for start in range(0, len(keys), MOST_KEYS):
            some = {"keys": keys[start : start + MOST_KEYS]}
            found |= {row.key: tuple(row.shown) for row in connection.execute(_SHOWN, some)}
    return found
