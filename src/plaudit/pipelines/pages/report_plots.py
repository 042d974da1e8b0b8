"""The report's figures: one function each, from lines of metrics.jsonl to a matplotlib figure.

Every figure is drawn twice from one description: as PNG for documents, and as SVG whose text stays
text and whose colours become the page's CSS variables, so that it follows light and dark. Colours
are Okabe and Ito's (2008), told apart by all common forms of colour vision; series also differ in
marker and are named beside the line or on a scale of their colour.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Row = Mapping[str, Any]

INK, MUTED, GRID = "#22262b", "#6a717b", "#dfe2e6"
BLUE, ORANGE = "#0072b2", "#d55e00"
CSS_NAMES = {INK: "--ink", MUTED: "--muted", GRID: "--line", BLUE: "--blue", ORANGE: "--orange"}

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}

PNG_DPI = 160

WIDE, HALF, THIRD = (10.0, 3.7), (4.9, 3.1), (3.4, 2.5)
"""Inches, in proportion to the page's columns, so that the text is about as large in all."""

FEW_POINTS = 60
"""Up to this many points each gets a dot; beyond it dots would hide the line."""


@dataclass(frozen=True)
class Plot:
    """One figure of the report: file stem, heading, what it says in words, and its two forms."""

    name: str
    title: str
    caption: str
    png: bytes
    svg: str


def improving_stage(rows: Sequence[Row], improve: str = "") -> str:
    """The stage that moved the policy away from its start: the one that the run's key `improve`
    names, else the one that logs its distance; "" where there is none."""
    if any(row.get("stage") == improve for row in rows):
        return improve
    return next((str(row["stage"]) for row in rows if "objective/kl" in row), "")


