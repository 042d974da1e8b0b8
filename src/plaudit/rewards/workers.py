"""Processes that call a user's functions for one answer at a time.

A function reaches a process by its name, or by pickle where it has none, and is loaded there once. A
call that takes too long ends its process with all that it has begun; another takes its place. The
processes end with the one that asked, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from typing import Any

from plaudit.records.errors import UserError
from plaudit.records.imports import beside
from plaudit.rewards.awaiting import EventLoop
from plaudit.rewards.user_code import (
    Failed,
    Outcome,
    failed,
    home_of,
    late,
    named_function,
    number_of,
)

BEGINNING = 120.0
"""Seconds that a new process and the user's imports may take, on a machine that is busy."""

NEEDS_MAIN = (
    "; a script whose rewards are called in worker processes does its own work under: "
    "if __name__ == '__main__':"
)
"""A process of ours first loads the script that was run, and must not run it again."""

_BEGUN, _DONE, _UNUSABLE = "begun", "done", "unusable"


@dataclass(frozen=True)
class Source:
    """How a process comes by a function: its name, or the function itself, pickled."""

    name: str | None
    pickled: bytes = b""

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None, *, called: str) -> Source:
        """That of a function; UserError for one that no other process can be given."""
        if name is not None:
            return cls(name)
        try:
            return cls(None, pickle.dumps(function))
        except Exception as error:  # what pickle raises depends on what it is given
            raise UserError(
                f"{called} cannot be called in worker processes ({error}): define it at the top of "
                "a file, or call it in this one with workers=0"
            ) from None

    def loaded(self) -> tuple[Callable[..., Any], Any]:
        """The function and its module, in this process."""
        if self.name is not None:
            return named_function(self.name)
        function = pickle.loads(self.pickled)  # by our own parent process
        return function, sys.modules.get(home_of(function))


