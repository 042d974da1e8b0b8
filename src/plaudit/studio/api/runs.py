"""Runs: the list, one of them, its samples and live events; for admins: start, stop, go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from plaudit.records.errors import UserError
from plaudit.studio.events import EventStream, run_events
from plaudit.studio.following import Place
from plaudit.studio.launching import JOBS, LEARN_FROM_VOTES, Plan, num_preferences
from plaudit.studio.problems import Json, Refused
from plaudit.studio.sessions import Admin, Here, Studio, Viewer
from plaudit.studio.wire import Strict

if TYPE_CHECKING:
    from plaudit.records.runs import RunFolder

router = APIRouter(tags=["runs"])

Value = str | bool | int | float | None
Name = Annotated[str, Path(min_length=1, max_length=255, description="the run's name")]
MOST_STREAMS = 100


class NewRun(Strict):
    job: str = Field(min_length=1, max_length=40, description=f"one of {', '.join(JOBS)}")
    keys: dict[str, Value] = Field(default_factory=dict, max_length=100)
    name: str | None = Field(default=None, min_length=1, max_length=200)
    votes: bool = Field(default=False, description="learn from the comparisons of this studio")
    dry: bool = Field(default=False, description="only check, and say what would be started")


class StartedRun(BaseModel):
    name: str
    command: str = Field(description="what was started, as the command line says it")
    before: str | None = Field(description="the command that wrote the votes it learns from")
    notes: list[str]


class Waiting(BaseModel):
    votes: int
    wanted: int


class Brief(BaseModel):
    name: str
    job: str
    state: str = Field(description="starting, running, waiting, stopped, finished or failed")
    waiting: Waiting | None
    stage: str | None
    step: int | None
    touched: float
    failed: str | None = Field(description="why a job that was started here ended at once")


class Runs(BaseModel):
    runs: list[Brief]
    jobs: list[str]
    from_votes: list[str] = Field(description="jobs that can learn from this studio's votes")
    judges: list[str] = Field(description="reward models of runs, by which others can be improved")
    num_comparisons: int


@router.get("/runs", response_model=Runs)
def runs(studio: Here, _: Viewer) -> Response:
    """Every run of the folder, the latest first, and what can be started."""
    return Json(
        {
            "runs": _briefs(studio),
            "jobs": list(JOBS),
            "from_votes": list(LEARN_FROM_VOTES),
            "judges": sorted(str(p) for p in studio.serving.runs.glob("*/reward_model")),
            "num_comparisons": num_preferences(studio.store),
        }
    )


@router.post("/runs", response_model=StartedRun, status_code=201)
def start(wanted: NewRun, studio: Here, _: Admin) -> Response:
    """Starts a job as a process of its own; the answer is the command line that it stands for."""
    votes = studio.store if wanted.votes else None
    plan = studio.jobs.plan(wanted.job, wanted.keys, name=wanted.name, votes=votes)
    if not wanted.dry:
        studio.jobs.start(plan)
    return started(plan)


@router.get("/runs/{name}")
def one(name: Name, studio: Here, _: Viewer) -> Response:
    """Curves, alarms, results, config and stages of a run."""
    return Json(studio.views.whole(_run(studio, name)))


@router.get("/runs/{name}/samples")
def samples(
    name: Name,
    studio: Here,
    _: Viewer,
    after: Annotated[int | None, Query(ge=0)] = None,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    stage: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """What the run showed of its answers; without `after` the last ones."""
    run = _run(studio, name)
    return Json(studio.views.samples(run, after=after, before=before, limit=limit, stage=stage))


@router.get(
    "/runs/{name}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(name: Name, request: Request, studio: Here, _: Viewer) -> Response:
    """Metrics as they come, by server-sent events; Last-Event-ID goes on where it was left."""
    run = await asyncio.to_thread(_run, studio, name)
    said = request.headers.get("last-event-id") or request.query_params.get("since", "")
    return EventStream(run_events(studio.views, run, Place.of(said), studio.stopping))


@router.post("/runs/{name}/stop", status_code=204)
def stop(name: Name, studio: Here, _: Admin) -> Response:
    """Has a run save itself and stop, as Ctrl-C does."""
    try:
        run = studio.views.named(name)
    except UserError:
        run = None
    try:
        studio.jobs.stop(run, name)
    except UserError as error:
        raise Refused(409, str(error)) from None
    return Response(status_code=204)


@router.post("/runs/{name}/resume", response_model=StartedRun, status_code=201)
def resume(name: Name, studio: Here, _: Admin) -> Response:
    """Goes on with a run that was stopped."""
    run = _run(studio, name)
    brief = studio.views.brief(run)
    if brief["state"] != "stopped":
        raise Refused(409, f"the run {name!r} is {brief['state']}")
    return started(studio.jobs.resume(run, brief["job"]))


def _run(studio: Studio, name: str) -> RunFolder:
    try:
        return studio.views.named(name)
    except UserError as error:
        raise Refused(404, str(error)) from None


def started(plan: Plan) -> Response:
    """What a plan stands for, as commands."""
    said = {"name": plan.name, "command": plan.command, "before": plan.before}
    return Json(said | {"notes": plan.notes}, 201)


def _briefs(studio: Studio) -> list[dict[str, Any]]:
    """Runs, and before them the jobs that have no folder yet or never had one."""
    found = [{**brief, "failed": None} for brief in studio.views.briefs()]
    by_name = {brief["name"]: brief for brief in found}
    ahead = []
    for job in studio.jobs.started():
        alive, failed = job.process.poll() is None, job.failed
        brief = by_name.get(job.name)
        if brief is not None:
            if brief["state"] == "stopped" and (alive or failed):
                brief |= {"state": "starting" if alive else "failed", "failed": failed}
        elif alive or failed:
            ahead.append(
                {"name": job.name, "job": job.job, "state": "starting" if alive else "failed",
                 "waiting": None, "stage": None, "step": None, "failed": failed,
                 "touched": job.log.stat().st_mtime}
            )  # fmt: skip
    return [*ahead[::-1], *found]
