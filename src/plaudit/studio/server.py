"""uvicorn around the application: the port, patience with slow senders, and an end at once."""

from __future__ import annotations

import asyncio
import errno
import socket
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from plaudit.records.errors import UserError
from plaudit.studio.sessions import Studio

FIRST_SECONDS = 15.0
"""How long a connection may take to say what it wants."""
LAST_SECONDS = 2
"""How long requests under way are waited for once the server is told to end."""
MOST_CONNECTIONS = 2_000


class Prompt(H11Protocol):
    """Closes a connection that sends its first request too slowly; uvicorn waits for ever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(FIRST_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        has_asked = getattr(self, "cycle", None) is not None
        if not has_asked and not self.transport.is_closing():
            self.transport.close()


class StudioServer(uvicorn.Server):
    """A server that tells the studio when it is asked to end, so that streams end themselves."""

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Prompt,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # of what is no HTTP at all anybody could send any number
                access_log=False,  # paths hold the keys of offers
                proxy_headers=False,  # anybody may say X-Forwarded-For
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )
        self._studio = studio

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal ends it in order, a second at once; uvicorn would raise it once more."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._stop_streams()

    def stop(self) -> None:
        """Ends the server from another thread."""
        self._stop_streams()
        self.should_exit = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until told to end; then everything that was asked for is kept."""
        try:
            super().run(sockets)
        finally:
            self._studio.writer.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def _stop_streams(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None:
            loop.call_soon_threadsafe(self._studio.stopping.set)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or UserError in a sentence."""
    try:
        family, _, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
    except (OSError, UnicodeError, OverflowError):
        raise UserError(f"--host {host!r} is no address of this machine") from None
    # With the protocol named, asyncio sets TCP_NODELAY: an answer is two writes, and else waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            said = f"port {port} is taken, perhaps by another studio: choose one with --port"
        elif error.errno == errno.EACCES:
            said = f"port {port} needs an administrator: choose one above 1023 with --port"
        else:
            said = f"the studio cannot listen at {host}:{port}: {error.strerror}"
        raise UserError(said) from None
    return listener


def serve(server: StudioServer, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM; both end it in order, and neither is an error."""
    server.run(sockets=[listener])
