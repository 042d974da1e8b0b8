"""Control on Gymnasium: our loops and those of Stable-Baselines3, same settings, one thread each.

    python benchmarks/control.py [--peer sb3|none] [--only ppo,dqn] [--seeds N] [--quick] [--go-on]

The peer comes with the extra `dev`. For every seed ours and the peer's are
trained in turn in this process, after a short training of each that is not timed; the peer's model
is made before its clock starts. Rates are medians over seeds of environment steps a second, with the
least and the greatest. Both final policies then play the same 100 episodes deterministically, so that
speed is compared at the return it comes with; the returns of the seeds are told by their interquartile
mean with a bootstrap interval.

The floor beside a rate is what the algorithm cannot do without on one core: its matrix products,
each measured alone at its shape in NumPy, and the steps of the bare environment. Where our time goes
is measured in a run of its own by timers around the parts. Every finished training is kept as a line
of --rows; --go-on takes those of an interrupted run and does the rest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from control_curves import Points, binned, curve_of_events, curve_of_monitors, draw
from control_tasks import TASKS, Task, environment_seconds
from machine import description
from plaudit.agents.agent import Agent
from plaudit.agents.evaluation import EVALUATION_SEED, play
from plaudit.envs.make import make_worlds
from plaudit.envs.settings import WorldSettings
from plaudit.pipelines.control.job import algorithm
from plaudit.pipelines.figures.returns import interquartile_mean_interval
from plaudit.records.events import Checkpoint, Done
from plaudit.records.files import append_jsonl, read_jsonl, write_text
from plaudit.records.state import part_of

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "control.md"
ROWS = Path("runs") / "benchmarks" / "control.jsonl"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
KERNELS = "OPENBLAS_CORETYPE"
NUM_EPISODES, NUM_WORLDS = 100, 25


# --- one training


@dataclass(frozen=True)
class Row:
    """A training that was timed, and what its policy is worth."""

    task: str
    side: str
    seed: int
    steps: int
    seconds: float
    cpu: float
    ret: float
    curve: Points = field(default_factory=list)
    """Returns of the training episodes over the steps."""

    @property
    def rate(self) -> float:
        return self.steps / self.seconds

    @property
    def cpu_rate(self) -> float:
        return self.steps / self.cpu


@dataclass
class Clock:
    """Wall-clock and processor seconds of what is done while entered."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Clock:
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin[0]
        self.cpu = time.process_time() - self._begin[1]


@dataclass
class Trained:
    """How many steps were taken in what time, the policy, and the returns on the way."""

    steps: int
    clock: Clock
    act: Callable[..., Any]
    curve: Points


def train_ours(task: Task, steps: int, seed: int) -> Trained:
    kind, loop = algorithm(task.name)
    config = kind(env=task.env, steps=steps, seed=seed, eval_every=0, **task.ours)
    last, lines = None, []
    with Clock() as clock:
        for event in loop(config):
            if isinstance(event, Checkpoint):
                last = event
            else:
                lines.append(event)
    assert last is not None
    assert isinstance(lines[-1], Done)
    agent = Agent.from_saved(part_of(last.state(), "agent"))
    return Trained(lines[-1].step, clock, agent.batch(), curve_of_events(lines))


def train_theirs(task: Task, steps: int, seed: int) -> Trained:
    model = task.theirs(task.env, seed)
    with Clock() as clock:
        model.learn(steps)
    curve = curve_of_monitors(model.get_env().envs)

    def act(obs: Any) -> Any:
        return model.predict(obs, deterministic=True)[0]

    return Trained(model.num_timesteps, clock, act, curve)


SIDES = {"ours": train_ours, "sb3": train_theirs}
NAMES = {"ours": "Plaudit", "sb3": "Stable-Baselines3"}


def worth(env: str, act: Callable[..., Any], seed: int) -> float:
    """Mean return of the same episodes for either side."""
    settings = WorldSettings(env=env)
    worlds = make_worlds(settings, seed=seed + EVALUATION_SEED, num_envs=NUM_WORLDS, training=False)
    episodes = play(worlds, act, worlds.reset(), NUM_EPISODES)
    worlds.close()
    return statistics.mean(episode.ret for episode in episodes)


