"""Planners against enumeration, against each other, and against their own certified bounds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from oracles.finite import best_by_enumeration, best_total_reward, exact_chain, policy_value
from plaudit.mdp import MDP, MRP
from plaudit.mdp.planning import (
    METHODS,
    evaluate,
    finite_horizon,
    linear_programme,
    relative_value_iteration,
    solve,
)
from plaudit.records.errors import UserError

UNDISCOUNTED = ("auto", "ordered_policy_iteration", "gauss_seidel", "value_iteration")


def random_world(seed, *, num_states=None, gamma=None, as_sparse=False):
    """A world with absorbing, unreachable and tied parts, missing actions and rare moves."""
    rng = np.random.default_rng(seed)
    num_states = num_states or int(rng.integers(1, 7))
    num_actions = int(rng.integers(1, 4))
    transition = rng.dirichlet(np.full(num_states, 0.3), size=(num_actions, num_states))
    transition[transition < 1e-2] = 0
    transition /= transition.sum(-1, keepdims=True)
    reward = rng.integers(-2, 3, size=(num_states, num_actions)).astype(float)
    for s in range(num_states):
        kind = rng.random()
        if kind < 0.15:  # absorbing and unpaid
            transition[:, s] = np.eye(num_states)[s]
            reward[s] = 0
        elif kind < 0.3:  # all actions alike
            transition[:, s] = transition[0, s]
            reward[s] = reward[s, 0]
        elif kind < 0.5 and num_actions > 1:
            reward[s, rng.integers(num_actions)] = -np.inf
    if gamma is None:
        gamma = float(rng.choice([0.0, 0.3, 0.9, 0.99]))
    if as_sparse:
        return transition, reward, MDP([sparse.csr_array(t) for t in transition], reward, gamma)
    return transition, reward, MDP(transition, reward, gamma)


@given(st.integers(0, 100_000), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_all_planners_are_within_their_bounds_of_the_truth(seed, as_sparse):
    transition, reward, world = random_world(seed, as_sparse=as_sparse)
    truth = best_by_enumeration(transition, reward, world.gamma)
    for method in METHODS:
        found = solve(world, method, tol=1e-9)
        assert found.bound <= 1e-9, method
        assert np.abs(found.value - truth).max() <= found.bound + 1e-12, method
        assert np.allclose(found.q.max(1), found.value, atol=1e-12)
        own = policy_value(transition, reward, world.gamma, found.policy)
        assert (own >= found.value - found.bound - 1e-12).all(), method


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["auto", "value_iteration", "modified_policy_iteration"])
def test_the_bound_holds_while_it_is_still_loose(seed, method):
    """With a loose tolerance the error is real, and still within what is claimed."""
    _, _, world = random_world(seed + 50, num_states=300, gamma=0.97)
    truth = solve(world, "policy_iteration", tol=1e-7).value
    for tol in (10.0, 1.0, 1e-2, 1e-4):
        found = solve(world, method, tol=tol)
        assert np.abs(found.value - truth).max() <= found.bound + 1e-8
        assert found.bound <= tol


def test_the_same_world_is_solved_in_the_same_steps(monkeypatch):
    """Whatever stands in the memory that the planner is given."""
    _, _, world = random_world(50, num_states=300, gamma=0.97)
    found = [
        solve(world, "modified_policy_iteration", tol=1e-6)
    ]  # compiled before np.empty is ours
    for left_behind in (-1, 0, 2):
        monkeypatch.setattr(np, "empty", partial(filled, left_behind))
        found.append(solve(world, "modified_policy_iteration", tol=1e-6))
    assert len({one.iterations for one in found}) == 1
    assert all(np.array_equal(one.value, found[0].value) for one in found)


def test_a_solution_says_which_planner_auto_took():
    """By hand from what it is documented to choose: size, how fast the world mixes, and γ = 1."""
    small, fast = (random_world(9, num_states=n, gamma=0.9)[2] for n in (20, 300))
    assert solve(small).method == "policy_iteration"
    assert solve(fast).method == "modified_policy_iteration"
    assert solve(maze(20, 0.2, 0.999), tol=1e-6).method == "ordered_policy_iteration"
    assert solve(maze(4, 0.2, 1.0)).method == "ordered_policy_iteration"
    assert solve(small, "value_iteration").method == "value_iteration"


def filled(left_behind, shape, dtype=np.float64):
    """What np.empty may give."""
    return np.full(shape, left_behind).astype(dtype)


def maze(size, noise, gamma, seed=0, step=-1.0):
    """A square room with walls; a move slips sideways; the last cell ends."""
    rng = np.random.default_rng(seed)
    wall = rng.random((size, size)) < 0.2
    wall[0, 0] = wall[-1, -1] = False
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    count = size * size
    parts = []
    for a in range(4):
        matrix = np.zeros((count, count))
        for r in range(size):
            for c in range(size):
                s = r * size + c
                if s == count - 1:
                    matrix[s, s] = 1
                    continue
                for move, p in ((a, 1 - noise), ((a + 1) % 4, noise / 2), ((a - 1) % 4, noise / 2)):
                    y, x = r + moves[move][0], c + moves[move][1]
                    inside = 0 <= y < size and 0 <= x < size and not wall[y, x]
                    matrix[s, y * size + x if inside else s] += p
        parts.append(sparse.csr_array(matrix))
    reward = np.full((count, 4), step)
    reward[-1] = 0
    return MDP(parts, reward, gamma)


def test_planners_agree_on_a_maze_where_auto_changes_its_way():
    world = maze(20, 0.2, 0.999)
    truth = solve(world, "policy_iteration", tol=1e-6)
    for method in METHODS:
        found = solve(world, method, tol=1e-6)
        assert np.abs(found.value - truth.value).max() <= found.bound + truth.bound, method
    assert solve(world, tol=1e-6).iterations < 60


def test_one_state_that_pays_for_ever():
    """V = r / (1 - γ)."""
    for gamma in (0.0, 0.5, 0.999):
        found = solve(MDP(np.ones((1, 1, 1)), [[2.0]], gamma), "value_iteration", tol=1e-8)
        assert found.value[0] == pytest.approx(2 / (1 - gamma), abs=found.bound + 1e-15)
        assert found.iterations <= 2  # the span of one state is nothing at once


def test_a_terminal_state_is_worth_exactly_nothing():
    world = maze(6, 0.3, 0.9)
    for method in METHODS:
        found = solve(world, method)
        assert found.value[-1] == 0.0
        assert (found.q[-1] == 0.0).all()
    assert evaluate(world, found.policy, method="iterative").value[-1] == 0.0


def test_puterman_two_states():
    """Puterman 1994, example 3.1.1 with γ = 0.95: V* = (-8.5714, -20)."""
    transition = np.array([[[0.5, 0.5], [0, 1]], [[0, 1], [0, 1]]])
    world = MDP(transition, [[5, 10], [-1, -np.inf]], 0.95)
    for method in METHODS:
        assert np.allclose(solve(world, method).value, [-8.571428571, -20], atol=1e-8)


def test_a_linear_programmes_dual_is_the_time_spent():
    transition, _, world = random_world(11, num_states=6, gamma=0.9)
    solution, occupancy = linear_programme(world)
    alpha = 0.9 * world.initial + 0.1 / 6
    assert occupancy.sum() == pytest.approx(10, abs=1e-7)
    earned = (occupancy * np.where(world.available, world.reward, 0)).sum()
    assert earned == pytest.approx(alpha @ solution.value, abs=1e-7)
    flow = occupancy.sum(1) - 0.9 * np.einsum("ast,sa->t", transition, occupancy)
    assert np.allclose(flow, alpha, atol=1e-9)


# --- chains


def test_a_chain_equals_exact_fractions():
    from fractions import Fraction

    half = Fraction(1, 2)
    chain = [[half, half, 0], [0, half, half], [Fraction(1, 4), Fraction(1, 4), half]]
    rewards = [1, -2, 3]
    exact = exact_chain(chain, rewards, Fraction(9, 10))
    world = MRP(np.array(chain, dtype=float), rewards, 0.9)
    for method in ("direct", "iterative"):
        found = evaluate(world, method=method)
        assert np.abs(found.value - np.array(exact, dtype=float)).max() <= found.bound
        assert found.bound < 1e-9


@pytest.mark.parametrize("method", ["direct", "iterative"])
def test_the_random_walk_is_k_over_six(method):
    """Sutton & Barto 2018, example 6.2: V(k) = k / 6, undiscounted."""
    transition = np.zeros((7, 7))
    transition[0, 0] = transition[6, 6] = 1
    reward = np.zeros(7)
    for s in range(1, 6):
        transition[s, s - 1] = transition[s, s + 1] = 0.5
    reward[5] = 0.5
    found = evaluate(MRP(transition, reward, 1.0), method=method)
    assert np.allclose(found.value[1:6], np.arange(1, 6) / 6, atol=1e-9)
    assert np.abs(found.value[1:6] - np.arange(1, 6) / 6).max() <= found.bound + 1e-15


def test_a_chain_that_pays_for_ever_is_refused():
    with pytest.raises(UserError, match="gamma = 1: state 1 is never left and pays 3 each time"):
        evaluate(MRP([[0.5, 0.5], [0, 1]], [1, 3], 1.0))


@given(st.integers(0, 100_000))
@settings(max_examples=30, deadline=None)
def test_evaluation_of_a_policy_by_both_methods(seed):
    transition, reward, world = random_world(seed)
    policy = world.reward.argmax(1)
    truth = policy_value(transition, reward, world.gamma, policy)
    for method in ("direct", "iterative"):
        found = evaluate(world, policy, method=method)
        assert np.abs(found.value - truth).max() <= found.bound + 1e-12
        q = world.reward + world.gamma * np.einsum("ast,t->sa", transition, truth)
        assert np.allclose(found.q, q, atol=1e-8)


def test_large_systems_are_solved_without_a_factorisation_of_everything():
    rng = np.random.default_rng(0)
    count = 20_000
    columns = rng.integers(count, size=(count, 4))
    data = rng.dirichlet(np.ones(4), size=count)
    chain = sparse.csr_array((data.ravel(), (np.repeat(np.arange(count), 4), columns.ravel())))
    reward = rng.normal(size=count)
    found = evaluate(MRP(chain, reward, 0.99))
    assert found.bound < 1e-8
    assert np.allclose(found.value - 0.99 * (chain @ found.value), reward, atol=1e-9)
    iterative = evaluate(MRP(chain, rng.normal(size=count), 0.9), method="iterative", tol=1e-9)
    assert iterative.bound <= 1e-9


# --- γ = 1


def corridor():
    """Four cells; walking costs one; the last ends; waiting is free in the first."""
    transition = np.zeros((2, 4, 4))
    for s in range(3):
        transition[0, s, s + 1] = 1
        transition[1, s, s] = 1
    transition[:, 3, 3] = 1
    reward = np.array([[-1.0, 0.0], [-1.0, -1.0], [-1.0, -2.0], [0.0, 0.0]])
    return transition, reward


@pytest.mark.parametrize("method", UNDISCOUNTED)
def test_waiting_for_nothing_is_better_than_paying(method):
    """V = (0, -2, -1, 0): in the first cell one stays, unpaid, for ever."""
    found = solve(MDP(*corridor(), 1.0), method)
    assert np.allclose(found.value, [0, -2, -1, 0], atol=1e-9)
    assert found.bound <= 1e-8
    assert found.policy.tolist()[:3] == [1, 0, 0]


@pytest.mark.parametrize("method", UNDISCOUNTED)
def test_ties_do_not_keep_a_policy_from_ending(method):
    """A prize of one at the end, moves free: every cell is worth 1, staying looks as good."""
    transition, _ = corridor()
    reward = np.zeros((4, 2))
    reward[2, 0] = 1.0
    world = MDP(transition, reward, 1.0)
    found = solve(world, method)
    assert np.allclose(found.value, [1, 1, 1, 0])
    assert np.allclose(evaluate(world, found.policy).value, [1, 1, 1, 0])


def frozen_lake(gamma):
    """The 8×8 lake: thirds of a chance for the move and its two neighbours; a prize at the goal."""
    lake = ("SFFFFFFF FFFFFFFF FFFHFFFF FFFFFHFF FFFHFFFF FHHFFFHF FHFFHFHF FFFHFFFG").replace(
        " ", ""
    )
    moves = [(0, -1), (1, 0), (0, 1), (-1, 0)]
    transition, paid = np.zeros((4, 64, 64)), np.zeros((4, 64, 64))
    for s, cell in enumerate(lake):
        for a in range(4):
            if cell in "HG":
                transition[a, s, s] = 1
                continue
            for move in (a - 1, a, a + 1):
                dy, dx = moves[move % 4]
                y, x = min(max(s // 8 + dy, 0), 7), min(max(s % 8 + dx, 0), 7)
                transition[a, s, y * 8 + x] += 1 / 3
                paid[a, s, y * 8 + x] = lake[y * 8 + x] == "G"
    transition /= transition.sum(-1, keepdims=True)
    return MDP(transition, paid, gamma)


def test_frozen_lake_with_and_without_discount():
    """V*(start) = 0.414640 at γ = 0.99 and 1 at γ = 1; the greedy policy must reach the goal."""
    assert solve(frozen_lake(0.99)).value[0] == pytest.approx(0.414640, abs=5e-7)
    world = frozen_lake(1.0)
    found = solve(world)
    assert found.value[0] == pytest.approx(1.0, abs=1e-8)
    assert found.bound <= 1e-8
    own = evaluate(world, found.policy).value
    assert np.abs(own - found.value).max() <= found.bound + 1e-9
    first = np.flatnonzero(found.q[0] >= found.q[0].max() - 1e-9)
    assert first.size > 1  # the tie that a first-index policy falls into
    lazy = found.q.round(9).argmax(1)
    assert evaluate(world, lazy).value[0] < 0.5


@given(st.integers(0, 100_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_at_gamma_one_the_value_is_the_limit_of_long_horizons(seed):
    """Episodes that end surely: within 400 steps nearly all of the reward has been had."""
    rng = np.random.default_rng(seed)
    num_states = int(rng.integers(2, 6))
    transition = rng.dirichlet(np.full(num_states, 0.5), size=(2, num_states))
    transition = 0.85 * transition
    transition[..., -1] += 0.15  # every step may end
    transition[:, -1] = np.eye(num_states)[-1]
    reward = rng.integers(-3, 4, size=(num_states, 2)).astype(float)
    reward[-1] = 0
    world = MDP(transition, reward, 1.0)
    truth = best_total_reward(transition, reward, 400)
    for method in UNDISCOUNTED:
        found = solve(world, method, tol=1e-9)
        assert found.bound <= 1e-9
        assert np.abs(found.value - truth).max() <= found.bound + 1e-9
        own = evaluate(world, found.policy).value
        assert (own >= found.value - found.bound - 1e-10).all()


def test_worlds_without_an_end_are_refused_at_gamma_one():
    transition = np.zeros((1, 3, 3))
    transition[0, 0, 1] = transition[0, 1, 0] = transition[0, 2, 2] = 1
    with pytest.raises(UserError, match="gamma = 1: no policy surely ends from state 0"):
        solve(MDP(transition, [-1.0, -1.0, 0.0], 1.0))
    both = np.zeros((2, 3, 3))
    both[0, 0, 1] = both[0, 1, 0] = 1
    both[1, :, 2] = 1
    both[:, 2] = [0, 0, 1]
    with pytest.raises(UserError, match="can stay near state 0 for ever without"):
        solve(MDP(both, [[1, 0], [0.5, 0], [0, 0]], 1.0))
    with pytest.raises(UserError, match="for ever without"):
        solve(MDP(both, [[1, 0], [-1, 0], [0, 0]], 1.0))
    assert np.allclose(solve(MDP(both, [[1, 0], [-1.5, 0], [0, 0]], 1.0)).value, [1, 0, 0])


def test_methods_that_need_a_discount_say_so():
    with pytest.raises(
        UserError, match="topological needs gamma < 1; at gamma = 1 use one of auto"
    ):
        solve(MDP(*corridor(), 1.0), "topological")
    with pytest.raises(UserError, match=r"no method 'value_iterations' \(did you mean"):
        solve(MDP(*corridor(), 0.9), "value_iterations")
    with pytest.raises(UserError, match="tol: 0; expected a number above 0"):
        solve(MDP(*corridor(), 0.9), tol=0)
    with pytest.raises(UserError, match="linear_programme needs gamma < 1"):
        linear_programme(MDP(*corridor(), 1.0))


def test_a_tolerance_beyond_floats_is_told():
    _, _, world = random_world(5, num_states=30, gamma=0.9)
    with pytest.warns(UserWarning, match="above tol = 1e-300"):
        found = solve(world, "value_iteration", tol=1e-300)
    truth = solve(world, "policy_iteration", tol=1e-9).value
    assert np.abs(found.value - truth).max() <= found.bound + 1e-11


# --- other criteria


@pytest.mark.parametrize("seed", range(5))
def test_a_finite_horizon_is_plain_backward_recursion(seed):
    transition, reward, world = random_world(seed, gamma=1.0)
    plan = finite_horizon(world, 7)
    assert np.allclose(plan.value[0], best_total_reward(transition, reward, 7), atol=1e-12)
    assert np.allclose(plan.value[5], best_total_reward(transition, reward, 2), atol=1e-12)
    assert plan.policy.shape == (7, world.num_states)


def test_frozen_lake_within_two_hundred_steps():
    """The best chance of reaching the goal in 200 steps is 0.913220."""
    assert finite_horizon(frozen_lake(1.0), 200).value[0, 0] == pytest.approx(0.913220, abs=5e-7)


def test_the_average_reward_of_a_ring_and_of_the_discounted_limit():
    ring = np.zeros((1, 3, 3))
    for s in range(3):
        ring[0, s, (s + 1) % 3] = 1
    found = relative_value_iteration(MDP(ring, [3.0, 0.0, 0.0], 0.9))
    assert found.gain == pytest.approx(1.0, abs=found.bound)
    assert np.allclose(found.bias - found.bias[0], [0, -2, -1], atol=1e-6)
    rng = np.random.default_rng(2)
    transition = rng.dirichlet(np.ones(6), size=(3, 6))
    reward = rng.normal(size=(6, 3))
    world = MDP(transition, reward, 0.99999)
    found = relative_value_iteration(world)
    limit = (1 - 0.99999) * solve(world, tol=1e-4).value
    assert np.allclose(limit, found.gain, atol=1e-4)
    stationary = world.under(found.policy).transition.toarray()
    spent = np.linalg.matrix_power(stationary, 200)[0]
    assert spent @ reward[np.arange(6), found.policy] == pytest.approx(found.gain, abs=1e-9)


def test_two_closed_halves_have_no_single_gain():
    with pytest.raises(UserError, match="the reward per step differs between states"):
        relative_value_iteration(MDP(np.eye(2)[None], [0.0, 1.0], 0.9), max_sweeps=5000)
