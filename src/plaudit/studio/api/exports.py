"""Feedback out of the store as it is read: JSON lines, sent while they are made, never held whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from plaudit.feedback.exchange import export_lines
from plaudit.feedback.formats.table import NAMES
from plaudit.studio.sessions import Here, Viewer

router = APIRouter(tags=["data"])

PART = 1 << 16
"""Bytes that are sent together; a line alone costs as much to send."""
OTHER_NAMES = {"pairs": "preference"}
Form = Literal[(*NAMES, *OTHER_NAMES)]  # type: ignore[valid-type]  # the table's own names


@router.get(
    "/exports/{form}.jsonl",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "one row a line"}},
)
def exports(
    form: Form,
    studio: Here,
    _: Viewer,
    rater: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
) -> Response:
    """What stands when the export begins, in a format of the table (docs/data.md); `votes` is all.

    What is said meanwhile is not in it, and nobody waits for it.
    """
    lines = export_lines(studio.store, OTHER_NAMES.get(form, form), rater=rater)
    return StreamingResponse(
        _parts(lines),
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{form}.jsonl"'},
    )


def _parts(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines, some together."""
    part, size = [], 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= PART:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)
