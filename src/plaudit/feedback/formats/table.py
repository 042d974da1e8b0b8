"""The table of formats, and which of them a file is in."""

from __future__ import annotations

from plaudit.feedback.formats import (
    arena,
    argilla,
    hh,
    label_studio,
    log,
    oasst,
    openai,
    trl,
    ultrafeedback,
)
from plaudit.feedback.formats.base import Format, Reading
from plaudit.records.columns import rename_columns
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import listed_names

FORMATS: tuple[Format, ...] = (
    *log.FORMATS,
    *trl.FORMATS,
    *hh.FORMATS,
    *openai.FORMATS,
    *ultrafeedback.FORMATS,
    *oasst.FORMATS,
    *arena.FORMATS,
    *label_studio.FORMATS,
    *argilla.FORMATS,
)
NAMES = tuple(form.name for form in FORMATS)
_OTHERS = Format(
    "columns", "columns", (), lambda row: True, trl.read_kinds(*trl.FEEDBACK_KINDS), None
)
"""Whatever `records/formats.py` knows besides, or refuses."""
_SAME = {"edits"}
"""Forms to write that are read as another one with the same columns."""


def format_named(name: str) -> Format:
    """The format of this name; UserError with the nearest."""
    for form in FORMATS:
        if form.name == name:
            return form
    raise UserError(
        f"there is no format {name!r}, expected one of {', '.join(NAMES)}{nearest(name, NAMES)}"
    )


def format_of(reading: Reading, name: str | None) -> Format:
    """The format that is named, else the one that the first row shows, which is noted with why."""
    first = next(reading.slices())
    where, row = first.where(0), first[0]
    if name is not None:
        form = format_named(name)
        if form.read is None:
            raise UserError(
                f"{name} is written and not read: {form.words} say nothing about answers"
            )
        _require(form, reading, first.where(0), row)
        return form
    if reading.columns and all(old in row for old in reading.columns.values()):
        row = rename_columns(first, reading.columns)[0]
    found = [form for form in FORMATS if form.read and form.name not in _SAME and form.is_of(row)]
    if len(found) > 1:
        names = " and as ".join(f"{form.words} ({form.name})" for form in found)
        raise UserError(f"{where} can be read as {names}: say which by --format")
    if not found:
        return _OTHERS
    [form] = found
    said = all(name in form.words for name in form.columns)
    why = "" if said else f" (it has {listed_names(form.columns)})"
    reading.note(f"{reading.path} is read as {form.words}{why}")
    return form


def _require(form: Format, reading: Reading, where: str, row: dict[str, object]) -> None:
    """UserError unless the first row has what the named format is known by."""
    if reading.columns and any(name in form.columns for name in reading.columns):
        return  # renamed columns are looked for where they are renamed
    for name in form.columns:
        if name not in row:
            hint = nearest(name, row) or f" (it has {listed_names(row)})"
            raise UserError(f"{where} is not {form.words}: no field {name!r}{hint}")
    if not form.fits(row):
        raise UserError(f"{where} is not {form.words}: its fields have another form")
