"""REINFORCE: its gradient against the exact one, whole episodes, known optima, going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from control.closed_worlds import BRANCH_LIMIT, STAY_VALUE, Branch
from control.runs import (
    WORLDS,
    as_experience,
    assert_goes_on,
    critic_of,
    gradient_of,
    linear_logits,
    probabilities,
    slope,
    softmax,
    trained,
    trajectories,
)
from plaudit.control.reinforce import (
    REINFORCEConfig,
    fit_baseline,
    reinforce,
    reinforce_loss,
    whole_episodes,
)
from plaudit.envs.make import make_worlds
from plaudit.envs.settings import WorldSettings
from plaudit.nets.control_nets import network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import actor
from plaudit.records.spaces import ActionSpec, ObsSpec

WORLD = Branch()


def tables(seed):
    """A policy whose logits are a table of the three states, and a judge of them."""
    rng = np.random.default_rng(seed)
    obs_spec, spec = ObsSpec.vector(3), ActionSpec("discrete", (2,))
    policy = actor(obs_spec, spec, hidden=(), rng=rng, gain_out=1.0)
    return policy, network(obs_spec, 1, hidden=(), rng=rng)


def expected_gradient(policy, judge, gamma):
    """Σ over all trajectories of p(τ)·∇L(τ), by the algorithm's own loss."""
    flat = policy.net.mlp.flat
    chosen = softmax(linear_logits(flat.detach().double().numpy(), 2, 3))
    total = np.zeros(flat.numel())
    for chance, states, actions in trajectories(WORLD, BRANCH_LIMIT):
        weight = chance * chosen[states[:-1], actions].prod()
        flat.grad = None
        loss, _, _ = reinforce_loss(
            policy, judge, as_experience(WORLD, states, actions), gamma=gamma
        )
        loss.backward()
        total += weight * gradient_of(flat)
    return total


def values_by_age(chosen, beyond, gamma):
    """Q_t(s, a) of the first BRANCH_LIMIT steps, with `beyond` [S] worth of where the cut is made."""
    value, found = beyond.copy(), []
    for _ in range(BRANCH_LIMIT):
        value[2] = 0.0
        q = WORLD.reward + gamma * (WORLD.transition @ value).T
        found.insert(0, q)
        value = (chosen * q).sum(1)
    return found, value


