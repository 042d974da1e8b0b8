"""The files that a job reads: renamed, recognised, checked, and turned into prompts at the start.

A rename (`--columns prompt=question`) holds for every file of the job that has the old name.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plaudit.records.datasets import as_kind, named_rows
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import Rows
from plaudit.records.turns import answer_text
from plaudit.records.types import Prompt

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec


@dataclass(frozen=True)
class Source:
    """A file's rows, renamed, checked and clean, and the renames that it needed.

    `rows.notes` are sentences for the user: the format that was recognised, columns left out.
    """

    rows: Rows
    renames: dict[str, str]


def read_sources(
    files: Mapping[str, tuple[str, str]], columns: Mapping[str, str]
) -> dict[str, Source]:
    """The rows of each file; `files` maps what it is for to (path, kind of data as in `KINDS`).

    Raises UserError for a rename whose old name is in none of the files.
    """
    raw = {use: named_rows(path, (kind,)) for use, (path, kind) in files.items()}
    found = {use: {name for row in rows for name in row} for use, rows in raw.items()}
    for new, old in columns.items():
        if not any(old in names for names in found.values()):
            names = [name for rows in raw.values() for name in rows[0]]
            paths = " or ".join(dict.fromkeys(path for path, _ in files.values()))
            raise UserError(
                f"--columns {new}={old}: there is no column {old!r} in {paths}{nearest(old, names)}"
            )
    sources = {}
    for use, (_, kind) in files.items():
        renames = {new: old for new, old in columns.items() if old in found[use]}
        rows, _ = as_kind(raw[use], columns=renames, kinds=(kind,))
        sources[use] = Source(rows, renames)
    return sources


def require_kept(rows: Rows, function: Callable[..., Any], *, name: str) -> None:
    """UserError where a reward takes a column that the file has, but that had to be left out."""
    try:
        wanted = inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins may hide theirs
        return
    for column, reason in rows.left_out.items():
        if column in wanted:
            raise UserError(f"{name} takes the column {column!r}, but {reason}")


def prompts_of(rows: Rows, codec: TextCodec, *, max_new_tokens: int) -> list[Prompt]:
    """Every row's prompt with its other columns; UserError where an answer would not fit."""
    prompts: list[Prompt] = []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            extra = {name: value for name, value in row.items() if name != "prompt"}
            prompts.append(codec.prompt(row["prompt"], extra))
            codec.fits(prompts[-1], max_new_tokens)
    return prompts


def examples_of(rows: Rows, codec: TextCodec) -> list[tuple[Prompt, tuple[int, ...]]]:
    """Every row's prompt with the token ids of its completion."""
    examples: list[tuple[Prompt, tuple[int, ...]]] = []
    for i, row in enumerate(rows):
        with at_row(rows, i):
            prompt = codec.prompt(row["prompt"])
            words = answer_text(row["completion"])
            ids = codec.completion_ids(prompt, words)
            codec.require_closed(prompt, words)
            codec.fits(prompt, len(ids))
            examples.append((prompt, ids))
    return examples


@contextlib.contextmanager
def at_row(rows: Rows, index: int) -> Iterator[None]:
    """Says in which file and line a text cannot be used."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{rows.where(index)}: {error}") from error
