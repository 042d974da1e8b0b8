"""What the seeds of a sweep reached: table, aggregate with intervals, steps to a threshold, curves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.pipelines.figures.returns import (
    interquartile_mean_interval,
    mean_run_interval,
    median_run_interval,
)
from plaudit.pipelines.glossary import GLOSSARY
from plaudit.pipelines.pages.control_plots import seed_curves, series
from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_json, write_json, write_text
from plaudit.records.intervals import Interval
from plaudit.records.runs import RunFolder
from plaudit.records.visible import visible_line

Floats = NDArray[np.float64]

SCORES = (
    "eval/return",
    "policy_value",
    "win_rate",
    "rollout/return",
    "episode/return",
    "objective/scores",
)
"""What a sweep is judged by where it is not told: the first that all its seeds have."""

OWN = {"stage", "step", "event", "time", "seconds"}
"""Keys of a metrics line that are not metrics."""

AGGREGATES: Mapping[str, Callable[[list[float]], Interval]] = {
    "interquartile mean": interquartile_mean_interval,
    "median": median_run_interval,
    "mean": mean_run_interval,
}

TAIL = 16_384
"""Bytes at the end of a log that hold its last line."""


@dataclass(frozen=True)
class Outcome:
    """What a finished seed came to.

    `final` is what its results say, or its last line; `best` the best line; `reached` the step of
    the first line at the threshold or better.
    """

    seed: int
    final: float
    best: float
    steps: int
    seconds: float
    reached: int | None = None


@dataclass(frozen=True)
class Figures:
    """All that is told of a sweep's finished seeds."""

    title: str
    metric: str
    reach: float | None
    outcomes: Sequence[Outcome]
    failed: Mapping[int, str]
    curves: Mapping[int, tuple[Floats, Floats]]

    @property
    def aggregate(self) -> dict[str, Interval]:
        """Each aggregate with its 95 % interval over seeds; of one seed a point."""
        finals = [outcome.final for outcome in self.outcomes]
        return {name: of(finals) for name, of in AGGREGATES.items()}

    @property
    def reached(self) -> list[int]:
        """Steps to the threshold of those that reached it."""
        return [outcome.reached for outcome in self.outcomes if outcome.reached is not None]

    @property
    def median_reached(self) -> float | None:
        """Median of the steps to the threshold, none where half of the seeds did not reach it."""
        steps = sorted(
            np.inf if outcome.reached is None else outcome.reached for outcome in self.outcomes
        )
        found = float(median(steps))
        return found if np.isfinite(found) else None

    def facts(self) -> dict[str, Any]:
        """JSON of it."""
        facts: dict[str, Any] = {
            "title": self.title,
            "metric": self.metric,
            "num_seeds": len(self.outcomes),
            "aggregate": {name: asdict(found) for name, found in self.aggregate.items()},
            "seeds": [asdict(outcome) for outcome in self.outcomes],
            "failed": {str(seed): said for seed, said in self.failed.items()},
        }
        if self.reach is not None:
            facts["reach"] = {
                "threshold": self.reach,
                "num_seeds": len(self.reached),
                "median_steps": self.median_reached,
            }
        return facts


def figures(
    title: str,
    paths: Mapping[int, Path],
    *,
    failed: Mapping[int, str],
    metric: str | None = None,
    reach: float | None = None,
) -> Figures:
    """Reads the finished runs at `paths` (by seed).

    Errors: none finished, a metric that a run does not have.
    """
    runs = {seed: RunFolder(path) for seed, path in paths.items() if RunFolder(path).finished}
    if not runs:
        raise UserError("no seed finished, so there is nothing to tell of them")
    logs = {seed: run.read_jsonl("metrics.jsonl") for seed, run in runs.items()}
    results = {seed: run.results or {} for seed, run in runs.items()}
    known = [_names(logs[seed], results[seed]) for seed in runs]
    chosen = _metric(metric, set.intersection(*known))
    curves = {seed: series(rows, chosen) for seed, rows in logs.items()}
    outcomes = [
        _outcome(seed, logs[seed], results[seed].get(chosen), curves[seed], chosen, reach)
        for seed in runs
    ]
    return Figures(title, chosen, reach, outcomes, failed, curves)


def write_figures(folder: Path, found: Figures) -> list[str]:
    """Writes sweep.json, sweep.md and sweep.png; returns the lines of the table."""
    write_json(folder / "sweep.json", found.facts())
    lines = table(found)
    drawn = common_curve(list(found.curves.values()))
    if drawn is not None:
        temporary = folder / ".sweep.png.tmp"
        levels = {} if found.reach is None else {f"{found.reach:g}": found.reach}
        name = f"{len(found.curves)} seeds, interquartile mean"
        figure = seed_curves(
            {name: drawn}, ylabel=found.metric, title=found.title, references=levels
        )
        figure.savefig(temporary, format="png", dpi=150)
        temporary.replace(folder / "sweep.png")
        lines_and_picture = [*lines, "", f"![{name}](sweep.png)"]
    else:
        lines_and_picture = lines
    write_text(folder / "sweep.md", "\n".join(lines_and_picture) + "\n")
    return lines


