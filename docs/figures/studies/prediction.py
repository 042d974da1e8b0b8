"""Figures of Sutton & Barto 2018 on prediction: random walks and blackjack, computed anew.

Each function returns numbers to draw or to check; runs are numbered by their seeds, 0, 1, 2, ...,
and the same seeds serve every curve, so that curves differ by the method and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import sparse

from plaudit.mdp.learning.batch import batch_monte_carlo, batch_td, episodes_from, episodes_of
from plaudit.mdp.learning.features import state_aggregation
from plaudit.mdp.learning.importance import (
    ordinary_importance_sampling,
    weighted_importance_sampling,
)
from plaudit.mdp.learning.learned import Ints, MonteCarloControl, Predicted
from plaudit.mdp.learning.monte_carlo import every_visit_monte_carlo, first_visit_monte_carlo
from plaudit.mdp.learning.monte_carlo_control import monte_carlo_exploring_starts
from plaudit.mdp.learning.semi_gradient import (
    gradient_monte_carlo,
    semi_gradient_n_step_td,
    semi_gradient_td,
)
from plaudit.mdp.learning.temporal_difference import n_step_td, td_prediction
from plaudit.mdp.learning.traces import offline_lambda_return
from plaudit.mdp.model import MDP
from plaudit.mdp.pictures import Curves
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from studies.curves import Floats, averaged, rms

Numbers = TypeVar("Numbers", Floats, Ints)

STICK, HIT = 0, 1
ALPHAS = tuple(round(0.1 * k, 1) for k in range(1, 11))
Learner = Callable[..., Predicted]


def random_walk_values(*, seed: int = 0, alpha: float = 0.1) -> dict[int, Floats]:
    """Values A to E by TD(0) after 0, 1, 10 and 100 episodes of one run, from 0.5.

    Source: example 6.2, the figure on the left; the truth is k/6.
    """
    walk = world("random-walk-5")
    trace = td_prediction(
        walk, _still(walk), num_episodes=100, alpha=alpha, start_value=0.5, seed=seed, trace_every=1
    ).trace[:, 1:-1]
    return {0: np.full(5, 0.5), 1: trace[0], 10: trace[9], 100: trace[99]}


def td_and_monte_carlo(
    *,
    num_runs: int = 100,
    num_episodes: int = 100,
    td_alphas: Sequence[float] = (0.05, 0.1, 0.15),
    mc_alphas: Sequence[float] = (0.01, 0.02, 0.03, 0.04),
) -> Curves:
    """Error on the walk of five states over episodes 0 to num_episodes, TD(0) and Monte Carlo.

    Root mean square over the states, averaged over runs; values begin at 0.5.
    Source: example 6.2, the figure on the right.
    """
    walk, truth = world("random-walk-5"), np.arange(1, 6) / 6
    mean: dict[str, Floats] = {}
    error: dict[str, Floats] = {}

    def curve(learner: Learner, alpha: float) -> Callable[[int], Floats]:
        def run(seed: int) -> Floats:
            learned = learner(
                walk,
                _still(walk),
                num_episodes=num_episodes,
                alpha=alpha,
                start_value=0.5,
                seed=seed,
                trace_every=1,
            )
            return rms(np.vstack([np.full(5, 0.5), learned.trace[:, 1:-1]]), truth)

        return run

    methods: list[tuple[str, Learner, Sequence[float]]] = [
        ("TD", td_prediction, td_alphas),
        ("MC", every_visit_monte_carlo, mc_alphas),
    ]
    for name, learner, alphas in methods:
        for alpha in alphas:
            label = f"{name} α={alpha:g}"
            mean[label], error[label] = averaged(curve(learner, alpha), num_runs)
    return Curves(np.arange(num_episodes + 1.0), mean, error, "episodes", "RMS error")


def batch_td_and_monte_carlo(*, num_runs: int = 100, num_episodes: int = 100) -> Curves:
    """Error on the walk of five states when all episodes so far are learned to the end.

    States that no episode has met yet keep 0.5.
    Source: example 6.3, figure 6.2.
    """
    walk, truth = world("random-walk-5"), np.arange(1, 6) / 6

    def run(seed: int) -> Floats:
        whole = episodes_of(walk, _still(walk), num_episodes=num_episodes, seed=seed)
        log = [
            (whole.state[i:j], whole.reward[i:j])
            for i, j in zip(whole.begin, whole.begin[1:], strict=False)
        ]
        out = np.empty((2, num_episodes))
        for count in range(1, num_episodes + 1):
            batch = episodes_from(log[:count], num_states=walk.num_states)
            for row, method in enumerate((batch_td, batch_monte_carlo)):
                value = method(batch, gamma=1.0, tol=1e-3, start_value=0.5)
                out[row, count - 1] = rms(value[1:-1], truth)
        return out

    mean, error = averaged(run, num_runs)
    names = ("batch TD", "batch MC")
    return Curves(
        np.arange(1.0, num_episodes + 1),
        dict(zip(names, mean, strict=True)),
        dict(zip(names, error, strict=True)),
        "episodes",
        "RMS error",
    )


def walk_19(
    learner: Learner,
    option: str,
    values: Sequence[float],
    *,
    alphas: Sequence[float] = ALPHAS,
    num_runs: int = 100,
    num_episodes: int = 10,
) -> Curves:
    """Error on the walk of 19 states over α, one curve for each value of an option (n or λ).

    Root mean square over the states, averaged over the first episodes and the runs.
    """
    walk, truth = world("random-walk-19"), np.arange(-9, 10) / 10
    mean: dict[str, Floats] = {}
    error: dict[str, Floats] = {}
    for value in values:

        def run(seed: int, value: float = value) -> Floats:
            kept = {option: value, "num_episodes": num_episodes, "seed": seed, "trace_every": 1}
            traces = [learner(walk, _still(walk), alpha=alpha, **kept).trace for alpha in alphas]
            return np.array([rms(trace[:, 1:-1], truth).mean() for trace in traces])

        label = f"{option}={value:g}"
        mean[label], error[label] = averaged(run, num_runs)
    return Curves(np.array(alphas), mean, error, "α", f"RMS error, first {num_episodes} episodes")


def n_step_walk(
    *,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    alphas: Sequence[float] = ALPHAS,
    num_runs: int = 100,
) -> Curves:
    """n-step TD on the walk of 19 states. Source: figure 7.2."""
    return walk_19(n_step_td, "n", steps, alphas=alphas, num_runs=num_runs)


def lambda_walk(
    learner: Learner = offline_lambda_return,
    *,
    lams: Sequence[float] = (0.0, 0.4, 0.8, 0.9, 0.95, 0.975, 0.99, 1.0),
    alphas: Sequence[float] = ALPHAS,
    num_runs: int = 100,
) -> Curves:
    """A method with λ on the walk of 19 states.

    Source: figure 12.3 for `offline_lambda_return`, 12.6 for `td_lambda_accumulating`, 12.8 (left)
    for `true_online_td_lambda`.
    """
    return walk_19(learner, "lam", lams, alphas=alphas, num_runs=num_runs)


@dataclass(frozen=True)
class Hands:
    """Blackjack's states as a picture: [2, 10, 10] without and with a usable ace, the player's sum
    12 to 21, the dealer's card 1 to 10."""

    value: Floats
    policy: Ints
    exact: Floats
    start_value: float


