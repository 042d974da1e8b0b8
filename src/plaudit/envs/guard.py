"""Environments that misbehave: one sentence with the environment's index and step, and no more.

What an environment returns is checked where it is received (`copies`, `native`); here are the
sentence that all of them speak, the check that a batch is finite, and the clock for environments
that do not answer.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from types import FrameType
from typing import Any

import numpy as np

from plaudit.envs.worlds import Array
from plaudit.records.errors import UserError


def fault(name: str, env: int | None, step: int, what: str, *, episode_step: int = -1) -> UserError:
    """`CartPole-v1, environment 2, step 1041 (step 17 of its episode): gave the reward nan; ...`."""
    which = "" if env is None else f", environment {env}"
    within = f" (step {episode_step} of its episode)" if episode_step > 0 else ""
    return UserError(f"{name}{which}, step {step}{within}: {what}")


def in_one_line(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_finite(batch: Array) -> bool:
    """Whether every number is; images always are. Counting is quicker than `all`."""
    return batch.dtype == np.uint8 or np.count_nonzero(np.isfinite(batch)) == batch.size


class Hung(BaseException):
    """Raised in the main thread while a step has not returned in time; no `except Exception` stops it."""


class Clock:
    """Watches one object's steps: `busy` is true within a step, `count` grows with every step.

    A step costs two stores of attributes and no system call: a timer of the whole process looks a
    few times per `timeout` whether the step is still the one it saw before. It works in the main
    thread where signals exist and nobody else uses SIGALRM; elsewhere nothing is watched.
    """

    __slots__ = ("__weakref__", "_seen", "_since", "busy", "count", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.busy = False
        self.count = 0
        self._seen = -1
        self._since = 0.0

    def start(self) -> None:
        """Has this clock looked after from now on, where that can be."""
        if threading.current_thread() is threading.main_thread():
            _watched.add(self)
            _arm()

    def stop(self) -> None:
        """Has it looked after no more."""
        self.busy = False
        _watched.discard(self)
        _arm()

    def tick(self) -> None:
        """Another step begins."""
        self.count += 1

    def is_late(self, now: float) -> bool:
        """True once the step that was seen busy has been so for `timeout` seconds."""
        if not self.busy:
            self._seen = -1
            return False
        if self._seen != self.count:
            self._seen, self._since = self.count, now
            return False
        return now - self._since >= self.timeout


_watched: weakref.WeakSet[Clock] = weakref.WeakSet()


def _arm() -> None:
    """Sets the timer for the clocks that there are, or takes it away."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, _look):
        return  # somebody else's alarm
    if not _watched:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return
    every = min(clock.timeout for clock in _watched) / 4
    signal.signal(signal.SIGALRM, _look)
    signal.setitimer(signal.ITIMER_REAL, every, every)


def _look(number: int, frame: FrameType | None) -> Any:
    now = time.monotonic()
    if not _watched:
        _arm()
    elif any(clock.is_late(now) for clock in list(_watched)):
        raise Hung
