"""Distributional DQN: quantiles known in closed form, its loss against autograd, and going on."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from plaudit.agents.agent import Agent
from plaudit.control.dqn_distributional import (
    DistributionalDQNConfig,
    dqn_distributional,
    fold,
    quantile_huber_td,
    quantile_net,
    quantile_target,
)
from plaudit.envs.replay import Batch
from plaudit.nets.control_nets import load_arrays
from plaudit.nets.policies import greedy
from plaudit.records.events import Checkpoint
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece
from plaudit.records.state import part_of


class Coin(gym.Env[Any, Any]):
    """One step: action 0 pays +1 or −1, by a coin; action 1 pays 0.25."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        toss = 1.0 if self.np_random.random() < 0.5 else -1.0
        return 0, toss if action == 0 else 0.25, True, False, {}


if "PlauditTestCoin-v0" not in gym.registry:
    gym.register("PlauditTestCoin-v0", Coin)


def quantiles(num_quantiles: int, **keys: Any) -> tuple[np.ndarray, Agent]:
    """θ [A, N] in the only state of a one-state world at the end of a run, and the agent."""
    config = DistributionalDQNConfig(
        num_quantiles=num_quantiles, hidden=(), eval_every=0, learning_starts=200, **keys
    )
    *_, last = (e for e in dqn_distributional(config) if isinstance(e, Checkpoint))
    state = last.state()
    agent = Agent.from_saved(part_of(state, "agent"))
    net = quantile_net(agent.policy, num_quantiles, np.random.default_rng(0))
    load_arrays(net, part_of(state, "quantiles")[0])
    theta = net.infer(np.ones((1, 1), np.float32))
    return theta.reshape(2, num_quantiles), agent


def test_quantiles_of_a_coin():
    """The best θ for chance τ ≥ ½ has τ·(1 − θ) = (1 − τ)·1: the pull of +1, which is within κ = 1
    of θ, equals that of −1, which is not. So θ = (2τ − 1)/τ, and θ(1 − τ) = −θ(τ) by symmetry.

    N = 4 has τ = ⅛, ⅜, ⅝, ⅞, hence θ = −6/7, −2/5, 2/5, 6/7. The sure action has 0.25 four times,
    and is the better one.
    """
    theta, agent = quantiles(
        4, env="PlauditTestCoin-v0", steps=12_000, lr=0.02, epsilon_end=1.0, batch_size=256
    )
    np.testing.assert_allclose(theta[1], [0.25] * 4, atol=1e-3)
    np.testing.assert_allclose(theta[0], [-6 / 7, -2 / 5, 2 / 5, 6 / 7], atol=0.03)
    values = agent.policy.net.infer(np.ones((1, 1), np.float32))
    np.testing.assert_allclose(values[0], theta.mean(1), atol=1e-6)
    assert agent.policy.act(np.ones((1, 1), np.float32), None).tolist() == [1]


def test_loss_and_gradient_are_those_of_the_formula_by_autograd():
    rng = np.random.default_rng(0)
    theta = (2 * rng.standard_normal((6, 3, 5))).astype(np.float32)
    goal = (2 * rng.standard_normal((6, 5))).astype(np.float32)
    action, weight = rng.integers(0, 3, 6), rng.random(6).astype(np.float32)
    loss, mean, delta, grad = quantile_huber_td(theta, action, goal, weight)

    free = torch.from_numpy(theta).double().requires_grad_()
    own = free[torch.arange(6), torch.from_numpy(action)]
    u = torch.from_numpy(goal).double()[:, None, :] - own[:, :, None]
    tau = ((torch.arange(5) + 0.5) / 5).double()[None, :, None]
    huber = torch.nn.functional.huber_loss(u, torch.zeros_like(u), reduction="none")
    slow = ((tau - (u.detach() < 0).double()).abs() * huber).mean(2).sum(1)
    total = (torch.from_numpy(weight).double() * slow).mean()
    total.backward()
    assert loss == pytest.approx(total.item(), rel=1e-6)
    np.testing.assert_allclose(grad, free.grad, atol=1e-6)
    np.testing.assert_allclose(delta, own.detach().mean(1).numpy() - goal.mean(1), atol=1e-6)
    assert mean == pytest.approx(own.mean().item(), rel=1e-5)


def test_target_by_hand():
    """Two quantiles of two actions, the slow net's (1, 2) and (5, 9); the policy prefers action 0."""
    policy = greedy(
        ObsSpec.vector(1), ActionSpec("discrete", (2,)), rng=np.random.default_rng(0), hidden=()
    )
    slow = quantile_net(policy, 2, np.random.default_rng(0))
    one = np.ones((2, 1), np.float32)
    with torch.no_grad():
        slow.mlp.flat.copy_(torch.tensor([1.0, 2, 5, 9, 0, 0, 0, 0]))
        policy.net.mlp.flat.copy_(torch.tensor([3.0, 2, 0, 0]))
    ends = np.array([0.5, 0], np.float32)
    batch = Batch(one, np.zeros(2, np.int64), one[:, 0], one, ends, np.arange(2))
    np.testing.assert_allclose(quantile_target(batch, policy, slow), [[1.5, 2.0], [1, 1]])


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize("seen", ["vector", "image"])
def test_the_policys_values_are_the_means_of_the_quantiles(hidden, seen):
    image = ObsSpec((1, 12, 12), "uint8", (Piece("obs", "image", (1, 12, 12)),))
    spec = ObsSpec.vector(5) if seen == "vector" else image
    rng = np.random.default_rng(0)
    policy = greedy(spec, ActionSpec("discrete", (3,)), rng=rng, hidden=hidden)
    net = quantile_net(policy, 7, rng)
    fold(net, policy)
    obs = rng.integers(0, 255, (4, *spec.shape)).astype(spec.dtype)
    want = net.infer(obs).reshape(4, 3, 7).mean(2)
    np.testing.assert_allclose(policy.net.infer(obs), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("replay", ["uniform", "prioritised"])
def test_a_run_goes_on_bit_for_bit(replay):
    config = DistributionalDQNConfig(
        steps=400, learning_starts=50, hidden=(8,), num_quantiles=5, replay=replay, eval_every=0
    )
    saved = {
        event.step: copy.deepcopy(event.state())
        for event in dqn_distributional(config)
        if isinstance(event, Checkpoint)
    }
    for at in (30, 201, 399):
        *_, last = (
            e for e in dqn_distributional(config, saved=saved[at]) if isinstance(e, Checkpoint)
        )
        arrays, facts = last.state()
        assert facts == saved[400][1]
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, saved[400][0][name], err_msg=name)
