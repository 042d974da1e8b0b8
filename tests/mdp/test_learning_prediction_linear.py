"""Linear prediction: tables as a special case, fixed points in closed form, tiles counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from oracles.sampled_prediction import visits
from plaudit.mdp import MDP
from plaudit.mdp.learning.features import state_aggregation
from plaudit.mdp.learning.gradient_td import gtd2, off_policy_td, tdc
from plaudit.mdp.learning.least_squares import lstd
from plaudit.mdp.learning.monte_carlo import every_visit_monte_carlo
from plaudit.mdp.learning.semi_gradient import (
    gradient_monte_carlo,
    linear_true_online_td_lambda,
    semi_gradient_n_step_td,
    semi_gradient_td,
    semi_gradient_td_lambda,
)
from plaudit.mdp.learning.temporal_difference import n_step_td, td_prediction
from plaudit.mdp.learning.tiles import TileCoding
from plaudit.mdp.learning.traces import td_lambda_accumulating, true_online_td_lambda
from plaudit.mdp.planning import evaluate
from plaudit.records.errors import UserError

SEEDS = (0, 1, 2)
PAIRS = [
    (gradient_monte_carlo, every_visit_monte_carlo, {}),
    (semi_gradient_td, td_prediction, {}),
    (semi_gradient_n_step_td, n_step_td, {"n": 3}),
    (semi_gradient_td_lambda, td_lambda_accumulating, {"lam": 0.8}),
    (linear_true_online_td_lambda, true_online_td_lambda, {"lam": 0.8}),
]


def small_world(seed):
    """Six states, two actions, an end; target and behaviour policies and three features."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(6, 0.6), size=(2, 6))
    transition[..., -1] += 0.25
    transition /= transition.sum(-1, keepdims=True)
    transition[:, -1] = np.eye(6)[-1]
    reward = rng.normal(size=(6, 2))
    reward[-1] = 0
    world = MDP(transition, reward, 0.9)
    target, behaviour = rng.dirichlet(np.full(2, 2.0), size=(2, 6))
    features = rng.normal(size=(6, 3))
    features[-1] = 0
    return world, transition, target, 0.5 * behaviour + 0.25, features


def td_fixed_point(world, transition, target, behaviour, features):
    """w of A w = b over what the behaviour visits: A = Xᵀ D (I - γ P_π) X, b = Xᵀ D R_π."""
    p = np.einsum("sa,ask->sk", behaviour, transition)
    met = np.diag(visits(p, world.initial, world.terminal))
    ahead = np.einsum("sa,ask->sk", target, transition)
    matrix = features.T @ met @ (np.eye(6) - world.gamma * ahead) @ features
    return np.linalg.solve(matrix, features.T @ met @ (target * world.reward).sum(1))


@pytest.mark.parametrize(("linear", "tabular", "options"), PAIRS)
@pytest.mark.parametrize("seed", SEEDS)
def test_one_hot_features_are_the_table(linear, tabular, options, seed):
    world, _, target, *_ = small_world(seed)
    same = {"num_episodes": 300, "alpha": 0.1, "seed": seed, **options}
    for x in (np.eye(6), sparse.csr_array(np.eye(6))):
        found = linear(world, target, x, **same)
        expected = tabular(world, target, **same)
        assert np.allclose(found.value, expected.value, rtol=0, atol=1e-12)
        assert np.array_equal(found.counts, expected.counts)


@pytest.mark.parametrize(("linear", "tabular", "options"), PAIRS)
def test_a_linear_run_in_two_parts_is_the_whole_run(linear, tabular, options):
    world, _, target, _, x = small_world(0)
    same = {"alpha": 0.05, "trace_every": 7, **options}
    whole = linear(world, target, x, num_episodes=100, seed=3, **same)
    part = linear(world, target, x, num_episodes=50, seed=3, **same)
    both = linear(world, target, x, num_episodes=50, start=part, **same)
    for field in ("weights", "value", "counts", "rng", "trace"):
        assert np.array_equal(getattr(whole, field), getattr(both, field)), field
    assert (whole.num_episodes, whole.num_steps) == (both.num_episodes, both.num_steps)


