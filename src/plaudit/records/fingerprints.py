"""What a run was made from: digests of its sources, and whether a resume finds them unchanged.

A digest is of content as it was read, so dates, places and blank lines do not count. Of rows each
has a digest of its own, so that the first one that differs can be named; of a large file of weights
the size, the header and even samples are read. Code that failed may be mended: see `mendable`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.records.errors import UserError
from plaudit.records.files import read_json
from plaudit.records.rows import Rows
from plaudit.records.runs import RunFolder

FILE = "sources.json"
"""Where a run folder keeps them."""

WHOLE = 16 * 2**20
"""Bytes up to which a file is read whole."""

NUM_SAMPLES, SAMPLE = 64, 16 * 2**10
"""Pieces of a larger file, evenly spread, and their bytes: training moves every piece."""

ROW_DIGITS = 8


@dataclass(frozen=True)
class Fingerprint:
    """One source: digests of files by their names below `folder`, or of rows in their order."""

    folder: str
    """Where the files lie; of rows, what they are called."""
    files: dict[str, str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    origin: Rows | None = None
    """The rows themselves, where they are at hand: they know their lines."""

    def same(self, other: Fingerprint) -> bool:
        """True where the content is the same, wherever it lies."""
        return (self.files, self.rows) == (other.files, other.rows)

    def as_json(self) -> dict[str, Any]:
        """What a run keeps of it."""
        return {"folder": self.folder, "files": self.files, "rows": " ".join(self.rows)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Fingerprint:
        """What `as_json` gave."""
        return cls(said["folder"], said["files"], said["rows"].split())


def of_rows(rows: Rows) -> Fingerprint:
    """Rows in their order, whatever their file's layout."""
    return Fingerprint(rows.source, rows=[_row_digest(row) for row in rows], origin=rows)


def of_files(folder: str | Path, names: Iterable[str]) -> Fingerprint:
    """The files of a folder that have these names; those that are not there have no digest."""
    found = {name: Path(folder, name) for name in sorted(names)}
    return Fingerprint(
        str(folder), {name: _file_digest(path) for name, path in found.items() if path.is_file()}
    )


def of_file(path: str | Path) -> Fingerprint:
    """One file."""
    return of_files(Path(path).parent, [Path(path).name])


def of_code(path: str | Path) -> Fingerprint:
    """A file of Python, what it imports of its own folder, and so on; no library."""
    folder = Path(path).parent
    return of_files(folder, [str(one.relative_to(folder)) for one in imported_files(Path(path))])


def imported_files(path: Path) -> list[Path]:
    """`path` and what it imports of its own folder, directly or through another file."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        with contextlib.suppress(SyntaxError, ValueError):
            for level, name in _imported_names(ast.parse(file.read_bytes())):
                base = path.parent if not level else file.parents[min(level, len(file.parents)) - 1]
                for part in filter(None, name.split(".")):  # a package is read before its parts
                    waiting.append(base / "__init__.py")
                    base = base / part
                waiting += [base.with_suffix(".py"), base / "__init__.py"]
    return sorted(found)


def check_sources(
    run: RunFolder, sources: Mapping[str, Fingerprint], note: Callable[[str], None]
) -> None:
    """Records the sources of a new run; of one that goes on, refuses what has changed since.

    A run of before there were records goes on with a note. Raises UserError naming the file and,
    of rows, the first that differs; nothing is touched then.
    """
    path = run.path / FILE
    if not path.exists() and run.anything_done:
        note(
            "Note: this run kept no record of its sources, so it cannot be told whether they are "
            "still those that it began with"
        )
    said = read_json(path) if path.exists() else {"sources": {}, "mendable": []}
    mended: set[str] = set()
    for use, new in sources.items():
        old = Fingerprint.from_json(said["sources"][use]) if use in said["sources"] else new
        if old.same(new):
            continue
        if use not in said["mendable"]:
            raise UserError(f"{_difference(old, new)}: put back what was there, or start a new run")
        note(f"Note: {_difference(old, new)}; what was done before stays as it was")
        mended.add(use)
    # What failed may be mended until it has been, however often the run is stopped before.
    left = [use for use in said["mendable"] if use not in mended]
    now = {use: source.as_json() for use, source in sources.items()}
    if said != {"sources": now, "mendable": left}:
        run.write_json(FILE, {"sources": now, "mendable": left})


@contextlib.contextmanager
def mendable(run: RunFolder, use: str) -> Iterator[None]:
    """Code that fails inside the block may be another when the run goes on."""
    try:
        yield
    except UserError:
        if (run.path / FILE).exists():
            said = read_json(run.path / FILE)
            run.write_json(FILE, said | {"mendable": sorted({*said["mendable"], use})})
        raise


def _difference(old: Fingerprint, new: Fingerprint) -> str:
    """What differs, in words."""
    if old.rows != new.rows:
        return _difference_of_rows(old, new)
    names = sorted(old.files.keys() | new.files.keys())
    name = next(name for name in names if old.files.get(name) != new.files.get(name))
    place = Path(new.folder, name)
    if name not in new.files:
        return f"{place}, which was there when this run began, is gone"
    if name not in old.files:
        return f"{place} was not there when this run began"
    return f"{place} has changed since this run began"


def _difference_of_rows(old: Fingerprint, new: Fingerprint) -> str:
    pairs = zip(old.rows, new.rows, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(old.rows))
    what = "has changed since this run began"
    if len(old.rows) != len(new.rows):
        what = f"has {len(new.rows):,} rows, and had {len(old.rows):,} when this run began"
    elif sorted(old.rows) == sorted(new.rows):
        what = "holds its rows in another order than when this run began"
    if new.origin is None or first >= len(new.rows):
        return f"{new.folder} {what}"
    unit, number = new.origin.unit, new.origin.numbers[first]
    return f"{new.folder} {what} (the first that differs is {unit} {number})"


def _row_digest(row: Mapping[str, object]) -> str:
    text = json.dumps(row, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:ROW_DIGITS]


def _file_digest(path: Path) -> str:
    """SHA-256 of a file; of a large one, of its size, its beginning and even samples."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(f"{size} ".encode())
        for k in range(NUM_SAMPLES + 1):
            file.seek((size - SAMPLE) * k // NUM_SAMPLES)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(dots in front, dotted name) of whatever may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            for name in ("", *(alias.name for alias in node.names)):
                yield node.level, f"{module}.{name}".strip(".")
