"""Rows written one at a time: JSON lines, a JSON list, CSV for spreadsheets (each also .gz), Parquet.

The file is replaced whole or not at all, and not made where there is no row. In CSV a text that a
spreadsheet would take for a formula begins with an apostrophe, which `without_apostrophe` takes off
again; lists and objects are JSON. Columns of CSV and Parquet are those of the first row, and every
row must have them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from plaudit.records.errors import UserError
from plaudit.records.files import replacing
from plaudit.records.rows import Row, json_line, pyarrow_for, writable_file

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
_SLICE = 1000
"""Rows that Arrow is given together; a row group of Parquet."""
_FORMULA = re.compile(r"['=+\-@\t\r\n＝＋－＠]")
"""How a cell begins that a spreadsheet may run, or that is marked already (ASVS 5.0, 1.2.10)."""


def check_ending(path: str | Path, endings: Iterable[str] = ENDINGS) -> str:
    """The ending of a file to be written; UserError where it is none of these."""
    allowed = tuple(endings)
    name = Path(path).name.lower()
    found = next((end for end in allowed if name.endswith(end)), None)
    if found is None:
        raise UserError(f"{path}: its name must end in {' or '.join(allowed)}")
    return found


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as the ending of `path` says; how many they were."""
    target = writable_file(path)
    ending = check_ending(target)
    first = list(islice(iterator := iter(rows), 1))
    if not first:
        return 0
    every = _counting(first, iterator)
    write = _WRITERS[ending.removesuffix(".gz")]
    with replacing(target) as file:
        if ending.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                write(packed, every, target)
        else:
            write(file, every, target)
    return every.num


def defused(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one apostrophe more where it could."""
    return f"'{text}" if _FORMULA.match(text) else text


def without_apostrophe(text: str) -> str:
    """What `defused` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


class _counting:
    def __init__(self, first: Iterable[Mapping[str, Any]], rest: Iterator[Mapping[str, Any]]):
        self.first, self.rest, self.num = first, rest, 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for part in (self.first, self.rest):
            for row in part:
                self.num += 1
                yield row


# --- by type -----------------------------------------------------------------------------------


def _jsonl(file: Any, rows: Iterable[Mapping[str, Any]], target: Path) -> None:
    for number, row in enumerate(rows, start=1):
        file.write(json_line(row, f"{target}, line {number}").encode())


def _json(file: Any, rows: Iterable[Mapping[str, Any]], target: Path) -> None:
    between = b"["
    for number, row in enumerate(rows, start=1):
        file.write(between + json_line(row, f"{target}, entry {number}").rstrip("\n").encode())
        between = b",\n "
    file.write(b"]\n")


def _csv(file: Any, rows: Iterable[Mapping[str, Any]], target: Path) -> None:
    text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
    writer: Any = None
    for number, row in enumerate(rows, start=1):
        if writer is None:
            writer = csv.DictWriter(text, list(row))
            writer.writeheader()
        if row.keys() != set(writer.fieldnames):
            raise UserError(f"{target}: row {number} has other columns than row 1")
        writer.writerow({name: _cell(value) for name, value in row.items()})
    text.flush()
    text.detach()  # the file stays open: it is made safe first


def _cell(value: Any) -> Any:
    """A value as a spreadsheet shows it; null is an empty cell."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return value
    return defused(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _parquet(file: Any, rows: Iterable[Mapping[str, Any]], target: Path) -> None:
    """Twice over the rows, from a file of their own: what types they have, then the table."""
    pyarrow, parquet = pyarrow_for(target)
    with tempfile.TemporaryFile(dir=target.parent) as kept:
        schema: Any = None
        names: Any = None
        for number, row in enumerate(rows, start=1):
            names = row.keys() if names is None else names
            if row.keys() != names:
                name = sorted(row.keys() ^ names)[0]
                raise UserError(f"{target}: rows 1 and {number} differ in having a column {name!r}")
            kept.write(json_line(row, f"{target}, row {number}").encode())
        try:
            for part in _slices(kept):
                seen = pyarrow.Table.from_pylist(part).schema
                schema = (
                    seen
                    if schema is None
                    else pyarrow.unify_schemas([schema, seen], promote_options="permissive")
                )
            with parquet.ParquetWriter(file, schema) as writer:
                for part in _slices(kept):
                    writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{target}: a column mixes types, write .jsonl instead ({reason})"
            ) from None


def _slices(kept: IO[bytes]) -> Iterator[list[Row]]:
    kept.seek(0)
    while part := [json.loads(line) for line in islice(kept, _SLICE)]:
        yield part


_WRITERS: dict[str, Callable[[Any, Iterable[Mapping[str, Any]], Path], None]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
