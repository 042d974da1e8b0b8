"""Tables and surfaces: Q as a table, α-vectors over a belief, values over two quantities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.pictures.style import (
    BLUE,
    INK,
    LINE,
    MUTED,
    SERIES,
    decimals,
    drawn,
    said,
    value_colours,
)
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 24


@drawn
def q_table_picture(
    q: ArrayLike,
    *,
    states: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Q as a table: actions down, states across, the greatest of each state marked.

    q [S, A]; a missing action (-inf) is left blank. Errors: over 24 states, names of another count.
    """
    table = np.asarray(q, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] > MOST_COLUMNS:
        raise UserError(
            f"q: shape {table.shape}; expected [states, actions] with at most {MOST_COLUMNS} states"
        )
    across = _names(states, [f"S{i + 1}" for i in range(table.shape[0])], "states")
    down = _names(actions, [f"a{i + 1}" for i in range(table.shape[1])], "actions")
    left = 0.35 + 0.09 * max(map(len, down))
    figure, axes = _blank((0.62 * table.shape[0] + left + 0.2, 0.36 * (table.shape[1] + 1) + 0.45))
    axes.set(xlim=(-0.5 - left / 0.62, table.shape[0] - 0.4), ylim=(table.shape[1] - 0.4, -1.6))
    axes.set_title(title)
    _rules(axes, table.shape, left / 0.62)
    for s, name in enumerate(across):
        size = min(9.0, 9.0 * 7 / max(len(name), 1))
        axes.text(s, -1, name, ha="center", va="center", color=MUTED, fontsize=size)
    for a, name in enumerate(down):
        axes.text(-0.6, a, name, ha="right", va="center", color=MUTED)
    _fill(axes, table)
    return figure


@drawn
def alpha_vectors(
    alphas: ArrayLike,
    actions: ArrayLike,
    *,
    states: Sequence[str] = ("first", "second"),
    action_names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The value over the belief of a two-state POMDP: V(b) = max_i α_i · b.

    alphas [N, 2], actions [N] (the action of each vector). The upper surface is thick and coloured
    by its action; vectors that never lead are thin. Errors: other shapes.
    """
    lines, chosen = np.asarray(alphas, dtype=np.float64), np.asarray(actions)
    if lines.ndim != 2 or lines.shape[1] != 2 or chosen.shape != lines.shape[:1]:
        raise UserError(
            f"alphas: shape {lines.shape} with {chosen.shape} actions; expected [N, 2] and [N]"
        )
    figure, axes = _plain((5.4, 3.5))
    belief = np.linspace(0, 1, 2001)
    height = lines[:, :1] * (1 - belief) + lines[:, 1:] * belief
    leader = height.argmax(0)
    for line in height:
        axes.plot(belief, line, color=MUTED, linewidth=0.7, alpha=0.6)
    for a in np.unique(chosen[leader]):
        on = np.where(chosen[leader] == a, height.max(0), np.nan)
        name = str(a) if action_names is None else action_names[int(a)]
        axes.plot(belief, on, linewidth=2.6, color=SERIES[int(a) % len(SERIES)], label=name)
    top, low = float(height.max()), float(height.max(0).min())
    room = 0.15 * (top - low) or 1.0
    axes.set(
        xlim=(0, 1),
        ylim=(low - room, top + 2.2 * room),
        ylabel="value",
        title=title,
        xlabel=f"belief in {states[1]}  (0: surely {states[0]})",
    )
    axes.legend(title="action", loc="upper center", ncols=3)
    return figure


@drawn
def value_panels(
    panels: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    x: Sequence[float],
    y: Sequence[float],
    title: str = "",
    words: Sequence[str] | None = None,
) -> Figure:
    """Tables over two quantities side by side, all on one scale of colour.

    panels: by name, [len(y), len(x)]; the first of y is lowest. words: names of the values 0, 1, ...
    where the tables hold choices, not quantities.
    """
    from matplotlib.figure import Figure

    tables = {name: np.asarray(table, dtype=np.float64) for name, table in panels.items()}
    for name, table in tables.items():
        if table.shape != (len(y), len(x)):
            raise UserError(f"panel {name!r}: shape {table.shape}; expected [{len(y)}, {len(x)}]")
    figure = Figure(figsize=(2.9 * len(tables) + 0.9, 3.0 if not title else 3.3))
    low = min(float(np.nanmin(t)) for t in tables.values())
    high = max(float(np.nanmax(t)) for t in tables.values())
    colours = value_colours()
    if words is not None:  # a step of colour for each word
        low, high, colours = -0.5, len(words) - 0.5, colours.resampled(len(words))
    all_axes = figure.subplots(1, len(tables), squeeze=False)[0]
    step_x, step_y = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    for axes, (name, table) in zip(all_axes, tables.items(), strict=True):
        image = axes.imshow(
            table,
            origin="lower",
            aspect="auto",
            cmap=colours,
            vmin=low,
            vmax=high,
            extent=(x[0] - step_x, x[-1] + step_x, y[0] - step_y, y[-1] + step_y),
        )
        axes.grid(visible=False)
        axes.set(title=name, xlabel=xlabel)
        axes.set_xticks([v for v in x if len(x) <= 11 or v % 5 == 0])
    all_axes[0].set_ylabel(ylabel)
    bar = figure.colorbar(image, ax=list(all_axes), shrink=0.85, pad=0.02)
    bar.outline.set_visible(False)
    if words is not None:
        bar.set_ticks(list(range(len(words))), labels=list(words))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _names(given: Sequence[str] | None, otherwise: list[str], what: str) -> list[str]:
    if given is None:
        return otherwise
    if len(given) != len(otherwise):
        raise UserError(f"{what}: {len(given)} names; expected {len(otherwise)}")
    return list(given)


def _plain(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches)
    return figure, figure.subplots()


def _blank(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, axes = _plain(inches)
    axes.set_axis_off()
    return figure, axes


def _rules(axes: Axes, shape: tuple[int, ...], left: float) -> None:
    axes.plot([-0.5 - left, shape[0] - 0.5], [-0.5, -0.5], color=INK, linewidth=1.0)
    for a in range(1, shape[1]):
        axes.plot([-0.5 - left, shape[0] - 0.5], [a - 0.5] * 2, color=LINE, linewidth=0.7)


def _fill(axes: Axes, table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    from matplotlib.patches import Rectangle

    places = min(decimals(table[np.isfinite(table)]), 2)
    for (s, a), number in np.ndenumerate(table):
        if not np.isfinite(number):
            continue
        best = number == table[s].max()
        if best:
            axes.add_patch(
                Rectangle((s - 0.46, a - 0.42), 0.92, 0.84, facecolor="#d8e9f5", edgecolor="none")
            )
        weight = "bold" if best else "normal"
        colour = BLUE if best else INK
        axes.text(s, a, said(number, places), ha="center", va="center", weight=weight, color=colour)
