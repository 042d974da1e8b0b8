"""A job as a row of stages, each of which can be killed at any moment and continued.

A stage is a generator of events. While it runs its last checkpoint is in checkpoints/last; when it
is done, the arrays that later stages need are kept in stages/<name>.safetensors and its results in
stages/<name>.json. A stage that is done is read, never repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.engine.memory import give_back_memory
from plaudit.pipelines.drive import Progress, cpu_seconds, drive
from plaudit.records.arrays import write_arrays
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Event
from plaudit.records.files import saying_no_room
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder
from plaudit.records.state import Saved

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left: arrays by name, and JSON-able results with its `seconds` and
    `cpu_seconds`."""

    arrays: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stages:
    """Runs the stages of one job in its run folder."""

    run: RunFolder
    progress: Progress
    interrupt: Interrupt

    def take(
        self,
        name: str,
        make: Callable[[Saved | None], Iterator[Event]],
        *,
        keep: Callable[[str], bool] = lambda array: True,
        headline: Sequence[str] = (),
        results: Callable[[], Mapping[str, Any]] = dict,
    ) -> StageResult:
        """The stage's result: read where it is done, else computed from its last checkpoint on.

        `make(saved)` is the stage's generator; arrays of its last `Checkpoint` whose names `keep`
        accepts are kept. `results()` is asked once the generator is done.
        """
        path = self.run.path / "stages" / f"{name}.safetensors"
        done = self.run.stage_results(name)
        if done is not None:
            return StageResult(_read(path), done)
        checkpoint = self.run.checkpoint_of(name)
        saved = None if checkpoint is None else (checkpoint[1], checkpoint[2])
        final: list[Checkpoint] = []

        def watched() -> Iterator[Event]:
            for event in make(saved):
                if isinstance(event, Checkpoint):
                    final[:] = [event]
                yield event

        try:
            closing = drive(
                watched(),
                self.run,
                name,
                progress=self.progress,
                interrupt=self.interrupt,
                start=None if checkpoint is None else checkpoint[0],
                headline=headline,
            )
        except FloatingPointError as error:
            raise UserError(f"{name}: {error} in a new run", new_run=True) from error
        arrays: dict[str, Any] = {}
        if final:
            arrays = {k: v for k, v in final[0].state()[0].items() if keep(k)}
        elif saved is not None:  # killed between the last checkpoint and the mark of the stage
            arrays = {k: v for k, v in saved[0].items() if keep(k)}
        if arrays:
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            with saying_no_room(path):
                write_arrays(temporary, arrays)
                temporary.replace(path)
        give_back_memory()
        times = {"seconds": self._seconds(name), "cpu_seconds": cpu_seconds(self.run, name)}
        told = {**closing.metrics, **results(), **times}
        self.run.finish_stage(name, told)
        return StageResult(arrays, told)

    def _seconds(self, name: str) -> float:
        lines = [r for r in self.run.read_jsonl("metrics.jsonl") if r.get("stage") == name]
        return float(lines[-1]["seconds"]) if lines else 0.0


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        return {}
    from safetensors.torch import load_file

    arrays: dict[str, Tensor] = load_file(path)
    return arrays
