"""How well people agree with themselves and each other: what the quality page shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from plaudit.feedback.quality import Agreement, ItemFigures, PersonFigures
from plaudit.studio.problems import Json
from plaudit.studio.sessions import Here, Viewer

router = APIRouter(tags=["quality"])


class QualityOut(BaseModel):
    people: list[PersonFigures]
    agreement: Agreement


class ItemsOfQuality(BaseModel):
    items: list[ItemFigures]
    next: int | None = Field(description="`after` of the next page, null on the last")


@router.get("/quality", response_model=QualityOut)
def quality(studio: Here, _: Viewer) -> Response:
    """Figures of every person, and agreement on the items that were chosen uniformly."""
    found = studio.store.quality
    people = [asdict(one) for one in found.per_person()]
    return Json({"people": people, "agreement": asdict(found.agreement())})


@router.get("/quality/items", response_model=ItemsOfQuality)
def items(
    studio: Here,
    _: Viewer,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Figures of items, page by page."""
    found = [asdict(one) for one in studio.store.quality.per_item(after, limit)]
    return Json({"items": found, "next": found[-1]["number"] if len(found) == limit else None})
