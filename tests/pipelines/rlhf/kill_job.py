"""Runs the whole job many times in children that die by SIGKILL; run by test_rlhf_kill.py.

Python and torch are imported once; every sitting of the job is a fork that calls the command line.
Half of the kills come from outside, after a random time in a stage; the other half come before a
random operation of the child on the file system inside its run folder, seen by an audit hook, so
that the code under test is untouched. What was killed where is printed as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (imported before the forks, as are the next)
import torch
import transformers.models.llama.modeling_llama  # noqa: F401

import plaudit.pipelines.rlhf.job  # noqa: F401
from plaudit.cli.main import main

torch.set_num_threads(1)
warnings.simplefilter("ignore", DeprecationWarning)  # forking is what this script is for

PHASES = (
    "sft",
    "answers_train",
    "answers_held_out",
    "feedback",
    "reward_model",
    "ppo",
    "answers_after",
    "conclusion",
)
WATCHED = ("open", "os.", "shutil.", "tempfile.", "sqlite3.")


@dataclass
class Plan:
    """Where to die: in which phase, before which file operation or after how many seconds."""

    phase: str
    operation: int | None = None
    seconds: float | None = None


def phase_of(run: Path) -> str:
    """The first phase that has not left its mark."""
    return next((p for p in PHASES[:-1] if not (run / "stages" / f"{p}.json").exists()), PHASES[-1])


def watch(run: Path, tell: int, plan: Plan | None) -> None:
    """From here on, writes every file operation and change of phase to `tell`, and dies as planned."""
    inside = str(run)
    at, seen, next_phase = phase_of(run), 0, None
    os.write(tell, f"phase {at}\n".encode())

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal at, seen, next_phase
        if not event.startswith(WATCHED) or not any(inside in str(arg) for arg in args):
            return
        if next_phase is not None:
            at, seen, next_phase = next_phase, 0, None
            os.write(tell, f"phase {at}\n".encode())
        if event == "os.rename" and str(args[1]).endswith(f"stages/{at}.json"):
            next_phase = PHASES[PHASES.index(at) + 1]
        if plan is not None and plan.operation is not None:
            reached = PHASES.index(at) - PHASES.index(plan.phase)
            if reached > 0 or (reached == 0 and seen >= plan.operation):
                os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        os.write(tell, b"operation\n")

    sys.addaudithook(hook)


def sit(run: Path, words: Sequence[str], plan: Plan | None) -> tuple[int, list[tuple[str, float]]]:
    """One sitting of the job in a child: (its wait status, what it told and when)."""
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hear)
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            watch(run, tell, plan)
            os._exit(main(list(words)))
    os.close(tell)
    told: list[tuple[str, float]] = []
    clock = Clock(plan)
    for line in lines_of(hear, clock):
        if line is None:
            os.kill(child, signal.SIGKILL)
        else:
            told.append((line, time.monotonic()))
            clock.hear(line)
    os.close(hear)
    _, status = os.waitpid(child, 0)
    told.append(("end", time.monotonic()))
    return status, told


class Clock:
    """When to kill from outside: so many seconds after the planned phase began, and once."""

    def __init__(self, plan: Plan | None) -> None:
        self._plan = plan
        self._moment: float | None = None

    def hear(self, line: str) -> None:
        kind, _, phase = line.partition(" ")
        plan = self._plan
        if kind != "phase" or plan is None or plan.seconds is None:
            return
        if PHASES.index(phase) >= PHASES.index(plan.phase):
            self._moment, self._plan = time.monotonic() + plan.seconds, None

    def left(self) -> float | None:
        """Seconds until the kill; None where none is due."""
        return None if self._moment is None else max(self._moment - time.monotonic(), 0.0)

    def stop(self) -> None:
        self._moment = None


def lines_of(handle: int, clock: Clock) -> Iterator[str | None]:
    """Lines as they come; None when the clock's moment has come; ends with the child."""
    rest = b""
    while True:
        if not select.select([handle], [], [], clock.left())[0]:
            clock.stop()
            yield None
            continue
        data = os.read(handle, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode()


def profile(told: Sequence[tuple[str, float]]) -> dict[str, tuple[int, float]]:
    """Operations and seconds of every phase of an undisturbed sitting."""
    found: dict[str, tuple[int, float]] = {}
    for i, (line, moment) in enumerate(told):
        if not line.startswith("phase "):
            continue
        rest = told[i + 1 :]
        size = next((k for k, (other, _) in enumerate(rest) if other != "operation"), len(rest))
        found[line.removeprefix("phase ")] = (size, rest[size][1] - moment)
    return found


def last_phase(told: Sequence[tuple[str, float]]) -> str:
    return [line for line, _ in told if line.startswith("phase ")][-1].removeprefix("phase ")


def plans(rng: random.Random, sizes: Mapping[str, tuple[int, float]]) -> list[Plan]:
    """A kill in every phase, in order: alternately by operation and by time, each at random."""
    first = rng.randrange(2)
    made = []
    for k, (phase, (operations, seconds)) in enumerate(sizes.items()):
        if (k + first) % 2:
            made.append(Plan(phase, operation=rng.randrange(operations)))
        else:
            made.append(Plan(phase, seconds=rng.random() * seconds))
    return made


def kill_often(root: Path, flags: Sequence[str], *, num_kills: int, seed: int) -> dict[str, object]:
    """An undisturbed run, then runs killed in all their phases until there are enough kills.

    A kill can come late and fall into the next phase: it counts where it fell, and runs are added
    until every phase has had one. What was killed goes on to its end.
    """
    status, told = sit(root / "whole", ["run", "rlhf", *flags, "--out", str(root / "whole")], None)
    assert status == 0, "the undisturbed run failed"
    sizes = profile(told)
    assert tuple(sizes) == PHASES, sizes
    rng = random.Random(seed)
    kills: list[dict[str, str]] = []
    runs: list[str] = []
    while len(kills) < num_kills or {kill["phase"] for kill in kills} != set(PHASES):
        assert len(runs) < 10, kills
        run = root / f"killed-{len(runs) + 1}"
        runs.append(run.name)
        words = ["run", "rlhf", *flags, "--out", str(run)]
        waiting = plans(rng, sizes)
        while not (run / "results.json").exists():
            at = PHASES.index(phase_of(run))
            waiting = [plan for plan in waiting if PHASES.index(plan.phase) >= at]
            plan = waiting.pop(0) if waiting else None
            status, told = sit(run, words, plan)
            if os.WIFSIGNALED(status):
                assert os.WTERMSIG(status) == signal.SIGKILL
                how = "operation" if plan is not None and plan.operation is not None else "time"
                kills.append({"run": run.name, "phase": last_phase(told), "by": how})
            else:
                assert status == 0, f"{run.name} ended with {status} after {kills[-3:]}"
            if (run / "config.yaml").exists():
                words = ["run", "--resume", str(run)]
    return {"kills": kills, "runs": runs, "sizes": sizes}


if __name__ == "__main__":
    done = kill_often(
        Path(sys.argv[1]), sys.argv[4:], num_kills=int(sys.argv[2]), seed=int(sys.argv[3])
    )
    print(json.dumps(done))
