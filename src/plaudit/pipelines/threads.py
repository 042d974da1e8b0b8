"""One thread for small nets: two would wait for each other longer than they work.

torch's own setting does not reach the matrix products of NumPy, whose OpenBLAS takes every core; on a
machine that does anything else besides, products of 256 × 256 then take ten times as long. NumPy has
no call for it, so the library that its wheel brings is asked itself. A NumPy that was built with
another library is left as it is: OMP_NUM_THREADS=1 does for it what is done here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PLACES = ("../numpy.libs", ".dylibs", "../.dylibs")
"""Where wheels keep it beside the package: on Linux and Windows, and on macOS."""

NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")
"""How builds of OpenBLAS call their functions."""


@contextmanager
def one_thread() -> Iterator[None]:
    """While entered, torch and NumPy's matrix products use one thread.

    It also makes results independent of the number of cores: two threads sum in another order.
    """
    import torch

    blas = openblas()
    before, blas_before = torch.get_num_threads(), [get() for get, _ in blas]
    torch.set_num_threads(1)
    for _, change in blas:
        change(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for (_, change), count in zip(blas, blas_before, strict=True):
            change(count)


def openblas() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """(number of threads, set it) of each OpenBLAS that came with NumPy; [] where there is none."""
    home = Path(np.__file__).parent
    found = []
    for place in PLACES:
        for file in sorted((home / place).glob("*openblas*")):
            library = ctypes.CDLL(str(file))
            for name in NAMES:
                get = getattr(library, name.format("get_num_threads"), None)
                change = getattr(library, name.format("set_num_threads"), None)
                if get is not None and change is not None:
                    found.append((get, change))
                    break
    return found
