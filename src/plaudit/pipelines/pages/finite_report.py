"""The page of a finite world's run: its numbers, its pictures, and the command that makes it again."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plaudit.mdp.learning import Learned
from plaudit.mdp.model import MDP
from plaudit.mdp.pictures import (
    best_actions,
    convergence,
    learning_curves,
    policy_on_grid,
    q_table_picture,
    value_on_grid,
)
from plaudit.mdp.planning import Solution
from plaudit.pipelines.glossary import ALIASES, GLOSSARY
from plaudit.pipelines.pages.page_text import apart, seen
from plaudit.records.errors import command
from plaudit.records.files import write_text
from plaudit.records.runs import RunFolder
from plaudit.records.visible import visible_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_CELLS = 10_000
"""Up to so many cells a map is drawn."""

TABLE_STATES = 24
"""Up to so many states a world without a map is drawn as a table of q."""

Picture = tuple[str, str, Callable[[], "Figure"]]
"""(file name without ending, sentence below it, how to draw it)."""

STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2733; background: #fff; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } td.meaning { color: #5b6672; }
figure { margin: 2rem 0; } img { max-width: 100%; } figcaption { color: #5b6672; }
.mark { font: .72em monospace; color: #5b6672; border: 1px solid #c8ced4; unicode-bidi: isolate; }
pre { unicode-bidi: isolate; background: #f3f5f7; padding: .6rem .8rem; overflow-x: auto; }"""


def planning_report(
    run: RunFolder, mdp: MDP, solution: Solution, results: Mapping[str, Any], *, tol: float
) -> Path:
    """Draws and writes report/index.html of a plan."""
    pictures = _maps(mdp, solution.value, solution.q)
    if solution.trace.size > 2:
        sentence = "The certified bound on the error of the value after each iteration."
        pictures.append(
            ("convergence", sentence, lambda: convergence(solution, tol=tol, title=solution.method))
        )
    return write_page(run, f"{results['world']}: solved by {solution.method}", results, pictures)


def learning_report(
    run: RunFolder,
    mdp: MDP,
    result: Learned,
    results: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> Path:
    """Draws and writes report/index.html of a learner's run from its log."""
    pictures = [
        *_curve(
            rows, "policy_value", results, "The exact value of the greedy policy while learning."
        ),
        *_curve(rows, "episode/return", {}, "Return of the episodes while exploring."),
        *_maps(mdp, result.value, result.q),
    ]
    return write_page(
        run, f"{results['world']}: learned by {results['learner']}", results, pictures
    )


def _maps(mdp: MDP, value: np.ndarray[Any, Any], q: np.ndarray[Any, Any]) -> list[Picture]:
    """Value and policy on the map, or q as a table where there is none."""
    if mdp.grid is None:
        if mdp.num_states > TABLE_STATES:
            return []
        states = mdp.states or [str(s) for s in range(mdp.num_states)]
        actions = mdp.actions or [str(a) for a in range(mdp.num_actions)]
        sentence = "Q by state and action; the greatest of each state is marked."
        return [("q", sentence, lambda: q_table_picture(q, states=states, actions=actions))]
    if mdp.grid.size > DRAWN_CELLS:
        return []
    drawn: list[Picture] = [
        ("value", "The value of each state.", lambda: value_on_grid(mdp, value))
    ]
    if mdp.actions is not None:
        sentence = "The best actions of each state; equal ones are all drawn."
        drawn.append(
            ("policy", sentence, lambda: policy_on_grid(mdp, best_actions(q), value=value))
        )
    return drawn


def _curve(
    rows: Sequence[Mapping[str, Any]], name: str, results: Mapping[str, Any], sentence: str
) -> list[Picture]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if len(points) < 2:
        return []
    steps, values = zip(*points, strict=True)
    best = results.get("optimal_value")
    known = {} if best is None else {"optimal": float(best)}
    return [
        (
            name.replace("/", "_"),
            sentence,
            lambda: learning_curves(
                {name: values}, x=steps, xlabel="steps", ylabel=name, references=known
            ),
        )
    ]


def write_page(
    run: RunFolder, title: str, results: Mapping[str, Any], pictures: Sequence[Picture]
) -> Path:
    """Draws the pictures and writes report/index.html around them."""
    folder = run.path / "report"
    drawn = []
    for name, sentence, draw in pictures:
        temporary = folder / f".{name}.png.tmp"
        draw().savefig(temporary, dpi=150, format="png", bbox_inches="tight")
        temporary.replace(folder / f"{name}.png")
        drawn.append(
            f'<figure><img src="{name}.png" alt="{html.escape(sentence)}">'
            f"<figcaption>{html.escape(sentence)}</figcaption></figure>"
        )
    rows = [_row(name, value) for name, value in results.items()]
    page = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{html.escape(visible_line(title))}</title><style>{STYLE}</style></head><body>",
        f"<h1>{apart(title)}</h1>",
        "<table>",
        *rows,
        "</table>",
        *drawn,
        f"<p>Arrays: <code>{html.escape(str(Path('arrays')))}/*.npy</code>. The same again:</p>",
        f"<pre>{seen(command('run', run.path / 'config.yaml'))}</pre>",
        "</body></html>",
    ]
    write_text(folder / "index.html", "\n".join(page) + "\n")
    return folder / "index.html"


def _row(name: str, value: Any) -> str:
    said = f"{value:.6g}" if isinstance(value, float) else str(value)
    entry = GLOSSARY.get(ALIASES.get(name, name))
    meaning = html.escape(entry.sentence) if entry else ""
    return (
        f'<tr><th>{apart(name)}</th><td class="number">{apart(said)}</td>'
        f'<td class="meaning">{meaning}</td></tr>'
    )
