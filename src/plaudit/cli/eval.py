"""`plaudit eval`: how good an agent is, by whole episodes it plays now; with --video, how it looks."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.cli.words import Parser
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from plaudit.agents.agent import Agent

LABELS = {
    "eval/return_median": "median return",
    "eval/return_min": "least return",
    "eval/return_max": "greatest return",
    "eval/length": "mean length",
    "eval/length_min": "least length",
    "eval/length_max": "greatest length",
}


def main(argv: list[str]) -> int:
    """Prints the figures of an agent's episodes; returns 0."""
    words = parser().parse_args(argv)
    if words.episodes < 1:
        raise UserError(f"--episodes {words.episodes}: at least one is needed")
    from plaudit.pipelines.threads import one_thread

    with one_thread():
        facts = figures(words)
    if words.json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(lines(facts)))
    return 0


def figures(words: argparse.Namespace) -> dict[str, Any]:
    """What the agent's episodes came to; films one where that is asked for."""
    from plaudit.pipelines.control.evaluation import film, judge

    agent = agent_at(words.run, best=words.best)
    deterministic = not words.stochastic
    found = judge(agent, words.episodes, seed=words.seed, deterministic=deterministic)
    facts = {"run": words.run, "algorithm": agent.algorithm, **found.facts()}
    if words.video is not None:
        file = video_file(words.run, words.video)
        seen = film(agent, file, seed=found.seed, deterministic=deterministic)
        facts |= {"video": str(file), "video/return": seen.ret, "video/length": seen.length}
    return facts


def parser() -> argparse.ArgumentParser:
    """The words of this verb."""
    made = Parser("plaudit eval", description=__doc__)
    made.add_argument("run", help="a run by name or folder, or a folder that Agent.save wrote")
    made.add_argument("--episodes", type=int, default=100, help="how many to play (default: 100)")
    made.add_argument(
        "--seed", type=int, help="begin other episodes than those the run's end was judged by"
    )
    made.add_argument(
        "--best", action="store_true", help="the run's best checkpoint in place of its last"
    )
    made.add_argument(
        "--stochastic", action="store_true", help="draw actions as when learning, not the best ones"
    )
    made.add_argument(
        "--video",
        nargs="?",
        const="",
        metavar="FILE",
        help="film an episode too: .mp4, or .gif where no encoder is installed",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def agent_at(target: str, *, best: bool) -> Agent:
    """The agent of a run, or of a saved folder.

    Errors: nothing there, a job of another kind, no checkpoint yet.
    """
    from plaudit.agents.agent import FACTS
    from plaudit.pipelines.control.job import load

    if best and (Path(target) / FACTS).is_file():
        raise UserError(f"{target} is a saved agent, which is one: --best is for runs")
    return load(target, best=best)


def video_file(target: str, asked: str) -> Path:
    """Where the video goes: as asked, else beside the run's report, or in the agent's folder."""
    if asked:
        return Path(asked)
    from plaudit.records.runs import run_path

    path = Path(target) if Path(target).is_dir() else run_path(target)
    folder = path / "report" if (path / "report").is_dir() else path
    return folder / ("episode.mp4" if find_spec("imageio_ffmpeg") else "episode.gif")


def lines(facts: dict[str, Any]) -> list[str]:
    """A table for people."""
    low, high = facts["eval/return_low"], facts["eval/return_high"]
    rows = [
        ("mean return", f"{_number(facts['eval/return'])}"),
        ("95 % interval", f"{_number(low)} to {_number(high)}"),
        *((label, _number(facts[name])) for name, label in LABELS.items()),
        ("cut off", f"{100 * facts['eval/truncated']:.0f} % of the episodes, by a time limit"),
    ]
    head = (
        f"{facts['algorithm']} on {facts['env']}, {facts['episodes']} episodes, "
        f"{facts['policy']} policy, seed {facts['seed']}"
    )
    width = max(len(label) for label, _ in rows)
    shown = [head, *(f"  {label:<{width}}  {value}" for label, value in rows)]
    if "video" in facts:
        episode = f"return {_number(facts['video/return'])}, {facts['video/length']} steps"
        shown.append(f"Video: {facts['video']} ({episode})")
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
