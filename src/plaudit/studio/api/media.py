"""Films of clips: shown to whoever was offered them, and to admins and viewers."""

from __future__ import annotations

from collections import OrderedDict

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from plaudit.feedback.media import Media, digest_of
from plaudit.feedback.people import Annotator
from plaudit.studio.problems import Refused
from plaudit.studio.sessions import Here, Somebody, Studio

router = APIRouter(tags=["work"])

MOST_REMEMBERED = 20_000
"""Films that people were found to be offered: after the vote a page may still ask for parts of one."""
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.get(
    "/media/{digest}",
    response_class=Response,
    responses={
        200: {"content": {"video/webm": {}, "image/png": {}}, "description": "the film"},
        206: {"content": {"video/webm": {}, "image/png": {}}, "description": "a part of it"},
        416: {"description": "there is no such part"},
    },
)
def media(digest: str, studio: Here, annotator: Somebody) -> Response:
    """A film by its SHA-256; parts by Range, since browsers ask for films so."""
    found = Media.beside(studio.store).find(digest)
    # One sentence for both: whether a film exists is nobody's business who was not offered it.
    if found is None or not _may_see(studio, annotator, digest):
        raise Refused(404, "there is no such film among your offers")
    path, kind = found
    return FileResponse(path, media_type=kind, headers=KEPT)


def _may_see(studio: Studio, annotator: Annotator, digest: str) -> bool:
    if annotator.role in ("admin", "viewer"):
        return True
    known: OrderedDict[tuple[str, str], None] = studio.films
    if (annotator.name, digest) in known:
        return True
    for offer in studio.store.offers.mine(annotator.name):
        for segment in offer.segments:
            if (shown := digest_of(segment.extra)) is not None:
                known[annotator.name, shown] = None
    while len(known) > MOST_REMEMBERED:
        known.popitem(last=False)
    return (annotator.name, digest) in known
