"""Learning curves of benchmarks/control.py: returns of the training episodes, ours and the peer's.

Nothing is evaluated on the way, so that a curve costs the timed trainings nothing: both sides keep
the return of every episode that ends, exploration included. An episode counts at the environment
step, of all copies together, at which it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.pipelines.figures.sweep import common_curve
from plaudit.pipelines.pages.control_plots import seed_curves
from plaudit.records.events import Event, Step

NUM_POINTS = 40
PICTURES = Path(__file__).parent.parent / "docs" / "images" / "control"

Points = list[tuple[float, float]]


def curve_of_events(events: Iterable[Event]) -> Points:
    """(step, mean return of the episodes since the line before) of the lines that have one."""
    return [
        (event.step, event.metrics["rollout/return"])
        for event in events
        if isinstance(event, Step) and "rollout/return" in event.metrics
    ]


def curve_of_monitors(monitors: Sequence[Any]) -> Points:
    """(step, return) of every episode that the peer's monitors, one for each copy, have seen."""
    points: Points = []
    for monitor in monitors:
        ends = len(monitors) * np.cumsum(monitor.get_episode_lengths())
        points += zip(ends.tolist(), monitor.get_episode_rewards(), strict=True)
    return sorted(points)


def binned(points: Points, steps: int) -> Points:
    """Means over NUM_POINTS equal parts of the training, at the middle of each; empty parts left out."""
    width = steps / NUM_POINTS
    parts: dict[int, list[float]] = {}
    for step, ret in points:
        parts.setdefault(min(int(step / width), NUM_POINTS - 1), []).append(ret)
    return [(width * (part + 0.5), float(np.mean(parts[part]))) for part in sorted(parts)]


def draw(name: str, env: str, of_sides: dict[str, list[Points]]) -> None:
    """peer-NAME.png: each side's seeds as interquartile mean and interval."""
    curves = {}
    for side, runs in of_sides.items():
        tables = [np.array(points, float).reshape(-1, 2) for points in runs]
        curve = common_curve([(table[:, 0], table[:, 1]) for table in tables])
        if curve is not None:
            curves[f"{side}, {len(runs)} seeds"] = curve
    if curves:
        title = f"{name} on {env}, same settings: interquartile mean, 95 % interval"
        figure = seed_curves(curves, ylabel="return of training episodes", title=title)
        PICTURES.mkdir(parents=True, exist_ok=True)
        figure.savefig(PICTURES / f"peer-{name}.png", format="png", dpi=130)
