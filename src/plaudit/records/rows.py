"""Rows in files: reading JSON lines, JSON lists, CSV, TSV (each also .gz) and Parquet, and writing.

A row is a dict. What the columns mean is in `columns.py`. Errors name the file and the line (the
entry of a JSON list, the row of a Parquet table). Writers replace a file whole or not at all.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.records.delimited import parse_delimited
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import replacing, write_text

Row = dict[str, Any]
_SHOWN_NAMES = 8  # how many column names an error lists


class Rows(list[Row]):
    """Rows with their origin: `where(i)` names row i as the user would find it in the file.

    `notes` are sentences on how they were read; `left_out` says of a column that is not among them
    why; `only_texts` is true where the file knows no numbers, only texts that look like numbers.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        source: str,
        unit: str,
        numbers: Sequence[int],
        *,
        only_texts: bool = False,
    ) -> None:
        super().__init__(rows)
        self.source = source
        self.unit = unit
        self.numbers = numbers
        self.only_texts = only_texts
        self.notes: tuple[str, ...] = ()
        self.left_out: dict[str, str] = {}

    def where(self, index: int) -> str:
        return f"{self.source}, {self.unit} {self.numbers[index]}"

    def having(
        self, rows: Iterable[Row], *, note: str | None = None, numbers: Sequence[int] | None = None
    ) -> Rows:
        """Other rows of the same origin, with one more note."""
        numbers = self.numbers if numbers is None else numbers
        made = Rows(rows, self.source, self.unit, numbers, only_texts=self.only_texts)
        made.notes = self.notes if note is None else (*self.notes, note)
        made.left_out = dict(self.left_out)
        return made


@dataclass(frozen=True)
class Unreadable:
    """A value that Python cannot hold; whoever needs its column refuses it by this name."""

    reason: str

    def __repr__(self) -> str:
        return self.reason


def read_rows(source: Any) -> Rows:
    """All rows of a dataset: a path of a type in `_READERS`, a list of dicts, or a dataset.

    A dataset is anything with `column_names` whose iteration gives dicts, as `datasets.Dataset`."""
    rows = _read(source)
    if not rows:
        raise UserError(f"{rows.source} holds no rows")
    return rows


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, in UTF-8; the file is replaced whole or not at all."""
    target = writable_file(path)
    lines = [json_line(row, f"{target}, line {n}") for n, row in enumerate(rows, start=1)]
    write_text(target, "".join(lines))


def write_parquet(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A Parquet table with the columns of the rows; the file is replaced whole or not at all.

    Errors: rows with different columns, which Arrow would fill with nulls; a column of mixed types.
    """
    target = writable_file(path)
    pyarrow, parquet = pyarrow_for(target)
    wanted = [dict(row) for row in rows]
    for number, row in enumerate(wanted, start=1):
        if row.keys() != wanted[0].keys():
            name = sorted(row.keys() ^ wanted[0].keys())[0]
            raise UserError(f"{target}: rows 1 and {number} differ in having a column {name!r}")
    try:
        table = pyarrow.Table.from_pylist(wanted)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise UserError(f"{target}: a column mixes types, write .jsonl instead ({error})") from None
    with replacing(target) as file:
        parquet.write_table(table, file)


def listed_names(names: Iterable[str]) -> str:
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _SHOWN_NAMES} more" if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(listed[:_SHOWN_NAMES]) + more


def brief(value: Any) -> str:
    if value is None:
        return "null"
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return f"{shown} ({type(value).__name__})"


# --- reading -------------------------------------------------------------------------------


def _read(source: Any) -> Rows:
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source))
    if isinstance(source, Rows):
        return source
    names = getattr(source, "column_names", None)
    if isinstance(names, Mapping):
        raise UserError(
            f"the dataset has splits {listed_names(names)}; give one, as dataset['train']"
        )
    if names is None and not isinstance(source, Sequence):
        raise UserError(
            f"a dataset is a path, a list of dicts or a datasets.Dataset, got "
            f"{type(source).__name__}"
        )
    return _from_values(list(source), "the dataset", "row")


def file_stem(path: str | Path) -> str:
    """A file's name without the endings that say its type: votes.jsonl.gz gives votes."""
    ending = file_ending(Path(path))
    return Path(path).name[: -len(ending)] if ending else Path(path).stem


def file_ending(path: Path) -> str | None:
    """What of the name says the type, such as .csv.gz; None where no type is known."""
    name = path.name.lower()
    return next((ending for ending in _READERS if name.endswith(ending)), None)


def _read_file(path: Path) -> Rows:
    known = ".jsonl, .json, .csv, .tsv (each also with .gz), .parquet"
    if not path.exists():
        others = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        folder = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
        raise UserError(f"{path}: no such file{folder}{nearest(path.name, others)}")
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected one file of {known}")
    ending = file_ending(path)
    if ending is None:
        kind = "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
        raise UserError(
            f"{path}: files of type {kind or 'none'!r} cannot be read, expected one of {known}"
        )
    return _READERS[ending](path)


