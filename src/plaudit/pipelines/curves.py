"""Curves of a run as a page draws them: few enough points to draw, none of them invented."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

OF_A_LINE = ("stage", "step", "event", "time", "seconds")
"""What a line of metrics.jsonl says besides its metrics."""

MOST_POINTS = 600
"""Points of a curve: more than a chart has pixels for, few enough to be sent at once."""

Point = tuple[int, float]


def curves(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[Point]]]:
    """(step, value) by stage and metric, in the order of the log; numbers that are none left out."""
    found: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        of_stage = found.setdefault(str(row.get("stage", "")), {})
        for name, value in numbers_of(row).items():
            of_stage.setdefault(name, []).append((int(row.get("step", 0)), value))
    return {s: {n: thinned(p) for n, p in each.items()} for s, each in found.items()}


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line that are finite numbers."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in OF_A_LINE
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def thinned(points: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: of each stretch of steps the lowest and the highest, so that no peak is
    lost, with the first and the last."""
    if len(points) <= most:
        return points
    inner, num = points[1:-1], max((most - 2) // 2, 1)
    kept = [points[0]]
    for k in range(num):
        stretch = inner[k * len(inner) // num : (k + 1) * len(inner) // num]
        low, high = (pick(stretch, key=lambda p: p[1]) for pick in (min, max))
        kept += sorted({low, high})
    return [*kept, points[-1]]


def overoptimisation(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One point a step, by the distance √KL from the reference: the reward that is trained on, and
    the gold score, or the reward of held-out prompts, where there is one.

    Source: Gao et al. 2023 (2210.10760), figure 1. An estimate of the KL below 0 counts as 0.
    """
    points: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        numbers = numbers_of(row)
        point = points.setdefault((str(row.get("stage")), int(row.get("step", 0))), {})
        for name, value in numbers.items():
            if name in ("objective/kl", "objective/scores", "gold/mean", "eval/reward"):
                point[name] = value
    return [
        {
            "step": float(step),
            "sqrt_kl": math.sqrt(max(point["objective/kl"], 0.0)),
            "reward": point["objective/scores"],
            **{to: point[name] for name, to in (("gold/mean", "gold"), ("eval/reward", "eval"))
               if name in point},
        }
        for (_, step), point in points.items()
        if {"objective/kl", "objective/scores"} <= point.keys()
    ]  # fmt: skip
