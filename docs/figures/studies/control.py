"""Figures of Sutton & Barto 2018 on control by samples, computed anew.

Each function returns numbers to draw or to check; runs are numbered by their seeds, 0, 1, 2, ...,
and the same seeds serve every curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from plaudit.mdp.learning import (
    Learned,
    double_q_learning,
    dyna_q,
    dyna_q_plus,
    expected_sarsa,
    q_learning,
    sarsa,
)
from plaudit.mdp.model import MDP
from plaudit.mdp.pictures import Curves
from plaudit.mdp.worlds import world
from studies.curves import Floats, averaged

Learner = Callable[..., Learned]

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

CLIFF_LEARNERS: dict[str, Learner] = {
    "Expected SARSA": expected_sarsa,
    "SARSA": sarsa,
    "Q-learning": q_learning,
}


def windy_grid_episodes(
    *, name: str = "windy-grid", num_runs: int = 30, num_steps: int = 8000, every: int = 100
) -> Curves:
    """Episodes that SARSA has finished over its steps on the windy grid, α = 0.5, ε = 0.1.

    name: "windy-grid" or "windy-grid-king". Source: example 6.5, where 8,000 steps make about 170
    episodes; exercise 6.9 for the king's moves.
    """
    grid = world(name)
    x = np.arange(0.0, num_steps + 1, every)

    def run(seed: int) -> Floats:
        learned = sarsa(grid, num_steps=num_steps, alpha=0.5, epsilon=0.1, seed=seed)
        return _finished_by(learned, x)

    mean, error = averaged(run, num_runs)
    return Curves(x, {"SARSA": mean}, {"SARSA": error}, "steps", "episodes")


def cliff_returns(
    *, num_runs: int = 100, num_episodes: int = 500, alpha: float = 0.5, epsilon: float = 0.1
) -> Curves:
    """Sum of rewards in each episode while walking along the cliff: SARSA and Q-learning.

    Q-learning learns the shortest path, 13 steps, and falls from it by exploring; SARSA learns the
    safe one. Source: example 6.6.
    """
    cliff = world("cliff")

    def run(learner: Learner, seed: int) -> Floats:
        learned = after_episodes(
            learner, cliff, num_episodes, alpha=alpha, epsilon=epsilon, seed=seed
        )
        return learned.episode_return[:num_episodes]

    learners = {label: partial(run, CLIFF_LEARNERS[label]) for label in ("SARSA", "Q-learning")}
    x = np.arange(1.0, num_episodes + 1)
    return _curves(learners, num_runs, x, "episode", "sum of rewards")


def cliff_by_alpha(
    *,
    num_runs: int = 100,
    num_episodes: int = 100,
    alphas: Sequence[float] = ALPHAS,
    epsilon: float = 0.1,
) -> Curves:
    """Mean return of the first episodes on the cliff by step size, for three learners.

    With 100 episodes these are the interim curves of figure 6.3; with 100,000 and ten runs the
    asymptotic ones. Source: van Seijen et al. 2009; figure 6.3.
    """
    cliff = world("cliff")

    def run(learner: Learner, seed: int) -> Floats:
        return np.array(
            [
                after_episodes(
                    learner, cliff, num_episodes, alpha=alpha, epsilon=epsilon, seed=seed
                )
                .episode_return[:num_episodes]
                .mean()
                for alpha in alphas
            ]
        )

    learners = {label: partial(run, learner) for label, learner in CLIFF_LEARNERS.items()}
    return _curves(learners, num_runs, np.array(alphas), "alpha", "sum of rewards per episode")


def maximisation_bias(
    *, num_runs: int = 10_000, num_episodes: int = 300, alpha: float = 0.1, epsilon: float = 0.1
) -> Curves:
    """Share of runs that go left from A in each episode, where right is always better.

    The best that ε-greedy can do is ε / 2 = 5 %. Source: example 6.7, figure 6.5.
    """
    trap = world("maximisation-bias")

    def run(learner: Learner, seed: int) -> Floats:
        steps = 2 * num_episodes  # an episode has one step to the right or two to the left
        learned = learner(trap, num_steps=steps, alpha=alpha, epsilon=epsilon, seed=seed)
        return np.asarray(learned.episode_length[:num_episodes] == 2, dtype=np.float64)

    learners = {
        "Q-learning": partial(run, q_learning),
        "double Q-learning": partial(run, double_q_learning),
    }
    x = np.arange(1.0, num_episodes + 1)
    return _curves(learners, num_runs, x, "episode", "share of left actions from A")


def dyna_maze_steps(
    *,
    num_runs: int = 30,
    num_episodes: int = 50,
    num_planning: Sequence[int] = (0, 5, 50),
    alpha: float = 0.1,
    epsilon: float = 0.1,
) -> Curves:
    """Steps in each episode of Dyna-Q on the maze, by the steps planned after each real one.

    With nothing learned the first episode is a random walk for all: 869 steps in expectation (the
    1,700 of the figure are those of one sequence of random numbers). The shortest way has 14.
    Source: example 8.1, figure 8.2.
    """
    maze = world("dyna-maze")

    def run(planned: int, seed: int) -> Floats:
        learned = after_episodes(
            dyna_q,
            maze,
            num_episodes,
            num_planning=planned,
            alpha=alpha,
            epsilon=epsilon,
            seed=seed,
        )
        return np.asarray(learned.episode_length[:num_episodes], dtype=np.float64)

    learners = {f"{planned} planning steps": partial(run, planned) for planned in num_planning}
    x = np.arange(1.0, num_episodes + 1)
    return _curves(learners, num_runs, x, "episode", "steps per episode")


def blocking_maze_reward(*, num_runs: int = 30, num_planning: int = 10) -> Curves:
    """Cumulative reward of Dyna-Q and Dyna-Q+ when the short way closes after 1,000 steps.

    Source: example 8.2, figure 8.4.
    """
    return _changing("blocking-maze", 1000, 3000, num_runs, num_planning, kappa=1e-3)


def shortcut_maze_reward(*, num_runs: int = 30, num_planning: int = 50) -> Curves:
    """Cumulative reward of Dyna-Q and Dyna-Q+ when a shorter way opens after 3,000 steps.

    Dyna-Q goes on along the long way; the bonus of Dyna-Q+ leads it to look.
    Source: example 8.3, figure 8.5.
    """
    return _changing("shortcut-maze", 3000, 6000, num_runs, num_planning, kappa=1e-3)


def _changing(
    name: str, change: int, num_steps: int, num_runs: int, num_planning: int, kappa: float
) -> Curves:
    before, after = world(name), world(name, changed=True)
    x = np.arange(0.0, num_steps + 1, 50)

    def run(learner: Learner, options: dict[str, float], seed: int) -> Floats:
        said = dict(num_planning=num_planning, alpha=0.5, epsilon=0.1, seed=seed, **options)
        first = learner(before, num_steps=change, **said)
        then = learner(after, num_steps=num_steps - change, start=first, **said)
        return _finished_by(then, x)  # an episode pays 1, at its end

    learners = {
        "Dyna-Q": partial(run, dyna_q, {}),
        "Dyna-Q+": partial(run, dyna_q_plus, {"kappa": kappa}),
    }
    return _curves(learners, num_runs, x, "steps", "cumulative reward")


def after_episodes(learner: Learner, mdp: MDP, num_episodes: int, **options: Any) -> Learned:
    """What a learner has learned when at least `num_episodes` have ended; it goes on in pieces."""
    learned = learner(mdp, num_steps=num_episodes * 10, **options)
    while learned.episode_return.size < num_episodes:
        missing = num_episodes - learned.episode_return.size
        learned = learner(mdp, num_steps=max(missing * 10, 100), start=learned, **options)
    return learned


def _finished_by(learned: Learned, steps: Any) -> Floats:
    """How many episodes had ended at each of the steps."""
    ends = np.cumsum(learned.episode_length)
    return np.asarray(np.searchsorted(ends, steps, side="right"), dtype=np.float64)


def _curves(
    runs: Mapping[str, Callable[[int], Floats]], num_runs: int, x: Any, x_label: str, y_label: str
) -> Curves:
    mean, error = {}, {}
    for label, run in runs.items():
        mean[label], error[label] = averaged(run, num_runs)
    return Curves(np.asarray(x, dtype=np.float64), mean, error, x_label, y_label)
