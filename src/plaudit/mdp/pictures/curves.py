"""Curves: convergence with its certified bound, learning with a band over seeds, studies of a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.pictures.style import MUTED, SERIES, drawn
from plaudit.mdp.planning.solution import Solution
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = 1.96
"""Standard errors on either side of a mean: a 95 % interval of a normal mean."""


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
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if ylim is not None:
        axes.set_ylim(*ylim)
    axes.legend()
    return figure


@drawn
def setting_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    ylim: tuple[float, float] | None = None,
    log_x: bool = False,
    legend_title: str = "",
) -> Figure:
    """How a score depends on a setting such as α, one line for each value of another such as n.

    curves: by name, (x, y); points that are not finite are left out, as where learning diverged.
    """
    figure, axes = _axes((5.8, 3.8))
    for colour, (name, (x, y)) in zip(_colours(len(curves)), curves.items(), strict=True):
        axes.plot(*_finite(x, y), color=colour, label=name, marker="o", markersize=2.6)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log_x:
        axes.set_xscale("log")
    if ylim is not None:
        axes.set_ylim(*ylim)
    axes.legend(title=legend_title, ncols=1 if len(curves) < 7 else 2, fontsize=8)
    return figure


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
    for name, level in references.items():
        axes.axhline(level, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.0)
        axes.annotate(
            name,
            (1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=8,
        )


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
