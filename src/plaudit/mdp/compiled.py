"""Numba behind typed decorators: inner loops compiled once and kept on disk.

Float arithmetic stays exact to the order written (no fast-math), and the interpreter's lock is let
go, so that kernels may run in threads. Numba looks only at a kernel's own file to see whether its
kept machine code is still right, but kernels here call kernels of other files: so all of it is
forgotten when any file of this folder has changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numba import get_num_threads, njit, set_num_threads

F = TypeVar("F", bound=Callable[..., object])

FOLDER = Path(__file__).parent
STAMP = FOLDER / "__pycache__" / "compiled-from"
"""Holds the age of the newest source file that the kept machine code was made from."""


def compiled(function: F) -> F:
    """A function of arrays and numbers as machine code for one thread."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_parallel(function: F) -> F:
    """As `compiled`, with each `numba.prange` shared among the cores."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy", parallel=True)(function))


def inlined(function: F) -> F:
    """As `compiled`, written into its callers; for small functions that make no arrays.

    A learner's step is some ten functions of tables and states that are NamedTuples of arrays.
    Compiled as usual, each counts references to the arrays it is given and is called with all of
    them on the stack; written into one another without counting, the step is forty times as fast.
    """
    options = {"forceinline": True, "_nrt": False}
    return cast(F, njit(cache=True, nogil=True, error_model="numpy", **options)(function))


WORTH_SHARING = 50_000
"""Transitions below which one core is done before a second has begun."""


def shared(kernel: Callable[..., object], size: int, *arguments: object) -> None:
    """Calls a `compiled_parallel` kernel; on one thread if its `size` transitions are few.

    Waiting for a second thread costs some microseconds on an idle machine and milliseconds on a busy
    one, which a small world's thousands of sweeps would all pay.
    """
    if size >= WORTH_SHARING:
        kernel(*arguments)
        return
    before = get_num_threads()
    set_num_threads(1)
    try:
        kernel(*arguments)
    finally:
        set_num_threads(before)


@compiled
def unsigned(index: int) -> int:
    """The same number as a word without sign: an index that cannot be negative is not checked for it.

    A loop over such words reads sparse rows at the pace of C; with signed ones it takes 1.5 times as
    long. They must not meet signed numbers in arithmetic: the sum of the two is a float.
    """
    return np.uint64(index)  # type: ignore[return-value]


def forget_stale_code(folder: Path = FOLDER, stamp: Path = STAMP) -> bool:
    """Delete kept machine code if a source file below `folder` changed since; true if it did so."""
    newest = str(max(path.stat().st_mtime_ns for path in folder.rglob("*.py")))
    with contextlib.suppress(OSError):
        if stamp.read_text(encoding="ascii") == newest:
            return False
    with contextlib.suppress(OSError):  # a folder that cannot be written holds no kept code of ours
        for kept in folder.rglob("*.nb[ic]"):
            kept.unlink(missing_ok=True)
        stamp.parent.mkdir(exist_ok=True)
        temporary = stamp.with_suffix(f".{os.getpid()}")
        temporary.write_text(newest, encoding="ascii")
        temporary.replace(stamp)
    return True


forget_stale_code()