def _read_jsonl(path: Path) -> Rows:
    rows, numbers = [], []
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        rows.append(json_object(line, f"{path}, line {number}"))
        numbers.append(number)
    return Rows(rows, str(path), "line", numbers)


def json_object(line: bytes, where: str) -> Row:
    """The object on a line of JSON; `where` names it in refusals."""
    row = _parse(line, where)
    if not isinstance(row, dict):
        raise UserError(f"{where} is {brief(row)}, expected an object such as {{...}}")
    return row


def _read_json(path: Path) -> Rows:
    value = _parse(_bytes(path), str(path))
    if isinstance(value, dict):
        lists = [name for name, inner in value.items() if isinstance(inner, list)]
        hint = f"; save the list under {lists[0]!r} as a file of its own" if lists else ""
        raise UserError(
            f"{path} holds one object ({listed_names(value) or 'empty'}), expected a list of "
            f"objects: [{{...}}, ...]{hint}"
        )
    if not isinstance(value, list):
        raise UserError(f"{path} holds {brief(value)}, expected a list of objects: [{{...}}, ...]")
    return _from_values(value, str(path), "entry")


def _read_delimited(separator: str) -> Callable[[Path], Rows]:
    def read(path: Path) -> Rows:
        data = _bytes(path)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UserError(f"{path}, line {line} is not UTF-8 text{_encoding(data)}") from None
        rows, lines = parse_delimited(text, separator, str(path))
        return Rows(rows, str(path), "line", lines, only_texts=True)

    return read


def _read_parquet(path: Path) -> Rows:
    pyarrow, parquet = pyarrow_for(path)
    try:
        table = parquet.read_table(io.BytesIO(_bytes(path)))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet ({reason})") from None
    rows = rows_of_table(table, path)
    return Rows(rows, str(path), "row", range(1, len(rows) + 1))


def rows_of_table(table: Any, path: Path) -> list[Row]:
    """The rows of an Arrow table, or of a part of one."""
    names = table.schema.names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}: there are two columns {twice[0]!r}")
    columns = [_values(table.column(name)) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    """A column's values; where Python has no value (a year 20,000), one that says so."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError, NotImplementedError):  # ArrowInvalid is a ValueError
        return [Unreadable(f"a value of type {column.type}")] * len(column)


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_delimited(","),
    ".tsv": _read_delimited("\t"),
    ".parquet": _read_parquet,
}
_READERS |= {f"{end}.gz": read for end, read in _READERS.items() if end != ".parquet"}


def _from_values(values: list[Any], source: str, unit: str) -> Rows:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, Mapping):
            raise UserError(f"{source}, {unit} {number} is {brief(value)}, expected an object")
    rows = (dict(value) for value in values)
    return Rows(rows, source, unit, range(1, len(values) + 1))


def _bytes(path: Path) -> bytes:
    """A file's bytes, unpacked where the name ends in .gz, without a byte order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} cannot be read as gzip ({error})") from None
    return data.removeprefix(b"\xef\xbb\xbf")


def _encoding(data: bytes) -> str:
    """What a file is that is not text, where its first bytes say it."""
    if data.startswith(b"\x1f\x8b"):
        return ": it is packed by gzip; let its name end in .gz"
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return ": it is UTF-16; save it as UTF-8" if utf16 else ""


def _parse(data: bytes, where: str) -> Any:
    try:
        text = data.decode("utf-8")
        return json.loads(text, parse_constant=not_json, object_pairs_hook=unique_object)
    except UnicodeDecodeError as error:
        hint = _encoding(data)
        raise UserError(f"{where}: byte {error.start + 1} is not UTF-8 text{hint}") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        hint = "; is it JSON lines? then name it .jsonl" if error.msg == "Extra data" else ""
        raise UserError(f"{where}: broken JSON at {place}: {error.msg}{hint}") from None
    except RecursionError:
        raise UserError(f"{where}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def not_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not a finite number")


def unique_object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return row


# --- writing -------------------------------------------------------------------------------


def json_line(row: Mapping[str, Any], where: str) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line.encode()
    except UnicodeEncodeError:  # half a surrogate pair, from a byte-level model: keep it escaped
        line = json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} cannot be written as JSON: {error}") from None
    return line + "\n"


def writable_file(path: str | Path) -> Path:
    target = Path(path)
    if not target.parent.is_dir():
        raise UserError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected the name of a file")
    return target


def pyarrow_for(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(f"{path}: Parquet needs the package pyarrow: pip install pyarrow") from None
    return pyarrow, parquet
