"""Returns of the tuned recipes over seeds: a sweep of each, one table, and a picture of each world.

    python benchmarks/control_returns.py [--only ppo/CartPole-v1,sac] [--seeds N] [--jobs N] [--tell]

Every recipe control/<algorithm>/<environment> that is shipped is swept over ten seeds, or over five
where a seed takes more than five minutes, by the ordinary `plaudit sweep` into runs/returns/. It may
be stopped and started again at any time: what is finished is kept, and --tell writes the tables of
what there is. A seed's return is that of its last policy, the mean of 100 episodes with actions
chosen deterministically; in worlds whose rules Gymnasium tells (toy text) the policy's value is
computed from the rules instead, for 100 episodes of chance would hide the third digit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from control_curves import PICTURES
from machine import description
from plaudit.pipelines.figures.returns import interquartile_mean_interval
from plaudit.pipelines.figures.sweep import Figures, common_curve, figures, number
from plaudit.pipelines.pages.control_plots import seed_curves
from plaudit.records.files import write_text
from plaudit.records.recipes import load_recipe, shipped_recipes
from plaudit.records.runs import RunFolder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "control_returns.md"
SWEEPS = Path("runs") / "returns"

MANY, FEW, LONG = 10, 5, 300.0
"""Seeds of a recipe; seeds where one takes longer than so many seconds."""

EVALUATIONS = 50
"""Evaluations of a run: so fine are its curve and the steps to its goal."""

LOG_FROM = 6.0
"""Runs that differ so much in length are drawn over a logarithmic axis."""

GOALS: Mapping[str, float] = {
    "ppo/CartPole-v1": 475,
    "dqn/CartPole-v1": 490,
    "Acrobot-v1": -80,
    "MountainCar-v0": -110,
    "LunarLander-v3": 200,
    "LunarLanderContinuous-v3": 200,
}
"""What is to be reached, by recipe or by environment; else the environment's own threshold."""

PUBLISHED: Mapping[str, str] = {
    "ppo/CartPole-v1": "zoo 500 @100k; CleanRL 490.0 ± 6.1 @500k",
    "dqn/CartPole-v1": "zoo 500 @50k; CleanRL 488.7 ± 16.1 @500k",
    "dqn_distributional/CartPole-v1": "CleanRL C51 481.2 ± 20.5 @500k",
    "a2c/CartPole-v1": "zoo 500 @500k",
    "ppo/Acrobot-v1": "zoo −73.5 @1M; CleanRL −86.4 ± 1.3 @500k",
    "dqn/Acrobot-v1": "zoo −76.6 @100k; CleanRL −91.5 ± 7.2 @500k",
    "dqn_distributional/Acrobot-v1": "zoo QR-DQN −69.1 @100k; CleanRL C51 −87.7 ± 5.5 @500k",
    "ppo/MountainCar-v0": "zoo −110.4 @1M; CleanRL −200 @500k",
    "dqn/MountainCar-v0": "zoo −100.8 @120k; CleanRL −195.0 ± 8.5 @500k",
    "dqn_distributional/MountainCar-v0": "zoo QR-DQN −106.0; CleanRL C51 −166.4 ± 27.9 @500k",
    "ppo/Pendulum-v1": "zoo −172 @100k",
    "sac/Pendulum-v1": "zoo −157.0 @20k",
    "td3/Pendulum-v1": "zoo −151.9 @20k",
    "ppo/LunarLander-v3": "zoo 242 @1M (v2)",
    "dqn/LunarLander-v3": "zoo 154 @100k (v2)",
    "a2c/LunarLander-v3": "zoo 156 @200k (v2)",
    "sac/LunarLanderContinuous-v3": "zoo 260 @500k (v2)",
    "sac/HalfCheetah": "Tianshou 12139 ± 1049, CleanRL 9635 ± 1424, zoo 9535 @1M",
    "td3/HalfCheetah": "Tianshou 10201, CleanRL 9583, zoo 9656 @1M",
    "ppo/HalfCheetah": "Tianshou 5784, CleanRL 1443, zoo 5819 @1M",
    "sac/Hopper": "Tianshou 3542 ± 52, CleanRL 2310 ± 343, zoo 2326 @1M",
    "td3/Hopper": "Tianshou 3472, CleanRL 3135, zoo 3606 @1M",
    "ppo/Hopper": "Tianshou 2609, CleanRL 2383, zoo 2410 @1M",
}
"""Of others, by recipe (of MuJoCo without the version): mean, steps; the zoo's are one run each."""


