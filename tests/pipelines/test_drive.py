"""A loop driven, killed by request anywhere and continued leaves what the undisturbed one leaves."""

from __future__ import annotations

import pytest
import torch
from pydantic import Field

from plaudit.pipelines.drive import Silent, drive
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Evaluation, Rollout, Step
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.runs import RunFolder


class WalkConfig(Config):
    length: int = Field(8, description="Steps to walk.")


def walk(length, saved=None):
    """A random walk whose state is a position and a generator."""
    generator = torch.Generator().manual_seed(3)
    start, position = 0, torch.zeros(1)
    if saved is not None:
        start, arrays, _ = saved
        position = arrays["position"]
        generator.set_state(arrays["generator"])
    for step in range(start + 1, length + 1):
        position = position + torch.randn(1, generator=generator)
        yield Rollout(step, [{"text": f"at {float(position):.2f}"}], {"walked": step})
        yield Step(step, length, {"position": float(position)})
        if step % 4 == 0:
            yield Evaluation(step, {"distance": abs(float(position))})

        def state(position=position):
            return {"position": position, "generator": generator.get_state()}, {"x": 1}

        yield Checkpoint(step, state, due=step % 3 == 0)
    yield Done(length, {"position": float(position)})


def one_sitting(path, *, stop_after=None):
    """Runs or continues the walk; asks to stop once step `stop_after` is seen."""
    interrupt = Interrupt()

    class Stopper(Silent):
        def show(self, event):
            if isinstance(event, Step) and event.step == stop_after:
                interrupt.request()

    fresh = not path.exists()
    run = RunFolder.create(path, WalkConfig(), pipeline="walk") if fresh else RunFolder.resume(path)
    with run:
        saved = run.checkpoint_of("walk")
        start = None if saved is None else saved[0]
        return drive(
            walk(8, saved), run, "walk", progress=Stopper(), interrupt=interrupt, start=start
        )


def lines(path, name):
    rows = RunFolder.open(path).read_jsonl(name)
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


def test_lines_hold_stage_step_event_and_times(tmp_path):
    done = one_sitting(tmp_path / "run")
    rows = RunFolder.open(tmp_path / "run").read_jsonl("metrics.jsonl")
    assert list(rows[1]) == ["stage", "step", "event", "time", "seconds", "position"]
    last = [row["event"] for row in rows[-5:]]
    assert last == ["rollout", "step", "rollout", "step", "evaluation"]
    assert rows[-2]["position"] == done.metrics["position"]
    assert rows[0]["seconds"] <= rows[-1]["seconds"]


@pytest.mark.parametrize("stop_after", range(1, 9))
def test_interrupted_and_continued_equals_undisturbed(tmp_path, stop_after):
    whole = one_sitting(tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped at step {stop_after}"):
        one_sitting(tmp_path / "parts", stop_after=stop_after)
    done = one_sitting(tmp_path / "parts")
    assert done == whole
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(tmp_path / "parts", name) == lines(tmp_path / "whole", name)
    events = [row["event"] for row in lines(tmp_path / "parts", "events.jsonl")]
    assert events.count("interrupted") == 1
    assert events[-1] == "done"


def test_a_crash_goes_on_from_the_last_due_checkpoint_without_doubled_lines(tmp_path):
    class Crash(Exception):
        pass

    def crashing():
        for event in walk(8):
            if isinstance(event, Step) and event.step == 5:
                raise Crash
            yield event

    with RunFolder.create(tmp_path / "run", WalkConfig(), pipeline="walk") as run:
        with pytest.raises(Crash):
            drive(crashing(), run, "walk", progress=Silent(), interrupt=Interrupt())
        assert run.saved_at() == ("walk", 3)
        with (run.path / "metrics.jsonl").open("a") as torn:
            torn.write('{"stage": "wa')
    one_sitting(tmp_path / "run")
    one_sitting(tmp_path / "whole")
    assert lines(tmp_path / "run", "metrics.jsonl") == lines(tmp_path / "whole", "metrics.jsonl")


def test_a_stage_that_never_says_done_is_a_fault(tmp_path):
    with (
        RunFolder.create(tmp_path / "run", WalkConfig(), pipeline="walk") as run,
        pytest.raises(RuntimeError, match="without saying Done"),
    ):
        drive(iter([]), run, "walk", progress=Silent(), interrupt=Interrupt())
