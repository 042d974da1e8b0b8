"""A real studio on a free port, for tests: uvicorn in a thread, and people to ask as."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from plaudit.feedback.store import FeedbackStore
from plaudit.studio.app import create_app
from plaudit.studio.bodies import Patience
from plaudit.studio.server import StudioServer, listen
from plaudit.studio.sessions import Studio
from plaudit.studio.settings import Serving, StudioSettings


@dataclass
class Running:
    """A studio that is up: its address, its store, and what its parts share."""

    address: str
    store: FeedbackStore
    studio: Studio

    def link(self, name: str, role: str = "annotator") -> str:
        """A link that lets `name` in once."""
        return f"{self.address}/join#{self.store.people.invite(name, role=role)}"

    def client(self, **headers: str) -> httpx2.Client:
        """Somebody whom nobody knows yet, who sends what a page of the studio sends."""
        ours = {"Origin": self.address, "X-Plaudit": "1"}
        return httpx2.Client(base_url=self.address, headers=ours | headers, trust_env=False)

    @contextlib.contextmanager
    def entered(self, name: str, role: str = "annotator") -> Iterator[httpx2.Client]:
        """A client with the cookie of `name`."""
        with self.client() as client:
            token = self.store.people.invite(name, role=role)
            client.post("/api/v1/join", json={"token": token}).raise_for_status()
            yield client

    def bearer(self, name: str, role: str = "annotator") -> str:
        """An API token of `name`, who is added where they are new."""
        if name not in {one.name for one in self.store.people.annotators()}:
            self.store.people.add(name, role=role)
        return self.store.people.bearer(name)


@contextlib.contextmanager
def running(
    store: FeedbackStore,
    *,
    host: str = "127.0.0.1",
    public: str | None = None,
    patience: Patience | None = None,
    **settings: object,
) -> Iterator[Running]:
    """Serves a store until the block ends; `settings` are those of StudioSettings."""
    listener = listen(host, 0)
    serving = Serving(host, listener.getsockname()[1], public)
    wanted = StudioSettings(**settings) if settings else None
    app, studio = create_app(store, serving, wanted, patience=patience)
    server = StudioServer(app, studio)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.002)
        yield Running(f"http://127.0.0.1:{serving.port}", store, studio)
    finally:
        server.stop()
        thread.join(10)
        listener.close()
        assert not thread.is_alive()
