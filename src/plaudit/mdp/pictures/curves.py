"""Curves: convergence with its certified bound, learning with a band over seeds, studies of a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.pictures.style import MUTED, SERIES, drawn
from plaudit.mdp.planning.solution import Solution
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = NDArray[np.float64]

FEW_POINTS = 30
"""Up to so many points of a line are marked."""

DASHES = ((4.0, 3.0), (1.0, 1.5), (7.0, 2.0, 1.0, 2.0))

BAND = 1.96
"""Standard errors on either side of a mean: a 95 % interval of a normal mean."""


@dataclass(frozen=True)
class Curves:
    """The data of a figure: x [X]; mean and standard_error [X] of each curve by its label; what x and y are."""

    x: Floats
    mean: dict[str, Floats]
    standard_error: dict[str, Floats]
    x_label: str
    y_label: str

    def best(self, label: str) -> tuple[float, float, float]:
        """The least mean of a curve, its standard error, and the x where it is."""
        i = int(np.nanargmin(self.mean[label]))
        return float(self.mean[label][i]), float(self.standard_error[label][i]), float(self.x[i])


@drawn
def convergence(
    solutions: Solution | Mapping[str, Solution], *, title: str = "", tol: float | None = None
) -> Figure:
    """The certified bound on max |V - V*| after each iteration, on a logarithmic scale.

    solutions: one, or several by name; tol draws a line at the tolerance asked for. A point beside
    the end of a curve is the bound of the answer itself, which is proved once more.
    Errors: a solution without a trace.
    """
    shown = {solutions.method: solutions} if isinstance(solutions, Solution) else dict(solutions)
    figure, axes = _axes((5.4, 3.3))
    for colour, (name, solution) in zip(_colours(len(shown)), shown.items(), strict=True):
        trace = np.asarray(solution.trace)
        if not trace.size:
            raise UserError(f"convergence: the solution {name!r} has no trace to draw")
        steps = np.arange(1, trace.size + 1)
        drawable = trace > 0
        axes.plot(steps[drawable], trace[drawable], color=colour, label=name)
        if solution.bound > 0:
            axes.plot(steps[-1], solution.bound, marker="o", markersize=4.5, color=colour)
    if tol is not None:
        axes.axhline(tol, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.0)
        axes.annotate(
            f"asked for: {tol:g}",
            (0.01, tol),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="left",
            color=MUTED,
            fontsize=8,
        )
    axes.set(yscale="log", xlabel="iteration", ylabel="certified bound on the error", title=title)
    if max(len(solution.trace) for solution in shown.values()) > 300:
        axes.set_xscale("log")
    _whole_ticks(axes)
    axes.legend()
    return figure


@drawn
def learning_curves(
    curves: Mapping[str, ArrayLike],
    *,
    x: ArrayLike | None = None,
    xlabel: str = "episode",
    ylabel: str = "return",
    title: str = "",
    ylim: tuple[float, float] | None = None,
    smooth: int = 1,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Means over seeds with a 95 % band of the mean.

    curves: by name, [seeds, T] (or [T] of one run, without a band); x [T] defaults to 1..T.
    smooth averages so many neighbouring points of each run first. references: named levels, dashed.
    Errors: curves of different lengths, a NaN.
    """
    if not curves:
        raise UserError("learning_curves: no curves were given")
    runs = {name: _runs(name, given, smooth) for name, given in curves.items()}
    length = next(iter(runs.values())).shape[1]
    for name, table in runs.items():
        if table.shape[1] != length:
            raise UserError(
                f"curve {name!r}: {table.shape[1]} points; expected {length} as the first"
            )
    at = np.arange(1, length + 1) if x is None else np.asarray(x, dtype=np.float64)[smooth - 1 :]
    if at.shape != (length,):
        raise UserError(f"x: {at.size} points; expected {length}, as the curves have")
    figure, axes = _axes((5.8, 3.4))
    for colour, (name, table) in zip(_colours(len(runs)), runs.items(), strict=True):
        mean = table.mean(0)
        axes.plot(at, mean, color=colour, label=name)
        if table.shape[0] > 1:
            error = BAND * table.std(0, ddof=1) / np.sqrt(table.shape[0])
            axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
    _levels(axes, references or {})
    _finish(axes, xlabel, ylabel, title, ylim, log_x=False, log_y=False)
    return figure


