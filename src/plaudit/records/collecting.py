"""The search for garbage in cycles, put off while large libraries load.

What a library makes as it loads stays; looking through it again and again took a fifth of loading
torch and transformers.
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
