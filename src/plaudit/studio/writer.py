"""One thread that writes for everybody: what comes in while it waits for the disk is kept together next.

A thread for each request would do the same work, and spend as much again on waiting for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import Any, NamedTuple

from plaudit.feedback.group import MOST, Job
from plaudit.feedback.holding import Hold
from plaudit.feedback.offered import Answers
from plaudit.feedback.offers import Offers


class _Asked(NamedTuple):
    what: Answers | Hold
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]


class Writer:
    """Gives offers and takes answers for coroutines; begins with the first, ends with `close`."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, what: Answers | Hold) -> Any:
        """The result, durable; its error is raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="studio-writer", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Asked(what, loop, answer))
        return await answer

    def close(self) -> None:
        """Does what was asked for, and ends the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        is_open = True
        while is_open:
            waiting = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < MOST:
                    waiting.append(self._queue.get_nowait())
            asked = [one for one in waiting if one is not None]
            is_open = len(asked) == len(waiting)
            if asked:
                self._serve(asked)

    def _serve(self, asked: list[_Asked]) -> None:
        try:
            jobs = self._offers.do_all([one.what for one in asked])
        except Exception as error:  # none of them was done; each is told why
            jobs = [Job(one.what, error=error, done=True) for one in asked]
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            asked[0].loop.call_soon_threadsafe(_tell, asked, jobs)


def _tell(asked: list[_Asked], jobs: list[Job]) -> None:
    for one, job in zip(asked, jobs, strict=True):
        if one.answer.cancelled():
            continue
        if job.error is not None:
            one.answer.set_exception(job.error)
        else:
            one.answer.set_result(job.result)