@pytest.mark.parametrize("learner", [tdc, gtd2])
def test_a_gradient_run_in_two_parts_is_the_whole_run(learner):
    world, _, target, behaviour, x = small_world(0)
    same = {"alpha": 0.05, "beta": 0.1}
    whole = learner(world, target, behaviour, x, num_episodes=100, seed=3, **same)
    part = learner(world, target, behaviour, x, num_episodes=50, seed=3, **same)
    both = learner(world, target, behaviour, x, num_episodes=50, start=part, **same)
    assert np.array_equal(whole.weights, both.weights)
    assert np.array_equal(whole.second, both.second)


@pytest.mark.parametrize("seed", SEEDS)
def test_semi_gradient_td_and_lstd_stand_at_the_fixed_point(seed):
    world, transition, target, _, x = small_world(seed)
    exact = td_fixed_point(world, transition, target, target, x)
    found = lstd(world, target, x, num_episodes=200_000, seed=seed)
    assert np.abs(found.weights - exact).max() < 0.02 * max(1, np.abs(exact).max())
    trace = semi_gradient_td(
        world, target, x, num_episodes=200_000, alpha=0.002, seed=seed, trace_every=1
    ).trace
    assert np.abs(trace[50_000:].mean(0) - exact).max() < 0.03 * max(1, np.abs(exact).max())
    # the fixed point is not the least-squares answer, so a wrong weighting would show
    met = visits(np.einsum("sa,ask->sk", target, transition), world.initial, world.terminal)
    truth = evaluate(world, target).value
    best = np.linalg.solve((x.T * met) @ x, (x.T * met) @ truth)
    assert np.abs(best - exact).max() > 0.05
    trace = gradient_monte_carlo(
        world, target, x, num_episodes=200_000, alpha=0.002, seed=seed, trace_every=1
    ).trace
    assert np.abs(trace[50_000:].mean(0) - best).max() < 0.03 * max(1, np.abs(best).max())


def test_lstd_with_lambda_one_is_least_squares():
    world, transition, target, _, x = small_world(1)
    met = visits(np.einsum("sa,ask->sk", target, transition), world.initial, world.terminal)
    best = np.linalg.solve((x.T * met) @ x, (x.T * met) @ evaluate(world, target).value)
    found = lstd(world, target, x, num_episodes=300_000, lam=1.0, seed=0)
    assert np.abs(found.weights - best).max() < 0.03
    part = lstd(world, target, x, num_episodes=100, lam=0.5, seed=1)
    both = lstd(world, target, x, num_episodes=100, lam=0.5, start=part)
    whole = lstd(world, target, x, num_episodes=200, lam=0.5, seed=1)
    assert np.array_equal(whole.weights, both.weights)
    assert not np.array_equal(whole.weights, part.weights)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("learner", [tdc, gtd2])
def test_gradient_td_finds_the_off_policy_fixed_point(seed, learner):
    world, transition, target, behaviour, x = small_world(seed)
    exact = td_fixed_point(world, transition, target, behaviour, x)
    trace = learner(
        world,
        target,
        behaviour,
        x,
        num_episodes=400_000,
        alpha=0.005,
        beta=0.02,
        seed=seed,
        trace_every=4,
    ).trace
    on_policy = td_fixed_point(world, transition, behaviour, behaviour, x)
    error = np.abs(trace[60_000:].mean(0) - exact).max()
    assert error < 0.05 * max(1, np.abs(exact).max())
    assert np.abs(on_policy - exact).max() > 2 * error


@pytest.mark.parametrize("seed", SEEDS)
def test_off_policy_td_with_a_table_learns_the_target(seed):
    world, _, target, behaviour, _ = small_world(seed)
    trace = off_policy_td(
        world,
        target,
        behaviour,
        np.eye(6),
        num_episodes=100_000,
        alpha=0.005,
        seed=seed,
        trace_every=1,
    ).trace
    truth = evaluate(world, target).value
    assert np.abs(trace[20_000:].mean(0) - truth).max() < 0.04


