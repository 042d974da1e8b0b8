"""Who is asking: the person of a cookie or a bearer token, and what their role lets them do."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from plaudit.feedback.kept import keep_setting, orders_shown, setting
from plaudit.feedback.offered import Offer
from plaudit.feedback.people import Annotator
from plaudit.feedback.store import FeedbackStore
from plaudit.studio.launching import Launcher
from plaudit.studio.limits import Rates
from plaudit.studio.problems import Refused
from plaudit.studio.run_views import RunViews
from plaudit.studio.settings import Serving, StudioSettings
from plaudit.studio.writer import Writer

OF_OFFERS = ("overlap", "repeat_share", "uniform_share", "lease_seconds")
"""Settings that the store itself follows."""
REMEMBERED_SECONDS = 20.0
"""How long a session is believed without asking the store; a change made here is seen at once."""
MOST_REMEMBERED = 5_000

bearer = HTTPBearer(auto_error=False, description="a token from POST people/{name}/token")


class Sessions:
    """The people of session tokens, remembered for a moment; tokens are kept as digests only."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[float, Annotator]] = OrderedDict()

    async def who(self, token: str) -> Annotator | None:
        """The person whose session this is, if it is one."""
        digest = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        now = time.monotonic()
        until, annotator = self._known.get(digest, (0.0, None))
        if until > now:
            return annotator
        found = await run_in_threadpool(self._store.people.who, token)
        if found is not None:
            self._known[digest] = (now + REMEMBERED_SECONDS, found)
            if len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return found

    def forget(self) -> None:
        """To be called after anything about people was changed."""
        self._known.clear()


class Orders:
    """In which order the answers of each offer stood: votes name places on the page."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def note(self, offers: Iterable[Offer]) -> None:
        """Remember offers that go out."""
        for offer in offers:
            self._known[offer.key] = offer.shown
            while len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)

    async def of(self, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The order of each offer that there is."""
        wanted = set(keys)
        found = {key: order for key in wanted if (order := self._known.get(key)) is not None}
        if missing := wanted - found.keys():
            found |= await run_in_threadpool(orders_shown, self._store, missing)
        return found


@dataclass
class Studio:
    """What the parts of the application share."""

    store: FeedbackStore
    serving: Serving
    settings: StudioSettings
    rates: Rates = field(default_factory=Rates)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is asked to end: streams end themselves."""
    films: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    """Whom which film was offered to, by name and digest; what is not here is looked up."""
    sessions: Sessions = field(init=False)
    orders: Orders = field(init=False)
    views: RunViews = field(init=False)
    jobs: Launcher = field(init=False)
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self.views, self.jobs = RunViews(self.serving.runs), Launcher(self.serving.runs)
        self.sessions, self.orders = Sessions(self.store), Orders(self.store)
        self.writer = Writer(self.store.offers)

    def change(self, wanted: StudioSettings) -> None:
        """Takes other settings, and keeps them in the store."""
        said = wanted.model_dump()
        self.store.offers.configure(**{name: said.pop(name) for name in OF_OFFERS})
        keep_setting(self.store, "studio", said)
        self.settings = wanted


def kept_settings(store: FeedbackStore) -> StudioSettings:
    """What the store was told before, or the defaults."""
    offers = store.offers.settings
    ours = {name: getattr(offers, name) for name in OF_OFFERS}
    return StudioSettings(**ours, **(setting(store, "studio") or {}))


def studio_of(request: Request) -> Studio:
    """The studio that a request came to."""
    studio: Studio = request.app.state.studio
    return studio


async def here(request: Request) -> Studio:
    return studio_of(request)


def token_of(request: Request) -> str | None:
    """The token that a request came with; where it has a bearer token its cookies do not count."""
    kind, _, said = request.headers.get("authorization", "").partition(" ")
    if kind:
        return said.strip() if kind.lower() == "bearer" else None
    return request.cookies.get(studio_of(request).serving.cookie)


async def visitor(request: Request) -> Annotator | None:
    """Who is asking, None for nobody in particular."""
    token = token_of(request)
    return None if not token else await studio_of(request).sessions.who(token)


async def somebody(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Annotator:
    """Who is asking; Refused for nobody."""
    found = await visitor(request)
    if found is None:
        raise Refused(401, "nobody is signed in here: open your link", www_authenticate="Bearer")
    return found


async def worker(annotator: Annotated[Annotator, Depends(somebody)]) -> Annotator:
    if annotator.role == "viewer":
        raise Refused(403, "a viewer looks on and does not vote")
    return annotator


async def viewer(annotator: Annotated[Annotator, Depends(somebody)]) -> Annotator:
    if annotator.role not in ("admin", "viewer"):
        raise Refused(403, "this is for admins and viewers")
    return annotator


async def admin(annotator: Annotated[Annotator, Depends(somebody)]) -> Annotator:
    if annotator.role != "admin":
        raise Refused(403, "this is for admins")
    return annotator


Here = Annotated[Studio, Depends(here)]
Somebody = Annotated[Annotator, Depends(somebody)]
Worker = Annotated[Annotator, Depends(worker)]
Viewer = Annotated[Annotator, Depends(viewer)]
"""Who may look at everything: an admin too."""
Admin = Annotated[Annotator, Depends(admin)]