def series(rows: Sequence[Row], stage: str, metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric in a stage; a value that was not finite is left out."""
    points = [
        (float(row["step"]), float(row[metric]))
        for row in rows
        if row.get("stage") == stage and row.get(metric) is not None
    ]
    points = [point for point in points if math.isfinite(point[1])]
    return [step for step, _ in points], [value for _, value in points]


def plots(
    rows: Sequence[Row], summary: Mapping[str, Any], answers: Sequence[Row], *, improve: str = ""
) -> list[Plot]:
    """Every figure for which there is something to draw; `improve` names the improving stage."""
    stage = improving_stage(rows, improve)
    made = [
        *(_curve_plot(rows, stage, *spec) for spec in CURVES),
        _overoptimisation_plot(rows, stage, summary),
        _reward_model_plot(rows, summary),
        _calibration_plot(summary),
        _distribution_plot(answers),
    ]
    return [plot for plot in made if plot is not None]


CURVES = (
    ("reward", "objective/scores", "Reward-model score", "mean score of a rollout", BLUE),
    ("gold", "gold/mean", "Gold score", "mean gold score of a rollout", ORANGE),
    ("kl", "objective/kl", "Distance from the start", "KL, nats per answer", INK),
    ("entropy", "policy/entropy_avg", "Entropy", "nats per token", INK),
    ("length", "answer/length", "Answer length", "tokens", INK),
)
"""(file stem, metric, heading, axis label, colour) of the plain curves over the improver's steps."""


def _curve_plot(
    rows: Sequence[Row], stage: str, name: str, metric: str, title: str, label: str, colour: str
) -> Plot | None:
    steps, values = series(rows, stage, metric)
    if not values:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, steps, values, colour)
        axes.set(xlabel=f"{stage.upper()} step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if metric in ("objective/kl", "policy/entropy_avg", "answer/length"):
            axes.set_ylim(bottom=min(0.0, *values), top=max(*values, 1e-9) * 1.12)

    caption = f"{label}: {values[0]:.3g} at the first step, {values[-1]:.3g} at the last."
    caption = caption.replace(" -", " −")
    return _plot(
        name, title, caption[:1].upper() + caption[1:], draw, HALF if colour != INK else THIRD
    )


def _overoptimisation_plot(
    rows: Sequence[Row], stage: str, summary: Mapping[str, Any]
) -> Plot | None:
    """Score and gold score against √KL, as in Gao et al. 2023 (2210.10760), figure 1."""
    paid = [
        row for row in rows if row.get("stage") == stage and row.get("objective/kl") is not None
    ]
    x, score = _against_root_kl(paid, "objective/scores")
    x_gold, gold = _against_root_kl(paid, "gold/mean")
    if not score:
        return None
    held_out = _held_out_gold(summary)

    def draw(axes: Axes) -> None:
        _line(axes, x, score, BLUE)
        axes.set_xlabel("√KL from the starting model, √nats per answer")
        axes.set_ylabel("reward-model score", color=BLUE)
        axes.tick_params(axis="y", labelcolor=BLUE)
        if not gold and not held_out:
            return
        other = axes.twinx()
        other.grid(visible=False)
        other.set_ylabel("gold score", color=ORANGE)
        other.tick_params(axis="y", labelcolor=ORANGE)
        if gold:
            _line(other, x_gold, gold, ORANGE, marker="s")
        for root, value, low, high in held_out:
            spread = [[max(value - low, 0)], [max(high - value, 0)]]
            other.errorbar(
                [root], [value], yerr=spread, fmt="D", ms=5.5, mfc="none", mec=ORANGE,
                ecolor=ORANGE, elinewidth=1.1, capsize=2.5,
            )  # fmt: skip

    caption = f"Blue circles: the learned score that {stage.upper()} raises (left scale)."
    if gold:
        caption += " Orange squares: the gold score of the same answers (right scale)."
    if held_out:
        caption += " Open diamonds: gold on held-out prompts before and after, with 95 % intervals."
    if gold or held_out:
        caption += (
            " Where blue still rises and orange falls by more than it wavers, the reward model is "
            "being exploited."
        )
    return _plot("overoptimisation", "Score against distance", caption, draw, WIDE)


def _against_root_kl(rows: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """(√KL, metric) in the order of steps; an estimate of the KL below 0 is drawn at 0."""
    kept = [row for row in rows if row.get(metric) is not None]
    roots = [math.sqrt(max(float(row["objective/kl"]), 0.0)) for row in kept]
    return roots, [float(row[metric]) for row in kept]


def _held_out_gold(summary: Mapping[str, Any]) -> list[tuple[float, float, float, float]]:
    """(√KL, gold, low, high) before and after, where the summary has them."""
    if summary.get("gold_before") is None or summary.get("kl") is None:
        return []
    points = []
    for side, kl in (("before", 0.0), ("after", float(summary["kl"]))):
        value = float(summary[f"gold_{side}"])
        low, high = summary.get(f"gold_{side}_interval") or (value, value)
        points.append((math.sqrt(max(kl, 0.0)), value, float(low), float(high)))
    return points


def _reward_model_plot(rows: Sequence[Row], summary: Mapping[str, Any]) -> Plot | None:
    steps, values = series(rows, "reward_model", "accuracy")
    if not values:
        return None
    at, held_out = series(rows, "reward_model", "eval/accuracy")
    length_only = summary.get("length_only_accuracy")

    def draw(axes: Axes) -> None:
        axes.plot(steps, values, color=MUTED, linewidth=1.0, alpha=0.65)
        if held_out:
            axes.plot(at, held_out, color=BLUE, marker="o", markersize=4.5)
            _beside(axes, at[-1], held_out[-1], "held-out", BLUE)
        if length_only is not None:
            level, dashes = [float(length_only)] * 2, (0, (4, 3))
            ends = [steps[0], steps[-1]]
            axes.plot(ends, level, color=ORANGE, linewidth=1.2, linestyle=dashes)
            _beside(axes, steps[-1], float(length_only), "length alone", ORANGE)
        lowest = min([*values, *held_out, 0.5, *([] if length_only is None else [length_only])])
        axes.set(xlabel="optimiser step", ylabel="pairs ordered as voted", ylim=(lowest - 0.05, 1))
        axes.set_xlim(right=steps[-1] + 0.28 * max(steps[-1] - steps[0], 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    caption = "Thin line: training pairs of each step. Ties are left out."
    return _plot("reward_model", "Learning the reward model", caption, draw, HALF)


def _calibration_plot(summary: Mapping[str, Any]) -> Plot | None:
    table = summary.get("calibration")
    if not table:
        return None
    x = [float(row["prob"]) for row in table]
    y = [float(row["outcome"]) for row in table]
    most = max(int(row["num"]) for row in table)
    size = [12 + 90 * int(row["num"]) / most for row in table]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.plot(x, y, color=BLUE, linewidth=1.1)
        axes.scatter(x, y, s=size, color=BLUE, zorder=3, linewidths=0)
        axes.set(
            xlabel="predicted chance that A wins", ylabel="share that A won",
            xlim=(-0.03, 1.03), ylim=(-0.03, 1.03),
        )  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.set_ticks([0, 0.25, 0.5, 0.75, 1])

    caption = "On the dashed line a prediction means what it says; a dot's area is its pairs."
    if summary.get("calibration_error") is not None:
        caption += f" Expected calibration error {float(summary['calibration_error']):.3f}."
    return _plot("calibration", "Calibration on held-out pairs", caption, draw, HALF)


def _distribution_plot(answers: Sequence[Row]) -> Plot | None:
    """Histogram of a score over held-out answers, before and after: gold, else the model's."""
    kind = judged_by(answers)
    if kind is None:
        return None
    before, after = (
        np.array([float(row[f"{kind}_{side}"]) for row in answers]) for side in ("before", "after")
    )
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    if low == high:
        return None
    edges = np.linspace(low, high, 21)

    def draw(axes: Axes) -> None:
        for values, colour, hatch in ((before, MUTED, None), (after, BLUE, None)):
            share = np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.22, hatch=hatch)
            axes.stairs(share, edges, color=colour, linewidth=1.5)
        label = "gold score" if kind == "gold" else "reward-model score"
        axes.set(xlabel=f"{label} of a held-out answer", ylabel="share of answers")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    caption = f"Grey: before. Blue: after. {len(answers)} answers to held-out prompts each."
    return _plot("distribution", "Scores of held-out answers", caption, draw, (WIDE[0], 3.0))


def judged_by(answers: Sequence[Row]) -> str | None:
    """Which score the answers are compared by: "gold", else "reward", else None."""
    for kind in ("gold", "reward"):
        sides = [row.get(f"{kind}_{side}") for row in answers for side in ("before", "after")]
        if sides and all(value is not None for value in sides):
            return kind
    return None


def _line(
    axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, marker: str = "o"
) -> None:
    dots = marker if len(x) <= FEW_POINTS else None
    axes.plot(x, y, color=colour, marker=dots, markersize=3.2)


def _beside(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(
        text, (x, y), xytext=(6, 0), textcoords="offset points", color=colour, va="center"
    )


def _plot(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Axes], None],
    inches: tuple[float, float],
) -> Plot:
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=inches)
        draw(figure.subplots())
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white")
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Plot(name, title, caption, png.getvalue(), _page_svg(svg.getvalue(), title))


def _page_svg(svg: str, title: str) -> str:
    """The <svg> element alone: labelled, sized by the page, colours as the page's variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    # Groups are numbered alike in every figure, and an id may occur once on a page: keep those used.
    used = {f'id="{name}"' for name in re.findall(r"#([\w.-]+)", body)}
    body = re.sub(r' ?\bid="[^"]*"', lambda found: found[0] * (found[0].strip() in used), body)
    for colour, variable in CSS_NAMES.items():
        body = body.replace(colour, f"var({variable})")
    body = body.replace("'DejaVu Sans'", "system-ui")
    return f'<svg class="plot" viewBox="{box[1]}" role="img" aria-label="{title}">{body}'