def blackjack_stick_on_20(*, num_episodes: int = 500_000, seed: int = 0) -> Hands:
    """The value of sticking only on 20 and 21, by first-visit Monte Carlo, beside the exact one.

    Source: example 5.1, figure 5.1 (after 10,000 and 500,000 episodes).
    """
    game, policy = world("blackjack-book"), stick_on_20()
    learned = first_visit_monte_carlo(game, policy, num_episodes=num_episodes, seed=seed)
    exact = evaluate(game, policy).value
    return Hands(
        _hands(game, learned.value),
        _hands(game, policy),
        _hands(game, exact),
        float(game.initial @ learned.value),
    )


def blackjack_exploring_starts(
    *, num_episodes: int = 5_000_000, seed: int = 0
) -> tuple[Hands, MonteCarloControl]:
    """The best play of blackjack by Monte Carlo with exploring starts, from sticking on 20.

    `exact` is the best value; start_value what the policy found is worth, computed exactly.
    Source: example 5.3, figure 5.2.
    """
    game = world("blackjack-book")
    learned = monte_carlo_exploring_starts(
        game, num_episodes=num_episodes, seed=seed, start_policy=stick_on_20()
    )
    worth = float(game.initial @ evaluate(game, learned.policy).value)
    best = _hands(game, solve(game).value)
    return Hands(_hands(game, learned.value), _hands(game, learned.policy), best, worth), learned


