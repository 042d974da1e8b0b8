"""Partly seen worlds: published values, closed forms, enumeration, and bounds that must bracket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracles.partial import controller_return, history_value, random_partial
from plaudit.mdp.partial import (
    POMDP,
    Controller,
    blind_bound,
    expanded_value,
    fast_informed_bound,
    finite_horizon_alphas,
    plan_graph,
    policy_graph,
    qmdp_bound,
    simulate,
    solve_pomdp,
)
from plaudit.mdp.planning import solve
from plaudit.mdp.worlds.partial import line_maze, rock_sample, tag_avoid, tiger
from plaudit.records.errors import UserError

SLOW = [HealthCheck.too_slow]
TIGER = 19.371368375
EVEN = [0.5, 0.5]


def at_start(alphas, world):
    return float((alphas @ world.initial).max())


def test_tiger_to_a_millionth_with_five_vectors():
    found = solve_pomdp(tiger(), tol=1e-6)
    assert found.lower <= TIGER <= found.upper
    assert found.gap <= 1e-6
    assert abs(found.value(EVEN) - TIGER) < 1e-6
    assert len(found.actions) == 5
    assert [found.action([p, 1 - p]) for p in (0.5, 0.01, 0.99)] == [0, 1, 2]
    assert (np.diff(found.trace[:, 1]) >= 0).all()
    assert (np.diff(found.trace[:, 2]) <= 0).all()


def test_tiger_bounds_of_the_literature():
    assert at_start(qmdp_bound(tiger()), tiger()) == pytest.approx(189.0, abs=1e-6)
    assert at_start(fast_informed_bound(tiger()), tiger()) == pytest.approx(87.179, abs=1e-3)
    assert at_start(blind_bound(tiger()), tiger()) == pytest.approx(-20.0, abs=1e-9)


@pytest.mark.parametrize(
    ("horizon", "value"),
    [(1, -1), (2, -1.95), (3, 2.3098), (5, 2.763096), (10, 6.693368), (20, 11.879569)],
)
def test_tiger_of_few_steps(horizon, value):
    assert finite_horizon_alphas(tiger(), horizon).value(EVEN) == pytest.approx(value, abs=1e-6)
    if horizon <= 3:
        assert expanded_value(tiger(), EVEN, horizon) == pytest.approx(value, abs=1e-9)


def test_tiger_with_one_step_has_one_vector_for_each_action():
    found = finite_horizon_alphas(tiger(), 1)
    assert sorted(map(tuple, found.alphas)) == [(-100, 10), (-1, -1), (10, -100)]


def test_tiger_heard_perfectly_and_not_at_all():
    gamma = 0.95
    perfect = solve_pomdp(tiger(accuracy=1.0), tol=1e-7)
    assert perfect.lower <= (10 * gamma - 1) / (1 - gamma**2) <= perfect.upper
    assert perfect.gap <= 1e-7
    deaf = solve_pomdp(tiger(accuracy=0.5), tol=1e-7)
    assert deaf.lower <= -20.0 <= deaf.upper
    assert deaf.gap <= 1e-7


def test_a_rover_on_its_rock_checks_first():
    # check (0), then half: sample at t=1 for 10, leave at t=3 for 10; half: leave at t=2 for 10
    g = 0.95
    by_hand = 0.5 * (10 * g + 10 * g**3) + 0.5 * 10 * g**2
    world = rock_sample(2, 1, rocks=((0, 0),), start=(0, 0), half_distance=1.0)
    found = solve_pomdp(world, tol=1e-7)
    assert found.lower <= by_hand <= found.upper
    assert found.gap <= 1e-7


def test_a_world_seen_whole_is_worth_what_its_mdp_is():
    rng = np.random.default_rng(3)
    moves = rng.dirichlet(np.ones(5), size=(3, 5))
    world = POMDP(moves, np.eye(5), rng.normal(size=(5, 3)), 0.8, initial=np.full(5, 0.2))
    expected = solve(world.mdp, tol=1e-10).value
    found = solve_pomdp(world, tol=1e-6, num_trials=3000)
    # the first action is taken not yet knowing the state
    first = (world.initial @ (world.reward + 0.8 * np.einsum("ast,t->sa", moves, expected))).max()
    assert found.lower <= first + 1e-9
    assert found.upper >= first - 1e-9
    assert found.gap <= 1e-6


def test_line_maze_agrees_with_many_steps_of_exact_backups():
    found = solve_pomdp(line_maze(), tol=1e-8)
    exact = finite_horizon_alphas(line_maze(), 50).value(line_maze().initial)
    left = 0.75**50 / (1 - 0.75)
    assert exact - 1e-9 <= found.upper
    assert found.lower <= exact + left + 1e-9
    assert found.gap <= 1e-8


@given(st.integers(0, 100_000))
@settings(max_examples=30, deadline=None, suppress_health_check=SLOW)
def test_bounds_bracket_what_enumeration_finds(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    horizon = 4
    near = history_value(transition, observation, reward, gamma, initial, horizon)
    least, most = (gamma**horizon * r / (1 - gamma) for r in (reward.min(), reward.max()))
    found = solve_pomdp(world, tol=1e-3, num_trials=60, seed=seed)
    assert found.lower <= near + most + 1e-10
    assert found.upper >= near + least - 1e-10
    assert found.lower <= found.upper
    assert at_start(blind_bound(world), world) <= found.lower + 1e-9
    assert found.upper <= at_start(fast_informed_bound(world), world) + 1e-3
    informed, qmdp = fast_informed_bound(world), qmdp_bound(world)
    assert (informed <= qmdp + 1e-8).all()


@given(st.integers(0, 100_000))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_lower_and_upper_bracket_exact_values_at_a_tight_tolerance(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    gamma = min(gamma, 0.3)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    horizon = 12 if len(initial) <= 2 else 3  # exact sets explode with three states
    exact = finite_horizon_alphas(world, horizon).value(initial)
    slack = 3 * gamma**horizon / (1 - gamma) + 1e-8
    found = solve_pomdp(world, tol=1e-5, num_trials=400)
    assert found.lower <= exact + slack
    assert found.upper >= exact - slack
    if found.gap <= 1e-5:
        assert found.value(initial) == pytest.approx(exact, abs=1e-5 + slack)


@given(st.integers(0, 100_000), st.integers(1, 4))
@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
def test_exact_backups_agree_with_enumeration_of_histories(seed, horizon):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    horizon = min(horizon, 3) if len(initial) > 2 else horizon
    expected = history_value(transition, observation, reward, gamma, initial, horizon)
    found = finite_horizon_alphas(world, horizon)
    assert found.value(initial) == pytest.approx(expected, abs=1e-8)
    assert expanded_value(world, initial, horizon) == pytest.approx(expected, abs=1e-10)


def test_every_vector_of_an_exact_set_is_somewhere_the_best():
    found = finite_horizon_alphas(tiger(), 5)
    beliefs = np.linspace(0, 1, 200_001)
    values = np.outer(found.alphas[:, 0], beliefs) + np.outer(found.alphas[:, 1], 1 - beliefs)
    assert set(values.argmax(0)) == set(range(len(found.actions)))


def test_two_states_and_a_third_that_is_never_entered_need_the_same_vectors():
    # lines for two states, linear programmes for three: two algorithms, one answer
    world = tiger()
    moves = np.zeros((3, 3, 3))
    moves[:, :2, :2], moves[:, 2, 2] = world.mdp.dense(), 1.0
    seen = np.full((3, 3, 2), 0.5)
    seen[:, :2] = world.dense_observation()
    reward = np.vstack([world.reward, np.full(3, -1000.0)])
    wider = POMDP(moves, seen, reward, 0.95, initial=[0.5, 0.5, 0.0])
    for horizon in (2, 3, 4):
        lines = finite_horizon_alphas(world, horizon).alphas
        planes = finite_horizon_alphas(wider, horizon).alphas[:, :2]
        for p in np.linspace(0, 1, 401):
            b = np.array([p, 1 - p])
            assert (lines @ b).max() == pytest.approx((planes @ b).max(), abs=1e-7)


# --- controllers


def test_tigers_controller_is_worth_its_vectors():
    found = solve_pomdp(tiger(), tol=1e-6)
    controller = policy_graph(tiger(), found)
    value = controller.value(tiger())
    assert value[controller.start] @ tiger().initial == pytest.approx(TIGER, abs=1e-6)
    assert len(controller.actions) == 5
    at_open = int(np.flatnonzero(controller.actions == 1)[0])
    assert (controller.successor[at_open] == controller.start).all()


@given(st.integers(0, 100_000))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_a_plan_is_worth_its_vector_in_every_state(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    found = solve_pomdp(world, tol=1e-4, num_trials=60)
    plan = plan_graph(world, found)
    vector = found.alphas[(found.alphas @ initial).argmax()]
    assert plan.value(world)[plan.start] == pytest.approx(vector, abs=1e-9)


def test_tags_plan_proves_its_lower_bound():
    found = solve_pomdp(tag_avoid(), num_trials=12, seed=0)
    plan = plan_graph(tag_avoid(), found)
    value = plan.value(tag_avoid())[plan.start]
    assert value == pytest.approx(
        found.alphas[(found.alphas @ tag_avoid().initial).argmax()], abs=1e-6
    )
    assert value @ tag_avoid().initial == pytest.approx(found.lower, abs=1e-6)


@given(st.integers(0, 100_000))
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_a_controllers_value_is_the_sum_of_its_weights(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, len(transition), size=3)
    successor = rng.integers(0, 3, size=(3, observation.shape[2]))
    expected = controller_return(
        (transition, observation, reward, gamma), actions, successor, 1, initial, 40
    )
    controller = Controller(actions, successor, start=1)
    assert controller.value(world)[1] @ initial == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 100_000))
@settings(max_examples=10, deadline=None, suppress_health_check=SLOW)
def test_no_controller_is_worth_more_than_the_upper_bound(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    found = solve_pomdp(world, tol=1e-4, num_trials=60)
    controller = policy_graph(world, found)
    assert controller.value(world)[controller.start] @ initial <= found.upper + 1e-9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simulation_agrees_with_the_exact_value(seed):
    found = solve_pomdp(tiger(), tol=1e-6)
    controller = policy_graph(tiger(), found)
    walked = simulate(tiger(), controller, num_episodes=4000, seed=seed)
    followed = simulate(tiger(), found, num_episodes=4000, seed=seed)
    for result in (walked, followed):
        assert abs(result.mean - TIGER) < 4 / 1.96 * result.half_width + result.tail
        assert 0.2 < result.half_width < 2.0


def test_tags_lower_bound_is_reached_by_following_it():
    world = tag_avoid()
    found = solve_pomdp(world, num_trials=150, seed=0)
    assert -10.0 < found.lower < -1.829  # above the blind -20, below SARSOP's upper bound
    assert found.upper > -6.201  # above SARSOP's lower bound
    followed = simulate(world, found, num_episodes=300, seed=0)
    assert followed.mean + 2 * followed.half_width > found.lower
    assert followed.mean - 2 * followed.half_width < found.upper


def test_answers_do_not_depend_on_when_they_are_asked():
    first, second = (solve_pomdp(tag_avoid(), num_trials=30, seed=5) for _ in range(2))
    assert (first.lower, first.upper, first.nodes) == (second.lower, second.upper, second.nodes)
    assert np.array_equal(first.alphas, second.alphas)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: solve_pomdp(tiger(gamma=1.0)), "gamma = 1"),
        (lambda: solve_pomdp(tiger(), tol=0.0), "tol: 0.0"),
        (lambda: solve_pomdp(tiger(), seconds=-1), "seconds: -1"),
        (lambda: solve_pomdp(tiger(), num_trials=0), "num_trials: 0"),
        (lambda: finite_horizon_alphas(tiger(), 0), "horizon: 0"),
        (lambda: expanded_value(tiger(), EVEN, -1), "horizon: -1"),
        (lambda: expanded_value(tiger(), [0.5, 0.6], 1), "sum to 1.1"),
        (lambda: solve_pomdp(tiger()).value([1.0]), "belief: shape"),
        (lambda: Controller([0], [[1]]), "leads to 1"),
        (lambda: Controller([0.5], [[0]]), "expected .N. integers"),
        (lambda: Controller([0, 0], [[0]]), "successor: shape"),
        (lambda: Controller([0], [[0]], start=2), "start: node 2"),
        (lambda: Controller([0], [[0]]).value(tiger()), "knows 1 observations"),
        (lambda: Controller([7], [[0, 0]]).value(tiger()), "takes action 7"),
        (lambda: simulate(tiger(), Controller([0], [[0, 0]]), num_episodes=1), "num_episodes: 1"),
        (lambda: simulate(line_maze(), solve_pomdp(tiger())), "have 2 states"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