class Workers:
    """`num` processes, begun when they are needed and kept between calls.

    `timeout` is how many seconds a call may take once it has begun; None: as many as it likes.
    """

    def __init__(self, num: int, *, timeout: float | None) -> None:
        self._num, self._timeout = num, timeout
        self._members: list[_Member] = []
        # When nobody holds this any more, or before multiprocessing waits for its children at exit.
        util.Finalize(self, _end, args=(self._members,), exitpriority=0)

    def outcomes(self, source: Source, rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        """What the function gives for each row's arguments, in their order.

        UserError where no process can begin, or none can load the function.
        """
        found: dict[int, Outcome] = {}
        waiting = deque(enumerate(rows))
        try:
            while len(found) < len(rows):
                self._hand_out(source, waiting)
                self._gather(waiting, found)
        except BaseException:  # nobody waits any more for what is being worked on
            self.close()
            raise
        return [found[i] for i in range(len(rows))]

    def close(self) -> None:
        """End the processes; another call begins new ones."""
        _end(self._members)

    def _hand_out(self, source: Source, waiting: deque[tuple[int, Mapping[str, Any]]]) -> None:
        free = [member for member in self._members if member.row is None]
        while waiting and (free or len(self._members) < self._num):
            if not free:
                free.append(_Member())
                self._members.append(free[0])
            member = free.pop()
            if member.takes(source, waiting[0]):
                waiting.popleft()
            else:
                self._replace(member)

    def _gather(
        self, waiting: deque[tuple[int, Mapping[str, Any]]], found: dict[int, Outcome]
    ) -> None:
        """Waits for a word of any process, or until one is late."""
        busy = [member for member in self._members if member.row is not None]
        until = min((member.deadline for member in busy), default=0.0)
        left = None if until == math.inf else max(0.0, until - time.monotonic())
        heard = wait([member.pipe for member in busy], left)
        for member in busy:
            assert member.row is not None
            if member.pipe in heard:
                self._hear(member, member.row, waiting, found)
            elif member.deadline <= time.monotonic() and not member.pipe.poll():
                if not member.has_begun or self._timeout is None:
                    raise UserError(f"a process for rewards had not begun after {BEGINNING:g} s")
                found[member.row[0]] = late(self._timeout)
                self._replace(member)

    def _hear(
        self,
        member: _Member,
        row: tuple[int, Mapping[str, Any]],
        waiting: deque[tuple[int, Mapping[str, Any]]],
        found: dict[int, Outcome],
    ) -> None:
        try:
            kind, what = member.pipe.recv()
        except (EOFError, OSError):
            if member.has_begun:
                found[row[0]] = Failed(f"its process ended {member.how_ended()}")
            else:
                waiting.appendleft(row)
            self._replace(member)
            return
        if kind == _UNUSABLE:
            raise UserError(what)
        if kind == _BEGUN:
            member.begin(self._timeout)
        else:
            found[row[0]] = what
            member.row = None

    def _replace(self, member: _Member) -> None:
        """Away with it, so that another can begin; UserError where that would fare no better."""
        if not member.has_served:
            raise UserError(
                f"a process for rewards ended {member.how_ended()} before it had begun{NEEDS_MAIN}"
            )
        self._members.remove(member)
        member.end()


class _Member:
    """One process, and the row that it is at."""

    def __init__(self) -> None:
        if multiprocessing.current_process().daemon:
            raise UserError(
                "rewards cannot have processes in a process that is one itself: workers=0"
            )
        context: Any = _context()
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there,))
        self.process.start()
        there.close()
        self.row: tuple[int, Mapping[str, Any]] | None = None
        self.deadline = math.inf
        self.has_begun = False  # with this row
        self.has_served = False  # with any

    def takes(self, source: Source, row: tuple[int, Mapping[str, Any]]) -> bool:
        """Whether it is there to be given the row."""
        try:
            self.pipe.send((source, row[1]))
        except OSError:
            return False
        except Exception as error:  # what pickle raises depends on what it is given
            raise UserError(
                f"what a reward is given cannot be sent to another process ({error}): workers=0"
            ) from None
        self.row, self.has_begun = row, False
        self.deadline = time.monotonic() + BEGINNING
        return True

    def begin(self, timeout: float | None) -> None:
        """The call begins, and with it its time."""
        self.has_begun = self.has_served = True
        self.deadline = math.inf if timeout is None else time.monotonic() + timeout

    def how_ended(self) -> str:
        self.process.join(1.0)
        code = self.process.exitcode
        return f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"

    def end(self) -> None:
        """At once: it has nothing to keep."""
        self.pipe.close()
        if self.process.is_alive():
            if hasattr(os, "killpg"):  # with what the function has begun itself
                with contextlib.suppress(OSError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.join(1.0)


def _end(members: list[_Member]) -> None:
    while members:
        members.pop().end()


def _context() -> Any:
    """Forked from a server that has loaded this file; or each begun from nothing."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["plaudit.rewards.workers"])
    return context


# --- in a worker process


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asked ends this
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    _end_with_parent()
    known: dict[Source, tuple[Callable[..., Any], Any]] = {}
    loop = EventLoop()
    while True:
        try:
            source, given = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if source not in known:
                known[source] = source.loaded()
        except UserError as error:
            pipe.send((_UNUSABLE, str(error)))
            continue
        pipe.send((_BEGUN, None))
        pipe.send((_DONE, _outcome(*known[source], given, loop)))


def _outcome(
    function: Callable[..., Any], module: object, given: Mapping[str, Any], loop: EventLoop
) -> Outcome:
    try:
        with beside(module):
            return number_of(loop.settled(function(**given)))
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        return failed(error, function, module)


def _end_with_parent() -> None:
    """Has this process end when its parent does, also in the middle of a call.

    Linux sends SIGIO when the parent's end of a pipe closes, which ends every process of the group;
    elsewhere a thread looks, which waits while the function holds the interpreter's lock.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpgrp())
        flags = fcntl.fcntl(sentinel, fcntl.F_GETFL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, flags | fcntl.FASYNC)
        if wait([sentinel], 0):  # it closed before
            os._exit(1)
    else:

        def look() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=look, daemon=True).start()
