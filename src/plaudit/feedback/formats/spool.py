"""What must be known of a file read before, on disk, so that a file larger than memory can be read.

A temporary SQLite database without a name: it lives in memory until it grows, and is gone when it
is closed, or the process dies.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any


class Counts:
    """How often each name was counted."""

    def __init__(self) -> None:
        self._db = _scratch(
            "CREATE TABLE counts (name TEXT PRIMARY KEY, num INTEGER) WITHOUT ROWID"
        )

    def next(self, name: str) -> int:
        """1 for a new name, 2 when it comes again, and so on."""
        [[num]] = self._db.execute(
            "INSERT INTO counts VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET num = num + 1"
            " RETURNING num",
            (name,),
        ).fetchall()
        return int(num)


class Kept:
    """Values by name, with a group and a place in it; read back by name, or group by group."""

    def __init__(self) -> None:
        self._db = _scratch(
            "CREATE TABLE kept (name TEXT PRIMARY KEY, place INTEGER, value TEXT, family TEXT);"
            "CREATE INDEX by_family ON kept (family, place)"
        )

    def add(self, name: str, value: Any, *, place: int = 0, family: str | None = None) -> Any:
        """Keep a value; where the name is known, what is kept under it stays, and is returned."""
        text = json.dumps(value)
        done = self._db.execute(
            "INSERT INTO kept VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (name, place, text, family),
        )
        return value if done.rowcount else self.get(name)

    def agrees(self, name: str, value: Any, *, place: int = 0) -> bool:
        """Keep a value; false where another one is kept under this name."""
        text = json.dumps(value)
        done = self._db.execute(
            "INSERT INTO kept VALUES (?, ?, ?, NULL) ON CONFLICT DO NOTHING", (name, place, text)
        )
        if done.rowcount:
            return True
        [known] = self._db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return bool(known == text)

    def get(self, name: str) -> Any:
        """The value of this name, or None."""
        row = self._db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def of_family(self, family: str) -> list[Any]:
        """The values of a group, by place."""
        rows = self._db.execute(
            "SELECT value FROM kept WHERE family = ? ORDER BY place", (family,)
        ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def families(self) -> Iterator[str]:
        """The groups, by the place of their first value."""
        rows = self._db.execute(
            "SELECT family FROM kept WHERE family IS NOT NULL GROUP BY family ORDER BY MIN(place)"
        )
        for (family,) in rows:
            yield family

    def in_order(self) -> Iterator[Any]:
        """All values, by place."""
        for (text,) in self._db.execute("SELECT value FROM kept ORDER BY place"):
            yield json.loads(text)


def _scratch(script: str) -> sqlite3.Connection:
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {script}; BEGIN;")
    return db
