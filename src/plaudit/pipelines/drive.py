"""Turns what an algorithm says into what a run folder keeps and a person sees.

The one consumer of events for every stage of every job: it writes metrics, samples and events,
saves checkpoints where they are due or where somebody asked to stop, and shows progress.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Rollout, Step
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.runs import RunFolder
from plaudit.records.system import now


class Progress(Protocol):
    """Shows a person how a job goes; the command line draws it, `Silent` does not."""

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None:
        """A stage begins, or goes on after step `start`; `headline` names the metrics to show
        ([]: the first three)."""
        ...

    def show(self, event: Event) -> None:
        """The stage said something."""
        ...

    def end(self) -> None:
        """The stage ended, finished or not."""
        ...

    def note(self, text: str) -> None:
        """A line to read that stays on the screen."""
        ...


class Silent:
    """Progress for tests and for programs: shows nothing."""

    def begin(self, stage: str, headline: Sequence[str], start: int = 0) -> None: ...

    def show(self, event: Event) -> None: ...

    def end(self) -> None: ...

    def note(self, text: str) -> None: ...


class Heard(Silent):
    """Progress that keeps its notes and shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def drive(
    events: Iterable[Event],
    run: RunFolder,
    stage: str,
    *,
    progress: Progress,
    interrupt: Interrupt,
    start: int | None = None,
    headline: Sequence[str] = (),
) -> Done:
    """Consumes a stage's events to the end and returns its `Done`.

    `start` is the step of the checkpoint that the loop goes on from (None: from the beginning);
    log lines after it are dropped first. Raises Interrupted once a requested stop has been saved.
    A line of metrics.jsonl holds stage, step, event, time, seconds spent in the stage so far over
    all its sittings, and the metrics. A line of events.jsonl that says "saved" or "done" holds the
    processor's seconds, of all threads and sittings.
    """
    run.truncate_after(stage, -1 if start is None else start)
    begun = time.perf_counter() - _seconds_so_far(run, stage)
    cpu_begun = time.process_time() - cpu_seconds(run, stage)
    _log_event(run, stage, "resumed" if start is not None else "begun", start or 0)
    progress.begin(stage, headline, start or 0)
    try:
        for event in events:
            elapsed = time.perf_counter() - begun
            _record(event, run, stage, elapsed)
            progress.show(event)
            if isinstance(event, Checkpoint) and event.best:
                run.save_checkpoint("best", stage, event.step, *event.state())
            if isinstance(event, Checkpoint) and (event.due or interrupt.requested):
                _save(event, run, stage, time.process_time() - cpu_begun)
                if interrupt.requested:
                    _log_event(run, stage, "interrupted", event.step)
                    raise Interrupted(f"{stage} stopped at step {event.step}")
            if isinstance(event, Done):
                cpu = round(time.process_time() - cpu_begun, 3)
                _log_event(
                    run, stage, "done", event.step, cpu_seconds=cpu, metrics=dict(event.metrics)
                )
                return event
    finally:
        progress.end()
    raise RuntimeError(f"the stage {stage!r} ended without saying Done")


def _record(event: Event, run: RunFolder, stage: str, seconds: float) -> None:
    if isinstance(event, Step | Rollout | Evaluation) and event.metrics:
        line = {"stage": stage, "step": event.step, "event": type(event).__name__.lower()}
        timing = {"time": now(), "seconds": round(seconds, 3)}
        run.append_jsonl("metrics.jsonl", line | timing | dict(event.metrics))
    if isinstance(event, Rollout):
        for sample in event.samples:
            run.append_jsonl("samples.jsonl", {"stage": stage, "step": event.step, **sample})


def _save(event: Checkpoint, run: RunFolder, stage: str, cpu: float) -> None:
    arrays, facts = event.state()
    run.save_checkpoint("last", stage, event.step, arrays, facts)
    _log_event(run, stage, "saved", event.step, cpu_seconds=round(cpu, 3))


def _log_event(run: RunFolder, stage: str, event: str, step: int, **more: Any) -> None:
    line = {"stage": stage, "step": step, "event": event, "time": now()}
    run.append_jsonl("events.jsonl", line | more)


def cpu_seconds(run: RunFolder, stage: str) -> float:
    """Processor seconds that the stage has taken so far, as its last save or its end says."""
    told = [row for row in run.read_jsonl("events.jsonl") if row.get("stage") == stage]
    return next((float(row["cpu_seconds"]) for row in reversed(told) if "cpu_seconds" in row), 0.0)


def _seconds_so_far(run: RunFolder, stage: str) -> float:
    lines = [row for row in run.read_jsonl("metrics.jsonl") if row.get("stage") == stage]
    return float(lines[-1]["seconds"]) if lines else 0.0
