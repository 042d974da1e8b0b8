"""Learning curves of one run and of many seeds, in the colours of all our pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.pictures.style import MUTED, SERIES, drawn
from plaudit.pipelines.figures.returns import interquartile_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

FEW_POINTS = 30
"""Up to so many points of a line are marked."""

FEW_NAMES = 5
"""Up to so many names the legend is inside the axes."""

FEW_RUNS = 20
"""Up to so many runs are drawn as thin lines of their own."""


@drawn
def run_curve(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Return over steps: of the episodes while learning, and of the evaluations with their interval.

    `rows` are lines of metrics.jsonl; names of `references` are dashed levels.
    """
    figure, axes = _axes()
    steps, values = series(rows, "rollout/return")
    if steps.size:
        axes.plot(steps, values, color=SERIES[1], label="while learning", linewidth=1.0, alpha=0.8)
    steps, values = series(rows, "eval/return")
    if steps.size:
        _line(axes, steps, values, SERIES[0], "evaluated")
        low, high = (series(rows, f"eval/return_{side}")[1] for side in ("low", "high"))
        if low.size == high.size == steps.size:
            axes.fill_between(steps, low, high, color=SERIES[0], alpha=0.18, linewidth=0)
    return _finished(figure, axes, "return of an episode", title, references)


@drawn
def metric_grid(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Small curves over steps, one for each metric."""
    from matplotlib.figure import Figure

    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(7.6, 1.75 * lines))
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1)
        _line(axes, *series(rows, name), SERIES[0], name)
        axes.set_title(name, fontsize=8.5)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_formatter(_thousands)
        axes.locator_params(axis="x", nbins=3)
    return figure


@drawn
def seed_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    ylabel: str,
    title: str = "",
    references: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> Figure:
    """Interquartile means over runs with their 95 % bootstrap band.

    curves: by name, x [points] and the runs' values [runs, points]. The runs of a curve that is
    alone are drawn as thin lines. `log_x` suits curves of very different lengths.
    """
    figure, axes = _axes()
    for colour, (name, (x, table)) in zip(_colours(len(curves)), curves.items(), strict=True):
        steps, runs = np.asarray(x, np.float64), np.asarray(table, np.float64)
        if len(curves) == 1 and 1 < len(runs) <= FEW_RUNS:
            axes.plot(steps, runs.T, color=colour, linewidth=0.6, alpha=0.35)
        middle, low, high = interquartile_curve(runs)
        _line(axes, steps, middle, colour, name)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    if log_x:
        axes.set_xscale("log")
    return _finished(figure, axes, ylabel, title, references)


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[Floats, Floats]:
    """(steps, values) of a metric, in the lines that have it."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _axes(inches: tuple[float, float] = (5.8, 3.4)) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    axes: Axes = figure.add_subplot()
    return figure, axes


def _line(axes: Axes, steps: Floats, values: Floats, colour: str, label: str) -> None:
    marker = "o" if steps.size <= FEW_POINTS else None
    axes.plot(steps, values, color=colour, label=label, marker=marker, markersize=2.8)


def _thousands(steps: float, _: object) -> str:
    return f"{steps:,.0f}"


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _finished(
    figure: Figure,
    axes: Axes,
    ylabel: str,
    title: str,
    references: Mapping[str, float] | None,
) -> Figure:
    for name, level in (references or {}).items():
        axes.axhline(level, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.0, label=name)
    axes.set(xlabel="environment steps", ylabel=ylabel, title=title)
    axes.xaxis.set_major_formatter(_thousands)
    names = len(axes.get_legend_handles_labels()[0])
    if names > FEW_NAMES:  # inside, the legend would hide curves
        figure.set_figwidth(figure.get_figwidth() + 1.6)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    elif names:
        axes.legend(fontsize=8)
    return figure
