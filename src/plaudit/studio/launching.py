"""Jobs that a page starts: the very command line that it shows, as a process of its own.

A job outlives the studio, and the studio never loads what a job needs. Stopping is what Ctrl-C does:
the run saves itself. Keys that name code to run, and files outside the folder that the studio was
started in, are refused here: they are for whoever sits at the command line.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from plaudit.feedback import questions as ask
from plaudit.feedback.exchange import export_feedback
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError, command, nearest
from plaudit.studio.run_views import process_of

if TYPE_CHECKING:
    from plaudit.records.runs import RunFolder

JOBS = ("reward", "rlhf", "ppo", "grpo", "rloo", "reinforce_pp", "online_dpo", "best_of_n", "dpo")
"""What a page may start."""

LEARN_FROM_VOTES = {"reward": "data", "dpo": "data", "rlhf": "feedback.file"}
"""The key that names a file of comparisons, of jobs that learn from one."""

OF_CODE = {"pipeline", "template", "reward_workers", "store", "held_out", "file"}
"""Last parts of keys that a page may not set."""

FILES = {"prompts", "data", "demonstrations", "model"}
"""Keys that may name a file or folder."""

MOST_AT_ONCE = 2
"""Jobs of the pages at a time: each takes all free cores."""

STOPPED = (0, 130, -signal.SIGTERM)
"""How a job ends that was not wrong; by the signal itself where it had hardly begun."""

HIDDEN = ".studio"
"""Beside the runs: what jobs said, and the votes that they were given."""


@dataclass
class Plan:
    """A command line to be started, and the votes to be written for it first."""

    name: str
    job: str
    words: list[str]
    votes: FeedbackStore | None = None
    file: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """The command line that it stands for."""
        return command(*self.words)

    @property
    def before(self) -> str | None:
        """The command line that the writing of the votes stands for."""
        if self.votes is None or self.file is None:
            return None
        return command("feedback", "export", "--store", self.votes.name, self.file)


@dataclass
class Started:
    """A job that this studio started."""

    name: str
    job: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def failed(self) -> str | None:
        """The last sentence of a job that ended badly."""
        code = self.process.poll()
        if code in (None, *STOPPED):
            return None
        lines = [line for line in _tail(self.log).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("plaudit: ")]
        told = (said or lines or [f"ended with code {code}"])[0 if said else -1]
        return told.removeprefix("plaudit: ")


class Launcher:
    """Starts, stops and resumes jobs whose runs are in one folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.room = MOST_AT_ONCE
        self._started: dict[str, Started] = {}
        self._lock = threading.Lock()

    def plan(
        self,
        job: str,
        keys: Mapping[str, Any],
        *,
        name: str | None = None,
        votes: FeedbackStore | None = None,
    ) -> Plan:
        """What would be started, with nothing done; raises UserError for what is refused."""
        if job not in JOBS:
            raise UserError(f"a page starts no {job!r}{nearest(job, JOBS)}; see 'plaudit run'")
        chosen = self._name(job, name)
        words = [f"--{key}={_word(value)}" for key, value in self._checked(job, keys).items()]
        file = None
        if votes is not None:
            if job not in LEARN_FROM_VOTES:
                raise UserError(f"{job} learns from a reward, not votes: fit a reward model first")
            if not num_preferences(votes):
                raise UserError(
                    "no vote here prefers one answer yet: there is nothing to learn from"
                )
            file = self.runs / HIDDEN / f"{chosen}.votes.jsonl"
            words = [f"--{LEARN_FROM_VOTES[job]}={file}", *words]
        place = ["--name", chosen] if self._is_usual else ["--out", str(self.runs / chosen)]
        return Plan(chosen, job, ["run", job, *place, *words], votes, file)

    def start(self, plan: Plan) -> None:
        """Does what was planned; the votes of this moment are what it learns from."""
        with self._lock:
            self._check_room()
            self._name(plan.job, plan.name)
            hidden = self._hidden()
            if plan.votes is not None and plan.file is not None:
                done = export_feedback(plan.votes, plan.file)
                left_out = [f"left out: {num} {why}" for why, num in done.left_out.items()]
                plan.notes = [f"{done.num_rows} comparisons", *left_out]
            self._spawn(plan, hidden)

    def resume(self, run: RunFolder, job: str) -> Plan:
        """Goes on with a stopped run."""
        name = run.path.name
        target = name if self._is_usual else str(run.path)
        plan = Plan(name, job, ["run", "--resume", target])
        with self._lock:
            self._check_room()
            self._spawn(plan, self._hidden())
        return plan

    def stop(self, run: RunFolder | None, name: str) -> None:
        """Asks a run's process to save and stop, whoever started it; UserError where none works."""
        number = None if run is None else process_of(run)
        if number is None:
            mine = self._started.get(name)
            if mine is None or mine.process.poll() is not None:
                raise UserError(f"nobody works on {name!r} now")
            number = mine.process.pid
        try:
            os.kill(number, signal.SIGTERM)
        except ProcessLookupError:
            raise UserError(f"nobody works on {name!r} now") from None
        except PermissionError:
            raise UserError(f"{name!r} is the work of another user of this machine") from None

    def started(self) -> list[Started]:
        """The jobs that this studio started; ended ones are those that a run's folder does not tell."""
        with self._lock:
            return list(self._started.values())

    @property
    def _is_usual(self) -> bool:
        """Whether the runs are where the command line keeps them."""
        from plaudit.records.runs import RUNS

        return self.runs == RUNS

    def _check_room(self) -> None:
        busy = [one.name for one in self._started.values() if one.process.poll() is None]
        if len(busy) >= self.room:
            who = " and ".join(busy) or "too many"
            raise UserError(f"{who} are at work: wait for one, or stop it")

    def _name(self, job: str, name: str | None) -> str:
        taken = {path.name for path in self.runs.glob("*")}
        taken |= {one.name for one in self._started.values() if one.process.poll() is None}
        if name is None:
            return next(f"{job}-{k}" for k in range(1, len(taken) + 2) if f"{job}-{k}" not in taken)
        from plaudit.records.runs import named_path

        named_path(name)
        if name in taken:
            raise UserError(f"there is a run {name!r} already: choose another name")
        return name

    def _checked(self, job: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        for key, value in keys.items():
            last = key.rpartition(".")[2]
            if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", key):
                raise UserError(f"{key!r} is not the name of a key")
            if last in OF_CODE or (key in ("name", "out", "like", "resume", "check", "help")):
                raise UserError(f"{key} is not set from a page: use the command line")
            if key == "reward" and not self._is_judge(job, value):
                raise UserError(
                    "reward may be sentiment, or the reward model of a run; a function of your own "
                    "is code to run, for the command line"
                )
            if last in FILES and value != "demo":
                _check_below(key, value)
        return dict(keys)

    def _is_judge(self, job: str, value: Any) -> bool:
        if job == "rlhf":
            return False
        if value == "sentiment":
            return True
        models = {str(path) for path in self.runs.glob("*/reward_model")}
        return isinstance(value, str) and value in models

    def _spawn(self, plan: Plan, hidden: Path) -> None:
        log = hidden / f"{plan.name}.log"
        with log.open("wb") as said:
            process = _process(plan.words, said)
        self._started[plan.name] = Started(plan.name, plan.job, process, log)

    def _hidden(self) -> Path:
        folder = self.runs / HIDDEN
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def num_preferences(store: FeedbackStore) -> int:
    """Comparisons that stand and prefer one answer, at a price that does not grow with them."""
    with store.reading() as connection:
        rows = ask.tallies(connection)
    return sum(row.num for row in rows if row.kind == "comparison" and row.answer in ("a", "b"))


def _process(words: list[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """The command line, in a session of its own: a Ctrl-C meant for the studio does not reach it."""
    return subprocess.Popen(
        [sys.executable, "-m", "plaudit.cli.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _check_below(key: str, value: Any) -> None:
    """UserError unless a path stays in the folder the studio was started in; other words may pass."""
    text = str(value)
    inside = (Path.cwd() / text).resolve().is_relative_to(Path.cwd().resolve())
    if text.startswith(("/", "~")) or not inside:
        raise UserError(f"{key} must lie below the folder in which the studio was started")


def _word(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int | float | str):
        return str(value)
    raise UserError(f"{value!r} is neither a number nor a text")


def _tail(path: Path, size: int = 4000) -> str:
    try:
        return path.read_bytes()[-size:].decode(errors="replace")
    except OSError:
        return ""
