"""The job of a game: what players who choose at once should do, with the proof of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.mdp.games import (
    Equilibrium,
    MarkovGame,
    MatrixGame,
    Played,
    nash_zero_sum,
    regret_matching_plus,
    shapley,
    support_enumeration,
)
from plaudit.mdp.games.bimatrix import MAX_SYSTEMS
from plaudit.pipelines.drive import Progress, drive
from plaudit.pipelines.finite.world import check_world, find_world, keep_arrays, other_job
from plaudit.pipelines.pages.finite_report import Picture, write_page
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Done, Event, Step
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


class GameConfig(Config):
    """Solve a game: equilibria of a matrix game, Shapley's value of a zero-sum Markov game."""

    world: str = Field("rock-paper-scissors", description="A game of 'plaudit ls worlds'.")
    world_options: dict[str, str] = Field(
        default_factory=dict, description="Options of the game: k=-25."
    )
    gamma: float | None = Field(
        None, ge=0, lt=1, description="Discount of a Markov game; none: the game's own."
    )
    tol: float = Field(1e-8, gt=0, description="Largest error of a Markov game's value.")
    num_steps: int = Field(
        10_000, ge=1, description="Rounds of regret matching+ that a matrix game is played for."
    )


def run_game(
    config: GameConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Solves the game in `run`; returns the summary."""
    check_world(run, config.world, progress)
    game = _find_game(config)
    begun = time.perf_counter()
    if isinstance(game, MatrixGame):
        events, results, pictures = _matrix_game(game, config, run)
    else:
        events, results, pictures = _markov_game(game, config, run)
    seconds = round(time.perf_counter() - begun, 4)
    drive(events, run, "game", progress=progress, interrupt=interrupt)
    results = {"world": config.world, **results, "seconds": seconds}
    write_page(run, f"{config.world}: a game", results, pictures)
    return results


def check_game(config: GameConfig, place: Path) -> Iterator[str]:
    """Make the game, as the job would, and say what would be done."""
    del place  # nothing is written
    game = _find_game(config)
    yield f"World: {config.world}, a {type(game).__name__}"
    yield "Solve: what its players should do, with the proof of it"


def _find_game(config: GameConfig) -> MatrixGame | MarkovGame:
    game = find_world(config.world, config.world_options, config.gamma)
    if not isinstance(game, MatrixGame | MarkovGame):
        raise UserError(other_job(config.world, game, "a game"))
    return game


Parts = tuple[Iterator[Event], dict[str, Any], list[Picture]]


def _matrix_game(game: MatrixGame, config: GameConfig, run: RunFolder) -> Parts:
    if game.num_players != 2:
        raise UserError(f"{config.world} has {game.num_players} players; this job solves two")
    results: dict[str, Any] = {"num_actions": "×".join(map(str, game.num_actions))}
    if game.zero_sum:
        solution = nash_zero_sum(game)
        results |= {"value": solution.value, "bound": solution.bound}
        for player, strategy in enumerate(solution.strategies):
            results[f"strategy of {_player(game, player)}"] = _said(game, player, strategy)
    if math.comb(sum(game.num_actions), game.num_actions[0]) <= MAX_SYSTEMS:
        found = support_enumeration(game)
        results["equilibria"] = len(found.equilibria)
        results["nondegenerate"] = str(found.nondegenerate).lower()
        for number, equilibrium in enumerate(found.equilibria, start=1):
            results[f"equilibrium {number}"] = _equilibrium(game, equilibrium)
    played = regret_matching_plus(game, num_steps=config.num_steps)
    results["exploitability"] = played.exploitability
    keep_arrays(run, first=played.strategies[0], second=played.strategies[1], joint=played.joint)
    return _played_events(played), results, _curve("exploitability", played.steps, played.trace)


def _played_events(played: Played) -> Iterator[Event]:
    total = int(played.steps[-1])
    for step, exploitability in zip(played.steps, played.trace, strict=True):
        yield Step(int(step), total, {"exploitability": float(exploitability)})
    yield Done(total)


def _markov_game(game: MarkovGame, config: GameConfig, run: RunFolder) -> Parts:
    solution = shapley(game, tol=config.tol)
    first, second = solution.policies
    keep_arrays(run, value=solution.value, policy_0=first, policy_1=second)
    results = {
        "num_states": game.num_states,
        "num_actions": "×".join(map(str, game.num_actions)),
        "gamma": game.gamma,
        "value": float(game.initial @ solution.value),
        "bound": solution.bound,
        "iterations": solution.iterations,
    }
    steps = np.arange(1, solution.iterations + 1)
    return _swept_events(solution.trace), results, _curve("bound", steps, solution.trace)


def _swept_events(trace: Floats) -> Iterator[Event]:
    for i, bound in enumerate(trace, start=1):
        yield Step(i, trace.size, {"bound": float(bound)})
    yield Done(trace.size)


def _curve(name: str, steps: NDArray[np.int64], trace: Floats) -> list[Picture]:
    shown = trace > 0
    if shown.sum() < 2:
        return []
    sentence = "What both players together could gain by leaving, after each step."
    if name == "bound":
        sentence = "The certified bound on the error of the value after each sweep."
    return [(name, sentence, lambda: _falling(name, steps[shown], trace[shown]))]


def _falling(name: str, steps: NDArray[np.int64], trace: Floats) -> Figure:
    """A curve on two logarithmic scales, where powers of the steps are straight lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.loglog(steps, trace, color="#0072b2")
    axes.set(xlabel="steps", ylabel=name)
    axes.grid(True, color="#dfe3e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _player(game: MatrixGame, player: int) -> str:
    return game.players[player] if game.players else f"player {player}"


def _said(game: MatrixGame, player: int, strategy: Floats) -> str:
    """Such as "rock 0.3333, paper 0.6667"; actions that are never played are left out."""
    names: Sequence[Any] = range(strategy.size) if game.actions is None else game.actions[player]
    return ", ".join(f"{n} {p:.4g}" for n, p in zip(names, strategy, strict=True) if p > 1e-12)


def _equilibrium(game: MatrixGame, equilibrium: Equilibrium) -> str:
    x, y = equilibrium.strategies
    pays = ", ".join(f"{v:.4g}" for v in equilibrium.payoffs)
    return f"{_said(game, 0, x)} | {_said(game, 1, y)} | pays {pays}"
