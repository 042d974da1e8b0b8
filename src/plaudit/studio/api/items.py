"""For admins: what is asked about, files of feedback in and out, and the settings of the work.

Files pass through in parts: neither an import nor an export is ever held whole in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from plaudit.feedback.entries import Item
from plaudit.feedback.exchange import import_feedback
from plaudit.studio.problems import Json
from plaudit.studio.sessions import Admin, Here, Viewer
from plaudit.studio.settings import StudioSettings
from plaudit.studio.texts import text_json
from plaudit.studio.wire import TextOut

router = APIRouter(tags=["data"])

LARGEST_ID = 2**31 - 1
Ending = Literal[
    "jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"
]


class SegmentRow(BaseModel):
    text: TextOut
    kind: str
    model: str | None


class ItemOut(BaseModel):
    id: int
    key: str
    prompt: TextOut
    segments: list[SegmentRow]
    columns: dict[str, Any]


class Items(BaseModel):
    items: list[ItemOut]
    next: int | None = Field(description="`after` of the next page, null on the last")


class Imported(BaseModel):
    rows: int
    items: int
    votes: int
    notes: list[str]


After = Annotated[
    int, Query(ge=0, le=LARGEST_ID, description="the id that the last page ended with")
]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("/items", response_model=Items)
def items(studio: Here, _: Viewer, after: After = 0, limit: Limit = 50) -> Response:
    """What is asked about, page by page, models and columns included."""
    found = studio.store.items(after=after, limit=limit)
    rows = [_item(after + place, item) for place, item in enumerate(found, start=1)]
    return Json({"items": rows, "next": after + len(found) if len(found) == limit else None})


@router.post(
    "/imports",
    response_model=Imported,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def imports(
    request: Request,
    studio: Here,
    _: Admin,
    format: Annotated[Ending, Query(description="the ending that the file's name has")] = "jsonl",
    rater: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    form: Annotated[
        str | None, Query(max_length=40, description="what it is, where its columns do not say it")
    ] = None,
) -> Response:
    """Reads a file of items or feedback, in our columns or a known format; again, it adds nothing."""
    async with _received(request, format) as path:
        done = await run_in_threadpool(
            import_feedback,
            studio.store,
            path,
            rater=rater or "import",
            form=form,
            called=f"the file.{format}",
        )
    return Json(
        {
            "rows": done.num_rows,
            "items": done.num_items,
            "votes": done.num_votes,
            "notes": list(done.notes),
        }
    )


@router.get("/settings", response_model=StudioSettings)
def settings(studio: Here, _: Viewer) -> Response:
    """How the work is given out."""
    return Json(studio.settings.model_dump())


@router.put("/settings", response_model=StudioSettings)
def change_settings(wanted: StudioSettings, studio: Here, _: Admin) -> Response:
    """Sets all of them; what is left out has its default."""
    studio.change(wanted)
    return Json(wanted.model_dump())


@asynccontextmanager
async def _received(request: Request, ending: str) -> AsyncIterator[Path]:
    """The body as a file that only this process's user can read, gone afterwards."""
    handle, name = tempfile.mkstemp(prefix="import-", suffix=f".{ending}")
    try:
        with os.fdopen(handle, "wb") as file:
            async for part in request.stream():
                await run_in_threadpool(file.write, part)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _item(number: int, item: Item) -> dict[str, Any]:
    return {
        "id": number,
        "key": item.key,
        "prompt": text_json(item.prompt),
        "segments": [
            {"text": text_json(s.text), "kind": s.kind, "model": s.model} for s in item.segments
        ],
        "columns": dict(item.columns),
    }
