"""What all formats share: an item with its votes as a row gives them, keys, and who said it how.

    file → slices of rows → items with votes          votes with items → rows → file

Keys of what is read are digests of content, so that a file read again adds nothing: the same row
twice is two votes on one item. Written rows say who, in which order the answers were shown, how
long it took, and which offer was answered with what probability by which policy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.feedback.entries import Item, NewVote, Segment, Vote, check_name
from plaudit.feedback.formats.spool import Counts, Kept
from plaudit.feedback.store import FeedbackStore
from plaudit.records.columns import parse_number
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, Rows, listed_names
from plaudit.records.slices import row_slices
from plaudit.records.types import Text

SAID = ("rater", "order_shown", "seconds", "offer", "propensity", "policy")
"""Columns of every written row; `order_shown` lists the row's answers, from 0, as they stood."""


class Judged(NamedTuple):
    """An item and votes on it, as a file has them; `where` names file and line.

    Without an item: votes on one that is there already.
    """

    where: str
    item: Item | None
    votes: tuple[NewVote, ...]


class CannotSay(Exception):
    """Raised by a writer of a vote that its format has no words for; the message is counted."""


@dataclass
class Reading:
    """A file on its way in: what was asked for, and what is to be said of it afterwards.

    `rater` said what names nobody. `columns` maps our names to the file's. `config` is Label
    Studio's labelling configuration, as text. A file is read twice, and the first time only checked:
    what was `seen` then is `checked` the second time, and what was `kept` on disk stays.
    """

    path: Path
    rater: str
    columns: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    checked: Mapping[str, int] | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    _counts: Counts = field(default_factory=Counts)

    def again(self) -> Reading:
        """The second time through."""
        return Reading(
            self.path, self.rater, self.columns, self.config, notes=dict(self.notes),
            checked=self.seen, kept=self.kept,
        )  # fmt: skip

    def slices(self) -> Iterator[Rows]:
        """The rows of the file, from its beginning."""
        for rows in row_slices(self.path):
            self.num_rows += len(rows)
            yield rows

    def count(self, name: str) -> int:
        """How often a name has come, this time included."""
        return self._counts.next(name)

    def note(self, sentence: str) -> None:
        """Something to be said once; the same of a later part, with other numbers, is not repeated."""
        if any(said.startswith(sentence) for said in self.notes.values()):
            return  # a longer one says it
        self.notes.setdefault(re.sub(r"\d+", "#", sentence), sentence)

    def item(
        self,
        kind: str,
        prompt: Text,
        segments: Sequence[Segment],
        columns: Mapping[str, Any] | None = None,
    ) -> Item:
        """An item whose key is a digest of what it shows."""
        shown = [[s.text, s.kind, s.model, dict(s.extra)] for s in segments]
        said = digest([prompt, shown, dict(columns or {})])
        return Item(f"{kind}-{said}", prompt, tuple(segments), dict(columns or {}))

    def judged(self, where: str, item: Item, *votes: NewVote) -> Judged:
        """The item with these votes, each under a key of its own; of no rater: of the file's."""
        named = []
        for vote in votes:
            if vote.key is not None:
                named.append(vote)
                continue
            who = check_name(vote.rater or self.rater, f"{where}: 'rater'")
            said = f"{item.key}/{who}/{digest([vote.kind, vote.value, vote.shown])}"
            key = f"{said}/{self._counts.next(said)}"
            named.append(replace(vote, key=key, rater=who, item_key=item.key))
        return Judged(where, item, tuple(named))


Reader = Callable[[Reading], Iterator[Judged]]
RowReader = Callable[[Row, Reading, str], Iterable[Judged]]
Writer = Callable[[FeedbackStore, str | None, Counter[str]], Iterator[Row]]


@dataclass(frozen=True)
class Format:
    """A format by its name for `--format`, and in words; how it is known, read and written.

    `columns` are what it is known by, and `fits` what else must hold of the first row.
    """

    name: str
    words: str
    columns: tuple[str, ...]
    fits: Callable[[Row], bool]
    read: Reader | None
    write: Writer | None
    keeps: str = ""
    endings: tuple[str, ...] = (".jsonl", ".jsonl.gz", ".json", ".parquet")

    def is_of(self, row: Row) -> bool:
        """Whether a row has the columns of this format, with what belongs in them."""
        return all(name in row for name in self.columns) and self.fits(row)


def each_row(read: RowReader, words: str) -> Reader:
    """A reader of a file each of whose rows says its own; errors get file and line."""

    def of_file(reading: Reading) -> Iterator[Judged]:
        for rows in reading.slices():
            for index, row in enumerate(rows):
                where = rows.where(index)
                try:
                    found = list(read(row, reading, where))
                except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
                    raise refusal(where, error, words) from error
                yield from found

    return of_file


def refusal(where: str, error: Exception, words: str) -> UserError:
    """What is said of a row that cannot be read."""
    said = str(error)
    if isinstance(error, UserError):
        return error if said.startswith(where) else UserError(f"{where}: {said}")
    return UserError(f"{where} is not {words}, as the first row is: a field has another form")


def digest(value: Any) -> str:
    """Part of the SHA-256 of a value as JSON."""
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"the row cannot be kept as JSON: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# --- who said it, and how ----------------------------------------------------------------------


def said(vote: Vote, positions: Sequence[int]) -> Row:
    """The columns `SAID` of a row whose answers are the item's segments at `positions`."""
    place = {position: number for number, position in enumerate(positions)}
    shown = None
    if vote.shown is not None:
        shown = [place[position] for position in vote.shown if position in place]
    return {
        "rater": vote.rater,
        "order_shown": shown,
        "seconds": vote.seconds,
        "offer": vote.offer,
        "propensity": vote.propensity,
        "policy": vote.policy,
    }


def is_said(row: Mapping[str, Any]) -> bool:
    """Whether a row has all the columns `SAID`, as rows that Plaudit wrote do."""
    return all(name in row for name in SAID)


class Manner(NamedTuple):
    """By whom and how something was said, in a row that Plaudit wrote; nothing in others."""

    rater: str = ""
    shown: tuple[int, ...] | None = None
    seconds: float | None = None


def manner(row: Mapping[str, Any] | None, num: int, reading: Reading) -> Manner:
    """Rater, order and time of a row with `num` answers that has the columns `SAID`."""
    if row is None or not is_said(row):
        return Manner()
    shown = unpacked(row["order_shown"])
    places = list(range(num))
    if shown is not None and (
        not isinstance(shown, list) or not set(map(_place, shown)) <= {*places}
    ):
        raise UserError(
            f"'order_shown' is {shown!r}, expected a list of the places {listed_names(map(str, places))}"
        )
    seconds = number_or_none(row["seconds"], "seconds")
    if row["offer"] not in (None, ""):
        reading.left_out["offers that were answered (only who, order and time are taken in)"] += 1
    order = tuple(shown) if shown and len(shown) == num else None
    rater = row["rater"]
    return Manner(check_name(rater, "'rater'") if rater not in (None, "") else "", order, seconds)


def unpacked(value: Any) -> Any:
    """A list that CSV holds as JSON; an empty cell is nothing."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


def _place(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def number_or_none(value: Any, name: str) -> float | None:
    """A number, or a text that is one; None where there is nothing."""
    if value is None or value == "":
        return None
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{name!r} is {value!r}, expected a number or nothing")
    return number
