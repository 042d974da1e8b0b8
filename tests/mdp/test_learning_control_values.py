"""Learners of control reach what planners say: optimal values, or the best of the ε-greedy ones."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.mdp import MDP
from plaudit.mdp.learning import ALGORITHMS, by_visits, linear, q_learning, sarsa
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world

EPSILON = 0.3
LAM, N = {"lam": 0.7}, {"n": 3}
OFF_POLICY = [
    ("q_learning", {}),
    ("double_q_learning", {"alpha": by_visits(0.7), "num_steps": 3_000_000}),
    ("q_lambda", LAM),
    ("n_step_tree_backup", N),
]
SAID = {
    "num_steps": 1_000_000,
    "alpha": by_visits(0.8),
    "epsilon": EPSILON,
    "max_episode_steps": 30,
}
ON_POLICY = [
    ("sarsa", {}),
    ("expected_sarsa", {}),
    ("sarsa_lambda", LAM),
    ("sarsa_lambda_replacing", LAM),
    ("n_step_sarsa", N),
    ("n_step_q_sigma", {"n": 3, "sigma": 0.5}),
    ("n_step_tree_backup", {"n": 3, "target_epsilon": EPSILON}),
]


def random_world(seed, *, deterministic=False, num_states=8, num_actions=3):
    """Seven states and an end; some actions are missing; episodes begin anywhere."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(num_states, 0.4), size=(num_actions, num_states))
    if deterministic:
        p = (p == p.max(-1, keepdims=True)).astype(float)
    p[:, -1] = np.eye(num_states)[-1]
    reward = rng.normal(size=(num_states, num_actions))
    missing = rng.random(reward.shape) < 0.2
    missing[:, 0] = False
    reward[missing] = -np.inf
    reward[-1] = 0
    return MDP(p, reward, 0.9)


def best_soft_q(mdp, epsilon):
    """q of the best ε-greedy policy, by planning where the world itself slips to any action.

    Source: Sutton & Barto 2018, section 5.4 (the ε-soft world).
    """
    there = mdp.available
    share = there / there.sum(1, keepdims=True)
    p, reward = mdp.dense(), np.where(there, mdp.reward, 0)
    p_any = np.einsum("sa,asn->sn", share, p)
    r_any = (share * reward).sum(1)
    slipping = (1 - epsilon) * p + epsilon * p_any
    paid = np.where(there, (1 - epsilon) * reward + epsilon * r_any[:, None], -np.inf)
    value = solve(MDP(slipping, paid, mdp.gamma)).value
    return mdp.reward + mdp.gamma * np.einsum("asn,n->sa", p, value)


def error(found, truth, mdp):
    return np.abs(found[mdp.available] - truth[mdp.available]).max()


@pytest.mark.parametrize(("name", "own"), OFF_POLICY)
@pytest.mark.parametrize("seed", range(3))
def test_off_policy_learners_reach_the_planners_q(name, own, seed):
    """Values here reach 4.8; the greatest error of any pair is within 0.13."""
    mdp = random_world(seed)
    found = ALGORITHMS[name](mdp, seed=seed, **{**SAID, **own})
    solution = solve(mdp)
    assert error(found.q, solution.q, mdp) < 0.13
    regret = solution.value - evaluate(mdp, found.policy).value
    assert regret.max() < 0.05


@pytest.mark.parametrize(("name", "own"), ON_POLICY)
@pytest.mark.parametrize("seed", range(3))
def test_on_policy_learners_reach_the_best_exploring_policy(name, own, seed):
    mdp = random_world(seed)
    found = ALGORITHMS[name](mdp, seed=seed, **{**SAID, **own})
    assert error(found.q, best_soft_q(mdp, EPSILON), mdp) < 0.13
    assert error(best_soft_q(mdp, EPSILON), solve(mdp).q, mdp) > 0.4  # it is another goal


@pytest.mark.parametrize("seed", range(3))
def test_sarsa_whose_exploration_ends_reaches_the_optimum(seed):
    mdp = random_world(seed)
    found = sarsa(
        mdp,
        num_steps=2_000_000,
        alpha=linear(0.2, 0.002, 2_000_000),
        epsilon=linear(1.0, 0.01, 1_500_000),
        seed=seed,
        max_episode_steps=30,
    )
    regret = solve(mdp).value - evaluate(mdp, found.policy).value
    assert regret.max() < 0.05


@pytest.mark.parametrize(
    ("name", "own", "within"),
    [
        ("dyna_q", {"alpha": 1.0}, 1e-12),
        ("dyna_q_plus", {"alpha": 1.0, "kappa": 0.0}, 1e-12),
        ("prioritized_sweeping", {"theta": 1e-9}, 1e-8),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_learners_with_a_model_solve_a_deterministic_world(name, own, within, seed):
    """A residual of θ everywhere is an error of at most θ / (1 - γ)."""
    mdp = random_world(seed, deterministic=True)
    said = {"epsilon": EPSILON, "max_episode_steps": 30, **own}
    found = ALGORITHMS[name](mdp, num_steps=5000, seed=seed, **said)
    assert error(found.q, solve(mdp).q, mdp) < within


@pytest.mark.parametrize("seed", range(3))
def test_q_learning_solves_the_frozen_lake(seed):
    """V*(start) = 0.414640 on the 8×8 lake at γ = 0.99."""
    lake = world("frozenlake-8x8")
    found = q_learning(
        lake, num_steps=10_000_000, alpha=linear(0.2, 0.002, 10_000_000), epsilon=0.3, seed=seed
    )
    start = int(lake.initial.argmax())
    optimum = solve(lake).value[start]
    assert optimum == pytest.approx(0.414640, abs=5e-7)
    assert found.value[start] == pytest.approx(optimum, abs=0.01)
    assert evaluate(lake, found.policy).value[start] > 0.97 * optimum


@pytest.mark.parametrize("seed", range(3))
def test_q_learning_drives_the_taxi(seed):
    """The mean return over the starts is 7.93 at best."""
    taxi = world("taxi")
    found = q_learning(taxi, num_steps=1_500_000, alpha=1.0, epsilon=0.5, seed=seed)
    begin = taxi.initial > 0
    assert found.value[begin].mean() == pytest.approx(7.93, abs=0.005)
    assert np.allclose(found.value[begin], solve(taxi).value[begin])
