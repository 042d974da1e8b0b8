"""Jobs on finite worlds whose rules are known to the computer: planning, and learning by samples.

Planning is one call, whose bound after each iteration is logged. Learning runs in chunks, between
which it is logged, saved and, if somebody asked, stopped; chunks change no number of the result.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from plaudit.mdp.model import MDP
from plaudit.mdp.planning import Solution, evaluate, solve
from plaudit.pipelines.drive import Progress, drive
from plaudit.pipelines.finite.learner import Learner, learner_of
from plaudit.pipelines.finite.world import check_world, find_mdp, keep_arrays, keep_world
from plaudit.pipelines.pages.finite_report import learning_report, planning_report
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

TRACE_LINES = 500
"""Lines of a planner's trace that are logged at most, spread evenly."""

NUM_CHUNKS, LEAST_CHUNK, MOST_CHUNK = 100, 1000, 500_000
"""Pieces in which learning runs: a hundred, unless that makes them too short or too long."""

SAVE_EVERY = 10
"""Chunks between two saves; a save waits for the disk, which is longer than many a chunk takes."""

WATCHED_STATES = 2000
"""Up to so many states the greedy policy's exact value is logged with every chunk."""

JUDGED_STATES = 100_000
"""Up to so many states the finished policy is compared with the optimal one."""


class WorldConfig(Config):
    """Which world."""

    world: str = Field(
        "frozenlake-8x8",
        description="A name of 'plaudit ls worlds', a table (.csv, .jsonl) or gymnasium:ID.",
    )
    world_options: dict[str, str] = Field(
        default_factory=dict, description="Options of a named world: num_states=500 seed=3."
    )
    gamma: float | None = Field(
        None, ge=0, le=1, description="Discount; none: the world's own, where it has one."
    )


class PlanConfig(WorldConfig):
    """Solve a finite world exactly, with a certified bound on the error of its value."""

    method: str = Field(
        "auto",
        description="A planner: auto, value_iteration, policy_iteration, "
        "modified_policy_iteration, gauss_seidel, ordered_policy_iteration, "
        "prioritized_sweeping, topological or linear_programme.",
    )
    tol: float = Field(1e-8, gt=0, description="Largest error of the value that is asked for.")


class LearnConfig(WorldConfig):
    """Learn to act in a finite world by samples."""

    learner: str = Field("q_learning", description="A learner: q_learning, sarsa, dyna_q, ...")
    num_steps: int = Field(1_000_000, ge=1, description="Steps taken in the world.")
    alpha: float = Field(0.1, gt=0, le=1, description="Step size.")
    alpha_power: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Alpha falls as alpha / n^power at the n-th visit of a pair; 0: constant.",
    )
    epsilon: float = Field(0.1, ge=0, le=1, description="Share of random actions.")
    max_episode_steps: int | None = Field(
        None, ge=1, description="Steps after which an episode is cut off; none: never."
    )
    learner_options: dict[str, str] = Field(
        default_factory=dict, description="What this learner takes besides: lam=0.9, n=4, ..."
    )
    seed: int = Field(0, ge=0, description="Decides every draw.")


