"""Draws the pictures of docs/theory/finite-worlds.md into docs/images/mdp/.

    python docs/figures/finite_worlds.py            all of them, in about a minute
    python docs/figures/finite_worlds.py cliff      those whose name begins so

Every picture is computed anew from the worlds of `plaudit.mdp` and `studies` beside this file; seeds are fixed, so the
same versions draw the same picture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plaudit.mdp import MDP
from plaudit.mdp.learning import q_learning, traces
from plaudit.mdp.partial import solve_pomdp
from plaudit.mdp.pictures import (
    Curves,
    alpha_vectors,
    backup_diagram,
    best_actions,
    convergence,
    lines,
    policy_on_grid,
    q_backup_diagram,
    q_table_picture,
    study_curves,
    value_on_grid,
    value_panels,
)
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from studies import baird, control, prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent.parent / "images" / "mdp"

ROBOT = np.array([[0.5, 0.5, 0.0], [0.3, 0.3, 0.4]])
"""A policy for the recycling robot: search, wait, recharge."""


def even(mdp: MDP) -> np.ndarray:
    """Every action as likely."""
    return np.full(mdp.reward.shape, 1 / mdp.num_actions)


# --- backup diagrams ---


def backup_chain() -> Figure:
    """A state of a Markov reward process."""
    walk = world("random-walk-5")
    return backup_diagram(walk.under(even(walk)), "E")


def backup_policy() -> Figure:
    """A state under a policy."""
    return backup_diagram(world("recycling-robot"), "low", policy=ROBOT)


def backup_pair() -> Figure:
    """A state-action pair under a policy."""
    return q_backup_diagram(world("recycling-robot"), "low", "search", policy=ROBOT)


def backup_best() -> Figure:
    """A state under the best action."""
    return backup_diagram(world("frozenlake-4x4"), "2,2")


# --- exact answers ---


def grid_4x4_value() -> Figure:
    """Sutton & Barto, figure 4.1."""
    grid = world("grid-4x4")
    return value_on_grid(grid, evaluate(grid, even(grid)).value, title="Even policy, γ = 1")


def grid_5x5_value() -> Figure:
    """Figure 3.2."""
    grid = world("grid-5x5")
    return value_on_grid(grid, evaluate(grid, even(grid)).value, title="Even policy, γ = 0.9")


def grid_5x5_policy() -> Figure:
    """Figure 3.5."""
    grid = world("grid-5x5")
    found = solve(grid)
    return policy_on_grid(grid, best_actions(found.q), value=found.value, title="Best actions")


def grid_5x5_best_value() -> Figure:
    """Figure 3.5."""
    grid = world("grid-5x5")
    return value_on_grid(grid, solve(grid).value, title="Best values")


def frozenlake_value() -> Figure:
    """The 8×8 lake."""
    lake = world("frozenlake-8x8")
    return value_on_grid(lake, solve(lake).value, title="FrozenLake 8×8, V*, γ = 0.99")


def frozenlake_policy() -> Figure:
    """The 8×8 lake without discount: the way that surely arrives."""
    lake = world("frozenlake-8x8", gamma=1.0)
    title = "FrozenLake 8×8, γ = 1: a best policy that arrives"
    return policy_on_grid(lake, solve(lake).policy, title=title)


def convergence_planners() -> Figure:
    """The certified bound of four planners."""
    lake = world("frozenlake-8x8")
    methods = ("value_iteration", "gauss_seidel", "modified_policy_iteration", "policy_iteration")
    title = "FrozenLake 8×8, γ = 0.99"
    return convergence({m: solve(lake, m, tol=1e-8) for m in methods}, tol=1e-8, title=title)


def jacks_policy() -> Figure:
    """Figure 4.2, π4."""
    rental = world("jacks-car-rental")
    found = solve(rental)
    return policy_on_grid(
        rental,
        found.policy,
        value=found.value,
        title="Cars moved overnight from the first lot to the second",
        xlabel="cars at the second lot, 0 to 20",
        ylabel="cars at the first lot, 0 to 20",
    )


def gambler_value() -> Figure:
    """Figure 4.3, above."""
    game = world("gambler")
    value = solve(game).value
    capital = np.arange(1, 100)
    curves = {"_best": (capital, value[1:100])}
    return lines(
        curves, xlabel="capital", ylabel="probability of winning", title="Gambler, p = 0.4"
    )


def gambler_policy() -> Figure:
    """Figure 4.3, below: of equally good stakes the least above 0."""
    game = world("gambler")
    q = solve(game, tol=1e-12).q
    best = q >= q.max(axis=1, keepdims=True) - 1e-9
    best[:, 0] = False
    capital = np.arange(1, 100)
    stakes = best[1:100].argmax(axis=1)
    curves = {"_least best stake": (capital, stakes)}
    return lines(
        curves, xlabel="capital", ylabel="stake", title="Gambler, p = 0.4: least best stake"
    )


def cliff_exploring() -> Figure:
    """The best way along the cliff when one step in ten is taken at random."""
    cliff = world("cliff")
    p, r = cliff.dense(), cliff.reward
    explored = MDP(
        0.9 * p + 0.1 * p.mean(0), 0.9 * r + 0.1 * r.mean(1, keepdims=True), 1.0,
        initial=cliff.initial,
    )  # fmt: skip
    policy = best_actions(solve(explored).q)
    title = "Cliff, ε = 0.1: the best policy keeps away (−20.71)"
    return policy_on_grid(cliff, policy, title=title)


def cliff_best() -> Figure:
    """The best way along the cliff."""
    cliff = world("cliff")
    found = solve(cliff)
    title = "Cliff without exploration: 13 steps"
    return policy_on_grid(cliff, best_actions(found.q), value=found.value, title=title)


def windy_policy() -> Figure:
    """Example 6.5."""
    windy = world("windy-grid")
    found = solve(windy)
    title = "Windy grid: 15 steps from the frame to the end"
    return policy_on_grid(windy, best_actions(found.q), value=found.value, title=title)


def q_table_learned() -> Figure:
    """A Q table as the notes show it, learned on the 4×4 lake."""
    lake = world("frozenlake-4x4")
    learned = q_learning(lake, num_steps=2_000_000, alpha=0.01, epsilon=0.3, seed=0)
    going = [s for s in range(lake.num_states) if not lake.terminal[s]]
    return q_table_picture(
        learned.q[going],
        states=[lake.states[s] for s in going] if lake.states else None,
        actions=lake.actions,
        title="Q-learning on FrozenLake 4×4 after two million steps",
    )


# --- prediction by samples ---


def walk_values() -> Figure:
    """Example 6.2, left."""
    shown = prediction.random_walk_values()
    curves = {f"after {count}": (np.arange(5), value) for count, value in shown.items()}
    curves["true values"] = (np.arange(5), np.arange(1, 6) / 6)
    places = {name: i for i, name in enumerate("ABCDE")}
    return lines(
        curves, xlabel="state", ylabel="value", title="TD(0), α = 0.1, by episodes", ticks=places
    )


def walk_td_and_mc() -> Figure:
    """Example 6.2, right."""
    study = prediction.td_and_monte_carlo()
    return study_curves(study, title="Random walk of 5 states, 100 runs", ylim=(0, 0.26))


def walk_batch() -> Figure:
    """Figure 6.2."""
    return study_curves(
        prediction.batch_td_and_monte_carlo(),
        title="Random walk of 5 states, batch learning, 100 runs",
        ylim=(0, 0.25),
    )


def _relabelled(study: Curves, before: str, after: str) -> Curves:
    mean = {name.replace(before, after): y for name, y in study.mean.items()}
    error = {name.replace(before, after): y for name, y in study.standard_error.items()}
    return replace(study, mean=mean, standard_error=error)


def walk_n_step() -> Figure:
    """Figure 7.2."""
    study = _relabelled(prediction.n_step_walk(), "n=", "n = ")
    return study_curves(study, title="n-step TD, walk of 19 states, 100 runs", ylim=(0.2, 0.56))


def walk_lambda_return() -> Figure:
    """Figure 12.3."""
    study = _relabelled(prediction.lambda_walk(), "lam=", "λ = ")
    title = "Offline λ-return, walk of 19 states, 100 runs"
    return study_curves(study, title=title, ylim=(0.2, 0.56))


def walk_td_lambda() -> Figure:
    """Figure 12.6."""
    study = _relabelled(prediction.lambda_walk(traces.td_lambda_accumulating), "lam=", "λ = ")
    title = "TD(λ), accumulating traces, walk of 19 states, 100 runs"
    return study_curves(study, title=title, ylim=(0.2, 0.56))


def walk_true_online() -> Figure:
    """Figure 12.8, left."""
    study = _relabelled(prediction.lambda_walk(traces.true_online_td_lambda), "lam=", "λ = ")
    title = "True online TD(λ), walk of 19 states, 100 runs"
    return study_curves(study, title=title, ylim=(0.2, 0.56))


def blackjack_value() -> Figure:
    """Figure 5.1."""
    few = prediction.blackjack_stick_on_20(num_episodes=10_000)
    many = prediction.blackjack_stick_on_20(num_episodes=500_000)
    panels = {
        "usable ace, 10,000 episodes": few.value[1],
        "usable ace, 500,000": many.value[1],
        "no usable ace, 10,000": few.value[0],
        "no usable ace, 500,000": many.value[0],
    }
    return _hands(panels, "Sticking on 20 and 21, first-visit Monte Carlo")


def blackjack_policy() -> Figure:
    """Figure 5.2."""
    found, _ = prediction.blackjack_exploring_starts()
    panels = {"usable ace": found.policy[1], "no usable ace": found.policy[0]}
    return _hands(
        panels, "Monte Carlo with exploring starts, 5 million games", words=("stick", "hit")
    )


def _hands(
    panels: dict[str, np.ndarray], title: str, words: tuple[str, ...] | None = None
) -> Figure:
    return value_panels(
        panels,
        xlabel="dealer shows (1: ace)",
        ylabel="player's sum",
        x=range(1, 11),
        y=range(12, 22),
        title=title,
        words=words,
    )


def importance_sampling() -> Figure:
    """Figure 5.3."""
    return study_curves(
        prediction.blackjack_importance_sampling(),
        title="One state of blackjack off-policy, 100 runs",
        log_x=True,
        ylim=(0, 5),
    )


def importance_infinite_variance() -> Figure:
    """Figure 5.4."""
    episodes, runs = prediction.infinite_variance()
    curves = {f"_run {i}": (episodes, run) for i, run in enumerate(runs)}
    return lines(
        curves,
        xlabel="episodes",
        ylabel="estimate",
        title="Ordinary importance sampling of infinite variance, ten runs",
        log_x=True,
        ylim=(0, 3),
        references={"true value": 1.0},
    )


def aggregation_monte_carlo() -> Figure:
    """Figure 9.1."""
    return _aggregated(
        prediction.aggregated_monte_carlo(), "Gradient Monte Carlo, ten groups of 100 states"
    )


def aggregation_td() -> Figure:
    """Figure 9.2, left."""
    return _aggregated(prediction.aggregated_td(), "Semi-gradient TD(0), ten groups of 100 states")


def _aggregated(walk: prediction.AggregatedWalk, title: str) -> Figure:
    state = np.arange(1, 1001)
    curves = {
        "true value": (state, walk.exact),
        "learned": (state, walk.value),
        "what it converges to": (state, walk.limit),
    }
    return lines(curves, xlabel="state", ylabel="value", title=title)


def aggregation_n_step() -> Figure:
    """Figure 9.2, right."""
    return study_curves(
        _relabelled(prediction.aggregated_n_step(num_runs=50), "n=", "n = "),
        title="n-step semi-gradient TD, 20 groups of 50 states, 50 runs",
        ylim=(0.2, 0.56),
    )


def baird_semi_gradient() -> Figure:
    """Figure 11.2, left."""
    weights = baird.semi_gradient_course().weights
    step = np.arange(weights.shape[0])
    curves = {f"$w_{i + 1}$": (step, weights[:, i]) for i in (0, 6, 7)}
    title = "Baird's counterexample, semi-gradient off-policy TD(0)"
    return lines(curves, xlabel="step", ylabel="weight", title=title)


def baird_gradient() -> Figure:
    """Figure 11.5, left."""
    course = baird.gradient_course()
    step = np.arange(course.weights.shape[0])
    curves = {
        "$w_1$": (step, course.weights[:, 0]),
        "$w_7$": (step, course.weights[:, 6]),
        "$w_8$": (step, course.weights[:, 7]),
        "root of the value error": (step, course.value_error),
        "root of the projected error": (step, course.projected_error),
    }
    title = "Baird's counterexample, TDC"
    return lines(curves, xlabel="step", ylabel="", title=title)


# --- control by samples ---


def windy_episodes() -> Figure:
    """Example 6.5."""
    return study_curves(
        control.windy_grid_episodes(), title="SARSA on the windy grid, α = 0.5, ε = 0.1, 30 runs"
    )


def cliff_returns() -> Figure:
    """Example 6.6."""
    return study_curves(
        control.cliff_returns(num_runs=2000),
        title="Cliff walking, α = 0.5, ε = 0.1, 2,000 runs",
        ylim=(-100, -10),
        references={"best without exploring: −13": -13.0, "best with ε = 0.1: −20.71": -20.71},
    )


def cliff_by_alpha() -> Figure:
    """Figure 6.3, interim."""
    return study_curves(
        control.cliff_by_alpha(num_runs=200),
        title="Cliff walking, first 100 episodes, 200 runs",
        ylim=(-160, -20),
    )


def maximisation_bias() -> Figure:
    """Figure 6.5."""
    return study_curves(
        control.maximisation_bias(),
        title="Maximisation bias, α = ε = 0.1, 10,000 runs",
        ylim=(0, 1),
        references={"best possible: 0.05": 0.05},
    )


def dyna_maze() -> Figure:
    """Figure 8.2."""
    return study_curves(
        control.dyna_maze_steps(num_runs=100),
        title="Dyna-Q on the maze, α = ε = 0.1, 100 runs",
        ylim=(0, 800),
        references={"shortest: 14": 14.0},
    )


def blocking_maze() -> Figure:
    """Figure 8.4."""
    return study_curves(
        control.blocking_maze_reward(), title="The short way closes after 1,000 steps, 30 runs"
    )


def shortcut_maze() -> Figure:
    """Figure 8.5."""
    return study_curves(
        control.shortcut_maze_reward(), title="A shorter way opens after 3,000 steps, 30 runs"
    )


# --- partial observation ---


def tiger_alphas() -> Figure:
    """The tiger's value over the belief."""
    tiger = world("tiger")
    found = solve_pomdp(tiger, tol=1e-6)
    return alpha_vectors(
        found.alphas,
        found.actions,
        states=tiger.states,
        action_names=tiger.actions,
        title="Tiger, γ = 0.95",
    )