def blackjack_importance_sampling(*, num_runs: int = 100, num_episodes: int = 10_000) -> Curves:
    """Mean squared error of one state's value, sticking on 20, from episodes of random play.

    The state: 13 with a usable ace, the dealer shows 2. x: episodes; the standard error is that of
    the mean squared error. Source: example 5.4, figure 5.3; the exact value is -0.277204.
    """
    game = world("blackjack-book")
    state = game.state("13 against 2 with ace")
    game = starting_in(game, state)
    target, behaviour = stick_on_20(), np.full(game.reward.shape, 0.5)
    truth = evaluate(game, target).value[state]

    def run(seed: int) -> Floats:
        plain = ordinary_importance_sampling(
            game, target, behaviour, num_episodes=num_episodes, seed=seed, trace_every=1
        )
        weighted = weighted_importance_sampling(
            game, target, behaviour, num_episodes=num_episodes, seed=seed, trace_every=1
        )
        return np.array([(kept.trace[:, state] - truth) ** 2 for kept in (plain, weighted)])

    mean, error = averaged(run, num_runs)
    names = ("ordinary importance sampling", "weighted importance sampling")
    return Curves(
        np.arange(1.0, num_episodes + 1),
        dict(zip(names, mean, strict=True)),
        dict(zip(names, error, strict=True)),
        "episodes",
        "mean squared error",
    )


def infinite_variance(*, num_runs: int = 10, num_episodes: int = 1_000_000) -> tuple[Ints, Floats]:
    """Estimates by ordinary importance sampling that never settle: (episodes [K], value [runs, K]).

    The truth is 1; K points evenly on the logarithm of the episodes.
    Source: example 5.5, figure 5.4.
    """
    trap = left_for_ever()
    left, even = np.array([0, 0]), np.full((2, 2), 0.5)
    shown = np.unique(np.geomspace(1, num_episodes, 200).astype(np.int64))
    out = np.empty((num_runs, shown.size))
    for seed in range(num_runs):
        learned = ordinary_importance_sampling(
            trap, left, even, num_episodes=num_episodes, seed=seed, trace_every=1
        )
        out[seed] = learned.trace[shown - 1, 0]
    return shown, out


