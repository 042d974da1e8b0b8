"""How the API says that something was wrong: problem JSON (RFC 9457) with one plain sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from plaudit.records.errors import UserError

LOG = logging.getLogger("plaudit.studio")


class Problem(BaseModel):
    """What went wrong; `detail` is a sentence for the person who asked."""

    type: str
    title: str
    status: int
    detail: str


class Refused(Exception):
    """A request that is not served, with the status and the sentence to say so."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def json_bytes(value: Any) -> bytes:
    """JSON as UTF-8; half a surrogate pair, which UTF-8 lacks, stays escaped."""
    try:
        said = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return said.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class Json(Response):
    """An answer whose texts may hold anything that the store may."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


class ProblemJson(Json):
    media_type = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that says what was wrong."""
    said = Problem(
        type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail
    )
    return ProblemJson(said.model_dump(), status, headers)


def sentence(errors: Sequence[Mapping[str, Any]]) -> str:
    """pydantic's first complaint as one sentence; what was sent is not repeated."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    said = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {ProblemJson.media_type: {"schema": Problem.model_json_schema()}},
    }
    for status in (400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 503)
}
"""What any part of the API may answer besides what was asked for."""


def handle_problems(app: FastAPI) -> None:
    """Has every failure of `app` answered by a problem."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return problem(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(422, sentence(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        said = {404: "there is nothing here", 405: "this is not done here by this method"}
        detail = said.get(error.status_code, str(error.detail))
        return problem(error.status_code, detail, error.headers)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        LOG.error("a fault of ours: %s", type(error).__name__)
        return problem(500, "something failed here; the studio's terminal says what")
