"""Running what `async def` functions return, from code that is not async itself."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from typing import Any


class Late(Exception):
    """What was promised did not come in time."""


class EventLoop:
    """An event loop in a thread of its own, begun when first needed and kept between calls.

    Clients, locks and sessions that a function made in one call therefore serve in the next; and it
    does not matter whether the calling thread runs a loop too, as a notebook's does.
    """

    def __init__(self) -> None:
        self._thread: _LoopThread | None = None

    def settled(self, value: object) -> object:
        """What is promised, whether as a whole, one by one or by and by: a list, or `value` itself.

        An awaitable is awaited; elements that are awaitable are awaited together; what can be gone
        through in order becomes a list; anything else stays as it is.
        """
        if inspect.isawaitable(value):
            value = self._run(value)
        if isinstance(value, AsyncIterable):
            value = self._run(_collected(value))
        if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
            return value
        if getattr(value, "ndim", 1) == 0:  # an array of one number, which only looks iterable
            return value
        listed = list(value)
        if any(inspect.isawaitable(element) for element in listed):
            return self._run(_together(listed))
        return listed

    def outcomes(
        self, promised: Sequence[Awaitable[Any]], timeout: float | None
    ) -> list[tuple[Any, BaseException | None]]:
        """(value, None) or (None, what was raised) of each, in their order.

        All are awaited together; one that takes longer than `timeout` seconds is cancelled (`Late`).
        """
        return list(self._run(_each(promised, timeout))) if promised else []

    def _run(self, awaitable: Awaitable[Any]) -> Any:
        if self._thread is None:
            self._thread = _LoopThread()
            weakref.finalize(self, self._thread.stop)
        try:
            return self._thread.run(awaitable)
        finally:
            if self._thread.died is not None:
                self._thread = None


class _LoopThread:
    """A thread that runs an event loop until it is told to stop."""

    def __init__(self) -> None:
        self.died: BaseException | None = None
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        threading.Thread(target=self._serve, daemon=True).start()
        self._loop, self._stop = self._begun.result()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(_outcome(awaitable), self._loop)
        try:
            value, error = future.result()
        except BaseException:  # a person's Ctrl-C while waiting
            future.cancel()
            raise
        if self.died is not None:  # which has cancelled all that was running
            raise self.died
        if error is not None:
            raise error
        return value

    def stop(self) -> None:
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._stop.set)

    def _serve(self) -> None:
        runner = asyncio.Runner()
        try:
            runner.run(self._until_stopped())
        except BaseException as error:  # SystemExit of a task goes through the loop and ends it
            self.died = error
        finally:
            runner.close()

    async def _until_stopped(self) -> None:
        stop = asyncio.Event()
        self._begun.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()


async def _outcome(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, what was raised): SystemExit, let through, would end the loop."""
    try:
        return await awaitable, None
    except BaseException as error:
        return None, error


async def _each(
    values: Sequence[Awaitable[Any]], timeout: float | None
) -> list[tuple[Any, BaseException | None]]:
    async def one(value: Awaitable[Any]) -> tuple[Any, BaseException | None]:
        # The time runs from this task's own first step: one that blocks the loop makes none late.
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await value, None
        except BaseException as error:
            return None, Late() if limit.expired() else error

    return await asyncio.gather(*map(one, values))


async def _together(values: list[Any]) -> list[Any]:
    """The elements, those that are awaitable awaited at once; the first failure cancels the rest."""

    async def one(value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(value)) for value in values]
    return [task.result() for task in tasks]


async def _collected(values: AsyncIterable[Any]) -> list[Any]:
    return [value async for value in values]