def test_all_trajectories_have_probability_one():
    chosen = np.array([[0.3, 0.7], [0.9, 0.1], [0.5, 0.5]])
    total = sum(p * chosen[s[:-1], a].prod() for p, s, a in trajectories(WORLD, BRANCH_LIMIT))
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_expected_gradient_without_a_baseline_is_that_of_the_expected_return(seed):
    policy, _ = tables(seed)

    def worth(theta):
        chosen = softmax(linear_logits(theta, 2, 3))
        return float(WORLD.initial @ values_by_age(chosen, np.zeros(3), 1.0)[1])

    theta = policy.net.mlp.flat.detach().double().numpy()
    np.testing.assert_allclose(
        expected_gradient(policy, None, 1.0), -slope(worth, theta), atol=2e-6
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_a_baseline_changes_no_expectation_but_lends_the_cut_its_value(seed):
    """The same with V: what the cut episode goes on to is worth V there, a constant."""
    policy, judge = tables(seed)
    beyond = judge.infer(np.eye(3, dtype=np.float32))[:, 0].astype(float)

    def worth(theta):
        chosen = softmax(linear_logits(theta, 2, 3))
        return float(WORLD.initial @ values_by_age(chosen, beyond, 1.0)[1])

    theta = policy.net.mlp.flat.detach().double().numpy()
    np.testing.assert_allclose(
        expected_gradient(policy, judge, 1.0), -slope(worth, theta), atol=2e-6
    )


def test_discounting_counts_late_steps_as_early_ones():
    """Σ_t Σ_s d_t(s) Σ_a ∇π(a|s)·Q_t(s, a), with d_t undiscounted: the γ^t that is left out."""
    gamma, (policy, _) = 0.7, tables(2)
    theta = policy.net.mlp.flat.detach().double().numpy()
    logits = linear_logits(theta, 2, 3)
    chosen = softmax(logits)
    per_age, _ = values_by_age(chosen, np.zeros(3), gamma)
    of_logits, where = np.zeros((3, 2)), WORLD.initial.copy()
    for q in per_age:
        where[2] = 0.0
        mean = (chosen * q).sum(1, keepdims=True)
        of_logits += where[:, None] * chosen * (q - mean)
        where = np.einsum("s,sa,ast->t", where, chosen, WORLD.transition)
    exact = np.concatenate((of_logits.T.ravel(), of_logits.sum(0)))
    np.testing.assert_allclose(expected_gradient(policy, None, gamma), -exact, atol=2e-6)


def test_a_return_counts_only_what_comes_after_by_hand():
    """Rewards 1, −0.5, 2 (states 0, 0, 1; actions 0, 1, 1), γ = 0.5, ended: 1 − 0.25 + 0.5 = 1.25."""
    policy, judge = tables(0)
    seen = as_experience(WORLD, [0, 0, 1, 2], [0, 1, 1])
    for with_judge in (None, judge):
        _, ret, _ = reinforce_loss(policy, with_judge, seen, gamma=0.5)
        np.testing.assert_allclose(ret, [[1.25, 0.5, 2.0]])
    cut = as_experience(WORLD, [0, 0, 1, 1], [0, 1, 1])
    v = judge.infer(np.eye(3, dtype=np.float32))[1, 0]
    _, ret, _ = reinforce_loss(policy, None, cut, gamma=0.5)
    assert ret[0, 2] == 2.0
    _, ret, _ = reinforce_loss(policy, judge, cut, gamma=0.5)
    np.testing.assert_allclose(ret[0, 2], 2.0 + 0.5 * v, rtol=1e-6)


def test_more_episodes_are_a_mean_of_episodes_and_not_of_steps():
    policy, _ = tables(1)
    parts = [([0, 2], [1]), ([1, 0, 1, 0], [0, 1, 0])]
    losses = [reinforce_loss(policy, None, as_experience(WORLD, *p), gamma=1.0)[0] for p in parts]

    one, two = (as_experience(WORLD, *p) for p in parts)
    padded = {}
    for name in ("obs", "action", "reward", "terminated", "boundary", "mask"):
        short, long = getattr(one, name), getattr(two, name)
        wide = np.zeros((1, 3, *long.shape[2:]), long.dtype)
        wide[:, :1] = short
        padded[name] = np.concatenate((wide, long))
    both = type(one)(
        **padded,
        last_obs=np.concatenate((one.last_obs, two.last_obs)),
        final_at=np.array([[0, 0], [1, 2]]),
        final_obs=np.concatenate((one.final_obs, two.final_obs)),
    )
    loss, _, _ = reinforce_loss(policy, None, both, gamma=1.0)
    assert loss.item() == pytest.approx((losses[0] + losses[1]).item() / 2, rel=1e-5)


# --- whole episodes


@pytest.mark.parametrize(("num_envs", "num_episodes"), [(1, 3), (4, 2)])
def test_every_copy_plays_its_episodes_from_beginning_to_end(num_envs, num_episodes):
    """Short episodes are not favoured: each copy gives as many, whatever their lengths."""
    worlds = make_worlds(WorldSettings(env="CartPole-v1"), seed=3, num_envs=num_envs)
    rng = np.random.default_rng(0)
    seen, steps = whole_episodes(
        worlds, lambda obs: rng.integers(2, size=num_envs), num_episodes, to_env=lambda a: a
    )
    assert np.bincount([e.env for e in seen.episodes]).tolist() == [num_episodes] * num_envs
    assert seen.boundary.sum() == len(seen.final_at) == num_envs * num_episodes
    assert seen.mask.sum() == sum(e.length for e in seen.episodes) == seen.reward[seen.mask].sum()
    assert steps == seen.mask.size
    for row in range(num_envs):
        counted = np.flatnonzero(seen.mask[row])
        assert (counted == np.arange(len(counted))).all()
        assert seen.boundary[row, counted[-1]]
    worlds.close()


def test_the_baseline_learns_the_returns_that_it_is_given():
    _, judge = tables(0)
    seen = as_experience(WORLD, [0, 1, 0, 2], [0, 0, 0])
    ret = torch.tensor([[3.0, -1.0, 3.0]])
    adam = FlatAdam(judge.parameters(), lr=0.05)
    first = fit_baseline(judge, adam, seen, ret, num_steps=1)["loss/value"]
    last = fit_baseline(judge, adam, seen, ret, num_steps=400)
    assert first > 0.5
    np.testing.assert_allclose(judge.infer(seen.obs[0])[:, 0], ret[0], atol=1e-3)
    assert set(last) == {"loss/value", "val/explained_variance"}


# --- known optima


@pytest.mark.parametrize(
    ("baseline", "seed"), [("value", 0), ("value", 1), ("value", 2), ("none", 0)]
)
def test_bandit_is_solved(seed, baseline):
    config = REINFORCEConfig(
        env=WORLDS + "Bandit-v0",
        steps=8_000,
        seed=seed,
        num_envs=16,
        num_episodes=2,
        baseline=baseline,
        lr=1e-2,
        eval_every=0,
    )
    agent, _ = trained(reinforce, config)
    chosen = probabilities(agent, np.eye(3)[:2])
    assert chosen[0, 1] > 0.95
    assert chosen[1, 0] > 0.95


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truncation_bootstraps_with_the_final_observations_value(seed):
    """Stay-v0 (trap 1): who takes its time limit for an end leaves, which is worth 6, not 10."""
    config = REINFORCEConfig(
        env=WORLDS + "Stay-v0",
        steps=30_000,
        seed=seed,
        num_envs=8,
        num_episodes=2,
        gamma=0.9,
        lr=1e-2,
        eval_every=0,
    )
    agent, saved = trained(reinforce, config)
    assert agent.act(0) == 0
    value = critic_of(config, saved).infer(np.eye(2, dtype=np.float32)[:1]).item()
    assert value == pytest.approx(STAY_VALUE, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole(seed):
    config = REINFORCEConfig(steps=40_000, seed=seed, eval_every=0)
    agent, _ = trained(reinforce, config)
    assert np.mean([episode.ret for episode in agent.evaluate(20)]) >= 450


# --- going on


@pytest.mark.parametrize(
    "keys",
    [
        {"env": "CartPole-v1", "baseline": "none"},
        {"env": "CartPole-v1", "num_envs": 3, "num_episodes": 2},
        {"env": "Pendulum-v1", "normalise_obs": True, "max_episode_steps": 40},
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(keys):
    assert_goes_on(reinforce, REINFORCEConfig(steps=800, eval_every=300, eval_episodes=2, **keys))
