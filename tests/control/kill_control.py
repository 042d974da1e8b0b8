"""Runs a control job again and again in children that die by SIGKILL; run by test_control_kill.py.

Python and torch are imported once; every sitting of the job is a fork that calls the command line.
Half of the kills come from outside after a random time, the others before a random operation of the
child on the file system inside its run folder, seen by an audit hook, so that the code under test
is untouched. A kill that found the job finished does not count. Prints how many kills each
resumed run saw.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (imported before the forks)
import torch

import plaudit.pipelines.control.job
import plaudit.pipelines.pages.control_report  # noqa: F401
from plaudit.cli.main import main

torch.set_num_threads(1)
warnings.simplefilter("ignore", DeprecationWarning)  # forking is what this script is for

WATCHED = ("open", "os.", "shutil.", "tempfile.")


def sitting(words: list[str], run: Path, *, operation: int | None = None) -> int:
    """Starts the job in a child, which dies before its n-th file operation; its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(run.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    count = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if operation is None or not event.startswith(WATCHED):
            return
        if any(isinstance(arg, str | os.PathLike) and str(run) in str(arg) for arg in args):
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    os._exit(main(words))


def finished(run: Path) -> bool:
    return (run / "results.json").exists()


def words_for(run: Path, start: list[str]) -> list[str]:
    """Begin the run, or go on with it."""
    if (run / "config.yaml").exists():
        return ["run", "--resume", str(run)]
    return ["run", *start, "--out", str(run)]


def killed_run(run: Path, start: list[str], rng: random.Random, seconds: float, most: int) -> int:
    """Runs until finished, killed now and then; how many kills it saw."""
    kills = 0
    while not finished(run):
        if kills >= most:
            os.waitpid(sitting(words_for(run, start), run), 0)
            continue
        if rng.random() < 0.5:
            pid = sitting(words_for(run, start), run, operation=rng.randint(1, 160))
        else:
            pid = sitting(words_for(run, start), run)
            time.sleep(rng.uniform(0.02, seconds))
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
            else:
                continue
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise SystemExit(run.with_suffix(".err").read_text())
    return kills


def go(root: Path, num_kills: int, seconds: float, start: list[str]) -> None:
    """A whole run, then resumed ones until `num_kills` kills have fallen."""
    rng = random.Random(0)
    os.waitpid(sitting(["run", *start, "--out", str(root / "whole")], root / "whole"), 0)
    if not finished(root / "whole"):
        raise SystemExit((root / "whole.err").read_text())
    runs: dict[str, int] = {}
    while sum(runs.values()) < num_kills:
        name = f"killed-{len(runs)}"
        left = num_kills - sum(runs.values())
        runs[name] = killed_run(root / name, start, rng, seconds, min(left, 10))
        shutil.rmtree(root / name / "report", ignore_errors=True)
    print(json.dumps(runs))


if __name__ == "__main__":
    go(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
