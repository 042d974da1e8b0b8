"""Files that are either the old one or the new one, whole, whatever kills the process.

Text and JSON are written to a temporary name in the same folder, flushed to the disk and renamed.
Lines of a log are appended and flushed one by one; a torn last line is dropped by the reader.
All are UTF-8. Half a surrogate pair, which UTF-8 lacks (a file's name that is not UTF-8 holds some),
is written as \\udc80: in JSON that reads back equal.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from plaudit.records.errors import UserError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that mean: the disk, the quota or the file size limit is full."""

ESCAPED = "backslashreplace"
"""How UTF-8 is written: only halves of surrogate pairs cannot be encoded."""


@contextlib.contextmanager
def saying_no_room(path: Path, kept: str = "") -> Iterator[None]:
    """Turns "no space left" into a sentence; `kept` says what is still whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(f"no room to write {path} ({os.strerror(error.errno)}){kept}") from error


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once all is written and safe.

    On failure the old file stays and nothing is left.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with saying_no_room(path), os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; on failure the old file stays and nothing is left."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", ESCAPED))


def read_text(path: Path) -> str:
    """The text of a file that a user gave; UserError with the line where it is not UTF-8.

    A byte order mark at its beginning is left out.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return utf8(data, str(path))


def utf8(data: bytes, where: str) -> str:
    """`data` as text; UserError naming `where`, the line and the byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise UserError(
            f"{where}, line {line}: byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON that reads back equal: keys must be text, floats keep every bit."""
    write_text(path, exact_json(value, indent=2) + "\n")


def exact_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text; raises TypeError where JSON would change the value (a key that is not text)."""
    _require_text_keys(value)
    return json.dumps(value, indent=indent, ensure_ascii=False)


def read_json(path: Path) -> Any:
    """The value in a JSON file; a damaged file is a UserError with its line."""
    try:
        return json.loads(utf8(path.read_bytes(), str(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error})") from error


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one line and flushes it; numbers that are not finite become null (JSON has none)."""
    line = json.dumps(_finite(row), ensure_ascii=False, allow_nan=False)
    with saying_no_room(path), path.open("ab") as file:
        file.write((line + "\n").encode("utf-8", ESCAPED))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log ([] when there is no file); a torn last line is left out.

    Raises UserError with file and line where any other line is not JSON.
    """
    if not path.exists():
        return []
    *lines, torn = path.read_bytes().split(b"\n")
    del torn  # what follows the last newline: empty, or half a line from a killed writer
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error})") from error
    return rows


def keep_lines(path: Path, keep: list[bool]) -> None:
    """Rewrites a log with only the whole lines marked in `keep`, and without a torn last line."""
    data = path.read_bytes()
    lines = data.split(b"\n")[:-1]
    assert len(lines) == len(keep)
    kept = b"".join(line + b"\n" for line, keeping in zip(lines, keep, strict=True) if keeping)
    if kept != data:
        write_text(path, kept.decode("utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _require_text_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"JSON would turn the key {key!r} into text; use text keys")
            _require_text_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_text_keys(item)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
