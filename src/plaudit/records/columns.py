"""The columns of a dataset: renaming them, knowing by them what kind of data it is, checking.

Kinds are known by their columns, as the field names them (`KINDS`). Columns that a kind uses must be
in every row: nothing is filled in; what becomes of others is said in `datasets.py`. Files are read
and written in `rows.py`. Errors name the file, the line (row, in Parquet) and the column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import (
    Row,
    Rows,
    brief,
    listed_names,
    read_rows,
    write_jsonl,
    write_parquet,
)

__all__ = [
    "KINDS",
    "KNOWN_COLUMNS",
    "OPTIONAL",
    "Row",
    "Rows",
    "check_rows",
    "data_kind",
    "parse_number",
    "parse_renames",
    "read_rows",
    "rename_columns",
    "require_columns",
    "used_columns",
    "write_jsonl",
    "write_parquet",
]

KINDS: dict[str, tuple[str, ...]] = {
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "labelled": ("prompt", "completions", "labels"),
    "scored": ("prompt", "completions", "scores"),
    "prompt-completion": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
    "prompt": ("prompt",),
}
"""Kind of data and the columns it needs; the first that fits is taken."""

OPTIONAL: dict[str, tuple[str, ...]] = {
    "preference": ("margin", "rater"),
    "unpaired": ("rater",),
    "scored": ("rater",),
}
"""Columns that a kind uses where the file has them; then every row must."""

KNOWN_COLUMNS = (*dict.fromkeys(name for names in KINDS.values() for name in names), "margin")


def parse_renames(pairs: Iterable[str]) -> dict[str, str]:
    """`--columns chosen=good` as {"chosen": "good"}."""
    renames: dict[str, str] = {}
    for pair in pairs:
        new, equals, old = pair.partition("=")
        if not (new and equals and old):
            raise UserError(f"--columns {pair}: expected NEW=OLD, such as chosen=good")
        if new in renames:
            raise UserError(f"--columns names {new!r} twice ({renames[new]!r} and {old!r})")
        renames[new] = old
    return renames


def rename_columns(rows: Rows, columns: Mapping[str, str]) -> Rows:
    """The rows with column `old` called `new`, for every (new, old) of `columns`.

    A column that is renamed to be out of the way, to a name that no kind uses, may be absent.
    """
    optional = {name for names in OPTIONAL.values() for name in names}
    found = {name for row in rows for name in row}
    out = []
    for index, row in enumerate(rows):
        for new, old in columns.items():
            if old not in row and (new in {*KNOWN_COLUMNS, *optional} or old not in found):
                hint = nearest(old, row) or f"; columns are {listed_names(row)}"
                raise UserError(f"{rows.where(index)}: --columns {new}={old}: no {old!r}{hint}")
            if new in row and new not in columns.values():
                raise UserError(
                    f"{rows.where(index)}: --columns {new}={old}: there is a column {new!r} "
                    f"already; rename it too (--columns other={new})"
                )
        kept = {name: value for name, value in row.items() if name not in columns.values()}
        out.append({new: row[old] for new, old in columns.items() if old in row} | kept)
    return rows.having(out)


def data_kind(rows: Rows, *, kinds: Sequence[str] = ()) -> str:
    """The kind whose columns the first row has; UserError names what is nearest to fitting."""
    have = rows[0]
    wanted = {kind: KINDS[kind] for kind in kinds} if kinds else KINDS
    for kind, names in wanted.items():
        if all(name in have for name in names):
            return kind
    missing = {kind: [n for n in names if n not in have] for kind, names in wanted.items()}
    closest = min(missing, key=lambda kind: (len(missing[kind]), -len(wanted[kind])))
    if len(wanted) > 1 and len(missing[closest]) == len(wanted[closest]):
        shapes = "; ".join(", ".join(names) for names in wanted.values())
        raise UserError(
            f"{rows.where(0)}: columns {listed_names(have)} are no kind of data; expected one of: "
            f"{shapes} (rename with --columns new=old)"
        )
    _missing_column(rows, 0, missing[closest][0])
    raise AssertionError("unreachable")


def require_columns(
    rows: Sequence[Row], names: Iterable[str], path: str | Path | None = None
) -> None:
    """UserError unless every row has the columns `names`, and none of them is null."""
    known = _with_origin(rows, path)
    for index, row in enumerate(known):
        for name in names:
            if name not in row:
                _missing_column(known, index, name)
            if row[name] is None:
                raise UserError(f"{known.where(index)}: {name!r} is null, expected a value")


def used_columns(rows: Sequence[Row], kind: str) -> tuple[str, ...]:
    """The columns that data of this kind uses, with the optional ones that a row has."""
    optional = [name for name in OPTIONAL.get(kind, ()) if any(name in row for row in rows)]
    return (*KINDS[kind], *optional)


def check_rows(rows: Sequence[Row], kind: str, path: str | Path | None = None) -> None:
    """UserError unless every value of the kind's columns is of the right type and not empty."""
    known = _with_origin(rows, path)
    names = used_columns(known, kind)
    for name in names[len(KINDS[kind]) :]:
        _require_everywhere(known, name)
    require_columns(known, names)
    for index, row in enumerate(known):
        for name in names:
            problem = _CHECKS[name](row[name])
            if problem:
                raise UserError(f"{known.where(index)}: {name!r} {problem}")
        for other in ("labels", "scores"):
            if other in names and len(row[other]) != len(row["completions"]):
                raise UserError(
                    f"{known.where(index)}: {len(row['completions'])} completions but "
                    f"{len(row[other])} {other}; expected one for each"
                )


