"""NumPy arrays in a run's checkpoint, without torch.

A checkpoint's arrays are tensors. Learners of finite worlds hold NumPy arrays, some of types that
tensors lack (the generator's unsigned words), and their jobs start in a fraction of the time that
torch takes to load; so their bytes stand, as base64, among the checkpoint's facts, which are as
whole and as checksummed as its tensors.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.records.checkpoints import FACTS, SUMS
from plaudit.records.errors import UserError
from plaudit.records.files import read_json
from plaudit.records.runs import RunFolder

Array = NDArray[Any]


def packed(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays as JSON-able facts, every bit kept."""
    return {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "base64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii"),
        }
        for name, array in arrays.items()
    }


def unpacked(facts: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of `packed`."""
    return {
        name: np.frombuffer(base64.b64decode(fact["base64"]), dtype=fact["dtype"])
        .reshape(fact["shape"])
        .copy()
        for name, fact in facts.items()
    }


def saved_facts(run: RunFolder, stage: str) -> tuple[int, dict[str, Any]] | None:
    """(step, facts) of checkpoints/last where it belongs to `stage`; UserError if it is damaged."""
    at = run.saved_at()
    if at is None or at[0] != stage:
        return None
    folder = run.path / "checkpoints" / "last"
    path = folder / FACTS
    found = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    if read_json(folder / SUMS).get(FACTS) != found:
        raise UserError(f"the checkpoint {folder} is damaged: {FACTS} is not what was saved")
    return at[1], read_json(path)["facts"]
