"""`plaudit show`: how a run or a sweep went or goes, from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from plaudit.cli.progress import clock
from plaudit.cli.words import NARROW, Parser
from plaudit.records.errors import command
from plaudit.records.recipes import load_recipe
from plaudit.records.runs import RunFolder, run_path
from plaudit.records.visible import visible, visible_line

REPORTS = ("index.html", "report.html", "report.md", "README.md")
"""Files of report/ that a person opens first, the best first."""

OWN = {"stage", "step", "event", "time", "seconds"}
"""Keys of a metrics line that are not metrics."""


RESULT_COLUMNS = ("name", "value", "meaning")


def main(argv: list[str]) -> int:
    """Prints state, metrics of each stage from first to last, results, and where things are.

    Of a sweep: how many of its seeds are finished, its table, and those that are not in the table.
    """
    parser = Parser("plaudit show", description=__doc__)
    parser.add_argument("run", help="name of a run or a sweep under runs/, or its folder")
    target = parser.parse_args(argv).run
    console = Console(highlight=False)
    if (run_path(target) / "sweep.yaml").is_file():
        from plaudit.pipelines.sweep import sweep_lines

        for line in sweep_lines(run_path(target)):
            console.print(Text(visible(line)), soft_wrap=True)
        return 0
    run = RunFolder.open(target)
    console.print(Text(visible(f"{run.path}: {run.state()}"), style="bold"), soft_wrap=True)
    for stage, rows in _by_stage(run.read_jsonl("metrics.jsonl")).items():
        _print_table(console, *_stage_table(stage, rows, _stage_state(run, stage), run.saved_at()))
    if run.results:
        _print_table(console, "results", RESULT_COLUMNS, _results_rows(run.results))
        for name, text in _long_texts(run.results):
            console.print(Text(visible(f"{name}: {text}")), soft_wrap=True)
    from plaudit.pipelines.registry import lines_of

    for text in lines_of(load_recipe(run.path / "config.yaml").pipeline, run):
        console.print(Text(visible(text)), soft_wrap=True)
    for line in closing_lines(run):
        console.print(Text(visible(line)), soft_wrap=True)
    return 0


def closing_lines(run: RunFolder) -> list[str]:
    """Where the report and the model are, and how to go on."""
    lines = []
    report = _report(run.path)
    if report is not None:
        lines.append(f"Report: {report}")
    if (run.path / "model" / "config.json").exists():
        lines.append(f"Model (loads with transformers): {run.path / 'model'}")
    if (run.path / "model" / "agent.json").exists():
        judged = command("eval", run.path)
        lines.append(f"Agent: {judged}; in Python plaudit.load({str(run.path)!r})")
    if (run.path / "arrays").is_dir():
        lines.append(f"Arrays (numpy.load): {run.path / 'arrays'}")
    if run.finished:
        shown = command("show", run.path)
        lines.append(f"Numbers: {shown}; what one means: plaudit explain NAME")
    elif run.holder() is None:
        lines.append(f"Continue with: {command('run', '--resume', run.path)}")
    return lines


def _report(path: Path) -> Path | None:
    found = [path / "report" / name for name in REPORTS if (path / "report" / name).exists()]
    return found[0] if found else None


def _by_stage(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    stages: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(row)
    return stages


def _stage_state(run: RunFolder, stage: str) -> str:
    if run.finished or run.stage_results(stage) is not None:
        return "done"
    return "under way" if run.holder() else "stopped"


def _stage_table(
    stage: str, rows: list[dict[str, Any]], state: str, saved: tuple[str, int] | None
) -> tuple[str, Sequence[str], list[Sequence[str]]]:
    """Title, columns and rows: one row for each metric, its first and its last value.

    The step is that of the checkpoint where one was saved since the last line was logged; `saved`
    is (stage, step) of the last one.
    """
    last = rows[-1]
    step = str(last["step"])
    if saved is not None and saved[0] == stage and state == "stopped":
        if saved[1] < last["step"]:
            step += f" (saved at {saved[1]})"
        else:
            step = str(saved[1])
    title = f"{stage}: {state}, step {step}, {clock(last['seconds'])}"
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in OWN:
                values.setdefault(name, []).append(value)
    told = [(name, _number(one[0]), _number(one[-1])) for name, one in values.items()]
    return title, ("metric", "first", "last"), [*told]


def _results_rows(results: dict[str, Any]) -> list[Sequence[str]]:
    """The numbers of the finished run with their intervals, each with its sentence where the
    glossary has one, in the order in which they are read."""
    from plaudit.pipelines.glossary import meaning
    from plaudit.pipelines.rlhf.metrics import RESULTS

    apart = {name for name, _ in _long_texts(results)}
    names = [
        name
        for name, value in results.items()
        if name not in apart and (isinstance(value, int | float | str) or value is None)
        if not name.endswith("_interval")
    ]
    place = {name: number for number, name in enumerate(RESULTS)}
    names.sort(key=lambda name: place.get(name, place["seconds"] - 0.5))
    rows: list[Sequence[str]] = []
    for name in names:
        known, ends = meaning(name), results.get(f"{name}_interval")
        spread = f" ({_number(ends[0])} to {_number(ends[1])})" if ends else ""
        rows.append((name, _number(results[name]) + spread, known[1].sentence if known else ""))
    return rows


def _print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Columns side by side; on a narrow terminal a row's values stand below its name."""
    title = visible_line(title)
    if console.width < NARROW:
        console.print(Text(title, style="bold"))
        for name, *values in rows:
            console.print(Text(visible_line(name)))
            for column, value in zip(columns[1:], values, strict=True):
                if value:
                    said = Text(f"{column} {visible_line(value)}")
                    console.print(Padding(said, (0, 0, 0, 2), expand=False))
        return
    drawn = Table(title=title, title_justify="left", box=None, padding=(0, 2), title_style="bold")
    for name in columns:
        left = name in ("metric", "name", "meaning")
        style = "dim" if name == "meaning" else ""
        drawn.add_column(name, justify="left" if left else "right", style=style, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(visible_line(cell)) for cell in row))
    console.print(drawn)


def _long_texts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Results in several words, which a column of numbers has no room for."""
    return [(name, text) for name, text in results.items() if isinstance(text, str) and " " in text]


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
