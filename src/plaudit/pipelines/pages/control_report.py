"""The page of a run on a Gymnasium environment: how good the agent is, how it learned, how to use it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plaudit.envs.make import find_spec
from plaudit.pipelines.glossary import ALIASES, GLOSSARY
from plaudit.pipelines.pages.control_plots import metric_grid, run_curve, series
from plaudit.pipelines.pages.finite_report import STYLE
from plaudit.pipelines.pages.page_text import apart, seen
from plaudit.records.errors import UserError, command
from plaudit.records.files import write_text
from plaudit.records.runs import RunFolder
from plaudit.records.visible import visible_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plaudit.agents.agent import Agent

OWN = {"stage", "step", "event", "time", "seconds"}
"""Keys of a metrics line that are not metrics."""

DRAWN_ABOVE = ("rollout/return", "eval/")
"""Metrics of the large curve, and those that belong to it."""

MOST_CURVES = 15
"""Small curves that are drawn at most."""

NAMES = {
    "reinforce": "REINFORCE",
    "qac": "Q actor-critic",
    "ppo_kl": "PPO with a KL penalty",
    "ppo_recurrent": "Recurrent PPO",
    "dqn_distributional": "Distributional DQN",
    "sac_discrete": "Discrete SAC",
}
"""How algorithms are called whose name is not merely in capitals."""


def control_report(run: RunFolder, agent: Agent, results: Mapping[str, Any]) -> Path:
    """Draws and writes report/index.html from the run's log; `results` as `run_control` gives them."""
    rows = run.read_jsonl("metrics.jsonl")
    env, algorithm = agent.settings.env, agent.algorithm
    title = f"{NAMES.get(algorithm, algorithm.upper())} on {env}"
    level = _threshold(env)
    figures = [
        _figure(run, "curve", _curve_sentence(level), lambda: run_curve(rows, references=level))
    ]
    watched = _watched(rows)
    if watched:
        sentence = "What was logged while learning; 'plaudit explain NAME' says what each means."
        figures.append(_figure(run, "metrics", sentence, lambda: metric_grid(rows, watched)))
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(visible_line(title))}</title><style>{STYLE}</style></head><body>",
        f"<h1>{apart(title)}</h1>",
        *(f"<p>{seen(line)}</p>" for line in verdict(rows, results, level)),
        *figures,
        "<h2>Figures</h2><table>",
        *(_row(name, value) for name, value in results.items()),
        "</table>",
        *_usage(run.path, agent),
        "<h2>What was run</h2>",
        f"<pre>{seen((run.path / 'config.yaml').read_text('utf-8'))}</pre>",
        "</body></html>",
    ]
    path = run.path / "report" / "index.html"
    write_text(path, "\n".join(page) + "\n")
    return path


def verdict(
    rows: Sequence[Mapping[str, Any]], results: Mapping[str, Any], level: Mapping[str, float]
) -> list[str]:
    """What came out, in sentences: the return, how it compares, and a better checkpoint if any."""
    final, low, high = (float(results[f"eval/return{side}"]) for side in ("", "_low", "_high"))
    said = [
        f"After {results['steps']:,} steps the agent's mean return is {_number(final)} "
        f"(95 % interval {_number(low)} to {_number(high)}), actions chosen deterministically."
    ]
    for name, threshold in level.items():
        beyond = "above" if low >= threshold else "below" if high < threshold else "around"
        said[0] += f" That is {beyond} {_number(threshold)}, the {name}."
    steps, values = series(rows, "eval/return")
    lows = series(rows, "eval/return_low")[1]
    if values.size and lows.size == values.size and lows[values.argmax()] > high:
        best = values.argmax()
        said.append(
            f"An earlier checkpoint was better: {_number(float(values[best]))} at step "
            f"{steps[best]:,.0f}. 'plaudit eval RUN --best' judges it, and plaudit.load(RUN, "
            "best=True) loads it."
        )
    return said


def _threshold(env: str) -> dict[str, float]:
    """The return at which the environment calls itself solved, where it says."""
    try:
        found = find_spec(env).reward_threshold
    except UserError:
        return {}
    return {} if found is None else {"environment's own threshold": float(found)}


def _curve_sentence(level: Mapping[str, float]) -> str:
    sentence = (
        "Return of an episode: while learning, with exploration, and of the evaluations on "
        "environments of their own, with a 95 % bootstrap interval."
    )
    return sentence + (" Dashed: the environment's own threshold." if level else "")


def _watched(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that moved and are not in the large curve, at most `MOST_CURVES`."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(set(row) - OWN)
    drawn = (name for name in sorted(names) if not name.startswith(DRAWN_ABOVE))
    return [name for name in drawn if np.unique(series(rows, name)[1]).size > 1][:MOST_CURVES]


def _figure(run: RunFolder, name: str, sentence: str, draw: Callable[[], Figure]) -> str:
    folder = run.path / "report"
    temporary = folder / f".{name}.png.tmp"
    draw().savefig(temporary, dpi=150, format="png", bbox_inches="tight")
    temporary.replace(folder / f"{name}.png")
    said = html.escape(sentence)
    return f'<figure><img src="{name}.png" alt="{said}"><figcaption>{said}</figcaption></figure>'


def _row(name: str, value: Any) -> str:
    entry = GLOSSARY.get(ALIASES.get(name, name))
    said = _number(value) if isinstance(value, float) else str(value)
    meaning = html.escape(entry.sentence) if entry else ""
    return (
        f'<tr><th>{apart(name)}</th><td class="number">{apart(said)}</td>'
        f'<td class="meaning">{meaning}</td></tr>'
    )


def _usage(path: Path, agent: Agent) -> list[str]:
    """How to act with the agent, judge it, see it, and run it again."""
    stacked = agent.settings.frame_stack > 1
    code = [
        "import gymnasium",
        "import plaudit",
        "",
        f"agent = plaudit.load({str(path)!r})",
        f"env = gymnasium.make({agent.settings.env!r})",
        "obs, _ = env.reset()",
        *(["agent.begin()  # at the start of each episode"] if stacked else []),
        "action = agent.act(obs)",
    ]
    config = path / "config.yaml"
    commands = [
        command("eval", path, "--episodes", "100", "--video"),
        command("run", config, "--seed", str(agent.settings.seed + 1)),
        command("sweep", config, "--seeds", "0..9"),
    ]
    return [
        "<h2>Use the agent</h2>",
        f"<pre>{seen(chr(10).join(code))}</pre>",
        f"<p>The folder <code>{apart(path / 'model')}</code> holds it alone, to be kept "
        "or given away: plaudit.load reads that too.</p>",
        "<h2>Next</h2>",
        f"<pre>{seen(chr(10).join(commands))}</pre>",
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