def test_one_step_of_each_gradient_method_by_hand():
    """One state with x = (1, 2), then the end; π = b, R = 3; w = (1, 1), h = 0 at first.

    δ = 3 - 3 = 0 at w = (1, 1); with w = (0, 0) δ = 3: TD w = α·3·x; GTD2 moves only h, by β·3·x,
    and the second step moves w by α (x - 0)(h·x), h·x = 3·5·β.
    """
    world = MDP([[[0.0, 1.0], [0.0, 1.0]]], [[3.0], [0.0]], 0.5)
    x, still = np.array([[1.0, 2.0], [5.0, 5.0]]), [0, 0]
    one = off_policy_td(world, still, still, x, num_episodes=1, alpha=0.1)
    assert np.allclose(one.weights, [0.3, 0.6])
    assert one.value[1] == 0, "features of the end must not count"
    one = gtd2(world, still, still, x, num_episodes=1, alpha=0.1, beta=0.2)
    assert np.allclose(one.weights, 0)
    assert np.allclose(one.second, [0.6, 1.2])
    two = gtd2(world, still, still, x, num_episodes=2, alpha=0.1, beta=0.2)
    assert np.allclose(two.weights, [0.3, 0.6])
    kept = off_policy_td(
        world, still, still, x, num_episodes=1, alpha=0.1, start_weights=np.ones(2)
    )
    assert np.array_equal(kept.weights, [1.0, 1.0])


def test_the_correction_of_gradient_methods_by_hand():
    """Twice s0 → s1, cut there; x0 = (1, 2), x1 = (3, -1), R = 3, γ = 1/2, α = 0.1, β = 0.2.

    First δ = 3, h·x0 = 0: h = (0.6, 1.2); TDC w = (0.3, 0.6), GTD2 w = 0.
    Then h·x0 = 3. TDC: δ = 3 + 0.3/2 - 1.5 = 1.65, w += 0.165 x0 - 0.15 x1, h += 0.2 (1.65 - 3) x0.
    GTD2: δ = 3, w += 0.3 (x0 - x1/2), h stays.
    """
    chain = [[[0.0, 1, 0], [0, 0, 1], [0, 0, 1]]]
    world = MDP(chain, [[3.0], [0.0], [0.0]], 0.5, initial=[1.0, 0, 0])
    x, still = np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]]), [0, 0, 0]
    same = {"num_episodes": 2, "max_steps": 1, "alpha": 0.1, "beta": 0.2}
    found = tdc(world, still, still, x, **same)
    assert np.allclose(found.weights, [0.015, 1.08])
    assert np.allclose(found.second, [0.33, 0.66])
    found = gtd2(world, still, still, x, **same)
    assert np.allclose(found.weights, [-0.15, 0.75])
    assert np.allclose(found.second, [0.6, 1.2])


@pytest.mark.parametrize(("linear", "tabular", "options"), PAIRS[1:])
def test_a_cut_linear_episode_is_that_of_the_table(linear, tabular, options):
    world, _, target, *_ = small_world(1)
    same = {"num_episodes": 300, "alpha": 0.1, "max_steps": 2, **options}
    found = linear(world, target, np.eye(6), **same)
    assert np.allclose(found.value, tabular(world, target, **same).value, rtol=0, atol=1e-12)
    assert found.counts.sum() == found.num_steps


def test_aggregated_states_share_one_value():
    x = state_aggregation([0, 0, 1, -1])
    assert x.toarray().tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]
    with pytest.raises(UserError, match="expected \\[S\\] whole numbers"):
        state_aggregation([0.5, 1.0])
    with pytest.raises(UserError, match="expected one number of -1 or more"):
        state_aggregation([-2, 1])


@given(
    st.integers(1, 9), st.integers(1, 8), st.floats(0, 0.99, exclude_max=True), st.integers(0, 9)
)
def test_points_near_in_one_dimension_share_tiles_by_their_distance(tiles, tilings, at, apart):
    """m/n of a tile apart: n - m tiles in common (none from one tile on)."""
    coding = TileCoding([0.0], [float(tiles)], num_tiles=tiles, num_tilings=tilings)
    cell = np.floor(at * tiles * tilings)
    first, second = (cell + 0.5) / tilings, (cell + 0.5 + apart) / tilings
    if second > tiles:
        return
    common = np.intersect1d(coding.active([first]), coding.active([second]))
    assert common.size == max(0, tilings - apart)


