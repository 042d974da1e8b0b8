"""One recipe over several seeds: each seed a run in a process of its own, then one table of all.

    <folder>/sweep.yaml      the recipe with the keys of the sweep
    <folder>/seed-0/         an ordinary run folder for each seed, and what it printed in seed-0.log
    <folder>/sweep.json sweep.md sweep.png   the figures, the table, the curves

A seed is run by the ordinary command, so that it can be shown, resumed and reported like any run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plaudit.pipelines.drive import Progress
from plaudit.pipelines.figures.sweep import SCORES, last_row, read_table
from plaudit.records.errors import command
from plaudit.records.events import Step
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.runs import RunFolder
from plaudit.records.system import usable_cores

POLL, SHOW = 0.05, 1.0
"""Seconds between looks at the processes, and between two lines of progress."""

ADVICE = ("plaudit: what was done is in", "plaudit: once that is mended")
"""How lines begin that the command adds below what went wrong."""


@dataclass
class Sweep:
    """Which seeds of which recipe, and where.

    `total` is the number of steps of one seed where the config says it, for the progress.
    """

    folder: Path
    seeds: Sequence[int]
    jobs: int = 1
    total: int | None = None
    metric: str | None = None
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Path:
        """The file that every seed is run from."""
        return self.folder / "sweep.yaml"

    def path(self, seed: int) -> Path:
        """A seed's run folder."""
        return self.folder / f"seed-{seed}"

    def log(self, seed: int) -> Path:
        """What a seed's process printed."""
        return self.folder / f"seed-{seed}.log"

    def finished(self, seed: int) -> bool:
        """True once a seed's run is done."""
        return RunFolder(self.path(seed)).finished

    def command(self, seed: int) -> list[str]:
        """The command that begins a seed's run, or goes on with it."""
        plaudit = [sys.executable, "-m", "plaudit.cli.main", "run"]
        if (self.path(seed) / "config.yaml").exists():
            return [*plaudit, "--resume", str(self.path(seed))]
        begin = [str(self.recipe), "--seed", str(seed), "--out", str(self.path(seed))]
        return [*plaudit, *begin]


def run_seeds(sweep: Sweep, *, progress: Progress, interrupt: Interrupt) -> None:
    """Runs the seeds that are not finished, at most `jobs` at once; failures go into `failed`.

    A first Ctrl-C asks every process to save and stop, and raises Interrupted when all have; a
    second one ends them at once, with what they saved last.
    """
    if all(sweep.finished(seed) for seed in sweep.seeds):
        return
    processes = _Processes(sweep, progress)
    shown, begun = 0.0, _state(sweep).step
    progress.begin("sweep", ["seeds finished", sweep.metric or "", *SCORES])
    try:
        while processes.waiting or processes.running:
            if interrupt.requested:
                processes.ask_to_stop()
            else:
                processes.begin_another()
            processes.part_with_ended()
            if time.monotonic() - shown >= SHOW:
                shown = time.monotonic()
                _show(sweep, begun, progress)
            time.sleep(POLL)
        _show(sweep, begun, progress)
    finally:
        processes.kill()
        progress.end()
    if interrupt.requested and not all(sweep.finished(seed) for seed in sweep.seeds):
        raise Interrupted(f"{_count(sweep)} of {len(sweep.seeds)} seeds are finished, all saved")


def sweep_lines(folder: Path) -> list[str]:
    """How a sweep went or goes: its table as it was told last, and the seeds that are not in it."""
    names = (path.name.removeprefix("seed-") for path in folder.glob("seed-*") if path.is_dir())
    sweep = Sweep(folder, sorted(int(name) for name in names if name.isdecimal()))
    told, table = read_table(folder)
    rest = {seed: RunFolder(sweep.path(seed)) for seed in sweep.seeds if seed not in told}
    lines = [
        f"{folder}: a sweep, {_count(sweep)} of the {len(sweep.seeds)} seeds begun are finished"
    ]
    lines += ["", *table, ""] if table else []
    lines += [f"seed {seed}: {run.state()}" for seed, run in rest.items()]
    if any(run.holder() for run in rest.values()):
        lines.append("The table of all comes when they are done")
    elif rest or not table:
        lines.append("To go on, and for the table of all: the same 'plaudit sweep' command again")
    lines += [f"One seed: {command('show', sweep.path(seed))}" for seed in sweep.seeds[:1]]
    if (folder / "sweep.png").exists():
        lines.append(f"Curves: {folder / 'sweep.png'}")
    return lines


