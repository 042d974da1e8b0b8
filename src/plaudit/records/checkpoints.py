"""Checkpoints that are whole or absent: a kill at any moment leaves the old one or the new one.

`checkpoints/last` is a symbolic link to a numbered folder beside it. A save fills a temporary
folder, flushes it, gives it the next number, and only then turns the link, which is one atomic
rename; the folder that the link left is removed last. Checksums are verified on loading.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plaudit.records.arrays import write_arrays
from plaudit.records.errors import UserError
from plaudit.records.files import (
    exact_json,
    read_json,
    saying_no_room,
    sync_folder,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from plaudit.records.arrays import Array

ARRAYS, FACTS, SUMS = "arrays.safetensors", "facts.json", "checksums.json"


@dataclass(frozen=True)
class SavedState:
    """What a checkpoint holds: where the loop stood, arrays by name, and JSON-able facts.

    The arrays are all tensors or all NumPy's, and come back as what they were.
    """

    stage: str
    step: int
    arrays: dict[str, Array]
    facts: dict[str, Any]


def save_state(link: Path, state: SavedState) -> None:
    """Makes `link` lead to `state`; on any failure it leads where it did before."""
    link.parent.mkdir(parents=True, exist_ok=True)
    kept = "; the checkpoint before it is intact" if link.exists() else ""
    temporary = Path(tempfile.mkdtemp(prefix=f".{link.name}.", suffix=".tmp", dir=link.parent))
    try:
        with saying_no_room(temporary.parent / link.name, kept):
            _fill(temporary, state)
            folder = link.parent / f"{link.name}.{_newest(link) + 1:06d}"
            temporary.chmod(0o755)
            temporary.rename(folder)
            turn = link.parent / f".{link.name}.link.tmp"
            turn.unlink(missing_ok=True)
            turn.symlink_to(folder.name)
            sync_folder(link.parent)
            turn.replace(link)
            sync_folder(link.parent)
    except UserError as error:
        if kept and kept not in str(error):
            raise UserError(f"{error}{kept}") from error
        raise
    finally:
        _remove_others(link)


def load_state(link: Path) -> SavedState | None:
    """The checkpoint that `link` leads to, or None; UserError where a checksum does not hold."""
    if not link.exists():
        return None
    folder = link.resolve()
    sums = read_json(folder / SUMS)
    for name in (ARRAYS, FACTS):
        if _checksum(folder / name) != sums.get(name):
            raise UserError(f"the checkpoint {folder} is damaged: {name} is not what was saved")
    facts = read_json(folder / FACTS)
    arrays = _read_arrays(folder / ARRAYS, facts.get("library", "torch"))
    return SavedState(facts["stage"], facts["step"], arrays, facts["facts"])


def _read_arrays(path: Path, library: str) -> dict[str, Array]:
    if library == "numpy":  # jobs without tensors do not load torch
        from safetensors.numpy import load_file as load_numpy

        return dict(load_numpy(path))
    from safetensors.torch import load_file

    return dict(load_file(path))


def saved_at(link: Path) -> tuple[str, int] | None:
    """Stage and step of a checkpoint without loading its tensors."""
    if not link.exists():
        return None
    facts = read_json(link / FACTS)
    return facts["stage"], facts["step"]


def _fill(folder: Path, state: SavedState) -> None:
    kinds = {isinstance(array, np.ndarray) for array in state.arrays.values()}
    assert len(kinds) <= 1, "a checkpoint's arrays are all tensors or all NumPy's"
    library = "torch" if False in kinds else "numpy"
    facts = {"stage": state.stage, "step": state.step, "library": library, "facts": state.facts}
    write_text(folder / FACTS, exact_json(facts) + "\n")
    write_arrays(folder / ARRAYS, state.arrays)
    write_json(folder / SUMS, {name: _checksum(folder / name) for name in (ARRAYS, FACTS)})
    sync_folder(folder)


def _checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"


def _newest(link: Path) -> int:
    numbers = [path.name.rpartition(".")[2] for path in link.parent.glob(f"{link.name}.*")]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _remove_others(link: Path) -> None:
    """Removes what killed or finished saves left: every folder that the link does not lead to."""
    current = link.resolve().name if link.exists() else None
    leftovers = [*link.parent.glob(f"{link.name}.*"), *link.parent.glob(f".{link.name}.*.tmp")]
    for path in leftovers:
        if path.name == current:
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
