"""From a file to rows of one kind, clean: formats recognised, conversations cut, columns decided.

    rows → named columns → format → types → checks → prompt + answer → columns that stay

Columns that the kind does not use never stop a reading. One that JSON cannot hold (bytes, dates) is
left out; of prompts, whose other columns are handed to reward functions, so is one that only some
rows have, since nothing is filled in. Both are said once, in `Rows.notes` and `Rows.left_out`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plaudit.records.columns import (
    KINDS,
    check_rows,
    data_kind,
    parse_number,
    rename_columns,
    used_columns,
)
from plaudit.records.errors import UserError
from plaudit.records.formats import recognised
from plaudit.records.formats_annotation import label_studio_rows
from plaudit.records.rows import Row, Rows, brief, read_rows
from plaudit.records.turns import answer_after, answer_text, is_messages, require_prompt


def read_dataset(
    source: Any, *, columns: Mapping[str, str] | None = None, kinds: Sequence[str] = ()
) -> tuple[Rows, str]:
    """Rows that are checked and clean, and their kind (a name in `KINDS`).

    `columns` maps a new name to the name in the file.
    Where `kinds` are given, the data must be one of them: the first whose columns are all there.
    """
    return as_kind(named_rows(source, kinds), columns=columns, kinds=kinds)


def named_rows(source: Any, kinds: Sequence[str] = ()) -> Rows:
    """A file's rows with columns that can be renamed: an export of tasks is opened first."""
    rows = read_rows(source)
    return label_studio_rows(rows) if "preference" in kinds else rows


def as_kind(
    rows: Rows, *, columns: Mapping[str, str] | None = None, kinds: Sequence[str] = ()
) -> tuple[Rows, str]:
    """`read_dataset` for rows that have been read already."""
    if columns:
        rows = rename_columns(rows, columns)
    rows = recognised(_with_lists(rows), kinds)
    kind = data_kind(rows, kinds=kinds)
    rows = _with_types(rows, kind)
    check_rows(rows, kind)
    return _useful_columns(_without_prompts(rows, kind), kind), kind


# --- files that hold texts only (CSV) ------------------------------------------------------

_LISTS = ("messages", "conversations", "completions", "labels", "scores")
_TEXTS = ("prompt", "chosen", "rejected", "completion")
_PYTHON = re.compile(r"\[\s*\{\s*'\w+'\s*:")


def _with_lists(rows: Rows) -> Rows:
    """Rows in which JSON lists that were written as texts are lists again."""
    if not rows.only_texts:
        return rows
    return rows.having(
        {n: _list_of(v, n) if n in _LISTS + _TEXTS else v for n, v in row.items()} for row in rows
    )


def _list_of(text: Any, name: str) -> Any:
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    turns = is_messages(value, "role", "content") or is_messages(value, "from", "value")
    return value if name in _LISTS or turns else text


def _with_types(rows: Rows, kind: str) -> Rows:
    """Rows of texts with the numbers and truth values that the kind uses."""
    if not rows.only_texts:
        return rows
    names = used_columns(rows, kind)
    for index, row in enumerate(rows):
        for name in names:
            if isinstance(row[name], str) and _PYTHON.match(row[name].lstrip()):
                raise UserError(
                    f"{rows.where(index)}: {name!r} is a list as Python prints it, expected JSON "
                    f"(json.dumps) or a text"
                )
    parsers: dict[str, Callable[[str], Any]] = {"margin": parse_number, "label": _truth}
    wanted = {name: parsers[name] for name in names if name in parsers}
    return rows.having(
        row | {n: _parsed(row[n], parse) for n, parse in wanted.items()} for row in rows
    )


def _parsed(value: Any, parse: Callable[[str], Any]) -> Any:
    """What the text says; itself where it says nothing of the kind, for `check_rows` to refuse."""
    found = parse(value) if isinstance(value, str) else None
    return value if found is None else found


def _truth(text: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())


# --- conversations -------------------------------------------------------------------------


_WANTED = ("preference", "prompt-completion")
"""Kinds whose answers a model is trained on: an answer of nothing is never meant."""


def _require_words(answers: Row) -> None:
    for name, answer in answers.items():
        if not answer_text(answer).strip():
            raise UserError(f"{name!r} is empty, expected an answer")


def _without_prompts(rows: Rows, kind: str) -> Rows:
    """Rows whose answers do not repeat the prompt; UserError where one contradicts it."""
    answers = [name for name in ("chosen", "rejected", "completion") if name in KINDS[kind]]
    several = "completions" in KINDS[kind]
    if not answers and not several:
        return rows
    made, num_cut = [], 0
    for index, row in enumerate(rows):
        prompt = row["prompt"]
        try:
            if not isinstance(prompt, str):
                require_prompt(list(prompt), "'prompt'")
            clean: Row = {name: answer_after(prompt, row[name], name) for name in answers}
            if several:
                clean["completions"] = [
                    answer_after(prompt, text, f"completions {number}")
                    for number, text in enumerate(row["completions"], start=1)
                ]
            if kind in _WANTED:
                _require_words(clean)
        except UserError as error:
            raise UserError(f"{rows.where(index)}: {error}") from None
        num_cut += any(clean[name] != row[name] for name in clean)
        made.append(row | clean)
    whose = " and ".join(answers) or "completions"
    known = " (as in UltraFeedback binarized)" if kind == "preference" else ""
    note = (
        f"{rows.source}: {whose} are whole conversations in {num_cut} of {len(rows)} rows{known}; "
        "the turns of the prompt are left out of the answers"
    )
    return rows.having(made, note=note if num_cut else None)


# --- columns that the kind does not use ----------------------------------------------------


def _useful_columns(rows: Rows, kind: str) -> Rows:
    """Rows without the columns that cannot be kept, and with the notes that say so."""
    used = set(used_columns(rows, kind))
    reasons: dict[str, str] = {}
    notes = []
    for name in dict.fromkeys(name for row in rows for name in row if name not in used):
        reason = _why_not(rows, name)
        lacking = [index for index, row in enumerate(rows) if name not in row]
        if lacking and not reason:
            lacks = f"{rows.where(lacking[0])} and {len(lacking) - 1} more have"
            said = f"{lacks if len(lacking) > 1 else rows.where(lacking[0]) + ' has'} no {name!r}"
            if kind == "prompt":
                reason = f"{said}; give it in every row (null will do)"
            else:
                notes.append(f"column {name!r} is kept where it is: {said}")
        if reason:
            reasons[name] = reason
            notes.append(f"column {name!r} is left out: {reason}")
    if not notes:
        return rows
    made = rows.having({n: v for n, v in row.items() if n not in reasons} for row in rows)
    made.notes = (*made.notes, *notes)
    made.left_out |= reasons
    return made


def _why_not(rows: Rows, name: str) -> str | None:
    """Why a column cannot be kept as JSON, with the first row in which it cannot; or None."""
    for index, row in enumerate(rows):
        value: Any = row.get(name)
        if value is None or isinstance(value, str | bool | int):
            continue
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return f"in {rows.where(index)} it is {brief(value)}, which JSON cannot hold"
    return None
