"""The job of a world that is only partly seen: point-based planning between two bounds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.mdp.partial import POMDP, solve_pomdp
from plaudit.mdp.pictures import alpha_vectors
from plaudit.pipelines.drive import Progress, drive
from plaudit.pipelines.finite.world import check_world, find_pomdp, keep_arrays
from plaudit.pipelines.pages.finite_report import Picture, write_page
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Done, Event, Step
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRACE_LINES = 500
"""Lines of the trace that are logged at most, spread evenly."""


class POMDPConfig(Config):
    """Plan in a world that is only partly seen, until the two bounds meet or the time is up."""

    world: str = Field(
        "tiger", description="A POMDP of 'plaudit ls worlds', or Cassandra's file (.pomdp)."
    )
    world_options: dict[str, str] = Field(
        default_factory=dict, description="Options of a named world: size=7 num_rocks=8."
    )
    gamma: float | None = Field(None, ge=0, lt=1, description="Discount; none: the world's own.")
    tol: float = Field(1e-6, gt=0, description="Gap of the bounds at which planning ends.")
    seconds: float = Field(60.0, gt=0, description="Time after which planning ends, in seconds.")
    seed: int = Field(0, ge=0, description="Decides every draw, where the planner draws.")


def run_pomdp(
    config: POMDPConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Plans in `run`; returns the summary."""
    check_world(run, config.world, progress)
    pomdp = find_pomdp(config.world, config.world_options, config.gamma)
    counts = (pomdp.num_states, pomdp.num_actions, pomdp.num_observations)
    progress.note(_told(config, pomdp))
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = solve_pomdp(pomdp, config.tol, seconds=config.seconds, seed=config.seed)
    seconds = time.perf_counter() - begun
    for warning in caught:
        progress.note(f"Note: {warning.message}")
    if not len(solution.alphas):
        raise UserError(f"no plan was found in {config.seconds:g} seconds; give more, by --seconds")
    trace = np.asarray(solution.trace, dtype=np.float64)
    drive(
        _trace_events(trace),
        run,
        "pomdp",
        progress=progress,
        interrupt=interrupt,
        headline=["lower", "upper"],
    )
    alphas, actions = np.asarray(solution.alphas), np.asarray(solution.actions)
    results = {
        "world": config.world,
        "num_states": counts[0],
        "num_actions": counts[1],
        "num_observations": counts[2],
        "gamma": pomdp.gamma,
        "lower": float(solution.lower),
        "upper": float(solution.upper),
        "num_alphas": len(alphas),
        "first_action": _first_action(pomdp, alphas, actions),
        "seconds": round(seconds, 4),
    }
    keep_arrays(run, alphas=alphas, actions=actions, trace=trace)
    pictures = _pictures(pomdp, alphas, actions, trace)
    write_page(run, f"{config.world}: planned under partial observation", results, pictures)
    return results


def check_pomdp(config: POMDPConfig, place: Path) -> Iterator[str]:
    """Make the world, as the job would, and say what would be done."""
    del place  # nothing is written
    yield _told(config, find_pomdp(config.world, config.world_options, config.gamma))
    yield f"Plan: until the bounds are {config.tol:g} apart, for {config.seconds:g} s at most"


def _told(config: POMDPConfig, pomdp: POMDP) -> str:
    counts = (pomdp.num_states, pomdp.num_actions, pomdp.num_observations)
    sizes = "{:,} states × {} actions × {} observations".format(*counts)
    return f"World: {config.world}, {sizes}, gamma {pomdp.gamma:g}"


def _trace_events(trace: NDArray[np.float64]) -> Iterator[Event]:
    """Lines of trace [K, 3]: seconds, lower, upper."""
    total = len(trace)
    for i in np.unique(np.linspace(0, total - 1, min(total, TRACE_LINES)).astype(int)):
        _, lower, upper = trace[i]
        yield Step(int(i) + 1, total, {"lower": float(lower), "upper": float(upper)})
    yield Done(total)


def _first_action(pomdp: POMDP, alphas: NDArray[np.float64], actions: NDArray[np.int64]) -> str:
    action = int(actions[int((alphas @ pomdp.initial).argmax())])
    return str(action) if pomdp.actions is None else pomdp.actions[action]


def _pictures(
    pomdp: POMDP,
    alphas: NDArray[np.float64],
    actions: NDArray[np.int64],
    trace: NDArray[np.float64],
) -> list[Picture]:
    pictures: list[Picture] = []
    if len(trace) > 1:
        sentence = "Both bounds on the value of the beginning belief while planning."
        pictures.append(("bounds", sentence, lambda: _bounds(trace)))
    if pomdp.num_states == 2:
        sentence = "The value over the belief: the upper surface of the plans found."
        states = pomdp.states or ("0", "1")
        pictures.append(
            (
                "alphas",
                sentence,
                lambda: alpha_vectors(alphas, actions, states=states, action_names=pomdp.actions),
            )
        )
    return pictures


def _bounds(trace: NDArray[np.float64]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    axes = figure.subplots()
    _, lower, upper = trace.T
    trials = np.arange(len(trace))
    axes.fill_between(trials, lower, upper, color="#dcebf6")
    axes.plot(trials, upper, color="#d55e00", label="upper bound")
    axes.plot(trials, lower, color="#0072b2", label="lower bound")
    axes.set(xlabel="trials", ylabel="value")
    axes.grid(True, color="#dfe3e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
