"""The three pages and their files; whoever may not see a page is sent to the one they may."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from plaudit.studio.sessions import visitor

STATIC = Path(__file__).parent / "static"

router = APIRouter(include_in_schema=False)


class Files(StaticFiles):
    """Files that the browser keeps and asks about: an upgrade is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


@router.get("/")
async def work(request: Request) -> Response:
    """Where votes are cast; a viewer has nothing to do there."""
    found = await visitor(request)
    if found is None:
        return RedirectResponse("/join", 303)
    return RedirectResponse("/admin", 303) if found.role == "viewer" else _page("index.html")


@router.get("/join")
async def join() -> Response:
    """Where a link leads; its token stands behind # and never reaches the server in a URL."""
    return _page("join.html")


@router.get("/admin")
async def admin(request: Request) -> Response:
    """People, data, quality, runs and settings."""
    found = await visitor(request)
    if found is None:
        return RedirectResponse("/join", 303)
    return RedirectResponse("/", 303) if found.role == "annotator" else _page("admin.html")


def _page(name: str) -> Response:
    return FileResponse(STATIC / name, headers={"Cache-Control": "no-store"})
