"""The columns of a dataset: renaming them, knowing by them what kind of data it is, checking.

Kinds are known by their columns, as the field names them (`KINDS`); extra columns pass through and
reach reward functions. Every row must have the same columns: nothing is filled in. Files are read
and written in `rows.py`. Errors name the file, the line (row, in Parquet) and the column.
"""

from __future__ import annotations

import math
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
    "Row",
    "Rows",
    "check_rows",
    "data_kind",
    "parse_renames",
    "read_dataset",
    "read_rows",
    "rename_columns",
    "require_columns",
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
"""Kind of data and the columns it needs; the first that fits is taken. `margin` is optional."""

KNOWN_COLUMNS = (*dict.fromkeys(name for names in KINDS.values() for name in names), "margin")


def read_dataset(
    source: Any, *, columns: Mapping[str, str] | None = None, kinds: Sequence[str] = ()
) -> tuple[Rows, str]:
    """Rows that are checked, and their kind (a name in `KINDS`).

    `columns` maps a new name to the name in the file.
    Where `kinds` are given, the data must be one of them: the first whose columns are all there.
    """
    rows = read_rows(source)
    if columns:
        rows = rename_columns(rows, columns)
    kind = data_kind(rows, kinds=kinds)
    check_rows(rows, kind)
    return rows, kind


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
    """The rows with column `old` called `new`, for every (new, old) of `columns`."""
    out = []
    for index, row in enumerate(rows):
        for new, old in columns.items():
            if old not in row:
                hint = nearest(old, row) or f"; columns are {listed_names(row)}"
                raise UserError(f"{rows.where(index)}: --columns {new}={old}: no {old!r}{hint}")
            if new in row and new not in columns.values():
                raise UserError(
                    f"{rows.where(index)}: --columns {new}={old}: there is a column {new!r} "
                    f"already; rename it too (--columns other={new})"
                )
        kept = {name: value for name, value in row.items() if name not in columns.values()}
        out.append({new: row[old] for new, old in columns.items()} | kept)
    return Rows(out, rows.source, rows.unit, rows.numbers)


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


def check_rows(rows: Sequence[Row], kind: str, path: str | Path | None = None) -> None:
    """UserError unless every value of the kind's columns is of the right type and not empty."""
    known = _with_origin(rows, path)
    names = (*KINDS[kind], *(("margin",) if rows and "margin" in rows[0] else ()))
    require_columns(known, names)
    first = set(known[0]) if known else set()
    for index, row in enumerate(known):
        if row.keys() != first:
            name = sorted(first.symmetric_difference(row))[0]
            here, there = ("has no", "has") if name in first else ("has a", "has not")
            raise UserError(
                f"{known.where(index)} {here} column {name!r}, which {known.unit} "
                f"{known.numbers[0]} {there}; give it in every row (null will do) or in none"
            )
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
}


def _with_origin(rows: Sequence[Row], path: str | Path | None) -> Rows:
    if isinstance(rows, Rows) and path is None:
        return rows
    if isinstance(rows, Rows):
        return Rows(rows, str(path), rows.unit, rows.numbers)
    return Rows(rows, str(path or "the dataset"), "row", range(1, len(rows) + 1))


def _missing_column(rows: Rows, index: int, name: str) -> None:
    row = rows[index]
    free = [other for other in row if other not in KNOWN_COLUMNS]
    hint = nearest(name, free) or (
        f" (columns are {listed_names(row)})" if row else " (it is empty)"
    )
    old = hint.split("'")[1] if hint.startswith(" (did you mean") else "OLD"
    raise UserError(
        f"{rows.where(index)}: no column {name!r}{hint}; rename with --columns {name}={old}"
    )
