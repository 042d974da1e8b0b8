"""Ctrl-C that saves: the first signal asks the loop to stop at a place it can continue from.

A terminal that is closed, or a connection that is lost, asks in the same way (SIGHUP).
"""

from __future__ import annotations

import contextlib
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
    """Catches SIGINT, SIGTERM and SIGHUP while entered.

    The first one sets `requested`, and the loop saves at its next `Checkpoint`; a second SIGINT or
    SIGTERM raises KeyboardInterrupt at once. SIGHUP never does, since a closing terminal may send
    it twice, and it stays ignored where it was, as below nohup. Outside the main thread signals
    cannot be caught, and `request()` is the only way to ask.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """`say` tells the person that the first signal was heard (default: a line on stderr)."""
        self.requested = False
        self._say = say
        self._old: dict[signal.Signals, Any] = {}
        self._terminals: list[int] = []

    def request(self) -> None:
        """Asks for a save and a stop, as a first Ctrl-C does."""
        self.requested = True

    def stop_here(self, saved: str) -> None:
        """Raises Interrupted if a stop was asked for; for places where nothing would be lost."""
        if self.requested:
            raise Interrupted(saved)

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._terminals = [handle for handle in (1, 2) if os.isatty(handle)]
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
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
        if number == signal.SIGHUP:
            self._part_with_terminals()
        elif self.requested:
            raise KeyboardInterrupt
        again, self.requested = self.requested, True
        if again:
            return
        if self._say is None:
            os.write(2, f"\n{HEARD}\n".encode())
        else:  # from a thread, since the signal may have come in the middle of the same print
            threading.Thread(target=self._say, args=(HEARD,)).start()

    def _part_with_terminals(self) -> None:
        """What is printed goes nowhere from now on, if it went to a terminal that is gone: a write
        to one fails, and the work would fail with it before it is saved."""
        for handle in self._terminals:
            if not os.isatty(handle):
                with contextlib.suppress(OSError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, handle)
                    os.close(nowhere)
