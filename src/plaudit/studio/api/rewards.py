"""Reward models of this studio's votes: fitted by a job of their own, which is a run like any other."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from plaudit.studio.api.runs import StartedRun, Value, started
from plaudit.studio.sessions import Admin, Here
from plaudit.studio.wire import Strict

router = APIRouter(tags=["runs"])


class NewReward(Strict):
    keys: dict[str, Value] = Field(default_factory=dict, max_length=100)
    name: str | None = Field(default=None, min_length=1, max_length=200)


@router.post("/rewards", response_model=StartedRun, status_code=201)
def fit(wanted: NewReward, studio: Here, _: Admin) -> Response:
    """Fits a reward model to the comparisons that stand now."""
    plan = studio.jobs.plan("reward", wanted.keys, name=wanted.name, votes=studio.store)
    studio.jobs.start(plan)
    return started(plan)