@drawn
def study_curves(
    study: Curves,
    *,
    title: str = "",
    ylim: tuple[float, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """The data of a study, such as a published figure: means with 95 % bands.

    Points that are not finite are left out: there learning diverged.
    """
    figure, axes = _axes((5.8, 3.8))
    few = study.x.size <= FEW_POINTS
    for colour, (name, mean) in zip(_colours(len(study.mean)), study.mean.items(), strict=True):
        x, y = _finite(study.x, mean)
        axes.plot(x, y, color=colour, label=name, marker="o" if few else None, markersize=2.8)
        error = BAND * study.standard_error[name]
        kept = np.isfinite(mean) & np.isfinite(error)
        if ylim is not None:  # the error of what left the picture would fill the picture
            kept &= (mean >= ylim[0]) & (mean <= ylim[1])
        axes.fill_between(
            study.x[kept],
            (mean - error)[kept],
            (mean + error)[kept],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    _levels(axes, references or {})
    _finish(axes, study.x_label, study.y_label, title, ylim, log_x=log_x, log_y=log_y)
    return figure


@drawn
def lines(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    ylim: tuple[float, float] | None = None,
    log_x: bool = False,
    ticks: Mapping[str, float] | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:
    """Plain lines by name, each (x, y); a name that begins with "_" is not in the legend.

    Points that are not finite are left out. ticks: names of places on the x axis.
    """
    figure, axes = _axes((5.8, 3.6))
    for colour, (name, (x, y)) in zip(_colours(len(curves)), curves.items(), strict=True):
        across, up = _finite(x, y)
        marker = "o" if across.size <= FEW_POINTS else None
        axes.plot(across, up, color=colour, label=name, marker=marker, markersize=2.8)
    _levels(axes, references or {})
    _finish(axes, xlabel, ylabel, title, ylim, log_x=log_x, log_y=False)
    if ticks is not None:
        axes.set_xticks(list(ticks.values()), labels=list(ticks))
    return figure


def _finish(
    axes: Axes,
    xlabel: str,
    ylabel: str,
    title: str,
    ylim: tuple[float, float] | None,
    *,
    log_x: bool,
    log_y: bool,
) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if ylim is not None:
        axes.set_ylim(*ylim)
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 4:  # more would lie on the lines
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    elif handles:
        axes.legend(fontsize=8)


def _axes(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    return figure, figure.subplots()


def _colours(count: int) -> Sequence[str]:
    """Told apart up to seven; beyond that an ordered scale, for ordered settings."""
    if count <= len(SERIES):
        return SERIES[:count]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis"]
    return [to_hex(scale(0.92 * i / (count - 1))) for i in range(count)]


def _runs(name: str, given: ArrayLike, smooth: int) -> NDArray[np.float64]:
    table = np.atleast_2d(np.asarray(given, dtype=np.float64))
    if table.ndim != 2:
        raise UserError(f"curve {name!r}: {table.ndim} dimensions; expected [seeds, points]")
    if np.isnan(table).any():
        run, point = np.argwhere(np.isnan(table))[0]
        raise UserError(f"curve {name!r}: run {run} has NaN at point {point}")
    if not 1 <= smooth <= table.shape[1]:
        raise UserError(f"smooth: {smooth}; expected 1 to {table.shape[1]}, the points of {name!r}")
    total = np.cumsum(np.pad(table, ((0, 0), (1, 0))), axis=1)
    averaged: NDArray[np.float64] = (total[:, smooth:] - total[:, :-smooth]) / smooth
    return averaged


def _finite(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if across.shape != up.shape:
        raise UserError(f"a curve of {across.shape} by {up.shape} points; expected equal shapes")
    kept = np.isfinite(across) & np.isfinite(up)
    return across[kept], up[kept]


def _levels(axes: Axes, references: Mapping[str, float]) -> None:
    for i, (name, level) in enumerate(references.items()):
        dash = DASHES[i % len(DASHES)]
        axes.axhline(level, color=MUTED, linestyle=(0, dash), linewidth=1.1, label=name)


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
