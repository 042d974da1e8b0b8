"""Runs language-model jobs in children that die by SIGKILL; run by test_lm_kill.py.

Python and torch are imported once; every sitting is a fork that calls the command line. A child is
killed once its log has so many lines of the stage that learns, in the middle of whatever it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (imported before the forks, as are the next)
import transformers.models.llama.modeling_llama  # noqa: F401

import plaudit.pipelines.lm.offline
import plaudit.pipelines.lm.online  # noqa: F401
from plaudit.cli.main import main

SECONDS = 120.0
"""After which a sitting is given up: only a fault takes so long."""


def sitting(words: list[str], log: Path, stage: str, lines: int | None) -> int:
    """The child's end: its exit code, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fork of a process with threads
        child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            os._exit(main(words))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        text = log.read_text() if log.exists() else ""
        if lines is not None and text.count(f'"stage": "{stage}"') >= lines:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    raise SystemExit(f"{words} did not end")


def main_of_script(root: Path, jobs: dict[str, list[str]]) -> dict[str, list[int]]:
    """For each job an undisturbed run and one that is killed three times; how its sittings ended."""
    os.chdir(root)
    ends: dict[str, list[int]] = {}
    for job, words in jobs.items():
        whole, killed = Path(f"{job}-whole"), Path(f"{job}-killed")
        assert sitting(["run", job, *words, "--out", str(whole)], Path("none"), job, None) == 0
        command = ["run", job, *words, "--out", str(killed)]
        found = []
        for lines in (1, 3, 5, None):
            found.append(sitting(command, killed / "metrics.jsonl", job, lines))
            command = ["run", "--resume", str(killed)]
            if found[-1] == 0:
                break
        ends[job] = found
    return ends


if __name__ == "__main__":
    told = main_of_script(Path(sys.argv[1]), json.loads(sys.argv[2]))
    print(json.dumps(told))