def run_plan(
    config: PlanConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Solves the world in `run`; returns the summary."""
    check_world(run, config.world, progress)
    mdp = find_mdp(config.world, config.world_options, config.gamma)
    progress.note(f"World: {config.world}, {_size(mdp)}")
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve(mdp, config.method, tol=config.tol)
    seconds = time.perf_counter() - begun
    for warning in caught:
        progress.note(f"Note: {warning.message}")
    if solution.method != config.method:
        progress.note(f"Planner: {solution.method}, which {config.method} took for this world")
    drive(
        _trace_events(solution),
        run,
        "plan",
        progress=progress,
        interrupt=interrupt,
        headline=["bound"],
    )
    results = {
        **_facts(config, mdp),
        "method": config.method,
        "planner": solution.method,
        "value": float(mdp.initial @ solution.value),
        "bound": solution.bound,
        "iterations": solution.iterations,
        "seconds": round(seconds, 4),
    }
    keep_world(run, mdp)
    keep_arrays(run, value=solution.value, q=solution.q, policy=solution.policy)
    planning_report(run, mdp, solution, results, tol=config.tol)
    return results


def _trace_events(solution: Solution) -> Iterator[Event]:
    """The bound after each sweep; after the last it is the one that the solution proves."""
    total = len(solution.trace)
    bounds = [*solution.trace[:-1], solution.bound]
    shown = np.unique(np.linspace(0, total - 1, min(total, TRACE_LINES)).astype(int))
    for i in shown:
        yield Step(int(i) + 1, total, {"bound": float(bounds[i]) + 0.0})  # not -0
    yield Done(total, {"bound": solution.bound})


def run_learn(
    config: LearnConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Learns in `run`, or goes on from where it was saved; returns the summary."""
    check_world(run, config.world, progress)
    mdp, learner = _world_and_learner(config)
    progress.note(f"World: {config.world}, {_size(mdp)}")
    saved = run.checkpoint_of("learn")
    drive(
        _learn(learner, config.num_steps, None if saved is None else saved[1:]),
        run,
        "learn",
        progress=progress,
        interrupt=interrupt,
        start=None if saved is None else saved[0],
        headline=["episode/return", "policy_value", "value"],
    )
    result = learner.result
    rows = run.read_jsonl("metrics.jsonl")
    results = {
        **_facts(config, mdp),
        "learner": config.learner,
        "num_steps": result.num_steps,
        "num_episodes": learner.num_episodes,
        "value": float(mdp.initial @ result.value),
        **_judged(mdp, result.policy),
        "seconds": rows[-1]["seconds"] if rows else 0.0,
    }
    keep_world(run, mdp)
    keep_arrays(
        run, value=result.value, q=result.q, policy=result.policy, visits=result.walk.visits
    )
    learning_report(run, mdp, result, results, rows)
    return results


def _world_and_learner(config: LearnConfig) -> tuple[MDP, Learner]:
    mdp = find_mdp(config.world, config.world_options, config.gamma)
    learner = learner_of(
        config.learner,
        mdp,
        alpha=config.alpha,
        alpha_power=config.alpha_power,
        epsilon=config.epsilon,
        max_episode_steps=config.max_episode_steps,
        options=config.learner_options,
        seed=config.seed,
    )
    return mdp, learner


def check_plan(config: PlanConfig, place: Path) -> Iterator[str]:
    """Make the world, as the job would, and say what would be done."""
    del place  # nothing is written
    mdp = find_mdp(config.world, config.world_options, config.gamma)
    yield f"World: {config.world}, {_size(mdp)}"
    yield f"Plan: {config.method}, to an error of at most {config.tol:g}"


def check_learn(config: LearnConfig, place: Path) -> Iterator[str]:
    """Make world and learner, as the job would, and say what would be done."""
    del place  # nothing is written
    mdp, _ = _world_and_learner(config)
    yield f"World: {config.world}, {_size(mdp)}"
    yield f"Learn: {config.learner}, {config.num_steps:,} steps, seed {config.seed}"


def _learn(
    learner: Learner, num_steps: int, saved: tuple[dict[str, Any], dict[str, Any]] | None
) -> Iterator[Event]:
    """Chunks from the beginning or from what was saved; the learner holds the result."""
    if saved is not None:
        learner.restore(*saved)
    yield Step(learner.num_steps, num_steps, {})
    chunk = min(max(num_steps // NUM_CHUNKS, LEAST_CHUNK), MOST_CHUNK)
    save_every = SAVE_EVERY * chunk
    while learner.num_steps < num_steps:
        metrics = learner.go_on(min(chunk, num_steps - learner.num_steps))
        if learner.mdp.num_states <= WATCHED_STATES:
            metrics |= _policy_value(learner.mdp, learner.result.policy)
        step = learner.num_steps
        yield Step(step, num_steps, metrics)
        due = step % save_every == 0 or step == num_steps
        yield Checkpoint(step, learner.state, due=due)
    yield Done(num_steps)


def _policy_value(mdp: MDP, policy: np.ndarray[Any, Any]) -> dict[str, float]:
    """The exact value of a policy at the beginning; nothing where it has none."""
    try:
        return {"policy_value": float(mdp.initial @ evaluate(mdp, policy).value)}
    except UserError:  # γ = 1, and the policy walks in a circle for ever
        return {}


def _judged(mdp: MDP, policy: np.ndarray[Any, Any]) -> dict[str, float]:
    """What the learned policy is worth, beside what the best one is."""
    if mdp.num_states > JUDGED_STATES:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            best = {"optimal_value": float(mdp.initial @ solve(mdp, tol=1e-6).value)}
        except UserError:  # γ = 1 in a world that need not end
            best = {}
    return {**_policy_value(mdp, policy), **best}


def _facts(config: WorldConfig, mdp: MDP) -> dict[str, Any]:
    return {
        "world": config.world,
        "num_states": mdp.num_states,
        "num_actions": mdp.num_actions,
        "gamma": mdp.gamma,
    }


def _size(mdp: MDP) -> str:
    return f"{mdp.num_states:,} states × {mdp.num_actions} actions, gamma {mdp.gamma:g}"