@dataclass(frozen=True)
class Swept:
    """A recipe's finished seeds."""

    name: str
    env: str
    steps: int
    found: Figures
    exact: list[float] = field(default_factory=list)
    optimum: float | None = None

    @property
    def finals(self) -> list[float]:
        """Of each seed: exact where the rules are known."""
        return self.exact or [outcome.final for outcome in self.found.outcomes]

    @property
    def algorithm(self) -> str:
        return self.name.partition("/")[0]

    @property
    def world(self) -> str:
        """What the recipe is called by: LunarLanderContinuous-v3 is LunarLander-v3 with an option."""
        return self.name.partition("/")[2]


def recipes(only: set[str]) -> list[str]:
    """algorithm/environment of every tuned recipe, or of those named wholly or by algorithm."""
    names = [name.removeprefix("control/") for name in shipped_recipes()]
    tuned = [name for name in names if name.count("/") == 1 and not name.startswith("mdp/")]
    return [name for name in tuned if not only or name in only or name.partition("/")[0] in only]


def goal_of(name: str, env: str) -> float | None:
    import gymnasium

    if name in GOALS or env in GOALS:
        return GOALS.get(name, GOALS.get(env))
    threshold: float | None = gymnasium.spec(env).reward_threshold
    return threshold


def sweep(name: str, seeds: range, jobs: int) -> int:
    """Runs `plaudit sweep`, which takes up what it finds; returns its exit code."""
    recipe = load_recipe(f"control/{name}")
    goal = goal_of(name, recipe.values["env"])
    words = [f"control/{name}", "--seeds", f"{seeds[0]}..{seeds[-1]}", "--jobs", str(jobs)]
    words += ["--out", str(SWEEPS / name), *([] if goal is None else ["--reach", f"{goal:g}"])]
    if "eval_every" not in recipe.values:
        words += ["--eval_every", str(max(1, int(recipe.values["steps"]) // EVALUATIONS))]
    command = [sys.executable, "-m", "plaudit.cli.main", "sweep", *words]
    return subprocess.run(command).returncode


def sweep_all(name: str, given: argparse.Namespace) -> None:
    """Five seeds, and five more where they are quick; a stop ends the program."""
    most = given.seeds or MANY
    for seeds in sorted({range(min(FEW, most)), range(most)}, key=len):
        if sweep(name, seeds, given.jobs) == 130:
            sys.exit(130)
        outcomes = swept(name)
        if given.seeds is None and outcomes and seconds_of(outcomes) > LONG:
            return


def seconds_of(outcomes: Swept) -> float:
    return median(outcome.seconds for outcome in outcomes.found.outcomes)


def swept(name: str) -> Swept | None:
    """What there is of a recipe; None where no seed is finished."""
    folder = SWEEPS / name
    paths = {int(p.name.removeprefix("seed-")): p for p in folder.glob("seed-*") if p.is_dir()}
    if not any(RunFolder(path).finished for path in paths.values()):
        return None
    recipe = load_recipe(folder / "sweep.yaml")
    env, steps = recipe.values["env"], int(recipe.values["steps"])
    done = figures(
        name, dict(sorted(paths.items())), failed={}, metric="eval/return", reach=goal_of(name, env)
    )
    plain = Swept(name, env, steps, done)
    return with_rules(plain, [paths[outcome.seed] for outcome in done.outcomes])


def with_rules(plain: Swept, paths: list[Path]) -> Swept:
    """Exact values of the policies, where Gymnasium tells the environment's rules."""
    import gymnasium

    from plaudit.mdp.build import from_gymnasium
    from plaudit.mdp.planning import finite_horizon
    from plaudit.pipelines.control.job import agent_of

    spec = gymnasium.spec(plain.env)
    if "toy_text" not in str(spec.entry_point) or plain.env.startswith("Blackjack"):
        return plain
    agents = [agent_of(RunFolder.open(path)) for path in paths]
    settings = agents[0].settings
    if settings.env_options:  # other rules than the id's
        return plain
    mdp = from_gymnasium(plain.env, 1.0)
    horizon = settings.max_episode_steps or spec.max_episode_steps or 1000
    values = []
    for agent in agents:
        chain = mdp.under([agent.act(state) for state in range(mdp.num_states)])
        value = np.zeros(mdp.num_states)
        for _ in range(horizon):
            value = chain.reward + chain.transition @ value
        values.append(float(mdp.initial @ value))
    best = float(mdp.initial @ finite_horizon(mdp, horizon).value[0])
    return replace(plain, exact=values, optimum=best)


# --- the page


def published(name: str) -> str:
    stem = name.rpartition("-v")[0]
    return PUBLISHED.get(name, PUBLISHED.get(stem, ""))


def row(of: Swept) -> str:
    interval = interquartile_mean_interval(of.finals)
    found = of.found
    reached = "–"
    if found.reach is not None:
        middle = found.median_reached
        at = "" if middle is None else f", median {middle:,.0f}"
        reached = f"{len(found.reached)} of {len(found.outcomes)}{at}"
    goal = "–" if found.reach is None else number(found.reach)
    if of.optimum is not None:
        goal = f"optimum {of.optimum:.4g}"
    cells: list[Any] = [
        of.world,
        of.algorithm,
        f"{of.steps:,}",
        len(of.finals),
        f"**{number(interval.value)}** ({number(interval.low)} to {number(interval.high)})",
        number(min(of.finals)),
        goal,
        reached,
        published(of.name),
        f"{seconds_of(of) / 60:.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def page(all_of: list[Swept]) -> list[str]:
    heads = ["environment", "algorithm", "steps", "seeds", "return, interquartile mean (95 %)"]
    heads += ["least seed", "goal", "seeds that reached it, steps", "published by others", "min"]
    exact = [of.world for of in all_of if of.exact]
    told = f" Exact, from the rules: {', '.join(sorted(set(exact)))}." if exact else ""
    return [
        "# Returns of the tuned recipes",
        "",
        f"{description()}.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(row(of) for of in all_of),
        "",
        "The return of the policy that training ended with, not of its best checkpoint: the mean of "
        "100 episodes with actions chosen deterministically, then the interquartile mean over seeds "
        "with its stratified bootstrap interval (Agarwal et al. 2021)." + told,
        "",
        f"The goal counts as reached at the first of about {EVALUATIONS} evaluations (20 episodes "
        "each) that is at least the goal. min: median minutes of a seed on one core, evaluations "
        "included. Published figures: rl-baselines3-zoo (one run each), CleanRL (3 seeds) and "
        "Tianshou (10 seeds), as in their repositories.",
        "",
        "Curves: `docs/images/control/`. How it is measured: `benchmarks/control_returns.py`.",
    ]


def draw(all_of: list[Swept]) -> None:
    """One picture for each environment, with a curve for each algorithm."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for world in sorted({of.world for of in all_of}):
        curves, levels = {}, {}
        for of in all_of:
            if of.world != world:
                continue
            curve = common_curve(list(of.found.curves.values()))
            if curve is not None:
                curves[f"{of.algorithm}, {len(of.finals)} seeds"] = curve
            if of.optimum is not None:
                levels["optimum"] = of.optimum
            elif of.found.reach is not None:
                levels[f"{of.found.reach:g}"] = of.found.reach
        if not curves:
            continue
        ends = [float(np.max(x)) for x, _ in curves.values()]
        figure = seed_curves(
            curves,
            ylabel="return of an evaluation",
            title=f"{world}: interquartile mean, 95 % interval",
            references=levels,
            log_x=max(ends) / min(ends) > LOG_FROM,
        )
        figure.savefig(PICTURES / f"{world}.png", format="png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="recipes or algorithms: ppo/CartPole-v1,sac")
    parser.add_argument("--seeds", type=int, help=f"of each recipe; else {MANY} or {FEW}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tell", action="store_true", help="run nothing, tell what there is")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    names = recipes(set(filter(None, given.only.split(","))))
    if not names:
        parser.error(f"--only {given.only}: no such tuned recipe; there are {recipes(set())}")
    if not given.tell:
        for name in names:
            sweep_all(name, given)
    there = [of for name in recipes(set()) if (of := swept(name)) is not None]
    if not there:
        parser.error("no seed is finished yet")
    there.sort(key=lambda of: (of.world, of.algorithm))
    lines = page(there)
    print("\n".join(lines))
    write_text(given.out, "\n".join(lines) + "\n")
    draw(there)


if __name__ == "__main__":
    main()
