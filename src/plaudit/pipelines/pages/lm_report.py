"""The page of a job that learned from a file: what came out, how it learned, how to use the model."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.pipelines.glossary import meaning
from plaudit.pipelines.pages.control_plots import metric_grid, series
from plaudit.pipelines.pages.finite_report import STYLE
from plaudit.pipelines.pages.page_text import apart, seen
from plaudit.records.errors import command
from plaudit.records.files import write_text
from plaudit.records.runs import RunFolder

OWN = {"stage", "step", "event", "time", "seconds"}
"""Keys of a metrics line that are not metrics."""

MOST_CURVES = 12

NAMES = {
    "sft": "Supervised fine-tuning",
    "reward": "A reward model",
    "dpo": "Learning from pairs",
    "kto": "Learning from labels",
}
"""The page's title, by the stage that learned."""


def lm_report(run: RunFolder, stage: str, summary: Mapping[str, Any]) -> Path:
    """Draws and writes report/index.html from the run's log and its summary."""
    rows = [row for row in run.read_jsonl("metrics.jsonl") if row.get("stage") == stage]
    title = f"{NAMES[stage]}: {run.path.resolve().name}"
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{seen(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{apart(title)}</h1>",
        *(f"<p>{seen(line)}</p>" for line in verdict(stage, summary)),
        *_curves(run, rows),
        "<h2>Figures</h2><table>",
        *(_row(name, value, summary) for name, value in summary.items() if _is_figure(name, value)),
        "</table>",
        *_usage(run.path, stage),
        "<h2>What was run</h2>",
        f"<pre>{seen((run.path / 'config.yaml').read_text('utf-8'))}</pre>",
        "</body></html>",
    ]
    path = run.path / "report" / "index.html"
    write_text(path, "\n".join(page) + "\n")
    return path


def verdict(stage: str, summary: Mapping[str, Any]) -> list[str]:
    """What came out, in sentences that an interval stands behind."""
    if stage == "sft" and "loss_held_out" in summary:
        said = _from_to(summary, "perplexity", "The perplexity of held-out tokens")
        return [said] if said else []
    if stage == "reward" and "reward_model_accuracy" in summary:
        share = _with_interval(summary, "reward_model_accuracy")
        length = summary["length_only_accuracy"]
        return [
            f"The reward model orders {share} of the held-out comparisons as they were decided; "
            f"length alone, whichever way, {_number(length)}."
        ]
    if stage == "dpo" and "accuracy" in summary:
        before = summary.get("accuracy_before")
        was = "" if before is None else f" ({_number(before)} before)"
        lines = [
            f"Held-out accuracy {_with_interval(summary, 'accuracy')}{was}, margin "
            f"{_with_interval(summary, 'margin')}."
        ]
        if summary.get("logp/chosen_change", 0.0) < 0:
            lines.append(
                "The chosen held-out answers are "
                f"{_number(-summary['logp/chosen_change'])} nats less likely than at the start: "
                "usual for losses that see differences alone; nll_coef holds it."
            )
        return lines
    if stage == "kto" and "reward/good" in summary and "reward/bad" in summary:
        good, bad = (_with_interval(summary, f"reward/{kind}") for kind in ("good", "bad"))
        return [f"Held-out rewards: {good} of good answers, {bad} of bad ones."]
    return ["Nothing was held out, so nothing is said of answers that were not learned from."]


def _from_to(summary: Mapping[str, Any], name: str, what: str) -> str:
    names = [f"{name}_{side}" for side in ("before", "after")]
    if not all(key in summary for key in names):
        return ""
    before, after = (_number(summary[key]) for key in names)
    return f"{what} went from {before} to {after}."


def _with_interval(summary: Mapping[str, Any], name: str) -> str:
    ends = summary.get(f"{name}_interval")
    beside = "" if ends is None else f" (95 % interval {_number(ends[0])} to {_number(ends[1])})"
    return f"{_number(summary[name])}{beside}"


def _curves(run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(name for name in row if name not in OWN)
    moved = [name for name in names if np.unique(series(rows, name)[1]).size > 1][:MOST_CURVES]
    if not moved:
        return []
    folder = run.path / "report"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".curves.png.tmp"
    metric_grid(rows, moved).savefig(temporary, dpi=150, format="png", bbox_inches="tight")
    temporary.replace(folder / "curves.png")
    said = (
        "Over the steps; 'plaudit explain NAME' says what each means. eval/ is of what is held out."
    )
    alt = html.escape(said)
    return [f'<figure><img src="curves.png" alt="{alt}"><figcaption>{alt}</figcaption></figure>']


def _is_figure(name: str, value: Any) -> bool:
    single = isinstance(value, int | float) and not isinstance(value, bool)
    return single and not name.endswith("_interval")


def _row(name: str, value: Any, summary: Mapping[str, Any]) -> str:
    known = meaning(name)
    ends = summary.get(f"{name}_interval")
    said = _number(value) + ("" if ends is None else f" ({_number(ends[0])} to {_number(ends[1])})")
    about = html.escape(known[1].sentence) if known else ""
    return (
        f'<tr><th>{apart(name)}</th><td class="number">{apart(said)}</td>'
        f'<td class="meaning">{about}</td></tr>'
    )


def _usage(path: Path, stage: str) -> list[str]:
    """How to load what was made, and what to do next."""
    if stage == "reward":
        kind, folder = "AutoModelForSequenceClassification", path / "reward_model"
        following = command("run", "grpo", "--reward", folder, "--prompts", "prompts.jsonl")
    else:
        kind, folder = "AutoModelForCausalLM", path / "model"
        following = command("run", "dpo", "--model", folder, "--data", "pairs.jsonl")
    code = [
        f"from transformers import {kind}, AutoTokenizer",
        "",
        f"model = {kind}.from_pretrained({str(folder)!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})",
    ]
    again = command("run", path / "config.yaml", "--seed", "1")
    return [
        "<h2>Use the model</h2>",
        f"<pre>{seen(chr(10).join(code))}</pre>",
        "<h2>Next</h2>",
        f"<pre>{seen(again + chr(10) + following)}</pre>",
    ]


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
