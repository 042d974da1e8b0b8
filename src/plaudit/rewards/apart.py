"""What a user's reward switches in the process holds while it runs, and only then.

A reward may set torch's default dtype, leave gradients off, or change the working folder, when it is
loaded or in any call. The job finds everything as it was, and the reward finds its own settings again
in its next call. Left out: the states of global random generators, which the job never draws from;
environment variables; and the signals by which a person stops the job, which stay the job's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch


class Apart:
    """One reward's settings of the process, kept between its calls."""

    def __init__(self) -> None:
        self._own: dict[str, Any] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        """While entered the reward's settings hold; afterwards those of before."""
        before = _read()
        timer = _timer()
        try:
            _write(self._own)
            yield
        finally:
            after = _read()
            self._own = {
                k: v for k, v in after.items() if v != before.get(k) and k not in _JOBS_OWN
            }
            _write({k: v for k, v in before.items() if v != after.get(k)})
            if timer == (0.0, 0.0) != _timer():  # an alarm that nobody would wait for any more
                signal.setitimer(signal.ITIMER_REAL, 0.0)


def _working_folder() -> str | None:
    with suppress(OSError):  # it may have been removed
        return os.getcwd()
    return None


def _enter_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _precision() -> str | None:
    with suppress(RuntimeError):  # torch will not say where its newer settings are in use as well
        return torch.get_float32_matmul_precision()
    return None


def _set_precision(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _filters() -> list[Any]:
    return list(warnings.filters)


def _set_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]  # a list, which typeshed calls a sequence
    with warnings.catch_warnings():  # which also tells the module that its filters have changed
        pass


_SWITCHES: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, _set_device),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "matmul precision": (_precision, _set_precision),
    "deterministic algorithms": (
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    "numpy errors": (np.geterr, lambda kinds: np.seterr(**kinds)),
    "working folder": (_working_folder, _enter_folder),
    "import path": (lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    "warnings": (_filters, _set_filters),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "stdin": (lambda: sys.stdin, lambda file: setattr(sys, "stdin", file)),
    "stdout": (lambda: sys.stdout, lambda file: setattr(sys, "stdout", file)),
    "stderr": (lambda: sys.stderr, lambda file: setattr(sys, "stderr", file)),
}
"""By what it is called here: how a setting is read, and how it is set."""

_JOBS_OWN = {f"signal {int(number)}" for number in (signal.SIGINT, signal.SIGTERM)}


def _read() -> dict[str, Any]:
    """Every setting as it is now."""
    values = {name: read() for name, (read, _) in _SWITCHES.items()}
    if threading.current_thread() is threading.main_thread():  # others may not set them
        handlers = {f"signal {int(n)}": signal.getsignal(n) for n in signal.valid_signals()}
        values |= {name: handler for name, handler in handlers.items() if handler is not None}
    return values


def _write(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in _SWITCHES:
            _SWITCHES[name][1](value)
        elif threading.current_thread() is threading.main_thread():
            signal.signal(int(name.removeprefix("signal ")), value)


def _timer() -> tuple[float, float]:
    return signal.getitimer(signal.ITIMER_REAL)
