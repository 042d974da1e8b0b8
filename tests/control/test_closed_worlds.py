"""The closed forms of the test worlds, against planners and against slow sums."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from control.closed_worlds import (
    BANDIT_REWARD,
    REGULATOR_BOUND,
    REGULATOR_NOISE,
    STAY_CUT_VALUE,
    STAY_LIMIT,
    STAY_VALUE,
    TWO_STATE_EVEN_VALUE,
    TWO_STATE_GAMMA,
    TWO_STATE_VALUE,
    WORLDS,
    Bandit,
    Corridor,
    Recall,
    Stay,
    TwoState,
    bandit_soft_optimum,
    corridor_value,
    regulator_cost,
    regulator_optimum,
    regulator_value,
)
from plaudit.mdp import MDP
from plaudit.mdp.planning import evaluate, solve


def planned(world, gamma):
    return MDP(world.transition, world.reward, gamma, initial=world.initial)


def test_the_tables_hold_the_values_that_are_stated():
    stay = solve(planned(Stay(), 0.9))
    np.testing.assert_allclose(stay.value, [STAY_VALUE, 0.0], atol=1e-6)
    np.testing.assert_allclose(stay.q[0], [10.0, 6.0], atol=1e-6)
    two = planned(TwoState(), TWO_STATE_GAMMA)
    np.testing.assert_allclose(solve(two).value, TWO_STATE_VALUE, atol=1e-6)
    np.testing.assert_allclose(TWO_STATE_VALUE, [-8.5714, -20.0], atol=5e-5)
    even = evaluate(two, np.full((2, 2), 0.5)).value
    np.testing.assert_allclose(even, TWO_STATE_EVEN_VALUE, atol=1e-6)
    for gamma in (0.5, 0.9, 0.99):
        corridor = solve(planned(Corridor(), gamma)).value
        np.testing.assert_allclose(corridor[:-1], corridor_value(gamma), atol=1e-6)
    bandit = solve(planned(Bandit(), 0.9)).value
    np.testing.assert_allclose(bandit, [0.8, 0.9, 0.0], atol=1e-6)


def test_a_stayer_that_takes_the_cut_for_an_end_would_leave():
    values = [sum(0.9**k for k in range(left)) for left in range(STAY_LIMIT, 0, -1)]
    assert np.mean(values) == pytest.approx(STAY_CUT_VALUE, abs=1e-9)
    assert max(values) < 6.0 < STAY_VALUE


def test_no_policy_beats_the_soft_optimum_of_the_bandit():
    coef, rng = 0.3, np.random.default_rng(0)

    def worth(policy):
        return (policy * (BANDIT_REWARD - coef * np.log(policy))).sum(1)

    best = worth(bandit_soft_optimum(coef))
    for _ in range(200):
        assert (worth(rng.dirichlet(np.ones(3), size=2)) <= best + 1e-12).all()
    # The optimum's worth is the log-partition: coef·log Σ exp(r/coef).
    np.testing.assert_allclose(best, coef * np.log(np.exp(BANDIT_REWARD / coef).sum(1)))


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_the_regulator_is_solved_by_backing_up_a_grid(gamma):
    """One Bellman backup of the stated V* on a fine grid of controls gives V* and −K·x back."""
    k, p, c = regulator_optimum(gamma)
    x = np.linspace(-1.0, 1.0, 41)[:, None]
    u = np.linspace(-REGULATOR_BOUND, REGULATOR_BOUND, 60_001)[None, :]
    ahead = -(p * ((x + u) ** 2 + REGULATOR_NOISE**2) + c)
    q = -(x**2 + u**2) + gamma * ahead
    np.testing.assert_allclose(q.max(1), -(p * x[:, 0] ** 2 + c), atol=1e-7)
    np.testing.assert_allclose(u[0, q.argmax(1)], -k * x[:, 0], atol=1e-4)


def test_the_regulator_numbers_by_hand():
    k, p, c = regulator_optimum(0.9)
    assert (p, k, c) == pytest.approx((1.5884, 0.5884, 0.142956), abs=1e-5)
    assert regulator_optimum(1 - 1e-9)[1] == pytest.approx((1 + 5**0.5) / 2, abs=1e-6)
    assert regulator_value(k, 0.0, 0.9) == pytest.approx((p, c))
    worse = regulator_value(k, 0.3, 0.9)[1]
    assert worse > c


def test_the_value_of_a_noisy_gain_is_what_many_episodes_pay():
    gain, std, gamma = 0.4, 0.2, 0.8
    rng = np.random.default_rng(1)
    x, total = np.full(200_000, 0.7), np.zeros(200_000)
    for t in range(60):  # 0.8^60 < 2e-6
        u = -gain * x + std * rng.standard_normal(x.size)
        total -= gamma**t * (x**2 + u**2)
        x = x + u + REGULATOR_NOISE * rng.standard_normal(x.size)
    p, c = regulator_value(gain, std, gamma)
    error = total.std() / np.sqrt(x.size)
    assert total.mean() == pytest.approx(-(p * 0.49 + c), abs=4 * error)


@pytest.mark.parametrize("gain", [0.4, 0.5884, 0.8])
def test_the_cost_by_quadrature_is_that_of_the_closed_form(gain):
    for gamma in (0.5, 0.9):
        p, c = regulator_value(gain, 0.0, gamma)
        found = regulator_cost(lambda x: -gain * x, gamma)
        assert found == pytest.approx(p / 3 + c, abs=1e-5)  # E x_0² = 1/3


@pytest.mark.parametrize("delay", [0, 3])
def test_recall_pays_memory_and_nothing_else(delay):
    env = Recall(delay)
    returns = {"memory": [], "always 1": []}
    for policy, paid in returns.items():
        for seed in range(200):
            obs, _ = env.reset(seed=seed)
            first, total, done, length = obs[0], 0.0, False, 0
            while not done:
                obs, reward, done, cut, _ = env.step(int(first > 0) if policy == "memory" else 1)
                assert obs[0] == 0.0
                assert not cut
                total, length = total + reward, length + 1
            assert length == delay + 2
            paid.append(total)
    assert np.mean(returns["memory"]) == 1.0
    assert np.mean(returns["always 1"]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_every_world_keeps_gymnasiums_contract(name):
    env = gym.make(name)
    limit = WORLDS[name][1]
    first, _ = env.reset(seed=3)
    env.action_space.seed(3)
    for _ in range(3):
        length, done, cut = 0, False, False
        while not (done or cut):
            obs, reward, done, cut, _ = env.step(env.action_space.sample())
            assert env.observation_space.contains(obs)
            assert isinstance(reward, float)
            length += 1
        assert limit is None or length <= limit
        assert not cut or length == limit
        env.reset()
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    env.close()
