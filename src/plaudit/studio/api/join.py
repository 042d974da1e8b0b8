"""Entering by a link, leaving, and what a person may know and change of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from plaudit.feedback.people import Annotator
from plaudit.records.errors import UserError
from plaudit.studio.problems import Json, Refused
from plaudit.studio.sessions import Here, Somebody, Studio, token_of
from plaudit.studio.texts import tree
from plaudit.studio.wire import Language, Strict

router = APIRouter(tags=["people"])

COOKIE_SECONDS = 30 * 24 * 3600


class Join(Strict):
    token: str = Field(min_length=1, max_length=500, description="what stands behind # in the link")


class Me(BaseModel):
    name: str
    role: str
    lang: str
    keys: dict[str, str]
    letters: bool
    paused: bool
    progress: dict[str, int]
    settings: dict[str, Any]


class MyWishes(Strict):
    lang: Language | None = None
    keys: dict[str, str] | None = Field(default=None, max_length=50, description="key by action")
    letters: bool | None = Field(default=None, description="whether single letters are keys")


@router.post("/join", response_model=Me)
async def join(said: Join, request: Request, studio: Here) -> Response:
    """Exchanges a link's token, once, for a session cookie."""
    address = request.client.host if request.client else ""
    if wait := studio.rates.joins.take(address):
        raise Refused(
            429, "too many links were tried; wait a minute", retry_after=str(int(wait) + 1)
        )
    try:
        token, annotator = await run_in_threadpool(studio.store.people.enter, said.token)
    except UserError as error:
        raise Refused(403, str(error)) from None
    studio.rates.joins.give_back(address)
    if before := request.cookies.get(studio.serving.cookie):  # whoever it was, they are not now
        await run_in_threadpool(studio.store.people.leave, before)
    studio.sessions.forget()
    response = Json(await run_in_threadpool(_me, studio, annotator))
    _set_cookie(response, studio, token, COOKIE_SECONDS)
    return response


@router.post("/leave", status_code=204)
async def leave(request: Request, studio: Here, _: Somebody) -> Response:
    """Ends this session."""
    if token := token_of(request):
        await run_in_threadpool(studio.store.people.leave, token)
    studio.sessions.forget()
    response = Response(status_code=204)
    _set_cookie(response, studio, "", 0)
    return response


@router.get("/me", response_model=Me)
def me(studio: Here, annotator: Somebody) -> Response:
    """Who is signed in, how far they are, and what the admin has set."""
    return Json(_me(studio, annotator))


@router.put("/me", response_model=Me)
def change_me(wishes: MyWishes, studio: Here, annotator: Somebody) -> Response:
    """Changes the language and the keys."""
    changed = wishes.model_dump(exclude_none=True)
    if changed:
        studio.store.people.set(annotator.name, **changed)
        studio.sessions.forget()
    return Json(_me(studio, studio.store.people.named(annotator.name)))


def _me(studio: Studio, annotator: Annotator) -> dict[str, Any]:
    settings = studio.settings
    guidelines = None if settings.guidelines is None else tree(settings.guidelines)
    return {
        "name": annotator.name,
        "role": annotator.role,
        "lang": annotator.lang,
        "keys": dict(annotator.keys),
        "letters": annotator.letters,
        "paused": annotator.paused,
        "progress": asdict(studio.store.offers.progress(annotator.name)),
        "settings": {
            "strength": settings.strength,
            "prefetch": settings.prefetch,
            "guidelines": guidelines,
        },
    }


def _set_cookie(response: Response, studio: Studio, token: str, seconds: int) -> None:
    response.set_cookie(
        studio.serving.cookie, token, max_age=seconds, path="/", httponly=True,
        samesite="strict", secure=studio.serving.is_secure,
    )  # fmt: skip
