"""Values and policies drawn on the cells of a grid world."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.model import MDP, policy_rows
from plaudit.mdp.pictures.style import (
    INK,
    MUTED,
    ORANGE,
    SERIES,
    WALL,
    decimals,
    drawn,
    pale_colours,
    said,
    value_colours,
)
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DIRECTIONS = {
    "up": (-1, 0),
    "right": (0, 1),
    "down": (1, 0),
    "left": (0, -1),
    "north": (-1, 0),
    "east": (0, 1),
    "south": (1, 0),
    "west": (0, -1),
    "up-right": (-1, 1),
    "down-right": (1, 1),
    "down-left": (1, -1),
    "up-left": (-1, -1),
}
"""Actions that are arrows, as (rows down, columns right)."""

NUMBERED_CELLS = 500
"""Up to so many cells hold their number; beyond it a scale of the colours is read instead."""

ARROW_CELLS = 2000
"""Up to so many cells hold arrows; beyond it each action is a colour."""


@drawn
def value_on_grid(
    mdp: MDP, value: ArrayLike, *, title: str = "", xlabel: str = "", ylabel: str = ""
) -> Figure:
    """V(s) in the cell of s: darker is greater; walls are grey, ends of episodes are named.

    value [S]. Errors: a world without a grid, a value of another shape.
    """
    given = _of_states(mdp, value)
    numbered = _cells(mdp).size <= NUMBERED_CELLS
    figure, axes = _frame(mdp, title, xlabel, ylabel, beside=0.0 if numbered else 0.9)
    image = _paint(axes, mdp, given, value_colours())
    if numbered:
        _write_numbers(axes, mdp, given)
    else:
        figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02).outline.set_visible(False)
    _mark(axes, mdp)
    return figure


@drawn
def policy_on_grid(
    mdp: MDP,
    policy: ArrayLike,
    *,
    value: ArrayLike | None = None,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> Figure:
    """The actions of a policy in each cell: arrows as long as they are likely, else action names.

    policy [S] actions or [S, A] probabilities (see `best_actions` for all the greatest of a q);
    value [S] colours the cells. Large grids show the likeliest action as a colour.
    Errors: as `value_on_grid`, and a malformed policy.
    """
    rows = policy_rows(mdp, policy)
    many = _cells(mdp).size > ARROW_CELLS
    figure, axes = _frame(mdp, title, xlabel, ylabel, beside=1.3 if many else 0.0)
    if many:
        _colour_actions(axes, mdp, rows)
        return figure
    given = np.zeros(mdp.num_states) if value is None else _of_states(mdp, value)
    _paint(axes, mdp, given, pale_colours())
    if mdp.actions is not None and all(name in DIRECTIONS for name in mdp.actions):
        _draw_arrows(axes, mdp, rows)
    else:
        _write_actions(axes, mdp, rows)
    _mark(axes, mdp)
    return figure


def best_actions(q: ArrayLike, *, tol: float = 1e-7) -> NDArray[np.float64]:
    """A policy [S, A] that is even over all actions of q within `tol` of the best one."""
    table = np.asarray(q, dtype=np.float64)
    best = table >= table.max(axis=1, keepdims=True) - tol
    share: NDArray[np.float64] = best / best.sum(axis=1, keepdims=True)
    return share


def _cells(mdp: MDP) -> NDArray[np.int64]:
    if mdp.grid is None:
        raise UserError("this world has no grid to draw on; give MDP(..., grid=cells)")
    return mdp.grid


def _of_states(mdp: MDP, value: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(value, dtype=np.float64)
    if given.shape != (mdp.num_states,):
        raise UserError(f"value: shape {given.shape}; expected [{mdp.num_states}]")
    return given


def _frame(
    mdp: MDP, title: str, xlabel: str, ylabel: str, *, beside: float = 0.0
) -> tuple[Figure, Axes]:
    """Axes that the cells fill, with `beside` inches for a scale or a legend."""
    from matplotlib.figure import Figure

    rows, columns = _cells(mdp).shape
    wide = _inches(mdp) * columns + 0.2 + (0.25 if ylabel else 0.0) + beside
    high = _inches(mdp) * rows + 0.2 + (0.28 if title else 0.0) + (0.25 if xlabel else 0.0)
    figure = Figure(figsize=(max(wide, 0.4 + 0.09 * len(title)), high))
    axes = figure.subplots()
    axes.set_title(title)
    axes.set(xlabel=xlabel, ylabel=ylabel, xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def _inches(mdp: MDP) -> float:
    """The side of a cell."""
    return float(min(0.62, 9.0 / max(_cells(mdp).shape)))


def _paint(axes: Axes, mdp: MDP, value: NDArray[np.float64], colours: Colormap) -> AxesImage:
    grid = _cells(mdp)
    ends = (grid >= 0) & mdp.terminal[grid]
    masked = np.ma.masked_array(value[grid], (grid < 0) | ends)
    image = axes.imshow(masked, cmap=colours.with_extremes(bad=WALL))
    for r, c in np.argwhere(ends):
        _box(axes, r, c, facecolor="#eceff2")
    if grid.size <= ARROW_CELLS:
        for r, c in np.argwhere(grid >= 0):
            _box(axes, r, c, facecolor="none")
    return image


def _box(axes: Axes, row: int, column: int, *, facecolor: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, facecolor=facecolor, edgecolor="#c9ced5", linewidth=0.6
        )
    )


def _font(mdp: MDP, letters: int) -> float:
    """Points at which so many letters fit a cell."""
    return float(min(9.0, 0.92 * 72 * _inches(mdp) / (0.62 * max(letters, 2))))


def _write_numbers(axes: Axes, mdp: MDP, value: NDArray[np.float64]) -> None:
    grid = _cells(mdp)
    inside = grid[(grid >= 0) & ~mdp.terminal[grid]]
    places = decimals(value[inside])
    texts = {int(s): said(float(value[s]), places) for s in inside}
    size = _font(mdp, max(map(len, texts.values()), default=2))
    low, high = value[inside].min(initial=np.inf), value[inside].max(initial=-np.inf)
    for r, c in np.argwhere(grid >= 0):
        s = int(grid[r, c])
        if s in texts:
            dark = high > low and (value[s] - low) / (high - low) > 0.72
            colour = "white" if dark else INK
            axes.text(c, r, texts[s], ha="center", va="center", fontsize=size, color=colour)


def _mark(axes: Axes, mdp: MDP) -> None:
    """Names the ends of episodes, and frames the one start if there is one."""
    grid = _cells(mdp)
    if grid.size > NUMBERED_CELLS:
        return
    goals = _goals(mdp)
    for r, c in np.argwhere(grid >= 0):
        s = grid[r, c]
        if mdp.terminal[s]:
            word = "end" if goals is None else "goal" if s in goals else "end"
            axes.text(c, r, word, ha="center", va="center", fontsize=_font(mdp, 5), color=MUTED)
    starts = np.flatnonzero(mdp.initial > 0)
    if starts.size == 1:
        for r, c in np.argwhere(grid == starts[0]):
            from matplotlib.patches import Rectangle

            axes.add_patch(
                Rectangle(
                    (c - 0.46, r - 0.46),
                    0.92,
                    0.92,
                    facecolor="none",
                    edgecolor=ORANGE,
                    linewidth=1.4,
                )
            )


def _goals(mdp: MDP) -> set[int] | None:
    """Ends that pay more than other ends; None where all pay alike."""
    paid = mdp.reward_next if mdp.reward_next is not None else None
    if paid is None or mdp.terminal.sum() < 2:
        return None
    row = np.repeat(np.arange(mdp.reward.size), np.diff(mdp.transition.indptr))
    target = mdp.transition.indices
    entering = mdp.terminal[target] & (target != row // mdp.num_actions)
    best = {
        int(s): float(paid[entering & (target == s)].max(initial=-np.inf))
        for s in np.flatnonzero(mdp.terminal)
    }
    if len(set(best.values())) == 1:
        return None
    return {s for s, pays in best.items() if pays == max(best.values())}


def _draw_arrows(axes: Axes, mdp: MDP, rows: NDArray[np.float64]) -> None:
    grid = _cells(mdp)
    moves = [DIRECTIONS[name] for name in mdp.actions or ()]
    width = _inches(mdp) / 0.62
    for r, c in np.argwhere(grid >= 0):
        s = grid[r, c]
        if mdp.terminal[s]:
            continue
        for a in np.flatnonzero(rows[s] > 1e-9):
            down, right = np.array(moves[a]) / np.hypot(*moves[a])
            reach = 0.14 + 0.26 * rows[s, a]
            alone = rows[s, a] > 0.999
            tail = -reach if alone else 0.06
            axes.annotate(
                "",
                (
                    c + right * (reach + (0.0 if alone else 0.1)),
                    r + down * (reach + (0.0 if alone else 0.1)),
                ),
                (c + right * tail, r + down * tail),
                arrowprops={
                    "arrowstyle": f"-|>,head_width={0.16 * width + 0.04:.2f},head_length={0.3 * width + 0.08:.2f}",
                    "color": INK,
                    "linewidth": 1.1 * width + 0.1,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )


def _write_actions(axes: Axes, mdp: MDP, rows: NDArray[np.float64]) -> None:
    grid = _cells(mdp)
    names = mdp.actions or tuple(str(a) for a in range(mdp.num_actions))
    size = _font(mdp, max(map(len, names)))
    for r, c in np.argwhere(grid >= 0):
        s = grid[r, c]
        if not mdp.terminal[s]:
            likeliest = names[int(rows[s].argmax())].replace("-", "−")
            axes.text(c, r, likeliest, ha="center", va="center", fontsize=size)


def _colour_actions(axes: Axes, mdp: MDP, rows: NDArray[np.float64]) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    grid = _cells(mdp)
    if mdp.num_actions > len(SERIES):
        raise UserError(
            f"policy_on_grid: {mdp.num_actions} actions on {grid.size} cells; at most "
            f"{len(SERIES)} colours are told apart"
        )
    names = mdp.actions or tuple(str(a) for a in range(mdp.num_actions))
    chosen = np.ma.masked_array(rows.argmax(1)[grid], grid < 0)
    colours = ListedColormap(list(SERIES[: mdp.num_actions])).with_extremes(bad=WALL)
    axes.imshow(
        chosen, cmap=colours, vmin=-0.5, vmax=mdp.num_actions - 0.5, interpolation="nearest"
    )
    patches = [Patch(color=SERIES[a], label=name) for a, name in enumerate(names)]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0))
