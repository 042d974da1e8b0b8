"""How many threads a job takes: one for small nets, for large ones those that other work leaves.

Two threads of a small net would wait for each other longer than they work. Threads of a large one
that outnumber the free cores wait for each other too: a draw of a minute then took nineteen.

torch's own setting does not reach the matrix products of NumPy, whose OpenBLAS takes every core; on a
machine that does anything else besides, products of 256 × 256 then take ten times as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plaudit.records.files import read_json
from plaudit.records.runs import RunFolder

STAT = Path("/proc/stat")
"""Where Linux counts what its cores have done."""

WATCHED = 0.25
"""Seconds that the cores are watched for, if the load says that they are busy."""


@contextmanager
def free_threads(run: RunFolder, say: Callable[[str], None]) -> Iterator[None]:
    """While entered, torch takes as many threads as cores are free; system.json keeps the number.

    Other threads sum in another order, so a run that goes on takes the number it was begun with.
    OMP_NUM_THREADS wins over both; on an idle machine torch's own number stays.
    """
    import torch

    before = torch.get_num_threads()
    system = read_json(run.path / "system.json")
    begun_with = system.get("threads")
    threads = before
    if os.environ.get("OMP_NUM_THREADS"):
        if begun_with not in (None, before):
            say(
                f"OMP_NUM_THREADS asks for {before} threads, but the run was begun with "
                f"{begun_with}: the last digits of its numbers may differ"
            )
    elif begun_with is not None:
        threads = int(begun_with)
    else:
        busy = busy_cores()
        threads = threads_left(before, os.cpu_count() or 1, busy)
        if threads < before:
            say(
                f"Other work keeps {busy:.1f} cores busy: this run takes {threads} of {before} "
                "threads (OMP_NUM_THREADS sets another number)"
            )
    if begun_with is None:
        run.write_json("system.json", {**system, "threads": threads})
    if threads == before:
        yield
        return
    with _threads(threads):
        yield


@contextmanager
def spare_threads() -> Iterator[None]:
    """While entered, torch takes as many threads as cores are free, for work that keeps nothing."""
    import torch

    before = torch.get_num_threads()
    asked = bool(os.environ.get("OMP_NUM_THREADS"))
    threads = before if asked else threads_left(before, os.cpu_count() or 1, busy_cores())
    with _threads(threads):
        yield


def threads_left(wanted: int, cores: int, busy: float) -> int:
    """Of the threads wanted as many as there are free cores; at least one."""
    return max(1, min(wanted, round(cores - busy)))


def busy_cores() -> float:
    """Cores that other work keeps busy, now and over the last minute: the lesser of the two.

    What has just ended still weighs in the minute, and a moment's work is gone in the next.
    """
    try:
        load = os.getloadavg()[0]
    except OSError:
        return 0.0
    if load < 0.5 or not STAT.exists():
        return load
    before = _core_ticks()
    time.sleep(WATCHED)
    busy, all_of_them = (now - then for now, then in zip(_core_ticks(), before, strict=True))
    return min(load, (os.cpu_count() or 1) * busy / max(all_of_them, 1))


def _core_ticks() -> tuple[int, int]:
    """(busy, all) ticks of all cores since the machine began; idle and waiting for a disk is not busy."""
    first = STAT.read_text(encoding="ascii").split("\n", 1)[0]
    ticks = [int(word) for word in first.split()[1:9]]  # without guests, which are in user's
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


@contextmanager
def one_thread() -> Iterator[None]:
    """While entered, torch and NumPy's matrix products use one thread.

    It also makes results independent of the number of cores: two threads sum in another order.
    """
    with _threads(1):
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """While entered, torch and NumPy's matrix products use this many threads."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
