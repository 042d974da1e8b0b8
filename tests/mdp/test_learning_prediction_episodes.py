"""Sampling, importance sampling and Monte Carlo control against enumeration and exact values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from oracles.sampled_prediction import every_path
from plaudit.mdp import MDP
from plaudit.mdp.learning.importance import (
    ordinary_importance_sampling,
    per_decision_importance_sampling,
    ratios,
    weighted_importance_sampling,
)
from plaudit.mdp.learning.monte_carlo import first_visit_monte_carlo
from plaudit.mdp.learning.monte_carlo_control import (
    monte_carlo_control,
    monte_carlo_exploring_starts,
    off_policy_monte_carlo_control,
)
from plaudit.mdp.learning.sampling import (
    below,
    first_above,
    first_state,
    normal,
    random_word,
    seeded,
    step,
    table_of,
    uniform,
)
from plaudit.mdp.learning.temporal_difference import td_prediction
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from plaudit.records.errors import UserError

SEEDS = (0, 1, 2)


def test_the_generator_gives_the_published_numbers():
    """xoshiro256++ from the words 1, 2, 3, 4, and splitmix64 from 1234567: the authors' outputs."""
    rng = np.array([1, 2, 3, 4], dtype=np.uint64)
    assert [int(random_word(rng)) for _ in range(4)] == [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
    ]
    assert [int(w) for w in seeded(1234567)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]


def test_draws_have_their_distributions():
    rng = seeded(0)
    draws = np.array([uniform(rng) for _ in range(20_000)])
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    noise = np.array([normal(rng) for _ in range(20_000)])
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    rolls = np.bincount([below(rng, 6) for _ in range(12_000)], minlength=6)
    assert stats.chisquare(rolls).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 33, 200])
def test_the_place_of_a_draw_is_the_first_above_it(count):
    upto = np.cumsum(np.random.default_rng(count).dirichlet(np.ones(count)))
    upto[-1] = 1.0
    for draw in [0.0, *upto[:-1], *np.random.default_rng(1).random(50)]:
        assert first_above(upto, 0, count, draw) == np.searchsorted(upto, draw, side="right")


def test_steps_follow_the_table_and_never_the_impossible():
    """Zeros stored at the beginning, in the middle and at the end of a row are never drawn."""
    p = np.array([0.0, 0.06, 0.0, 0.57, 0.37, 0.0])  # its running sum ends below 1 in floats
    assert p.cumsum()[-1] < 1
    rows = sparse.csr_array((np.tile(p, 6), np.tile(np.arange(6), 6), np.arange(0, 37, 6)))
    mdp = MDP(rows, np.arange(6.0)[:, None], 0.9, initial=[0, 0, 0.25, 0, 0.75, 0])
    table, rng = table_of(mdp), seeded(4)
    assert (table.upto[3::6] < 1).all()
    assert (table.upto[4::6] == 1).all()
    drawn = np.bincount([step(table, rng, 3, 0)[0] for _ in range(9000)], minlength=6)
    assert drawn[[0, 2, 5]].sum() == 0
    assert stats.chisquare(drawn[[1, 3, 4]], 9000 * p[[1, 3, 4]]).pvalue > 1e-3
    begun = np.bincount([first_state(table, rng) for _ in range(9000)], minlength=6)
    assert set(np.flatnonzero(begun)) == {2, 4}
    assert stats.chisquare(begun[[2, 4]], [2250, 6750]).pvalue > 1e-3


def test_rewards_are_noisy_where_the_world_says_so():
    """r(s, a, s') with normal noise of its own standard deviation for each action."""
    mdp = MDP(
        [[[0.5, 0.5], [0, 1]], [[0.5, 0.5], [0, 1]]],
        [[[1.0, 3.0], [0, 0]], [[1.0, 3.0], [0, 0]]],
        0.9,
        reward_std=[[0.0, 2.0], [0.0, 0.0]],
    )
    table, rng = table_of(mdp), seeded(2)
    plain = [step(table, rng, 0, 0) for _ in range(2000)]
    assert {(after, reward) for after, reward in plain} == {(0, 1.0), (1, 3.0)}
    noise = [
        r - (1.0 if after == 0 else 3.0)
        for after, r in (step(table, rng, 0, 1) for _ in range(9000))
    ]
    assert stats.kstest(np.array(noise) / 2, "norm").pvalue > 1e-3


