"""The decorator of the learners' inner loops: small functions that vanish into their loop.

A learner's step is some ten small functions of tables and states that are NamedTuples of arrays.
Compiled as usual, each of them counts references of the arrays that it touches and is called with
all of them on the stack; written into one another without counting, the same step is forty times
as fast. Such functions may not make arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def inlined(function: F) -> F:
    """As `compiled`, written into its callers; for functions that make no arrays."""
    options = {"forceinline": True, "_nrt": False}
    return cast(F, njit(cache=True, nogil=True, error_model="numpy", **options)(function))