def measure(task: Task, given: argparse.Namespace, sides: list[str]) -> list[Row]:
    """All trainings of a task, the sides in turn; those already kept are taken as they are, those of
    further seeds too."""
    steps = task.quick_steps if given.quick else task.steps
    rows = [Row(**row) for row in read_jsonl(given.rows)]
    kept = [row for row in rows if row.task == task.name and 0 <= row.steps - steps < 2000]
    found = []
    warm = False
    for seed in sorted({*range(given.seeds), *(row.seed for row in kept)}):
        for side in sides:
            same = [row for row in kept if (row.side, row.seed) == (side, seed)]
            if not same:
                if not warm:
                    for other in sides:
                        SIDES[other](task, task.quick_steps // 2, 99)
                    warm = True
                of = SIDES[side](task, steps, seed)
                ret, curve = worth(task.env, of.act, seed), binned(of.curve, of.steps)
                clock = of.clock
                row = Row(task.name, side, seed, of.steps, clock.seconds, clock.cpu, ret, curve)
                append_jsonl(given.rows, vars(row))
                same = [row]
            print(
                f"{task.name} {side} seed {seed}: {same[0].rate:,.0f}/s, {same[0].ret:.1f}",
                flush=True,
            )
            found.append(same[0])
    return found


# --- where our time goes


@dataclass
class Timers:
    """Seconds of each part, without those of the parts called inside it."""

    spent: dict[str, float] = field(default_factory=dict)
    stack: list[list[Any]] = field(default_factory=list)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        clock = time.perf_counter

        def run(*args: Any, **options: Any) -> Any:
            begin = clock()
            self.stack.append([part, 0.0])
            try:
                return call(*args, **options)
            finally:
                _, inside = self.stack.pop()
                whole = clock() - begin
                self.spent[part] = self.spent.get(part, 0.0) + whole - inside
                if self.stack:
                    self.stack[-1][1] += whole

        return run


def parts() -> list[tuple[str, Any, str]]:
    """(part, where, name) of what is timed."""
    import torch

    from plaudit.envs.replay import Replay
    from plaudit.envs.sync import Sync
    from plaudit.nets.mlp import MLP
    from plaudit.nets.optim import FlatAdam, FlatRMSprop
    from plaudit.nets.policies import Policy

    return [
        ("environment", Sync, "step"),
        ("replay", Replay, "add"),
        ("replay", Replay, "sample"),
        ("choosing actions", Policy, "act"),
        ("nets forwards", MLP, "infer"),
        ("nets forwards", MLP, "forward"),
        ("nets forwards", MLP, "trace"),
        ("nets backwards", MLP, "backprop"),
        ("autograd around the nets", torch.Tensor, "backward"),
        ("autograd around the nets", torch.autograd, "backward"),
        ("optimiser", FlatAdam, "step"),
        ("optimiser", FlatRMSprop, "step"),
    ]


@contextmanager
def timing() -> Iterator[Timers]:
    """Timers around all parts while entered."""
    timers, before = Timers(), []
    for part, where, name in parts():
        before.append((where, name, where.__dict__.get(name)))
        setattr(where, name, timers.timed(part, getattr(where, name)))
    try:
        yield timers
    finally:
        for where, name, plain in reversed(before):
            if plain is None:
                delattr(where, name)
            else:
                setattr(where, name, plain)


def breakdown(task: Task) -> dict[str, float]:
    """Microseconds a step of each part, the rest as "loop, credit, losses, log"."""
    train_ours(task, task.quick_steps // 2, 99)
    with timing() as timers:
        of = train_ours(task, task.quick_steps, 0)
    spent = {part: 1e6 * taken / of.steps for part, taken in timers.spent.items()}
    rest = 1e6 * of.clock.seconds / of.steps - sum(spent.values())
    return {**spent, "loop, credit, losses, log": rest}


# --- the page


def rates(rows: list[Row], side: str) -> list[float]:
    return sorted(row.rate for row in rows if row.side == side)


def cpu_ratio(rows: list[Row]) -> float:
    """Of the medians of steps per processor second: other jobs on the machine disturb it less."""
    ours, theirs = (
        statistics.median(row.cpu_rate for row in rows if row.side == side) for side in SIDES
    )
    return ours / theirs


def curves_of(rows: list[Row], side: str) -> list[Points]:
    return [row.curve for row in rows if row.side == side]


def returns(rows: list[Row], side: str) -> list[float]:
    return [row.ret for row in rows if row.side == side]


def spread(found: list[float]) -> str:
    """Median and range."""
    middle = statistics.median(found)
    return f"{middle:,.0f} ({found[0]:,.0f} to {found[-1]:,.0f})"


def interval(found: list[float]) -> str:
    of = interquartile_mean_interval(found)
    return f"{of.value:.1f} ({of.low:.1f} to {of.high:.1f}), least {min(found):.1f}"


def speed_table(tasks: list[Task], rows: dict[str, list[Row]], peer: bool) -> list[str]:
    heads = ["algorithm", "environment", "trainings", "ours, steps/s", "SB3, steps/s", "times SB3"]
    heads += ["times SB3 in processor time", "goal", "floor, steps/s", "ours of the floor"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for task in tasks:
        ours, theirs = rates(rows[task.name], "ours"), rates(rows[task.name], "sb3")
        floor = 1 / (task.floor() + environment_seconds(task.env))
        middle = statistics.median(ours)
        ratio = f"**{middle / statistics.median(theirs):.1f}**" if peer else "–"
        cells = [
            task.name,
            task.env,
            str(len(ours)),
            spread(ours),
            spread(theirs) if peer else "–",
            ratio,
        ]
        cells.append(f"{cpu_ratio(rows[task.name]):.1f}" if peer else "–")
        cells += [
            "–" if task.goal is None else f"{task.goal:g}",
            f"{floor:,.0f}",
            f"{middle / floor:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def return_table(tasks: list[Task], rows: dict[str, list[Row]], peer: bool) -> list[str]:
    lines = [
        "| algorithm | environment | steps | ours, return at the end | SB3, return at the end |",
        "|---|---|---:|---|---|",
    ]
    for task in tasks:
        steps = max(row.steps for row in rows[task.name])
        sides = [interval(returns(rows[task.name], "ours"))]
        sides.append(interval(returns(rows[task.name], "sb3")) if peer else "–")
        lines.append(f"| {task.name} | {task.env} | {steps:,} | {' | '.join(sides)} |")
    return lines


def floor_table(tasks: list[Task]) -> list[str]:
    lines = [
        "| algorithm | matrix products, µs a step | bare environment, µs a step |",
        "|---|---:|---:|",
    ]
    for task in tasks:
        products, world = 1e6 * task.floor(), 1e6 * environment_seconds(task.env)
        lines.append(f"| {task.name} | {products:.1f} | {world:.1f} |")
    return lines


def breakdown_table(tasks: list[Task]) -> list[str]:
    found = {task.name: breakdown(task) for task in tasks}
    names: dict[str, None] = {}
    for of in found.values():
        names |= dict.fromkeys(of)
    names = {
        **{n: None for n in names if not n.startswith("loop")},
        "loop, credit, losses, log": None,
    }
    lines = [f"| µs a step | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for name in names:
        cells = [f"{of[name]:.1f}" if name in of else "" for of in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sums = [f"{sum(of.values()):.1f}" for of in found.values()]
    return [*lines, f"| all | {' | '.join(sums)} |"]


def page(tasks: list[Task], rows: dict[str, list[Row]], given: argparse.Namespace) -> list[str]:
    peer = given.peer == "sb3"
    versions = ""
    if peer:
        import stable_baselines3

        versions = f", stable-baselines3 {stable_baselines3.__version__}"
    import gymnasium

    return [
        "# Control on Gymnasium",
        "",
        f"{description()}, gymnasium {gymnasium.__version__}{versions}. "
        "Trainings of the two sides in turn, on one thread.",
        "",
        "## Speed",
        "",
        *speed_table(tasks, rows, peer),
        "",
        "Medians over the trainings, with the least and the greatest. Settings: "
        + "; ".join(f"{task.name}: {task.source}" for task in tasks)
        + ".",
        "",
        "## Return that the speed comes with",
        "",
        *return_table(tasks, rows, peer),
        "",
        f"Interquartile mean over seeds with its 95 % bootstrap interval; each seed is the mean of "
        f"{NUM_EPISODES} episodes, the same ones for both sides, actions chosen deterministically. "
        "Curves of the training episodes: `docs/images/control/peer-*.png`.",
        "",
        "## The floor",
        "",
        *floor_table(tasks),
        "",
        "Each product at its shape, alone, in NumPy on one thread; the environment without wrappers, "
        "resets included.",
        "",
        "## Where our time goes",
        "",
        *breakdown_table(tasks),
        "",
        "By timers around the parts, which cost about half a microsecond a call; a part is told "
        "without the parts called inside it.",
        "",
        "How it is measured: `benchmarks/control.py`.",
    ]


def on_one_thread() -> None:
    """Begins this process anew where the libraries' threads are not set to one, or where the kernels
    of NumPy's products are dictated: each library chooses its own, as it does for a user."""
    given = dict(os.environ)
    if any(given.get(name) != "1" for name in THREADS) or KERNELS in given:
        given.pop(KERNELS, None)
        given |= dict.fromkeys(THREADS, "1")
        os.execve(sys.executable, [sys.executable, *sys.argv], given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer = "sb3" if find_spec("stable_baselines3") else "none"
    parser.add_argument("--peer", default=peer, choices=["none", "sb3"])
    parser.add_argument("--only", default="", help="algorithms, as in ppo,dqn")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short trainings; writes no table")
    parser.add_argument("--go-on", action="store_true", help="take the trainings kept in --rows")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    on_one_thread()
    import torch

    torch.set_num_threads(1)
    only = set(filter(None, given.only.split(",")))
    if only - {task.name for task in TASKS}:
        parser.error(f"--only {given.only}: expected some of {[task.name for task in TASKS]}")
    tasks = [task for task in TASKS if not only or task.name in only]
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    if not given.go_on:
        given.rows.unlink(missing_ok=True)
    sides = ["ours", *([given.peer] if given.peer != "none" else [])]
    rows = {task.name: measure(task, given, sides) for task in tasks}
    lines = page(tasks, rows, given)
    print("\n".join(lines))
    if not given.quick:
        write_text(given.out, "\n".join(lines) + "\n")
        for task in tasks:
            of_sides = {NAMES[side]: curves_of(rows[task.name], side) for side in sides}
            draw(task.name, task.env, of_sides)


if __name__ == "__main__":
    main()