FIGURES: tuple[Callable[[], Figure], ...] = (
    backup_chain,
    backup_policy,
    backup_pair,
    backup_best,
    grid_4x4_value,
    grid_5x5_value,
    grid_5x5_policy,
    grid_5x5_best_value,
    frozenlake_value,
    frozenlake_policy,
    convergence_planners,
    jacks_policy,
    gambler_value,
    gambler_policy,
    cliff_exploring,
    cliff_best,
    windy_policy,
    q_table_learned,
    walk_values,
    walk_td_and_mc,
    walk_batch,
    walk_n_step,
    walk_lambda_return,
    walk_td_lambda,
    walk_true_online,
    blackjack_value,
    blackjack_policy,
    importance_sampling,
    importance_infinite_variance,
    aggregation_monte_carlo,
    aggregation_td,
    aggregation_n_step,
    baird_semi_gradient,
    baird_gradient,
    windy_episodes,
    cliff_returns,
    cliff_by_alpha,
    maximisation_bias,
    dyna_maze,
    blocking_maze,
    shortcut_maze,
    tiger_alphas,
)


def main(wanted: list[str]) -> int:
    """Draws the pictures whose names begin as wanted (all by default)."""
    chosen = [f for f in FIGURES if not wanted or any(f.__name__.startswith(w) for w in wanted)]
    if not chosen:
        print(f"no picture begins with {' or '.join(wanted)}; there are:", file=sys.stderr)
        print("\n".join(f.__name__ for f in FIGURES), file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for draw in chosen:
        path = FOLDER / f"{draw.__name__.replace('_', '-')}.png"
        draw().savefig(path, metadata={"Software": None})
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
