"""Value and policy of a small finite world as text, from its run folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.records.files import read_json
from plaudit.records.runs import RunFolder

MOST_COLUMNS, MOST_ROWS = 16, 24
"""The largest map that is printed."""

MOST_STATES = 40
"""The longest list of states that is printed where there is no map."""

ARROWS = {
    "up": "↑", "down": "↓", "left": "←", "right": "→", "stay": "·",
    "north": "↑", "south": "↓", "west": "←", "east": "→",
}  # fmt: skip


def world_lines(run: RunFolder) -> list[str]:
    """`world_text` of a run, as the registry of jobs asks for it."""
    return world_text(run.path)


def world_text(run: Path) -> list[str]:
    """Lines that show value and policy on the map, or state by state; [] where it is too large."""
    folder = run / "arrays"
    if not all((folder / name).exists() for name in ("world.json", "value.npy", "policy.npy")):
        return []
    value, policy = np.load(folder / "value.npy"), np.load(folder / "policy.npy")
    world = read_json(folder / "world.json")
    if world["grid"] is not None:
        grid = np.array(world["grid"])
        if grid.shape[0] > MOST_ROWS or grid.shape[1] > MOST_COLUMNS:
            return []
        return _on_map(grid, value, policy, world)
    if value.size > MOST_STATES:
        return []
    return _by_state(value, policy, world)


def _on_map(
    grid: NDArray[np.int64], value: NDArray[np.float64], policy: NDArray[np.int64], world: Any
) -> list[str]:
    ends = set(world["terminal"])
    values = [["" if s < 0 else "end" if s in ends else _said(value[s]) for s in r] for r in grid]
    moves = [
        ["" if s < 0 else "end" if s in ends else _action(policy[s], world["actions"]) for s in r]
        for r in grid
    ]
    return ["value", *_aligned(values), "", "policy", *_aligned(moves)]


def _by_state(value: NDArray[np.float64], policy: NDArray[np.int64], world: Any) -> list[str]:
    ends = set(world["terminal"])
    states = world["states"] or [str(s) for s in range(value.size)]
    rows = [["state", "value", "action"]]
    for s, name in enumerate(states):
        action = "end" if s in ends else _action(policy[s], world["actions"])
        rows.append([name, "0" if s in ends else _said(value[s]), action])
    return _aligned(rows)


def _action(number: int, names: Sequence[str] | None) -> str:
    if names is None:
        return str(number)
    return ARROWS.get(names[number].lower(), names[number])


def _said(value: float) -> str:
    text = f"{value:.4g}"
    return "0" if text == "-0" else text


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
    ]