def table(found: Figures) -> list[str]:
    """Markdown: a line for each seed, and the aggregate below."""
    entry = GLOSSARY.get(found.metric)
    reach = found.reach is not None
    lines = [f"# {found.title}", "", f"{found.metric}: {entry.sentence}" if entry else found.metric]
    heads = ["seed", "at the end", "best", *([f"steps to {found.reach:g}"] if reach else [])]
    lines += ["", f"| {' | '.join([*heads, 'seconds'])} |", "|---|" + "---:|" * len(heads)]
    for one in found.outcomes:
        cells = [str(one.seed), number(one.final), number(one.best)]
        if reach:
            cells.append("never" if one.reached is None else f"{one.reached:,}")
        lines.append(f"| {' | '.join([*cells, f'{one.seconds:.0f}'])} |")
    lines += [f"| {seed} | failed: {visible_line(said)} |" for seed, said in found.failed.items()]
    lines += [
        "",
        f"| over {_seeds(len(found.outcomes))} | value | 95 % interval |",
        "|---|---:|---|",
    ]
    for name, of in found.aggregate.items():
        lines.append(f"| {name} | {number(of.value)} | {number(of.low)} to {number(of.high)} |")
    if reach:
        middle = found.median_reached
        said = "" if middle is None else f", median {middle:,.0f} steps"
        share = f"{len(found.reached)} of {len(found.outcomes)}"
        lines += ["", f"{share} seeds reached {found.reach:g}{said}."]
    return lines


def common_curve(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats] | None:
    """(steps [points], values [runs, points]): curves brought to the steps of the shortest log.

    Where they were logged at other steps they are interpolated linearly, within what all cover.
    None where a curve has fewer than two points, or they do not overlap.
    """
    if any(steps.size < 2 for steps, _ in curves):
        return None
    fewest = min((steps for steps, _ in curves), key=len)
    begin = max(steps[0] for steps, _ in curves)
    end = min(steps[-1] for steps, _ in curves)
    common = fewest[(fewest >= begin) & (fewest <= end)]
    if common.size < 2:
        return None
    return common, np.stack([np.interp(common, steps, values) for steps, values in curves])


def last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a run's metrics, read from the end; {} before there is one."""
    try:
        with (path / "metrics.jsonl").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return {}
    try:
        row: dict[str, Any] = json.loads(lines[-2]) if len(lines) > 1 else {}
    except ValueError:  # longer than the part that was read
        return {}
    return row


def read_table(folder: Path) -> tuple[list[int], list[str]]:
    """The finished seeds that `write_figures` told of last, and its lines; nothing before."""
    if not all((folder / name).exists() for name in ("sweep.json", "sweep.md")):
        return [], []
    seeds = [one["seed"] for one in read_json(folder / "sweep.json")["seeds"]]
    lines, _, _ = (folder / "sweep.md").read_text("utf-8").partition("\n\n![")
    return seeds, lines.splitlines()


def number(value: float) -> str:
    """With about four digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _names(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> set[str]:
    said = {name for row in rows for name, value in row.items() if _is_number(value)}
    return (said | {name for name, value in results.items() if _is_number(value)}) - OWN


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _metric(asked: str | None, known: set[str]) -> str:
    if asked is not None:
        if asked not in known:
            raise UserError(
                f"no metric {asked!r} in all seeds{nearest(asked, known)}; they have "
                f"{', '.join(sorted(known))}"
            )
        return asked
    for name in SCORES:
        if name in known:
            return name
    raise UserError(f"name what to judge the seeds by: --metric, one of {', '.join(sorted(known))}")


def _outcome(
    seed: int,
    rows: Sequence[Mapping[str, Any]],
    result: Any,
    curve: tuple[Floats, Floats],
    metric: str,
    reach: float | None,
) -> Outcome:
    steps, values = curve
    sign = -1.0 if metric in GLOSSARY and GLOSSARY[metric].direction == "down" else 1.0
    final = float(result) if _is_number(result) else float(values[-1])
    reached = None
    if reach is not None:
        there = np.flatnonzero(sign * values >= sign * reach)
        reached = int(steps[there[0]]) if there.size else None
    best = sign * max(sign * final, *(sign * values)) if values.size else final
    stages = {row["stage"]: float(row["seconds"]) for row in rows}
    last = int(rows[-1]["step"]) if rows else 0
    return Outcome(seed, final, float(best), last, sum(stages.values()), reached)
