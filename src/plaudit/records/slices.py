"""A file's rows some at a time, so that a file larger than memory can be read.

The rows, their origin and what is refused are those of `rows.read_rows`: where a slice cannot be
read, the file is read whole, and the refusal is worded there. Of JSON lines, JSON lists, Parquet
and CSV one slice is in memory; a TSV file is read whole, since a quote in it may mean itself.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from plaudit.records import rows as whole
from plaudit.records.delimited import parse_delimited
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, Rows

ROWS = 1000
"""How many rows are read at once."""
_BLOCK = 1 << 20
"""Characters of a JSON list, or of CSV, that are looked at together."""


def row_slices(path: str | Path, *, size: int | None = None) -> Iterator[Rows]:
    """Slices of at most `size` (`ROWS`) rows (CSV: of about a megabyte), none of them empty.

    Errors: those of `read_rows`.
    """
    file = Path(path)
    kind = whole.file_ending(file)
    if kind is None or not file.is_file():
        whole.read_rows(file)  # says what is wrong with the name
        raise AssertionError("unreachable")
    read = _READERS[kind.removesuffix(".gz")]
    found = False
    for rows in read(file, kind, size or ROWS):
        found = found or bool(rows)
        if rows:
            yield rows
    if not found:
        raise UserError(f"{file} holds no rows")


def sniffed_ending(path: str | Path) -> str:
    """The ending that a file without one should have, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    packed = head.startswith(b"\x1f\x8b")
    if packed:
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 1 << 16)
        except zlib.error:
            head = b""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if head.startswith(b"PAR1"):
        return ".parquet"
    return {b"{": ".jsonl", b"[": ".json"}.get(start, ".csv") + (".gz" if packed else "")


# --- by type -----------------------------------------------------------------------------------


def _jsonl(path: Path, ending: str, size: int) -> Iterator[Rows]:
    rows: list[Row] = []
    numbers: list[int] = []
    with _opened(path, ending) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            rows.append(whole.json_object(line.removesuffix(b"\n"), f"{path}, line {number}"))
            numbers.append(number)
            if len(rows) == size:
                yield Rows(rows, str(path), "line", numbers)
                rows, numbers = [], []
    yield Rows(rows, str(path), "line", numbers)


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as gzip ({error})") from None


def _json(path: Path, ending: str, size: int) -> Iterator[Rows]:
    """The objects of a list, each decoded as soon as it is there."""
    rows: list[Row] = []
    number = 1
    try:
        for value in _listed(path, ending):
            if not isinstance(value, dict):
                raise ValueError
            rows.append(value)
            if len(rows) == size:
                yield Rows(rows, str(path), "entry", range(number, number + size))
                rows, number = [], number + size
    except (ValueError, OSError, EOFError, zlib.error, RecursionError):
        whole.read_rows(path)
        raise UserError(f"{path} cannot be read as a list of objects") from None
    yield Rows(rows, str(path), "entry", range(number, number + len(rows)))


def _listed(path: Path, ending: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(parse_constant=whole.not_json, object_pairs_hook=whole.unique_object)
    with _opened(path, ending) as raw, io.TextIOWrapper(raw, "utf-8-sig") as file:
        text, at, block = "", 0, _BLOCK
        more = True

        def skip(letters: str) -> str:
            """The next letter that is none of these, where there is one."""
            nonlocal text, at, more
            while True:
                while at < len(text) and text[at] in letters:
                    at += 1
                if at < len(text) or not more:
                    return text[at : at + 1]
                text, at = file.read(block), 0
                more = bool(text)

        if skip(" \t\r\n") != "[":
            raise ValueError
        at += 1
        if skip(" \t\r\n") == "]":
            return
        while True:
            skip(" \t\r\n")
            try:
                value, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                if not more:
                    raise
                added = file.read(block)
                more, block = bool(added), block * 2  # of one long object no part is read often
                text, at = text[at:] + added, 0
                continue
            yield value
            at, block = end, _BLOCK
            letter = skip(" \t\r\n")
            at += 1
            if letter == "]":
                if skip(" \t\r\n"):
                    raise ValueError
                return
            if letter != ",":
                raise ValueError


def _csv(path: Path, ending: str, size: int) -> Iterator[Rows]:
    try:
        yield from _csv_slices(path, ending)
    except (UserError, UnicodeDecodeError, OSError, EOFError, zlib.error):
        whole.read_rows(path)
        raise


def _csv_slices(path: Path, ending: str) -> Iterator[Rows]:
    """Records end where a line ends and the quotes before it are even in number."""
    header: str | None = None
    text, quotes, first = "", 0, 1
    with (
        _opened(path, ending) as raw,
        io.TextIOWrapper(raw, "utf-8-sig", newline="") as file,
    ):
        for line in file:
            text += line
            quotes += line.count('"')
            if quotes % 2 or not line.endswith(("\n", "\r")):
                continue
            if header is None and text.strip():
                header, text, first = text, "", first + _breaks(text)
            elif len(text) >= _BLOCK:
                yield _records(path, header or "", text, first)
                first, text = first + _breaks(text), ""
        if text.strip():
            yield _records(path, header or "", text, first)


def _records(path: Path, header: str, text: str, first: int) -> Rows:
    rows, lines = parse_delimited(header + text, ",", str(path))
    shift = first - 1 - _breaks(header)
    return Rows(rows, str(path), "line", [line + shift for line in lines], only_texts=True)


def _breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _tsv(path: Path, ending: str, size: int) -> Iterator[Rows]:
    rows = whole.read_rows(path)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield Rows(rows[part], rows.source, rows.unit, rows.numbers[part], only_texts=True)


def _parquet(path: Path, ending: str, size: int) -> Iterator[Rows]:
    pyarrow, parquet = whole.pyarrow_for(path)
    first = 1
    try:
        with _opened(path, ending) as raw, parquet.ParquetFile(raw) as file:
            for batch in file.iter_batches(batch_size=size):
                rows = whole.rows_of_table(batch, path)
                yield Rows(rows, str(path), "row", range(first, first + len(rows)))
                first += len(rows)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet ({reason})") from None


@contextmanager
def _opened(path: Path, ending: str) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        if not ending.endswith(".gz"):
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(IO[bytes], unpacked)


_READERS: dict[str, Callable[[Path, str, int], Iterator[Rows]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
