"""What is asked of an item, of which of its segments, and in which order they are shown."""

from __future__ import annotations

import random
import secrets
from typing import Any

from plaudit.feedback.entries import Item
from plaudit.records.errors import UserError, nearest

ASKS = ("compare", "score", "rank", "words", "edit")
MOST_SHOWN = 5
"""Segments shown at once."""
_LEAST = {"compare": 2, "rank": 2}


def check_ask(asks: str) -> None:
    """UserError unless this is something that can be asked, or "auto"."""
    if asks not in (*ASKS, "auto"):
        hint = nearest(str(asks), (*ASKS, "auto"))
        raise UserError(f"asks is {asks!r}, expected auto, {', '.join(ASKS)}{hint}")


def new_key() -> str:
    """A key that nobody can guess: 128 bits in hexadecimal digits."""
    return secrets.token_hex(16)


def task_of(
    item: Item, asks: str, first: Any, generator: random.Random
) -> tuple[str, tuple[int, ...]]:
    """(ask, positions in the order shown); a repeat of the offer `first` is that one reversed."""
    if first is not None:
        return first.ask, tuple(reversed(first.shown))
    asked = ask_of(item, asks)
    num = min(len(item.segments), 2 if asked == "compare" else MOST_SHOWN)
    return asked, tuple(generator.sample(range(len(item.segments)), num))


def ask_of(item: Item, asks: str = "auto") -> str:
    """What to ask: as told, else as the item's column `ask` says, else by its number of segments.

    1 segment is scored, 2 are compared, more are ranked; so it is where there are too few for what
    was told.
    """
    num = len(item.segments)
    for told in (asks, item.columns.get("ask")):
        if isinstance(told, str) and told in ASKS and num >= _LEAST.get(told, 1):
            return told
    return "score" if num == 1 else "compare" if num == 2 else "rank"
