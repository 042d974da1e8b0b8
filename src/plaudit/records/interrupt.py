"""Ctrl-C that saves: the first signal asks the loop to stop at a place it can continue from."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

HEARD = "Stopping at the next place to save; press Ctrl-C again to quit at once."


class Interrupted(BaseException):
    """The work was saved and stopped on request; as KeyboardInterrupt, not an error to be caught."""


class Interrupt:
    """Catches SIGINT and SIGTERM while entered.

    The first one sets `requested`, and the loop saves at its next `Checkpoint`; a second SIGINT or
    SIGTERM raises KeyboardInterrupt at once. Outside the main thread signals cannot be caught, and
    `request()` is the only way to ask.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """`say` tells the person that the first signal was heard (default: a line on stderr)."""
        self.requested = False
        self._say = say
        self._old: dict[signal.Signals, Any] = {}

    def request(self) -> None:
        """Asks for a save and a stop, as a first Ctrl-C does."""
        self.requested = True

    def stop_here(self, saved: str) -> None:
        """Raises Interrupted if a stop was asked for; for places where nothing would be lost."""
        if self.requested:
            raise Interrupted(saved)

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._say is None:
            os.write(2, f"\n{HEARD}\n".encode())
        else:  # from a thread, since the signal may have come in the middle of the same print
            threading.Thread(target=self._say, args=(HEARD,)).start()