def test_an_end_that_is_stored_but_impossible_does_not_end_episodes():
    rows = sparse.csr_array(
        (np.array([1.0, 0.0, 1.0]), np.array([0, 1, 1]), np.array([0, 2, 3])), shape=(2, 2)
    )
    mdp = MDP(rows, [[1.0], [0.0]], 0.9)
    with pytest.raises(UserError, match="state 0 never ends"):
        td_prediction(mdp, [0, 0], num_episodes=1)


def test_a_trap_that_is_stored_but_impossible_is_no_trap():
    """s0 ends; its stored way to s1, which is never left and pays, has probability 0."""
    rows = sparse.csr_array(
        (np.array([0.0, 1.0, 1.0, 1.0]), np.array([1, 2, 1, 2]), np.array([0, 2, 3, 4])),
        shape=(3, 3),
    )
    mdp = MDP(rows, [[1.0], [1.0], [0.0]], 0.9, initial=[1.0, 0, 0])
    assert td_prediction(mdp, [0, 0, 0], num_episodes=4).num_steps == 4


def two_steps():
    """s0 → s1 or s2 → end, two actions each, all rewards different; target and behaviour."""
    transition = np.zeros((2, 4, 4))
    transition[0, 0, 1:3] = 0.5, 0.5
    transition[1, 0, 1:3] = 0.1, 0.9
    transition[:, 1:, 3] = 1
    reward = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0], [0.0, 0.0]])
    target = np.array([[0.3, 0.7], [0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    behaviour = np.array([[0.6, 0.4], [0.5, 0.5], [0.7, 0.3], [0.5, 0.5]])
    mdp = MDP(transition, reward, 0.8, initial=[1.0, 0, 0, 0])
    return mdp, transition, reward, target, behaviour


def test_importance_sampling_is_exact_on_every_path():
    """E_b[ρG] over the eight paths is v_π, and the estimates are within 4 standard errors of it."""
    mdp, transition, reward, target, behaviour = two_steps()
    paths = every_path(transition, reward, mdp.terminal, 0, behaviour, 2)
    assert len(paths) == 8
    assert np.isclose(sum(p for p, *_ in paths), 1)
    ratio = ratios(mdp, target, behaviour)
    assert np.allclose(ratio[:3], (target / behaviour)[:3])
    first = second = per_decision = per_decision_square = 0.0
    for p, states, actions, paid in paths:
        rho = np.array(
            [target[s, a] / behaviour[s, a] for s, a in zip(states, actions, strict=False)]
        )
        whole = rho.prod() * (paid[0] + mdp.gamma * paid[1])
        stepwise = rho[0] * (paid[0] + mdp.gamma * rho[1] * paid[1])
        first, second = first + p * whole, second + p * whole**2
        per_decision += p * stepwise
        per_decision_square += p * stepwise**2
    truth = evaluate(mdp, target).value[0]
    assert np.isclose(first, truth)
    assert np.isclose(per_decision, truth)
    same = {"num_episodes": 100_000}
    for seed in SEEDS:
        plain = ordinary_importance_sampling(mdp, target, behaviour, seed=seed, **same)
        error = np.sqrt((second - first**2) / 100_000)
        assert abs(plain.value[0] - truth) < 4 * error
        stepped = per_decision_importance_sampling(mdp, target, behaviour, seed=seed, **same)
        error = np.sqrt((per_decision_square - per_decision**2) / 100_000)
        assert abs(stepped.value[0] - truth) < 4 * error
        weighted = weighted_importance_sampling(mdp, target, behaviour, seed=seed, **same)
        assert np.abs(weighted.value - evaluate(mdp, target).value).max() < 0.05
        # the weights of s0 average to one; those of s1 are the ratios of its one step
        assert abs(weighted.weight[0] / 100_000 - 1) < 0.05


@pytest.mark.parametrize(
    "learner",
    [
        ordinary_importance_sampling,
        per_decision_importance_sampling,
        weighted_importance_sampling,
    ],
)
def test_importance_sampling_in_two_parts_is_the_whole(learner):
    mdp, _, _, target, behaviour = two_steps()
    same = {"trace_every": 7}
    whole = learner(mdp, target, behaviour, num_episodes=100, seed=1, **same)
    part = learner(mdp, target, behaviour, num_episodes=50, seed=1, **same)
    both = learner(mdp, target, behaviour, num_episodes=50, start=part, **same)
    for field in ("value", "counts", "rng", "trace"):
        assert np.array_equal(getattr(whole, field), getattr(both, field)), field


@pytest.mark.parametrize("seed", SEEDS)
def test_importance_sampling_counts_first_visits(seed):
    """On the policy's own episodes every ratio is 1, and all is first-visit Monte Carlo."""
    maze = small_maze()
    policy, behaviour = np.tile([0.1, 0.9], (5, 1)), np.tile([0.4, 0.6], (5, 1))
    plain = first_visit_monte_carlo(maze, policy, num_episodes=200, seed=seed)
    other = first_visit_monte_carlo(maze, behaviour, num_episodes=200, seed=seed)
    for learner in (
        ordinary_importance_sampling,
        per_decision_importance_sampling,
        weighted_importance_sampling,
    ):
        same = learner(maze, policy, policy, num_episodes=200, seed=seed)
        assert np.allclose(same.value, plain.value, atol=1e-12)
        off = learner(maze, policy, behaviour, num_episodes=200, seed=seed)
        assert np.array_equal(off.counts, other.counts)


def test_control_averages_first_visits():
    """A state left with probability 0.2, each step pays 1: the first return is the whole length."""
    mdp = MDP([[[0.8, 0.2], [0.0, 1.0]]], [[1.0], [0.0]], 1.0)
    for found in (
        monte_carlo_exploring_starts(mdp, num_episodes=100, seed=1),
        monte_carlo_control(mdp, num_episodes=100, epsilon=0.1, seed=1),
    ):
        assert found.counts[0, 0] == 100
        assert found.q[0, 0] == pytest.approx(found.num_steps / 100)
        assert found.num_steps > 200


def test_the_first_weighted_estimate_is_the_return_itself():
    """Weighted by one weight alone the estimate is G; ordinary it is ρG (S&B section 5.5)."""
    mdp, _, reward, target, behaviour = two_steps()
    one = weighted_importance_sampling(mdp, target, behaviour, num_episodes=1, seed=3)
    returns = {r1 + mdp.gamma * r2 for r1 in reward[0] for s in (1, 2) for r2 in reward[s]}
    assert min(abs(one.value[0] - g) for g in returns) < 1e-12
    plain = ordinary_importance_sampling(mdp, target, behaviour, num_episodes=1, seed=3)
    assert np.isclose(plain.value[0], one.weight[0] * one.value[0])


def small_maze():
    """Four cells in a row, left and right with a tenth of slipping back; a step costs 1."""
    transition = np.zeros((2, 5, 5))
    for s in range(4):
        left = max(s - 1, 0)
        for action, (ahead, slip) in enumerate(((left, s + 1), (s + 1, left))):
            transition[action, s, ahead] += 0.9
            transition[action, s, slip] += 0.1
    transition[:, 4, 4] = 1
    reward = np.full((5, 2), -1.0)
    reward[4] = 0
    return MDP(transition, reward, 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_control_by_episodes_finds_the_best_policy(seed):
    maze = small_maze()
    best = solve(maze)
    starts = monte_carlo_exploring_starts(maze, num_episodes=20_000, seed=seed)
    soft = monte_carlo_control(maze, num_episodes=20_000, epsilon=0.1, seed=seed)
    off = off_policy_monte_carlo_control(maze, num_episodes=400_000, seed=seed)
    for found in (starts, soft, off):
        assert (found.policy[:4] == 1).all()
    # at the start the return was that of worse policies, which the average still holds
    assert np.abs(starts.value - best.value).max() < 0.2
    assert np.abs(off.value[:4] - best.value[:4]).max() < 0.1
    epsilon_soft = np.tile([0.05, 0.95], (5, 1))
    assert np.abs(soft.value - evaluate(maze, epsilon_soft).value).max() < 0.3


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        (monte_carlo_exploring_starts, {}),
        (monte_carlo_control, {"epsilon": 0.2}),
        (off_policy_monte_carlo_control, {}),
    ],
)
def test_control_in_two_parts_is_the_whole(learner, options):
    maze = small_maze()
    whole = learner(maze, num_episodes=100, seed=6, **options)
    part = learner(maze, num_episodes=50, seed=6, **options)
    both = learner(maze, num_episodes=50, start=part, **options)
    for field in ("q", "policy", "counts", "weight", "rng"):
        assert np.array_equal(getattr(whole, field), getattr(both, field)), field
    assert (whole.num_steps, whole.num_cut) == (both.num_steps, both.num_cut)


def test_a_policy_that_walks_in_circles_is_cut_and_counted():
    """From the first action, left for ever, exploring starts can only learn from cut episodes."""
    transition = np.zeros((2, 4, 4))
    for s in range(3):
        transition[0, s, max(s - 1, 0)] = transition[1, s, s + 1] = 1
    transition[:, 3, 3] = 1
    reward = np.full((4, 2), -1.0)
    reward[3] = 0
    found = monte_carlo_exploring_starts(
        MDP(transition, reward, 1.0), num_episodes=300, seed=0, max_steps=50
    )
    assert 0 < found.num_cut < 100
    assert found.policy[:3].tolist() == [1, 1, 1]


def test_actions_that_do_not_exist_are_not_taken():
    gambler = world("gambler")
    found = off_policy_monte_carlo_control(gambler, num_episodes=2000, seed=0, max_steps=500)
    assert (found.counts[~gambler.available] == 0).all()
    assert np.isneginf(found.q[~gambler.available]).all()
    assert found.num_steps > 0


def test_bad_control_input_is_told_in_one_sentence():
    mdp, _, _, target, behaviour = two_steps()
    maze = small_maze()
    narrow = behaviour.copy()
    narrow[1] = 1.0, 0.0
    part = monte_carlo_control(maze, num_episodes=1, epsilon=0.1)
    weighted, starts = weighted_importance_sampling, monte_carlo_exploring_starts
    for function, given, options, message in (
        (
            weighted,
            (mdp, target, narrow),
            {},
            "behaviour: state 1, action 1 has probability 0, but",
        ),
        (off_policy_monte_carlo_control, (mdp, narrow), {}, "behaviour: state 1, action 1 has"),
        (monte_carlo_control, (maze,), {"epsilon": 1.5}, "epsilon: 1.5; expected a number from 0"),
        (starts, (maze,), {"max_steps": 0}, "max_steps: 0; expected a whole"),
        (
            starts,
            (maze,),
            {"start": part, "start_policy": [1] * 5},
            "start_policy: `start` already",
        ),
        (starts, (mdp,), {"start": part}, r"start: q of shape \(5, 2\); expected \(4, 2\)"),
        (starts, (MDP(np.eye(2)[None], [0.0, 0.0], 0.9),), {}, "every state is terminal"),
    ):
        with pytest.raises(UserError, match=message):
            function(*given, num_episodes=1, **options)
