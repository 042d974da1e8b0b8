"""One side of a comparison in a process of its own: a task in, then an answer for every order.

    {"threads": 1, ...}                                    the task, one line of JSON
    {"ready": ..., "versions": {...}, "resident": bytes}   once the side is loaded
    {"do": "step"}   ->   {"seconds": ..., "peak": bytes, ...}

The side works when it is told to and sleeps otherwise, so that sides can take turns. What its
libraries print goes to stderr. This file needs nothing but torch, for it runs in each side's own
environment; a side gives `make(task)`, whose result has one method for every order.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

Answer = dict[str, Any]


class Channel:
    """Orders from stdin, answers to what was stdout."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def orders(self) -> Iterator[Answer]:
        """One dictionary for each line, until stdin ends."""
        for line in sys.stdin:
            yield json.loads(line)

    def say(self, **answer: Any) -> None:
        """One line."""
        self._out.write(json.dumps(answer) + "\n")
        self._out.flush()


def memory(name: str) -> int:
    """VmRSS (resident now) or VmHWM (the peak since `forget_peak`) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """Let VmHWM begin again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measured(work: Callable[[], Answer]) -> Answer:
    """What `work` gives, with its seconds of wall-clock time and the peak of resident memory."""
    forget_peak()
    begin = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - begin
    return {**answer, "seconds": seconds, "peak": memory("VmHWM")}


def versions(*packages: str) -> dict[str, str]:
    """The packages' versions in this environment."""
    return {name: importlib.metadata.version(name) for name in packages}


def serve(make: Callable[[Answer], Any], *packages: str) -> None:
    """Make the side that the first line asks for, and follow orders; a step is measured."""
    import torch

    channel = Channel()
    orders = channel.orders()
    task = next(orders)
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    side = make(task)
    channel.say(ready=True, versions=versions(*packages), resident=memory("VmRSS"))
    for order in orders:
        name = order.pop("do")
        if name == "step":
            channel.say(**measured(lambda order=order: side.step(**order)))
        else:
            channel.say(**getattr(side, name)(**order))
