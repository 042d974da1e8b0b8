"""The application: the pages and the API over one store, behind the door of `security.py`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from plaudit import __version__
from plaudit.feedback.store import FeedbackStore
from plaudit.studio import pages
from plaudit.studio.api import exports, items, join, media, people, quality, rewards, runs, work
from plaudit.studio.bodies import Patience
from plaudit.studio.problems import DOCUMENTED, handle_problems
from plaudit.studio.security import Door
from plaudit.studio.sessions import Studio, kept_settings
from plaudit.studio.settings import Serving, StudioSettings
from plaudit.studio.wire import VALUES

ROUTERS = tuple(
    part.router for part in (join, work, people, items, exports, media, quality, runs, rewards)
)
"""The parts of the API; each adds what it answers below /api/v1."""


def create_app(
    store: FeedbackStore,
    serving: Serving | None = None,
    settings: StudioSettings | None = None,
    *,
    patience: Patience | None = None,
) -> tuple[ASGIApp, Studio]:
    """The studio over a store, as an ASGI application, and what its parts share.

    `settings` take the place of those that the store keeps.
    """
    studio = Studio(store, serving or Serving(), kept_settings(store))
    if settings is not None:
        studio.change(settings)
    app = FastAPI(
        title="Plaudit studio",
        version=__version__,
        docs_url=None,  # that page loads scripts of others
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.studio = studio
    handle_problems(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/api/v1", responses=DOCUMENTED)
    app.include_router(pages.router)
    # Only what everybody may read is compressed: of an answer with a secret in it, the length would tell.
    files = pages.Files(directory=pages.STATIC, check_dir=False)
    app.mount("/static", GZipMiddleware(files, minimum_size=1000))
    _name_values(app)
    return Door(app, studio.serving, patience), studio


def _name_values(app: FastAPI) -> None:
    """Adds what a vote's value may be to the schema: it is read vote by vote, not by FastAPI."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            parts = made().setdefault("components", {}).setdefault("schemas", {})
            for value in VALUES.values():
                parts[value.__name__] = value.model_json_schema()
        schema: dict[str, object] = made()
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of changing it
