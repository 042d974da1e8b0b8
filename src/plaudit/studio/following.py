"""A log of a run that is being written, followed: what is new since the last look, at its own price.

A place in a log is the file's number and how many bytes of it were read. Where a run that goes on
has rewritten its log, the file is another one, and is read anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]

MOST_BYTES = 16 * 2**20
"""Read at one look; a longer log takes several."""


@dataclass(frozen=True)
class Place:
    """Where somebody is in a log; as text it is an event's id."""

    file: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.file}-{self.offset}"

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that a text names; the beginning where it names none."""
        file, _, offset = text.partition("-")
        if not (file.isascii() and offset.isascii() and file.isdigit() and offset.isdigit()):
            return cls()
        return cls(int(file[:20]), int(offset[:20]))


@dataclass(frozen=True)
class News:
    """Whole lines after a place, and the place after them; `anew` where they are all from the start
    of another file than the place was in."""

    rows: list[Row]
    place: Place
    anew: bool


def news(path: Path, since: Place) -> News:
    """What the log says after a place; nothing while there is no log. A line that is no JSON object
    is left out."""
    try:
        with path.open("rb") as file:
            number, size = (lambda s: (s.st_ino, s.st_size))(os.fstat(file.fileno()))
            anew = number != since.file or since.offset > size
            offset = 0 if anew else since.offset
            if not anew and offset and not _ends_a_line(file.fileno(), offset):
                anew, offset = True, 0
            file.seek(offset)
            data = file.read(MOST_BYTES)
    except (OSError, ValueError):
        return News([], since, anew=False)
    whole = data[: data.rfind(b"\n") + 1]
    rows = [row for line in whole.splitlines() if (row := _row(line)) is not None]
    return News(rows, Place(number, offset + len(whole)), anew and since != Place())


def _ends_a_line(handle: int, offset: int) -> bool:
    return os.pread(handle, 1, offset - 1) == b"\n"


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


@dataclass
class Log:
    """All rows of a log, kept, and brought up to date for the price of what is new."""

    path: Path
    keep: Callable[[Row], Any] = lambda row: row
    rows: list[Any] = field(default_factory=list)
    place: Place = Place()

    def look(self) -> list[Any]:
        """Every row by now."""
        while True:
            found = news(self.path, self.place)
            if found.anew:
                self.rows.clear()
            self.rows += map(self.keep, found.rows)
            done, self.place = found.place == self.place, found.place
            if done:
                return self.rows