def _require_everywhere(rows: Rows, name: str) -> None:
    """UserError where only some rows have an optional column."""
    for index, row in enumerate(rows):
        if (name in row) != (name in rows[0]):
            here, there = ("has no", "has") if name in rows[0] else ("has a", "has not")
            raise UserError(
                f"{rows.where(index)} {here} column {name!r}, which {rows.unit} "
                f"{rows.numbers[0]} {there}; give it in every row or in none"
            )


# --- checking ------------------------------------------------------------------------------


def _text_problem(value: Any) -> str | None:
    """Why `value` is neither text nor a list of role/content messages, or None."""
    if isinstance(value, str):
        return None
    if not isinstance(value, list | tuple):
        return f"is {brief(value)}, expected a text or a list of messages"
    if not value:
        return "is an empty list, expected at least one message"
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            return f"message {number} is {brief(message)}, expected an object with role, content"
        for part in ("role", "content"):
            if not isinstance(message.get(part), str):
                found = brief(message[part]) if part in message else "missing"
                return f"message {number}: {part!r} is {found}, expected a text"
        if not message["role"].strip():
            return f"message {number}: 'role' is empty"
    return None


def _filled_text_problem(value: Any) -> str | None:
    return "is empty" if isinstance(value, str) and not value.strip() else _text_problem(value)


def _messages_problem(value: Any) -> str | None:
    if isinstance(value, str):
        return "is a text, expected a list of messages (a plain text goes in the column 'text')"
    return _text_problem(value)


def _completions_problem(value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not value:
        return f"is {brief(value)}, expected a list of texts"
    for number, completion in enumerate(value, start=1):
        problem = _text_problem(completion)
        if problem:
            return f"{number} {problem}"
    return None


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_number(text: str) -> int | float | None:
    """The number that a text is, written as JSON or a spreadsheet writes one; else None."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    return int(text) if text.strip().lstrip("+-").isdigit() else float(text)


def _name_problem(value: Any) -> str | None:
    fine = isinstance(value, str) and bool(value.strip())
    return None if fine else f"is {brief(value)}, expected a text that is not empty"


def _label_problem(value: Any) -> str | None:
    # 1 and 0 are labels, 1.0 is a score that lost its way
    fine = isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    return None if fine else f"is {brief(value)}, expected true or false (or 1 or 0)"


def _number_problem(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {brief(value)}, expected a number"
    return None if math.isfinite(value) else f"is {value}, expected a finite number"


def _each(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    def problem_of(value: Any) -> str | None:
        if not isinstance(value, list | tuple):
            return f"is {brief(value)}, expected a list"
        problems = (check(element) for element in value)
        found = ((n, problem) for n, problem in enumerate(problems, start=1) if problem)
        return next((f"{n} {problem}" for n, problem in found), None)

    return problem_of


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "text": _filled_text_problem,
    "messages": _messages_problem,
    "prompt": _filled_text_problem,
    "completion": _text_problem,
    "chosen": _text_problem,
    "rejected": _text_problem,
    "completions": _completions_problem,
    "label": _label_problem,
    "labels": _each(_label_problem),
    "scores": _each(_number_problem),
    "margin": _number_problem,
    "rater": _name_problem,
}


def _with_origin(rows: Sequence[Row], path: str | Path | None) -> Rows:
    if isinstance(rows, Rows) and path is None:
        return rows
    if isinstance(rows, Rows):
        return Rows(rows, str(path), rows.unit, rows.numbers)
    return Rows(rows, str(path or "the dataset"), "row", range(1, len(rows) + 1))


def _missing_column(rows: Rows, index: int, name: str) -> None:
    """Says that a column is missing, and which one could be renamed to it, if any could.

    Where other rows have it the fault is this row's own, and no rename would mend it.
    """
    row = rows[index]
    free = [other for other in row if other not in KNOWN_COLUMNS]
    near = nearest(name, free)
    said = f"{rows.where(index)}: no column {name!r}"
    having = next((number for number, other in enumerate(rows) if name in other), None)
    if having is not None:
        own = near or (f" (columns are {listed_names(row)})" if row else " (it is empty)")
        there = f"{rows.unit} {rows.numbers[having]}"
        raise UserError(f"{said}{own}; {there} has it, so give it here too, or leave this out")
    if near:
        old = near.split("'")[1]
        raise UserError(f"{said}{near}; rename with --columns {name}={old}")
    if not row:
        raise UserError(f"{said} (it is empty)")
    said += f" (columns are {listed_names(row)})"
    could = [other for other in free if not _CHECKS[name](row[other])]
    if not could:
        raise UserError(f"{said}, and no other column could be it")
    one = could[0] if len(could) == 1 else "THAT"
    raise UserError(
        f"{said}; if {' or '.join(map(repr, could[:3]))} is it, rename with --columns {name}={one}"
    )
