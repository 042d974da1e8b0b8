"""What may be sent: how much, how slowly, and how deeply nested, decided before anything reads it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from plaudit.studio.problems import Refused

MOST_BYTES = 1_000_000
WHOLE_SECONDS = 15.0
"""A megabyte in this time is half a megabit a second."""
SILENT_SECONDS = 30.0
"""An import may take as long as it needs, but not say nothing for longer."""
DEEPEST = 32

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


@dataclass
class Patience:
    """How long is waited; tests wait less."""

    whole: float = WHOLE_SECONDS
    silent: float = SILENT_SECONDS


async def whole_body(headers: Headers, receive: Receive, patience: Patience) -> bytes | None:
    """All that was sent, None where the sender went away; Refused where it is too much or slow."""
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length[:20]) > MOST_BYTES:
        raise _too_much()
    parts: list[bytes] = []
    num = 0
    try:
        async with asyncio.timeout(patience.whole):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                parts.append(message.get("body", b""))
                num += len(parts[-1])
                if num > MOST_BYTES:
                    raise _too_much()
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refused(408, "the request did not arrive in time", connection="close") from None


def once(body: bytes, receive: Receive) -> Receive:
    """Gives the body as if it had just come, then what else comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


def streamed(receive: Receive, patience: Patience) -> Receive:
    """Gives a body as it comes, however long, unless its sender falls silent."""

    ended = False

    async def part() -> Message:
        nonlocal ended
        if ended:  # what may still come is word that the sender went away
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), patience.silent)
        except TimeoutError:
            raise Refused(408, "the file stopped arriving", connection="close") from None
        ended = not message.get("more_body", False)
        return message

    return part


def check_depth(body: bytes) -> None:
    """Refused where JSON is nested deeper than anything that is meant here."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    depth = 0
    for sign in _TEXTS.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if sign in b"[{" else -1
        if depth > DEEPEST:
            raise Refused(400, f"the JSON is nested deeper than {DEEPEST}")


def _too_much() -> Refused:
    return Refused(
        413, f"more than {MOST_BYTES // 1_000_000} MB was sent at once", connection="close"
    )
