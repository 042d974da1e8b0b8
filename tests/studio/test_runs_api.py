"""Runs over HTTP: who may see and start them, live events with their ids, slow readers, a real run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from plaudit.feedback.store import FeedbackStore
from plaudit.records.config import Config
from plaudit.records.files import keep_lines
from plaudit.records.runs import RunFolder
from plaudit.studio import events as module
from plaudit.studio.events import EventStream, run_events
from plaudit.studio.following import Place
from plaudit.studio.run_views import RunViews
from studio.serving import running
from tiny_job import tiny_job


class Keys(Config):
    """None."""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A studio in a folder with a tiny model, with one stopped run."""
    folder = tiny_job(tmp_path_factory.mktemp("job"))
    with pytest.MonkeyPatch.context() as patch, FeedbackStore(folder / "feedback.sqlite") as store:
        patch.chdir(folder)
        with RunFolder.create("runs/one", Keys(), pipeline="ppo") as run:
            for k in range(1, 4):
                run.append_jsonl("metrics.jsonl", row(k))
                run.append_jsonl("samples.jsonl", {"stage": "ppo", "step": k, "completion": "x"})
        with running(store) as studio:
            yield studio
            for job in studio.studio.jobs.started():
                job.process.kill()
                job.process.wait()


def row(k):
    kl = 0.1 * k
    return {"stage": "ppo", "step": k, "event": "step", "objective/kl": kl, "objective/scores": k}


@pytest.fixture(scope="module")
def admin(up):
    with up.entered("Root", "admin") as client:
        yield client


def test_annotators_see_no_runs_viewers_see_and_start_none(up, admin):
    with up.entered("Ann") as annotator, up.entered("Vic", "viewer") as viewer:
        for path in ("runs", "runs/one", "runs/one/samples", "runs/one/events"):
            assert annotator.get(f"/api/v1/{path}").status_code == 403
        assert viewer.get("/api/v1/runs/one").json()["state"] == "stopped"
        for path, body in (
            ("runs", {"job": "ppo"}), ("rewards", {}), ("runs/one/stop", {}), ("runs/one/resume", {})
        ):  # fmt: skip
            assert viewer.post(f"/api/v1/{path}", json=body).status_code == 403
    with up.client() as nobody:
        assert nobody.get("/api/v1/runs").status_code == 401


def test_one_run_its_samples_and_what_is_not_there(admin):
    listed = admin.get("/api/v1/runs").json()
    assert [(r["name"], r["state"], r["step"]) for r in listed["runs"]] == [("one", "stopped", 3)]
    assert "rlhf" in listed["jobs"]
    whole = admin.get("/api/v1/runs/one").json()
    assert whole["curves"]["ppo"]["objective/scores"] == [[1, 1.0], [2, 2.0], [3, 3.0]]
    assert [s["n"] for s in admin.get("/api/v1/runs/one/samples?limit=2").json()["samples"]] == [
        2,
        3,
    ]
    page = admin.get("/api/v1/runs/one/samples?before=2").json()
    assert ([s["n"] for s in page["samples"]], page["next"], page["first"]) == ([1], 1, 1)
    for path in ("runs/two", "runs/..%2Fone", "runs/%2e%2e", "runs/two/events", "runs/two/samples"):
        assert admin.get(f"/api/v1/{path}").status_code == 404


def test_what_would_be_started_is_said_and_nothing_is(admin):
    wanted = {"job": "ppo", "keys": {"model": "model", "num_steps": 2}, "name": "dry", "dry": True}
    said = admin.post("/api/v1/runs", json=wanted)
    assert said.json()["command"] == "plaudit run ppo --name dry --model=model --num_steps=2"
    assert not Path("runs/dry").exists()
    bad = admin.post(
        "/api/v1/runs", json={"job": "ppo", "keys": {"reward": "os:system"}, "dry": True}
    )
    assert bad.status_code == 400
    assert "code to run" in bad.json()["detail"]
    none = admin.post("/api/v1/rewards", json={})
    assert "no vote here prefers one answer yet" in none.json()["detail"]
    idle = admin.post("/api/v1/runs/one/stop", json={})
    assert (idle.status_code, idle.json()["detail"]) == (409, "nobody works on 'one' now")


# --- events


