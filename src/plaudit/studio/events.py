"""Server-sent events of a run: each new line of its metrics, its state, and a sign of life.

    id: 81923-4410          the place in metrics.jsonl after the event: Last-Event-ID goes on there
    event: rows             data: new rows, in order
    event: state            data: {"state", "stage", "step", "alarms", ...}, whenever it changed
    event: anew             the log was rewritten (a run that goes on): what was told holds no more

A reader that takes longer than `PATIENCE` to take an event is left; its browser comes back by itself
and is told the rest.
Source: HTML standard, 9.2 (server-sent events).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from plaudit.records.errors import UserError
from plaudit.studio.following import News, Place, news
from plaudit.studio.run_views import RunViews

if TYPE_CHECKING:
    from plaudit.records.runs import RunFolder

HEARTBEAT = 15.0
LOOK_EVERY = 0.5
STATE_EVERY = 2.0
PATIENCE = 10.0
MOST_ROWS = 500
"""Rows of one event."""


class EventStream(Response):
    """Sends what a generator gives, until it ends, the reader leaves, or is too slow."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], *, patience: float = PATIENCE) -> None:
        super().__init__()
        self._events, self._patience = events, patience
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async for part in self._events:
            message = {"type": "http.response.body", "body": part, "more_body": True}
            try:
                async with asyncio.timeout(self._patience):  # wait_for may swallow a cancellation
                    await send(message)
            except TimeoutError:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_events(
    views: RunViews, run: RunFolder, since: Place, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The events of a run from a place on, until the server stops or the run is gone."""
    told: dict[str, Any] | None = None
    quiet = unseen = 0.0  # seconds since something was said, and since the state was looked at
    yield b"retry: 2000\n\n"
    while not stopping.is_set():
        found = await run_in_threadpool(news, run.path / "metrics.jsonl", since)
        if found.anew:
            yield _event("anew", {}, Place(found.place.file, 0))
        if found.rows:
            for part in _parts(found):
                yield part
        since = found.place
        if found.rows or found.anew or told is None or unseen >= STATE_EVERY:
            unseen = 0.0
            try:
                state = await run_in_threadpool(_state, views, run)
            except (UserError, OSError):
                return
            if state != told:
                told, quiet = state, 0.0
                yield _event("state", state, since)
        if found.rows:
            quiet = 0.0
        elif quiet >= HEARTBEAT:
            quiet = 0.0
            yield b": still here\n\n"
        await _pause(stopping, LOOK_EVERY)
        quiet, unseen = quiet + LOOK_EVERY, unseen + LOOK_EVERY


def _parts(found: News) -> list[bytes]:
    """The rows, in events of a bearable size; only the last one's id is the place after them all."""
    pieces = [found.rows[k : k + MOST_ROWS] for k in range(0, len(found.rows), MOST_ROWS)]
    return [_event("rows", piece, found.place if piece is pieces[-1] else None) for piece in pieces]


def _state(views: RunViews, run: RunFolder) -> dict[str, Any]:
    if not (run.path / "config.yaml").is_file():
        raise UserError("the run is gone")
    brief = views.brief(run)
    brief.pop("touched")
    return {**brief, **views.signs(run)}


def _event(name: str, data: Any, place: Place | None) -> bytes:
    lines = [f"event: {name}", f"data: {json.dumps(data, separators=(',', ':'))}"]
    if place is not None:
        lines.insert(0, f"id: {place}")
    return ("\n".join(lines) + "\n\n").encode()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
