"""A job of a few milliseconds, named by its file in the recipes of the command line's tests."""

from __future__ import annotations

import os
import signal

import torch
from pydantic import Field

from plaudit.pipelines.drive import drive
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Rollout, Step


class PaceConfig(Config):
    """How to walk."""

    length_m: float = Field(1.0, gt=0, description="Length of a step in metres.")


class WalkConfig(Config):
    """A random walk for the tests of the command line."""

    num_steps: int = Field(6, ge=1, description="Steps to walk.")
    signal_at: int | None = Field(None, description="Step at which to send SIGINT to itself.")
    kill_at: int | None = Field(None, description="Step at which to die by SIGKILL.")
    fail_at: int | None = Field(None, description="Step at which to fail.")
    names: dict[str, str] = Field({}, description="Names by name.")
    pace: PaceConfig = Field(PaceConfig(), description="How to walk.")


def walk(config, saved):
    generator = torch.Generator().manual_seed(0)
    start, place = 0, torch.zeros(1)
    if saved is not None:
        start, arrays, _ = saved
        place = arrays["place"]
        generator.set_state(arrays["generator"])
    for step in range(start + 1, config.num_steps + 1):
        if saved is None and step == config.fail_at:
            raise ZeroDivisionError("fell over")
        if saved is None and step == config.signal_at:
            os.kill(os.getpid(), signal.SIGINT)
        if saved is None and step == config.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        place = place + config.pace.length_m * torch.randn(1, generator=generator)
        yield Rollout(step, [{"text": f"a walker\nat {float(place):.2f}"}], {})
        yield Step(step, config.num_steps, {"objective/scores": float(place), "far": float(step)})
        state = {"place": place, "generator": generator.get_state()}
        yield Checkpoint(step, lambda state=state: (state, {}), due=step % 2 == 0)
    yield Done(config.num_steps, {"place": float(place)})


def run(config: WalkConfig, folder, *, progress, interrupt) -> dict:
    if config.pace.length_m > 1000:
        raise UserError("pace.length_m is more than a person can walk")
    saved = folder.checkpoint_of("walk")
    done = drive(
        walk(config, saved),
        folder,
        "walk",
        progress=progress,
        interrupt=interrupt,
        start=None if saved is None else saved[0],
        headline=["objective/scores"],
    )
    (folder.path / "report" / "report.md").write_text("It walked.")
    return {"gold_after": done.metrics["place"]}


def run_without_config(config, folder):
    return {}
