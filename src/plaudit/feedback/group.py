"""Group commit: what several threads ask for at once is one transaction, and one wait for the disk.

Each thread queues its job and waits for its turn to write. The first that gets it does everybody's
jobs; the others then find theirs done. A job is answered only once its transaction is committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

MOST = 500
"""Jobs in one transaction."""


@dataclass(eq=False)
class Job:
    """Something to do while the store is open for writing, and what came of it."""

    what: Any
    result: Any = None
    error: BaseException | None = None
    done: bool = False


class GroupCommit:
    """Jobs done together. `work` sets each job's result; an error of its own is set, not raised."""

    def __init__(
        self,
        turn: Callable[[], AbstractContextManager[None]],
        batch: Callable[[], AbstractContextManager[None]],
        work: Callable[[Sequence[Job]], None],
    ) -> None:
        self._turn, self._batch, self._work = turn, batch, work
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()

    def do(self, what: Any) -> Any:
        """The result of one job, durable; its error is raised."""
        job = Job(what)
        with self._lock:
            self._queue.append(job)
        try:
            with self._turn():
                while not job.done:
                    self._lead()
        finally:
            if not job.done:
                with self._lock:
                    if job in self._queue:
                        self._queue.remove(job)
        if job.error is not None:
            raise job.error
        return job.result

    def do_all(self, whats: Sequence[Any]) -> list[Job]:
        """Each of several jobs of one thread, durable; an error is the job's, and is not raised."""
        jobs = [Job(what) for what in whats]
        with self._lock:
            self._queue.extend(jobs)
        with self._turn():
            while not all(job.done for job in jobs):
                self._lead()
        return jobs

    def _lead(self) -> None:
        with self._lock:
            jobs = [self._queue.popleft() for _ in range(min(MOST, len(self._queue)))]
        try:
            self._commit(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].error, jobs[0].done = error, True
                return
            for job in jobs:  # so that one that fails does not take the others along
                job.result = job.error = None
                try:
                    self._commit([job])
                except Exception as own:
                    job.error, job.done = own, True

    def _commit(self, jobs: Sequence[Job]) -> None:
        with self._batch():
            self._work(jobs)
        for job in jobs:
            job.done = True
