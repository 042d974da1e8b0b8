"""New folders of several files, written whole or not at all.

A folder is written under a temporary name beside its place, flushed, and renamed; an older folder
is exchanged with it in one step. Killed at any moment, the place holds the old folder or the new.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from plaudit.records.errors import UserError
from plaudit.records.files import NO_ROOM, saying_no_room, sync_folder

_STALE_SECONDS = 3600.0  # a writer that was killed an hour ago is not coming back
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h and fs.h


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A temporary folder that becomes `place` when the block ends well, and vanishes otherwise.

    An existing model folder is replaced in one step. Raises UserError when the disk is full, the
    parent cannot be written, or `place` is a file or a folder of other things.
    """
    ours = any((place / name).is_file() for name in ("config.json", "adapter_config.json"))
    if place.exists() and not ours and not _is_empty(place):
        raise UserError(f"{place} exists and is not a model folder: it is not replaced")
    kept = f"; {place} is as it was" if place.exists() else ""
    with _saying_why(place, kept):
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(place)
        folder = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
        try:
            folder.chmod(0o755)
            yield folder
            for file in folder.rglob("*"):
                _flush(file)
            sync_folder(folder)
            _put(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        sync_folder(place.parent)


def _is_empty(place: Path) -> bool:
    return place.is_dir() and not any(place.iterdir())


@contextlib.contextmanager
def _saying_why(place: Path, kept: str) -> Iterator[None]:
    """Turns a full disk or a forbidden folder into a sentence that says what is still whole."""
    from safetensors import SafetensorError

    try:
        with saying_no_room(place, kept):
            yield
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None or int(code[1]) not in NO_ROOM:
            raise
        reason = os.strerror(int(code[1]))
        raise UserError(f"no room to write {place} ({reason}){kept}") from error
    except PermissionError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}") from error


def _remove_stale(place: Path) -> None:
    """Removes what writers of `place` left behind when they were killed."""
    for folder in place.parent.glob(f".{glob.escape(place.name)}.*.tmp"):
        newest = max((f.stat().st_mtime for f in (folder, *folder.iterdir())), default=0.0)
        if time.time() - newest > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _flush(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(folder: Path, place: Path) -> None:
    """Renames `folder` to `place`; an old `place` is left under the name of `folder`."""
    if not place.exists():
        folder.rename(place)
        return
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(folder), os.fsencode(place)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
    # No exchange on this system: for an instant the old folder is only under its other name.
    aside = folder.with_suffix(".old")
    place.rename(aside)
    try:
        folder.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    aside.rename(folder)
