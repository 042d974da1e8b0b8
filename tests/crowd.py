"""Many annotators at once against a studio in a process of its own, over plain sockets.

Each keeps an outbox as the page does: a vote has its own key, is sent until it is acknowledged, and
only then forgotten. Beside each answer stands how long it took by this clock and by the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFETCH = 3
"""Offers beyond the one that is answered, as the page has them."""
REFUSED_SECONDS = 0.2
"""How long is waited after a connection that failed."""


@dataclass
class Tally:
    """What the crowd saw: seconds by kind of request, (by our clock, by the server's)."""

    votes: list[tuple[float, float]] = field(default_factory=list)
    offers: list[tuple[float, float]] = field(default_factory=list)
    cast: dict[str, str] = field(default_factory=dict)
    """The offer of each vote that was made, by the vote's key."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """What was answered, "kept" or "surplus" or "known", by the vote's key."""
    refused: list[str] = field(default_factory=list)
    idle: int = 0
    """How often somebody was told that nothing is open."""


class Line:
    """One keep-alive connection to the studio, as one annotator."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = (
            f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any) -> tuple[int, Any, float, float]:
        """(status, answer, our seconds, the server's); OSError where there is no answer."""
        sent = json.dumps(body).encode()
        request = f"POST /api/v1/{path} {self._head}{len(sent)}\r\n\r\n".encode() + sent
        begin = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
            fields = dict(
                line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
            )
            answer = await reader.readexactly(int(fields.get("content-length", "0")))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise OSError(str(error)) from None
        seconds = time.perf_counter() - begin
        if fields.get("connection") == "close":
            self.close()
        inside = float(fields.get("server-timing", "app;dur=nan").partition("dur=")[2]) / 1000
        return int(head.split(" ", 2)[1]), json.loads(answer or b"null"), seconds, inside

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Annotator:
    """Votes at a steady pace until told to stop, then sends what is left in the outbox."""

    line: Line
    tally: Tally
    per_minute: float
    draw: random.Random
    leaves_after: float | None = None
    """Seconds after which this one goes away with offers in hand and never comes back."""
    outbox: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: list[dict[str, Any]] = field(default_factory=list)

    async def work(self, until: float) -> None:
        pause = 60 / self.per_minute
        begin = time.monotonic()
        due = begin + self.draw.random() * pause
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self.leaves_after is not None and time.monotonic() - begin > self.leaves_after:
                self.line.close()
                return
            due += pause * self.draw.uniform(0.5, 1.5)
            if self.held:
                self._vote(self.held.pop(0))
            with contextlib.suppress(OSError):
                await self._send()
                if len(self.held) <= PREFETCH:
                    await self._fetch()
        while self.outbox:
            try:
                await self._send()
            except OSError:
                await asyncio.sleep(REFUSED_SECONDS)
        self.line.close()

    def _vote(self, offer: dict[str, Any]) -> None:
        said = self.draw.choice(("first", "second", "tie"))
        key = secrets.token_hex(16)
        value = {"preference": said}
        self.outbox[key] = {
            "key": key, "offer": offer["key"], "kind": "comparison", "value": value,
            "seconds": 3.0, "visible_seconds": 3.0,
        }  # fmt: skip
        self.tally.cast[key] = offer["key"]

    async def _send(self) -> None:
        if not self.outbox:
            return
        votes = list(self.outbox.values())[:100]
        status, answer, ours, theirs = await self.line.post("votes", {"votes": votes})
        if status != 200:
            self.tally.refused.append(f"{status}: {answer}")
            return
        self.tally.votes.append((ours, theirs))
        for result in answer["results"]:
            if result["status"] == "refused":
                self.tally.refused.append(result["detail"])
            else:
                self.tally.acknowledged[result["key"]] = result["status"]
            del self.outbox[result["key"]]

    async def _fetch(self) -> None:
        unsent = {vote["offer"] for vote in self.outbox.values()}
        wanted = PREFETCH + 1 + len(unsent)
        status, answer, ours, theirs = await self.line.post("offers", {"n": min(wanted, 30)})
        if status != 200:
            self.tally.refused.append(f"{status}: {answer}")
            return
        self.tally.offers.append((ours, theirs))
        self.held = [offer for offer in answer["offers"] if offer["key"] not in unsent]
        self.tally.idle += not answer["open"]


@dataclass
class Server:
    """The command `plaudit studio` in a process of its own, on a port that stays the same."""

    where: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it, or starts it again; gives the seconds until it answered."""
        begin = time.perf_counter()
        command = [sys.executable, "-m", "plaudit.cli.main", "studio", "--store", self.where]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=log
            )
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(self.log.read_text())
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port)) as line,
            ):
                line.sendall(b"GET /join HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if line.recv(1):  # the port listens before anybody answers
                    return time.perf_counter() - begin
            time.sleep(0.01)

    def kill(self) -> None:
        """As a power cut of the process: nothing of it is run any more."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As Ctrl-C; gives the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def memory(self) -> float:
        """Resident megabytes."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def served(where: str, log: Path) -> Iterator[Server]:
    """A studio over the store, ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(where, port, log)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def crowd(
    port: int,
    tokens: list[str],
    *,
    per_minute: float,
    leaving: float = 0,
    seconds: float = 0,
    seed: int = 1,
) -> tuple[Tally, list[Annotator]]:
    """An annotator for each token; a share of them leaves at some moment of the `seconds`."""
    draw, tally = random.Random(seed), Tally()
    people = [
        Annotator(Line(port, token), tally, per_minute, random.Random(draw.random()))
        for token in tokens
    ]
    for one in draw.sample(people, round(leaving * len(people))):
        one.leaves_after = draw.uniform(0, seconds)
    return tally, people


async def works(people: list[Annotator], seconds: float, *, patience: float = 60) -> None:
    """All of them for `seconds`, and until their outboxes are empty."""
    until = time.monotonic() + seconds
    async with asyncio.timeout(seconds + patience):
        await asyncio.gather(*(one.work(until) for one in people))
