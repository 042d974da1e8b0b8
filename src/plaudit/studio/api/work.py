"""An annotator's work: offers are drawn, votes come back, and any of them can be undone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from plaudit.feedback.holding import Hold
from plaudit.feedback.offered import Answers, Offer, OfferVote
from plaudit.records.errors import UserError
from plaudit.studio.problems import Json, Refused
from plaudit.studio.sessions import Here, Studio, Worker
from plaudit.studio.wire import (
    MOST_VOTES,
    Malformed,
    OfferOut,
    Offers,
    Results,
    Strict,
    VoteIn,
    offer_json,
    stored_value,
    vote_of,
)

router = APIRouter(tags=["work"])


class Wanted(Strict):
    n: int = Field(ge=1, le=30, description="how many offers the page wants to hold in all")


class Release(Strict):
    why: str = Field(default="left", max_length=200)


class Votes(BaseModel):
    """Votes in the order they were cast; one that cannot be read does not keep the others out."""

    votes: list[VoteIn | dict[str, Any]] = Field(min_length=1, max_length=MOST_VOTES)


class Nothing(Strict):
    pass


class Undone(BaseModel):
    undone: str | None
    offer: OfferOut | None


@router.post("/offers", response_model=Offers)
async def offers(wanted: Wanted, studio: Here, annotator: Worker) -> Response:
    """Offers to vote on: those already held first, in the order drawn, then new ones.

    `open` is false where nothing is left for this person, true where there is or may soon be.
    """
    if annotator.paused:
        raise Refused(403, "your work is paused; what you have sent is kept")
    _spend(studio, "offers", annotator.name, 1)
    name = annotator.name
    held = await studio.writer.do(Hold(name, wanted.n, "auto", time.time()))
    studio.orders.note(held)
    return await run_in_threadpool(_offered, studio, name, held)


@router.post("/offers/{key}/release", status_code=204)
def release(key: str, said: Release, studio: Here, annotator: Worker) -> Response:
    """Gives an offer back, so that somebody else may have it at once."""
    studio.store.offers.release(key, annotator.name, said.why)
    return Response(status_code=204)


@router.post("/votes", response_model=Results)
async def votes(sent: Votes, studio: Here, annotator: Worker) -> Response:
    """Keeps votes; answered once they are on the disk.

    A vote sent again is `known`, one that came after its offer ran out `surplus`, and one that
    cannot be kept `refused`, with a sentence; each stands for itself.
    """
    _spend(studio, "votes", annotator.name, len(sent.votes))
    results: list[dict[str, Any]] = []
    ready: list[tuple[int, OfferVote]] = []
    shown = await studio.orders.of(
        vote.offer for vote in sent.votes if isinstance(vote, VoteIn) and vote.offer is not None
    )
    for vote in sent.votes:
        raw = vote.model_dump() if isinstance(vote, VoteIn) else vote
        try:
            ready.append((len(results), _stored(raw, shown)))
            results.append({})
        except (Malformed, UserError) as error:
            key = raw.get("key")
            known_key = key if isinstance(key, str) and len(key) <= 200 else None
            results.append({"key": known_key, "status": "refused", "detail": str(error)})
    if ready:
        stored = tuple(vote for _, vote in ready)
        answers = await studio.writer.do(Answers(annotator.name, stored, time.time()))
        for (place, _), said in zip(ready, answers, strict=True):
            detail = said.sentence or None
            results[place] = {"key": said.key, "status": said.status, "detail": detail}
    return Json({"results": results})


@router.post("/undo", response_model=Undone)
def undo(_: Nothing, studio: Here, annotator: Worker) -> Response:
    """Takes back this person's last standing vote, cast from whatever device."""
    _spend(studio, "votes", annotator.name, 1)
    for undone in studio.store.offers.undo_last(annotator.name):
        offer = undone.offer
        return Json({"undone": undone.key, "offer": None if offer is None else offer_json(offer)})
    return Json({"undone": None, "offer": None})


def _offered(studio: Studio, name: str, held: list[Offer]) -> Response:
    is_open = bool(held) or studio.store.offers.waiting(name)
    return Json({"offers": [offer_json(offer) for offer in held], "open": is_open})


def _stored(sent: dict[str, Any], shown: Mapping[str, tuple[int, ...]]) -> OfferVote:
    """A vote in the store's positions; Malformed or UserError."""
    vote, value = vote_of(sent)
    if vote.kind != "undo" and vote.offer not in shown:
        raise UserError("there is no such offer; nothing was kept")
    stored = stored_value(value, shown.get(vote.offer or "", ()))
    return OfferVote(vote.key, vote.offer, vote.kind, stored, vote.seconds, vote.visible_seconds)


def _spend(studio: Studio, what: str, name: str, num: int) -> None:
    buckets = getattr(studio.rates, what)
    if wait := buckets.take(name, num):
        raise Refused(
            429, f"too many {what} at once; the rest in a moment", retry_after=str(int(wait) + 1)
        )