def test_tiles_of_the_book():
    """Eight tilings, two dimensions: shifts (1, 3)/8 of a tile; all tiles in their own places."""
    coding = TileCoding([0, 0], [1, 1], num_tiles=(4, 2), num_tilings=8)
    assert coding.num_features == 8 * 5 * 3
    active = coding.active([[0.0, 0.0], [1.0, 1.0], [0.26, 0.49]])
    assert (active // 15 == np.arange(8)).all(), "one tile in each tiling"
    assert active[0].tolist() == [15 * t for t in range(8)]
    # tiling t: column floor(4·0.26 + t/8), row floor(2·0.49 + (3t mod 8)/8)
    expected = [15 * t + 3 * int(1.04 + t / 8) + int(0.98 + (3 * t % 8) / 8) for t in range(8)]
    assert active[2].tolist() == expected
    rows = coding.features([[0.0, 0.0], [1.0, 1.0]])
    assert rows.shape == (2, 120)
    assert rows.sum(1).tolist() == [8, 8]


def test_tiles_over_a_box_refuse_what_they_cannot_hold():
    spaces = pytest.importorskip("gymnasium").spaces
    low, high = np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
    coding = TileCoding.of_box(spaces.Box(low, high), num_tiles=8, num_tilings=8)
    for corner in (low, high):
        assert coding.active(corner).shape == (8,)
        assert coding.active(corner).max() < coding.num_features
    with pytest.raises(UserError, match=r"dimension 1 has 0\.2; expected -0\.07 to 0\.07"):
        coding.active([[0.0, 0.0], [0.0, 0.2]])
    with pytest.raises(UserError, match="dimension 0 runs from -inf to inf; tiles need finite"):
        TileCoding.of_box(spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(UserError, match="has no bounds; expected a Box"):
        TileCoding.of_box(spaces.Discrete(3))
    with pytest.raises(UserError, match=r"shape \(3,\); expected \[..., 2\]"):
        coding.active([1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="num_tiles: 0; expected 2 whole numbers"):
        TileCoding([0, 0], [1, 1], num_tiles=0)
    with pytest.raises(UserError, match="low is not below"):
        TileCoding([0, 1], [1, 1])


def test_tiles_learn_a_smooth_value():
    """A walk on 200 points of [0, 1] from the middle: 8 tilings of 5 come near v = position."""
    count = 200
    move = np.zeros((count + 2, count + 2))
    for s in range(1, count + 1):
        move[s, max(0, s - 20) : s] = move[s, s + 1 : s + 21] = 1.0
    move /= np.where(move.sum(1) > 0, move.sum(1), 1)[:, None]
    move[0, 0] = move[-1, -1] = 1
    paid = np.zeros_like(move)
    paid[1:-1, -1] = 1
    world = MDP(move[None], paid[None], 1.0)
    coding = TileCoding([0.0], [1.0], num_tiles=5, num_tilings=8)
    x = coding.features(np.linspace(0, 1, count + 2)[:, None])
    truth = evaluate(world, [0] * (count + 2)).value
    error = [
        np.abs(
            semi_gradient_td(
                world, [0] * (count + 2), x, num_episodes=20_000, alpha=0.02 / 8, seed=seed
            ).value
            - truth
        ).max()
        for seed in SEEDS
    ]
    assert max(error) < 0.12


def test_bad_linear_input_is_told_in_one_sentence():
    world, _, target, behaviour, x = small_world(0)
    one = {"num_episodes": 1, "alpha": 0.1}
    wrong = x.copy()
    wrong[2, 1] = np.nan
    part = semi_gradient_td(world, target, x, **one)
    for function, given_, options, message in (
        (semi_gradient_td, (world, target, x[:4]), one, r"features: shape \(4, 3\); expected \[6"),
        (semi_gradient_td, (world, target, x[0]), one, r"features: shape \(3,\)"),
        (semi_gradient_td, (world, target, wrong), one, "features: state 2 has nan"),
        (semi_gradient_td, (world, target, x), {**one, "alpha": 0}, "alpha: 0; expected a number"),
        (semi_gradient_td, (world, target, x[:, :2]), {**one, "start": part}, "start: learned 3 w"),
        (lstd, (world, target, x), {"num_episodes": 1, "ridge": -1.0}, "ridge: -1.0; expected"),
        (
            off_policy_td,
            (world, target, np.eye(2)[[0] * 6], x),
            one,
            "behaviour: state 0, action 1",
        ),
        (
            tdc,
            (world, target, behaviour, x),
            {**one, "beta": 0.1, "start_weights": [1.0]},
            r"start_weights: shape \(1,\); expected 3 finite",
        ),
        (tdc, (world, target, behaviour, x), {**one, "beta": np.inf}, "beta: inf; expected"),
    ):
        with pytest.raises(UserError, match=message):
            function(*given_, **options)