def left_for_ever() -> MDP:
    """One state: left stays with probability 0.9 or ends with pay 1, right ends unpaid.

    Always left is worth 1; from even behaviour Σ over episodes of (ρG)² p has no bound.
    Source: example 5.5.
    """
    transition = np.array([[[0.9, 0.1], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    reward = np.zeros((2, 2, 2))
    reward[0, 0, 1] = 1.0
    return MDP(transition, reward, 1.0, states=["s", "end"], actions=["left", "right"])


@dataclass(frozen=True)
class AggregatedWalk:
    """The walk of 1,000 states in groups: value [1000] as learned, the exact one, the exact answer
    that the method approaches, and how much time is spent in each state (sums to one)."""

    value: Floats
    exact: Floats
    limit: Floats
    visited: Floats


def aggregated_monte_carlo(
    *, num_episodes: int = 100_000, alpha: float = 2e-5, seed: int = 0
) -> AggregatedWalk:
    """Gradient Monte Carlo with ten groups of 100; its limit is the average of each group.

    Source: example 9.1, figure 9.1.
    """
    walk, x = world("random-walk-1000"), _groups(10)
    learned = gradient_monte_carlo(
        walk, _still(walk), x, num_episodes=num_episodes, alpha=alpha, seed=seed
    )
    exact, visited = evaluate(walk, _still(walk)).value, _visited(walk)
    limit = x @ (x.T @ (visited * exact) / (x.T @ visited))
    return AggregatedWalk(*(v[1:-1] for v in (learned.value, exact, limit, visited)))


def aggregated_td(
    *, num_episodes: int = 100_000, alpha: float = 2e-4, seed: int = 0
) -> AggregatedWalk:
    """Semi-gradient TD(0) with ten groups of 100; its limit is TD's fixed point, which is worse.

    A w = b, A = Xᵀ D (I - P) X, b = Xᵀ D r. Source: example 9.2, figure 9.2 (left).
    """
    walk, x = world("random-walk-1000"), _groups(10)
    learned = semi_gradient_td(
        walk, _still(walk), x, num_episodes=num_episodes, alpha=alpha, seed=seed
    )
    exact, visited = evaluate(walk, _still(walk)).value, _visited(walk)
    weighted = x.multiply(visited[:, None]).T.toarray()
    matrix = weighted @ (x - walk.transition @ x).toarray()
    limit = x @ np.linalg.solve(matrix, weighted @ walk.reward[:, 0])
    return AggregatedWalk(*(v[1:-1] for v in (learned.value, exact, limit, visited)))


def aggregated_n_step(
    *,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    alphas: Sequence[float] = ALPHAS,
    num_runs: int = 100,
    num_episodes: int = 10,
) -> Curves:
    """n-step semi-gradient TD on the walk of 1,000 states in 20 groups of 50, over α.

    Root mean square over the states, averaged over the first episodes and the runs.
    Source: figure 9.2 (right).
    """
    walk, x = world("random-walk-1000"), _groups(20)
    truth = evaluate(walk, _still(walk)).value[1:-1]
    shown = x[1:-1].toarray()
    mean: dict[str, Floats] = {}
    error: dict[str, Floats] = {}
    for n in steps:

        def run(seed: int, n: int = n) -> Floats:
            out = np.empty(len(alphas))
            for i, alpha in enumerate(alphas):
                learned = semi_gradient_n_step_td(
                    walk,
                    _still(walk),
                    x,
                    n=n,
                    num_episodes=num_episodes,
                    alpha=alpha,
                    seed=seed,
                    trace_every=1,
                )
                out[i] = rms(learned.trace @ shown.T, truth).mean()
            return out

        mean[f"n={n}"], error[f"n={n}"] = averaged(run, num_runs)
    return Curves(np.array(alphas), mean, error, "α", f"RMS error, first {num_episodes} episodes")


def stick_on_20() -> Ints:
    """The policy of example 5.1: stick on 20 and 21, else hit; [S] of `blackjack-book`."""
    names = world("blackjack-book").states or ()
    stick = [name.split()[0] in ("20", "21", "natural", "win", "draw", "lose") for name in names]
    return np.where(stick, STICK, HIT)


def starting_in(mdp: MDP, state: int) -> MDP:
    """The same world with every episode beginning in one state."""
    initial = np.zeros(mdp.num_states)
    initial[state] = 1.0
    reward: Floats | sparse.csr_array = mdp.reward
    if mdp.reward_next is not None:
        p = mdp.transition
        reward = sparse.csr_array((mdp.reward_next.copy(), p.indices, p.indptr), shape=p.shape)
    return MDP(
        mdp.transition,
        reward,
        mdp.gamma,
        initial=initial,
        reward_std=mdp.reward_std,
        states=mdp.states,
        actions=mdp.actions,
        grid=mdp.grid,
    )


def _still(walk: MDP) -> Ints:
    """The one policy of a world without choice."""
    return np.zeros(walk.num_states, np.int64)


def _groups(count: int) -> sparse.csr_array:
    """Features of the walk of 1,000 states in `count` groups alike; its two ends are in none."""
    return state_aggregation(np.concatenate([[-1], np.arange(1000) * count // 1000, [-1]]))


def _visited(walk: MDP) -> Floats:
    """μ: the share of time in each state, from starting in the middle each time."""
    going = ~walk.terminal
    inner = walk.transition[going][:, going].toarray()
    out = np.zeros(walk.num_states)
    out[going] = np.linalg.solve(np.eye(inner.shape[0]) - inner.T, walk.initial[going])
    return np.asarray(out / out.sum())


def _hands(game: MDP, of_state: Numbers) -> Numbers:
    """[S] as [2, 10, 10]: without and with ace, sum 12 to 21, dealer 1 to 10."""
    ace = ("", " with ace")
    return np.array(
        [
            [
                [of_state[game.state(f"{t} against {d}{a}")] for d in range(1, 11)]
                for t in range(12, 22)
            ]
            for a in ace
        ]
    )