class _Processes:
    """The seeds that wait for their turn, and the processes of those under way."""

    def __init__(self, sweep: Sweep, progress: Progress) -> None:
        self.sweep, self.progress = sweep, progress
        self.waiting = list(sweep.seeds)
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.stopping = False
        self._elsewhere: set[int] = set()

    def begin_another(self) -> None:
        """Starts a seed where there is room; not one whose run another process still writes."""
        # Looked at each time: what a killed sweep left running may end by itself.
        self.waiting = [seed for seed in self.waiting if not self.sweep.finished(seed)]
        if len(self.running) >= self.sweep.jobs:
            return
        for seed in self.waiting:
            holder = RunFolder(self.sweep.path(seed)).holder()
            if holder is None:
                self.waiting.remove(seed)
                self.running[seed] = self._start(seed)
                self.progress.note(f"seed {seed}: begins, in {self.sweep.path(seed)}")
                return
            if seed not in self._elsewhere:
                self._elsewhere.add(seed)
                self.progress.note(f"seed {seed}: under way by {holder}; waiting for it")

    def _start(self, seed: int) -> subprocess.Popen[bytes]:
        """In a session of its own, so that Ctrl-C reaches it once, from here."""
        threads = str(max(1, usable_cores() // self.sweep.jobs))
        environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, **os.environ}
        with self.sweep.log(seed).open("ab") as log:
            return subprocess.Popen(
                self.sweep.command(seed),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def part_with_ended(self) -> None:
        """Says how those came out whose process has ended."""
        ended = [seed for seed, process in self.running.items() if process.poll() is not None]
        for seed in ended:
            code, log = self.running.pop(seed).returncode, self.sweep.log(seed)
            if self.sweep.finished(seed):
                said = "finished"
            elif self.stopping:
                said = "saved"
            else:
                fault = self.sweep.failed[seed] = _last_line(log) or f"exit code {code}"
                said = f"failed: {fault} (all it said: {log})"
            self.progress.note(f"seed {seed}: {said}")

    def ask_to_stop(self) -> None:
        """Asks each process once to save and stop, and begins no more."""
        self.waiting = []
        if not self.stopping:
            self.stopping = True
            for process in self.running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait()


def _last_line(path: Path) -> str:
    """The sentence or the error that a process ended with, without advice on how to go on."""
    lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(ADVICE)]
    return said[-1].removeprefix("plaudit: ") if said else ""


def _count(sweep: Sweep) -> int:
    return sum(sweep.finished(seed) for seed in sweep.seeds)


def _show(sweep: Sweep, begun: int, progress: Progress) -> None:
    """Steps are told from the first of this sitting on, so that no start-up counts in their pace.

    Where seeds are counted a start-up is part of each, and they are told from where they stood.
    """
    state = _state(sweep)
    if sweep.total is None or state.step > begun:
        progress.show(state)


def _state(sweep: Sweep) -> Step:
    """How far all seeds are together: in steps where their number is known, else in seeds."""
    rows = [last_row(sweep.path(seed)) for seed in sweep.seeds]
    done = _count(sweep)
    metrics: dict[str, Any] = {"seeds finished": float(done)}
    for name in (sweep.metric,) if sweep.metric else SCORES:
        if known := [row[name] for row in rows if row.get(name) is not None]:
            metrics[name] = sum(known) / len(known)
            break
    if sweep.total is None:
        return Step(done, len(sweep.seeds), metrics)
    steps = (
        sweep.total if sweep.finished(seed) else min(int(row.get("step", 0)), sweep.total)
        for seed, row in zip(sweep.seeds, rows, strict=True)
    )
    return Step(sum(steps), sweep.total * len(sweep.seeds), metrics)
