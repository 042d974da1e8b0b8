"""Numba behind one typed decorator: inner loops compiled once and kept on disk.

Float arithmetic stays exact to the order written (no fast-math), and the interpreter's lock is let
go, so that kernels may run in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """A function of arrays and numbers as machine code for one thread."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_parallel(function: F) -> F:
    """As `compiled`, with each `numba.prange` shared among the cores."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy", parallel=True)(function))
