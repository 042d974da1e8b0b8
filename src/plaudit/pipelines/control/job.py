"""Jobs on Gymnasium environments: an algorithm by name, its run folder, and the agent it leaves.

agent = plaudit.learn("ppo", "CartPole-v1", steps=100_000, seed=0)
agent = plaudit.load("runs/cart")
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from plaudit.agents.agent import FACTS, Agent
from plaudit.agents.evaluation import summary
from plaudit.agents.loop import Loop
from plaudit.envs.make import world_file
from plaudit.pipelines.drive import Progress, drive
from plaudit.pipelines.threads import one_thread
from plaudit.records.config import resolve
from plaudit.records.errors import UserError, nearest
from plaudit.records.events import Checkpoint, Evaluation, Event, Step
from plaudit.records.fingerprints import check_sources, mendable, of_code
from plaudit.records.interrupt import Interrupt
from plaudit.records.recipes import load_recipe, tuned_recipe
from plaudit.records.runs import RunFolder
from plaudit.records.state import part_of

ALGORITHMS = {
    "reinforce": "reinforce:REINFORCEConfig",
    "qac": "qac:QACConfig",
    "a2c": "a2c:A2CConfig",
    "a3c": "a3c:A3CConfig",
    "ppo": "ppo:PPOConfig",
    "ppo_kl": "ppo_kl:PPOKLConfig",
    "ppo_recurrent": "ppo_recurrent:RecurrentPPOConfig",
    "dqn": "dqn:DQNConfig",
    "dqn_distributional": "dqn_distributional:DistributionalDQNConfig",
    "sac": "sac:SACConfig",
    "sac_discrete": "sac_discrete:SACDiscreteConfig",
    "td3": "td3:TD3Config",
}
"""Each algorithm's file in `plaudit.control` and its config; its loop has the algorithm's name."""

STAGE = "train"
HEADLINE = ("rollout/return", "eval/return", "eval/return_low")
FINAL_EPISODES = 100
"""Episodes that the finished agent is judged by."""

AlgorithmLoop = Callable[..., Iterator[Event]]


def algorithm(name: str) -> tuple[type[Loop], AlgorithmLoop]:
    """Config and loop of an algorithm; UserError with the nearest name where there is none."""
    if name not in ALGORITHMS:
        raise UserError(f"no algorithm {name!r}{nearest(name, ALGORITHMS)}")
    file, _, config = ALGORITHMS[name].partition(":")
    module = importlib.import_module(f"plaudit.control.{file}")
    return getattr(module, config), getattr(module, name)


def run_control(
    name: str, config: Loop, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Trains in `run`, or goes on from where it was saved; returns the summary."""
    with one_thread():
        return _run(name, config, run, progress, interrupt)


def check_control(name: str, config: Loop, place: Path) -> Iterator[str]:
    """Make the environment once, as the job would, and say what would be done."""
    del place  # nothing is written
    _, loop = algorithm(name)
    with one_thread():
        events = loop(config)
        next(events)
        events.close()  # type: ignore[attr-defined]
    yield f"Environment: {config.env}, which was made once and can be learned by {name}"
    yield f"Steps: {config.steps:,}, seed {config.seed}; then {FINAL_EPISODES} episodes judge it"


def _run(
    name: str, config: Loop, run: RunFolder, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    _, loop = algorithm(name)
    file = world_file(config.env)
    check_sources(run, {} if file is None else {"env": of_code(file)}, progress.note)
    found = run.checkpoint_of(STAGE)
    start, saved = (None, None) if found is None else (found[0], found[1:])
    events = loop(config, saved=saved)
    # Before anything is written: a world that cannot be made, or not by this algorithm, leaves no run.
    first = next(events)
    with mendable(run, "env"):
        drive(
            chain([first], events),
            run,
            STAGE,
            progress=progress,
            interrupt=interrupt,
            start=start,
            headline=HEADLINE,
        )
    agent = agent_of(run)
    agent.save(run.path / "model")
    results = {"algorithm": name, "env": config.env, "steps": config.steps, "seed": config.seed}
    episodes = agent.evaluate(FINAL_EPISODES)
    results |= summary(episodes)
    _report(run, agent, results)
    return results


def _report(run: RunFolder, agent: Agent, results: dict[str, Any]) -> None:
    from plaudit.pipelines.pages.control_report import control_report

    control_report(run, agent, results)


def agent_of(run: RunFolder, kind: str = "last") -> Agent:
    """The agent of a run's checkpoint: "last", or "best" by evaluation."""
    found = run.load_checkpoint(kind)
    if found is None:
        raise UserError(f"the run {run.path} holds no {kind} checkpoint yet")
    _, _, arrays, facts = found
    if "agent" not in facts:
        raise UserError(f"the run {run.path} is not of an agent in a Gymnasium environment")
    return Agent.from_saved(part_of((arrays, facts), "agent"))


def load(path: str | Path, *, best: bool = False) -> Agent:
    """An agent from a folder that `Agent.save` wrote, or from a run by its folder or name.

    `best` takes the run's best checkpoint by evaluation in place of its last one.
    """
    if (Path(path) / FACTS).is_file() and not best:
        return Agent.load(path)
    return agent_of(RunFolder.open(path), "best" if best else "last")


def learn(
    name: str,
    env: str,
    *,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **keys: Any,
) -> Agent:
    """Trains an agent in this process, without a run folder, and returns it.

    `keys` are those of the algorithm's config, over the recipe tuned for `env` where one is shipped.
    `agent.log` holds what was logged. The first Ctrl-C ends the training and returns the agent as
    it is. Raises UserError for an algorithm, environment or key that does not exist.
    """
    kind, loop = algorithm(name)
    recipe = load_recipe(tuned_recipe(f"control/{name}", env))
    flags = {"env": env, "seed": seed, **({} if steps is None else {"steps": steps}), **keys}
    config = resolve(kind, recipe, flags, own=("progress",))
    log: list[dict[str, Any]] = []
    checkpoint: Checkpoint | None = None
    hear = Interrupt(lambda text: print(text, file=sys.stderr))
    with one_thread(), hear as interrupt:
        for event in loop(config):
            if progress is not None:
                progress.show(event)
            if isinstance(event, Step | Evaluation) and event.metrics:
                log.append({"step": event.step, **event.metrics})
            if isinstance(event, Checkpoint):
                checkpoint = event
                if interrupt.requested:
                    break
        assert checkpoint is not None
        agent = Agent.from_saved(part_of(checkpoint.state(), "agent"))
    agent.log = log
    return agent