def heard(response, until):
    """(event, data, id) of a stream until one of them satisfies `until`."""
    told, fields = [], {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields.get("event"):
            told.append((fields["event"], json.loads(fields["data"]), fields.get("id")))
            fields = {}
            if until(*told[-1]):
                return told
    return told


def has_step(k):
    return lambda event, data, _: event == "rows" and data[-1]["step"] == k


def test_events_are_live_and_go_on_where_they_were_left(admin):
    place = admin.get("/api/v1/runs/one").json()["place"]
    run = RunFolder(Path("runs/one"))
    run.lock()
    with run:
        with admin.stream("GET", f"/api/v1/runs/one/events?since={place}") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            threading.Timer(0.3, run.append_jsonl, ("metrics.jsonl", row(4))).start()
            told = heard(response, has_step(4))
        assert [data for event, data, _ in told if event == "rows"] == [[row(4)]]
        assert told[0][0] == "state"
        assert told[0][1]["state"] == "running"
        last = told[-1][2]
        run.append_jsonl("metrics.jsonl", row(5))
        run.append_jsonl("metrics.jsonl", row(6))
        with admin.stream(
            "GET", "/api/v1/runs/one/events", headers={"Last-Event-ID": last}
        ) as again:
            told = heard(again, has_step(6))
        assert [data for event, data, _ in told if event == "rows"] == [[row(5), row(6)]]
        keep_lines(run.path / "metrics.jsonl", [True] * 5 + [False])  # as a resume does
        with admin.stream(
            "GET", "/api/v1/runs/one/events", headers={"Last-Event-ID": last}
        ) as again:
            told = heard(again, has_step(5))
    assert [event for event, _, _ in told if event != "state"] == ["anew", "rows"]
    assert [r["step"] for r in told[-1][1]] == [1, 2, 3, 4, 5]


def test_a_quiet_run_gives_a_sign_of_life_and_the_stream_ends_with_the_server(monkeypatch, up):
    monkeypatch.setattr(module, "HEARTBEAT", 0.05)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    run = RunFolder(Path("runs/one"))

    async def listen():
        stopping, parts = asyncio.Event(), []
        async for part in run_events(RunViews(Path("runs")), run, Place(), stopping):
            parts.append(part)
            if part.startswith(b":"):
                stopping.set()
        return parts

    parts = asyncio.run(asyncio.wait_for(listen(), 60))
    assert parts[0] == b"retry: 2000\n\n"
    assert parts[-1] == b": still here\n\n"
    assert sum(part.startswith(b"id: ") and b"event: rows" in part for part in parts) == 1


def test_a_reader_that_takes_nothing_is_left():
    async def speaks():
        while True:
            yield b"data: x\n\n"

    async def try_it():
        taken = []

        async def send(message):
            taken.append(message)
            if len(taken) > 3:
                await asyncio.Event().wait()  # its buffers are full, for ever

        async def receive():
            await asyncio.Event().wait()

        await EventStream(speaks(), patience=0.05)({}, receive, send)
        return taken

    assert len(asyncio.run(asyncio.wait_for(try_it(), 30))) == 4


def test_a_reader_that_leaves_ends_the_stream():
    async def try_it():
        ended = asyncio.Event()

        async def speaks():
            try:
                while True:
                    yield b"data: x\n\n"
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        async def send(message):
            pass

        async def receive():
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        stream = EventStream(speaks())
        await stream({}, receive, send)
        await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(asyncio.wait_for(try_it(), 30))


# --- a job


def state(admin, name):
    found = {one["name"]: one for one in admin.get("/api/v1/runs").json()["runs"]}
    return found.get(name, {"state": None})


def wait_for(admin, name, *states):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        now = state(admin, name)
        if now["state"] in states:
            return now
        time.sleep(0.1)
    raise AssertionError(f"{name} is {now}")


def test_a_run_is_started_stopped_and_goes_on(admin):
    keys = {"model": "model", "prompts": "prompts.jsonl", "num_held_out": 4, "num_top_layers": 2,
            "sampling.max_new_tokens": 8, "prompts_per_step": 4, "num_minibatches": 2,
            "num_steps": 400, "save_every": 1}  # fmt: skip
    said = admin.post("/api/v1/runs", json={"job": "ppo", "name": "live", "keys": keys})
    assert said.status_code == 201, said.text
    wait_for(admin, "live", "running")
    deadline = time.monotonic() + 240
    while (state(admin, "live").get("stage") != "ppo") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert admin.post("/api/v1/runs/live/stop", json={}).status_code == 204
    stopped = wait_for(admin, "live", "stopped")
    assert (stopped["failed"], stopped["stage"]) == (None, "ppo")
    again = admin.post("/api/v1/runs/live/resume", json={})
    assert again.json()["command"] == "plaudit run --resume live"
    wait_for(admin, "live", "running")
    assert admin.post("/api/v1/runs/live/stop", json={}).status_code == 204
    wait_for(admin, "live", "stopped")


def test_a_job_that_cannot_be_says_why(admin):
    wanted = {
        "job": "rlhf",
        "name": "none",
        "keys": {"model": "no-such-model", "prompts": "p.jsonl"},
    }
    assert admin.post("/api/v1/runs", json=wanted).status_code == 201
    failed = wait_for(admin, "none", "failed")
    assert "p.jsonl" in failed["failed"]
    assert not Path("runs/none").exists()


def test_the_server_loads_no_torch_for_runs(up):
    code = (
        "import sys; from plaudit.studio.app import create_app; from pathlib import Path;"
        "from plaudit.studio.run_views import RunViews; v = RunViews(Path('runs'));"
        "print(v.whole(v.named('one'))['alarms']);"
        "print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["[]"], "")
