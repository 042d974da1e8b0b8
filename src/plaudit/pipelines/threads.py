"""One thread for small nets: two would wait for each other longer than they work.

torch's own setting does not reach the matrix products of NumPy, whose OpenBLAS takes every core; on a
machine that does anything else besides, products of 256 × 256 then take ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """While entered, torch and NumPy's matrix products use one thread.

    It also makes results independent of the number of cores: two threads sum in another order.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
