"""Feedback in and out of a store, in any format of `formats/table.py`, a few rows at a time.

A file is read twice: all of it is checked before anything is kept. It is then kept in slices, so that
no other writer waits long; where something goes wrong after that (a full disk), what was kept is said,
and importing the file again adds the rest and nothing twice. What a format cannot say is counted; the
raw log ("votes") keeps everything, and a store read from it has the same content digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from plaudit.feedback import questions as ask
from plaudit.feedback.entries import Item, check_item, check_vote
from plaudit.feedback.formats import log
from plaudit.feedback.formats.base import Format, Judged, Reading
from plaudit.feedback.formats.log import flat
from plaudit.feedback.formats.table import format_named, format_of
from plaudit.feedback.formats.trl import read_comparisons_of
from plaudit.feedback.incoming import rater_of
from plaudit.feedback.readings import item_content, require_same
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from plaudit.records.files import read_text
from plaudit.records.row_files import check_ending, write_rows
from plaudit.records.rows import Row, json_line

SLICE = 500
"""Rows kept in one transaction: about 0.1 s of the write lock."""


@dataclass(frozen=True)
class Exported:
    """How many rows were written, and how many votes could not be said in them, by reason."""

    num_rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """How many rows were read, how many items and votes were new to the store, and how it was read.

    `notes` name the format that was recognised, and what was left out.
    """

    num_rows: int
    num_items: int
    num_votes: int
    notes: tuple[str, ...] = ()


# --- out ---------------------------------------------------------------------------------------


def export_feedback(
    store: FeedbackStore, path: str | Path, *, form: str = "preference", rater: str | None = None
) -> Exported:
    """Write active feedback to `path` in a format, of one rater or of all; the ending says how.

    Every row says who said it, in which order the answers were shown, how long it took, and which
    offer it answers. In .csv no text is a formula.
    """
    kind = format_named(form)
    ending = check_ending(path, kind.endings)
    left_out: Counter[str] = Counter()
    rows = export_rows(store, form, rater=rater, left_out=left_out)
    if form == "votes" and not ending.startswith(".json"):
        rows = (flat(row) for row in rows)
    num = write_rows(path, rows)
    lost = {reason: count for reason, count in left_out.items() if count}
    if not num:
        whose = "" if rater is None else f" of {rater!r}"
        said = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        raise UserError(
            f"{store.name} holds no feedback{whose} for the form {form!r}"
            f"{f' ({said})' if said else ''}; nothing was written"
        )
    return Exported(num, lost)


def export_rows(
    store: FeedbackStore,
    form: str,
    *,
    rater: str | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[Row]:
    """The rows of an export, one at a time; what they cannot say is counted in `left_out`."""
    write = format_named(form).write
    assert write is not None  # every format of the table is written
    return write(store, rater, Counter() if left_out is None else left_out)


def export_lines(store: FeedbackStore, form: str, *, rater: str | None = None) -> Iterator[bytes]:
    """An export as JSON lines, such as a server sends while they are made."""
    for number, row in enumerate(export_rows(store, form, rater=rater), start=1):
        yield json_line(row, f"row {number}").encode()


# --- in ----------------------------------------------------------------------------------------


def import_feedback(
    store: FeedbackStore,
    path: str | Path,
    *,
    rater: str | None = None,
    columns: Mapping[str, str] | None = None,
    form: str | None = None,
    config: str | Path | None = None,
    called: str | None = None,
) -> Imported:
    """Read feedback in a format of the table, known by its columns or named by `form`.

    `rater` names who said what names nobody (default: the file's name without its ending). `config`
    is the file of Label Studio's labelling configuration. `called` is the file's name in sentences
    where its path is not the user's. Importing a file again adds nothing.
    """
    source = Path(path)
    given = None if config is None else read_text(Path(config))
    reading = Reading(source, rater_of(called or source, rater), dict(columns or {}), given)
    try:
        kind = format_of(reading, form)
        reading.num_rows = 0
        done = _import(store, reading, kind)
    except UserError as error:
        if called is None:
            raise
        raise UserError(str(error).replace(str(source), called)) from None
    said = str(source) if called is None else called
    return replace(done, notes=tuple(note.replace(str(source), said) for note in done.notes))


def import_comparisons(
    store: FeedbackStore,
    path: str | Path,
    *,
    rater: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Imported:
    """As `import_feedback`, for a file of comparisons and nothing else."""
    reading = Reading(Path(path), rater_of(path, rater), dict(columns or {}))
    words = "comparisons (prompt, chosen, rejected)"
    kind = Format("preference", words, (), lambda row: True, read_comparisons_of, None)
    return _import(store, reading, kind)


def _import(store: FeedbackStore, first: Reading, form: Format) -> Imported:
    assert form.read is not None
    is_new = store.size() == (0, 0)
    for some in _slices(form.read(first)):
        _check(store, some, is_new=is_new)
    reading = first.again()
    num_items = num_votes = num_judged = 0
    for some in _slices(form.read(reading)):
        try:
            with store.batch():
                before = store.size()
                store.add_items({i.key: i for one in some if (i := one.item) is not None}.values())
                store.add_votes([vote for one in some for vote in one.votes])
                after = store.size()
        except UserError as error:
            kept = f"what stands before {some[0].where} was kept" if num_judged else (
                "nothing was kept"
            )  # fmt: skip
            raise UserError(
                f"{error} ({kept}; importing the file again adds the rest and nothing twice)"
            ) from error
        num_judged += len(some)
        num_items += after[0] - before[0]
        num_votes += after[1] - before[1]
    lost = [f"left out: {num} {reason}" for reason, num in reading.left_out.items() if num]
    lost += [f"left out: {n} {r}" for r, n in first.left_out.items() if n and form is _LOG]
    notes = dict.fromkeys((*reading.notes.values(), *lost))
    return Imported(first.num_rows, num_items, num_votes, tuple(notes))


[_LOG] = log.FORMATS


def _slices(judged: Iterable[Judged]) -> Iterator[list[Judged]]:
    rest = iter(judged)
    while some := list(islice(rest, SLICE)):
        yield some


def _check(store: FeedbackStore, some: list[Judged], *, is_new: bool) -> None:
    """UserError unless the store would take all of this."""
    seen: dict[str, Item] = {}
    items: dict[str, Any] = {}
    for one in some:
        if one.item is None:
            continue
        item = seen.setdefault(one.item.key, one.item)
        try:
            for vote in one.votes:
                check_vote(vote, len(item.segments))
            if item is one.item:
                check_item(item)
                items[item.key] = item_content(item)
            elif item != one.item:
                same = item_content(one.item)
                require_same(items[item.key], same, f"item {item.key!r}", "this file")
        except UserError as error:
            said = str(error)
            raise UserError(
                said if said.startswith(one.where) else f"{one.where}: {said}"
            ) from None
    if is_new:
        return
    with store.reading() as connection:
        known = ask.known_items(connection, items)
    for one in some:
        if one.item is not None and one.item.key in known:
            content = items[one.item.key]
            require_same(
                known[one.item.key].content,
                content,
                f"{one.where}: item {one.item.key!r}",
                store.name,
            )
