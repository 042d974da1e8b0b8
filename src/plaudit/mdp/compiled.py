"""Numba behind one typed decorator: inner loops compiled once and kept on disk.

Float arithmetic stays exact to the order written (no fast-math), and the interpreter's lock is let
go, so that kernels may run in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """A function of arrays and numbers as machine code for one thread."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_parallel(function: F) -> F:
    """As `compiled`, with each `numba.prange` shared among the cores."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy", parallel=True)(function))


@compiled
def unsigned(index: int) -> int:
    """The same number as a word without sign: an index that cannot be negative is not checked for it.

    A loop over such words reads sparse rows at the pace of C; with signed ones it takes 1.5 times as
    long. They must not meet signed numbers in arithmetic: the sum of the two is a float.
    """
    return np.uint64(index)  # type: ignore[return-value]
