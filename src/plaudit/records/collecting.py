"""The search for garbage in cycles, put off while large libraries load.

What a library makes as it loads stays, and need not be looked through again and again: `--check` of the
demo's recipe took 9.3 to 10.1 s with this and 10.5 to 11.3 s without on two quiet cores. Refusals gain
nothing that can be measured.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_later() -> Iterator[None]:
    """While entered, no garbage is collected; afterwards it is, if it was before."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
