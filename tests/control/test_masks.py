"""Masks of actions: exact probabilities, targets by hand, optima of masked worlds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from control.masked_worlds import Maze, Mirage, optimal_values
from control.runs import probabilities, trained
from plaudit.agents.actor_critic import by_logits
from plaudit.agents.q_values import (
    HEADS,
    double_q_target,
    epsilon_greedy,
    q_target,
    q_values,
    traced_q_values,
)
from plaudit.control.dqn import DQNConfig, dqn
from plaudit.control.dqn_distributional import quantile_net, quantile_target
from plaudit.control.ppo import PPOConfig, ppo
from plaudit.control.sac_discrete import LOG_NONE, Learner, SACDiscreteConfig, log_softmax
from plaudit.envs.replay import Batch
from plaudit.nets.fused_losses import ppo_terms
from plaudit.nets.policies import actor, greedy
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

WORLDS = str(Path(__file__).with_name("masked_worlds.py")) + ":"


def masked_spec(num_numbers: int, num_actions: int) -> ObsSpec:
    pieces = (
        Piece("obs", "vector", (num_numbers,)),
        Piece("action_mask", "mask", (num_actions,)),
    )
    return ObsSpec((num_numbers + num_actions,), "float32", pieces)


def masked_rows(rng, num_rows, num_numbers, sizes):
    """Observations with masks of which each choice has at least one action."""
    masks = []
    for size in sizes:
        mask = rng.random((num_rows, size)) < 0.5
        mask[np.arange(num_rows), rng.integers(0, size, num_rows)] = True
        masks.append(mask)
    numbers = rng.standard_normal((num_rows, num_numbers))
    return np.concatenate([numbers, *masks], 1).astype(np.float32)


def exact(logits, mask, action, sizes):
    """log π(a) and H [B] in float64, each row over its allowed actions alone."""
    logp, entropy = np.zeros(len(logits)), np.zeros(len(logits))
    begin = 0
    for k, size in enumerate(sizes):
        for row in range(len(logits)):
            open_ = np.flatnonzero(mask[row, begin : begin + size])
            own = logits[row, begin + open_].astype(np.float64)
            weight = np.exp(own - own.max())
            pi = weight / weight.sum()
            logp[row] += math.log(pi[list(open_).index(action[row, k])])
            entropy[row] -= float((pi * np.log(pi)).sum())
        begin += size
    return logp, entropy


# --- probabilities


@pytest.mark.parametrize("sizes", [(6,), (3, 4)])
def test_probabilities_and_entropy_are_those_of_the_allowed_actions_alone(sizes):
    """Against float64 over the allowed; what is barred has probability 0, and no gradient at all."""
    rng = np.random.default_rng(0)
    kind = "discrete" if len(sizes) == 1 else "multi_discrete"
    spec = masked_spec(4, sum(sizes))
    policy = actor(spec, ActionSpec(kind, sizes), rng=rng, hidden=(8,), gain_out=3.0)
    open_policy = actor(
        ObsSpec.vector(4), ActionSpec(kind, sizes), rng=rng, hidden=(8,), gain_out=3.0
    )
    open_policy.load_state_dict(policy.state_dict())
    obs = masked_rows(rng, 200, 4, sizes)
    mask = obs[:, 4:] != 0
    action = policy.act(obs, rng)
    columns = action.reshape(200, -1)
    logits = open_policy.net.infer(obs[:, :4])
    logp, entropy = exact(logits, mask, columns, sizes)

    params = policy.net.infer(obs)
    assert (params[~mask] == -np.inf).all()
    assert np.array_equal(params[mask], logits[mask])
    tensor = torch.from_numpy(params).requires_grad_()
    np.testing.assert_allclose(
        policy.head.logp(tensor, torch.from_numpy(action)).detach(), logp, atol=2e-6
    )
    found = policy.head.entropy(tensor)
    np.testing.assert_allclose(found.detach(), entropy, atol=2e-6)
    (of_params,) = torch.autograd.grad(found.sum(), tensor)
    assert (of_params[torch.from_numpy(~mask)] == 0).all()
    assert of_params.isfinite().all()

    adv = rng.standard_normal(200).astype(np.float32)
    old = logp.astype(np.float32)
    terms = ppo_terms(
        policy.head, params, action, old, adv, clip_low=0.2, clip_high=0.2, entropy_coef=0.3
    )
    assert terms.numbers.entropy == pytest.approx(entropy.mean(), abs=1e-6)
    assert terms.numbers.policy == pytest.approx(-adv.mean(), abs=1e-5)  # all ratios are 1
    assert (terms.grad[~mask] == 0).all()
    assert np.isfinite(terms.grad).all()
    if len(sizes) == 1:
        share = np.full(200, 1 / 200, np.float32)
        grad, _, spread = by_logits(params, action, adv, share, 0.3)
        assert spread == pytest.approx(entropy.mean(), abs=1e-6)
        np.testing.assert_allclose(grad, terms.grad, atol=1e-6)
        assert (grad[~mask] == 0).all()


def test_draws_follow_the_allowed_probabilities():
    rng = np.random.default_rng(1)
    policy = actor(masked_spec(2, 4), ActionSpec("discrete", (4,)), rng=rng, gain_out=2.0)
    row = np.array([[0.3, -0.2, 0, 1, 1, 0]], np.float32)
    drawn = policy.act(np.repeat(row, 40_000, 0), rng)
    logits = policy.net.infer(row)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    found = np.bincount(drawn, minlength=4) / len(drawn)
    assert found[[0, 3]].tolist() == [0, 0]
    # Four deviations of a frequency over 40,000 draws.
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / math.sqrt(40_000))
    assert policy.act(row, None)[0] == expected.argmax()


def test_random_moves_are_even_among_the_allowed():
    rng = np.random.default_rng(2)
    policy = greedy(masked_spec(1, 5), ActionSpec("discrete", (5,)), rng=rng)
    obs = np.repeat(np.array([[0.0, 1, 0, 0, 1, 1]], np.float32), 30_000, 0)
    for drawn in (
        epsilon_greedy(policy, obs, 1.0, rng),
        type(policy.head)(policy.head.spec, epsilon=1.0).draw(policy.net.infer(obs), rng),
    ):
        found = np.bincount(drawn, minlength=5) / len(drawn)
        assert found[[1, 2]].tolist() == [0, 0]
        np.testing.assert_allclose(found[[0, 3, 4]], 1 / 3, atol=4 * 0.5 / math.sqrt(30_000))
    # Only the mask of the row itself counts.
    rows = masked_rows(rng, 2000, 1, (5,))
    for epsilon in (0.0, 0.5, 1.0):
        drawn = epsilon_greedy(policy, rows, epsilon, rng)
        assert (rows[np.arange(2000), 1 + drawn] == 1).all()


# --- targets by hand


def two_rows(next_masks: list[list[float]], discount: list[float]) -> Batch:
    obs = np.array([[1.0, 1, 1, 1], [1.0, 1, 1, 1]], np.float32)
    next_obs = np.array([[1.0, *mask] for mask in next_masks], np.float32)
    return Batch(
        obs,
        np.array([0, 1]),
        np.array([0.5, -1.0], np.float32),
        next_obs,
        np.array(discount, np.float32),
        np.arange(2),
    )


def fixed(values: list[float], head: str = "plain"):
    """A policy whose net gives these numbers wherever it is."""
    spec = ActionSpec("discrete", (3,))
    rng = np.random.default_rng(0)
    policy = greedy(masked_spec(1, 3), spec, rng=rng, hidden=(), head=HEADS[head])
    with torch.no_grad():
        policy.net.mlp.flat.zero_()
        policy.net.mlp.flat[-len(values) :] = torch.tensor(values)
    return policy


@pytest.mark.parametrize("discount", [0.9, 0.9**3])
def test_targets_never_hold_a_barred_action(discount):
    """Action 2 looks worth 1000 to both nets, and is allowed in neither next state.

    Row 0 may take 0 or 1, row 1 only 0. The net that learns prefers 1 (4 over 3), the slow one
    values (7, 5, 1000): q takes max(7, 5) = 7, double 5 in row 0; both take 7 in row 1.
    """
    online, slow = fixed([3.0, 4.0, 1000.0]), fixed([7.0, 5.0, 1000.0])
    batch = two_rows([[1, 1, 0], [1, 0, 0]], [discount, discount])
    np.testing.assert_allclose(
        q_target(batch, online, slow), [0.5 + discount * 7, -1 + discount * 7], rtol=1e-6
    )
    np.testing.assert_allclose(
        double_q_target(batch, online, slow), [0.5 + discount * 5, -1 + discount * 7], rtol=1e-6
    )


def test_nothing_follows_a_termination_whatever_its_mask():
    """A terminal state is stored with all allowed; its discount of 0 leaves the reward alone."""
    net = fixed([3.0, 4.0, 1000.0])
    batch = two_rows([[1, 1, 1], [1, 1, 1]], [0.0, 0.0])
    for target in (q_target, double_q_target):
        assert target(batch, net, net).tolist() == [0.5, -1.0]


def test_dueling_values_and_their_gradient_leave_barred_advantages_out():
    """v = 2, advantages (1, 5, 900), mask (1, 1, 0): mean 3, q = (0, 4, −inf)."""
    policy = fixed([2.0, 1.0, 5.0, 900.0], "dueling")
    obs = np.array([[1.0, 1, 1, 0], [1.0, 1, 1, 1]], np.float32)
    q = q_values(policy, obs)
    assert q[0].tolist() == [0.0, 4.0, -np.inf]
    np.testing.assert_allclose(q[1], 2 + np.array([1, 5, 900]) - 302, rtol=1e-6)
    traced, back = traced_q_values(policy, obs)
    assert np.array_equal(traced, q)
    policy.net.mlp.flat.grad = None
    back(np.array([[0, 1, 0], [0, 0, 0]], np.float32))
    # q_1 = v + a_1 − (a_0 + a_1)/2: its slopes in (v, a_0, a_1, a_2) are (1, −½, ½, 0).
    assert policy.net.mlp.flat.grad[-4:].tolist() == [1.0, -0.5, 0.5, 0.0]


def test_quantile_targets_never_hold_a_barred_action():
    policy = fixed([3.0, 4.0, 1000.0])
    slow = quantile_net(policy, 2, np.random.default_rng(0))
    with torch.no_grad():
        slow.mlp.flat.zero_()
        slow.mlp.flat[-6:] = torch.tensor([6.0, 8.0, 4.0, 6.0, 999.0, 1001.0])
    batch = two_rows([[1, 1, 0], [1, 0, 0]], [0.9, 0.9])
    found = quantile_target(batch, policy, slow)
    np.testing.assert_allclose(found, [[0.5 + 3.6, 0.5 + 5.4], [-1 + 5.4, -1 + 7.2]], rtol=1e-6)


def test_soft_values_and_entropy_of_sac_are_over_the_allowed():
    """One update's numbers against float64 over the allowed alone."""
    rng = np.random.default_rng(3)
    config = SACDiscreteConfig(hidden=(8,), target_entropy=0.5)
    learner = Learner(config, masked_spec(2, 4), ActionSpec("discrete", (4,)), rng)
    obs, next_obs = masked_rows(rng, 50, 2, (4,)), masked_rows(rng, 50, 2, (4,))
    logits = learner.policy.net.infer(obs).astype(np.float64)
    q = learner.critic.infer(obs).min(0).astype(np.float64)
    action = learner.policy.act(obs, rng)
    batch = Batch(
        obs, action, np.zeros(50, np.float32), next_obs, np.full(50, 0.9, np.float32), action
    )
    entropy, value, wanted = np.zeros(50), np.zeros(50), np.zeros(50)
    for row in range(50):
        open_ = obs[row, 2:] != 0
        pi = np.exp(logits[row, open_] - logits[row, open_].max())
        pi /= pi.sum()
        entropy[row] = -(pi * np.log(pi)).sum()
        value[row] = (pi * (q[row, open_] - np.log(pi))).sum()  # α begins at 1
        wanted[row] = 0.5 * math.log(open_.sum())
    numbers = learner.update(batch)
    assert all(math.isfinite(number) for number in numbers.values())
    assert numbers["policy/entropy"] == pytest.approx(entropy.mean(), abs=1e-5)
    found = log_softmax(learner.policy.net.infer(obs))
    assert (found[obs[:, 2:] == 0] == LOG_NONE).all()
    # α's first step of Adam has the sign of H̄ − H.
    assert np.sign(math.log(learner.temperature.value)) == np.sign(wanted.mean() - entropy.mean())
    assert numbers["loss/actor"] == pytest.approx(-value.mean(), abs=5e-2)


# --- optima

TABLE: dict[str, Any] = {
    "hidden": (),
    "eval_every": 0,
    "learning_starts": 200,
    "train_every": 4,
    "lr": 0.05,
    "tau": 0.05,
    "gamma": 0.9,
    "n_step": 1,
    "epsilon_end": 1.0,
}


def rows_of(world) -> np.ndarray:
    """Every state with its mask."""
    num_states = len(world.initial) - 1
    return np.column_stack([np.arange(num_states), world.allowed[:num_states]]).astype(np.float32)


@pytest.mark.parametrize("more", [{}, {"target": "q"}, {"replay": "prioritised"}])
def test_dqn_sees_through_the_mirage(more):
    """Q* of what is allowed: (0, 10) in A, (0.9, 1) in B. With 2 in its targets B's wait is worth
    several points."""
    agent, _ = trained(dqn, DQNConfig(env=WORLDS + "Mirage-v0", steps=4000, **{**TABLE, **more}))
    world = Mirage()
    q = q_values(agent.policy, rows_of(world))
    expected = optimal_values(world, 0.9)[:2]
    assert expected[world.allowed[:2]].tolist() == pytest.approx([0, 10, 0.9, 1])
    np.testing.assert_allclose(q[world.allowed[:2]], expected[world.allowed[:2]], atol=0.02)
    assert (q[~world.allowed[:2]] == -np.inf).all()


def test_dqn_reaches_value_iteration_on_the_masked_maze():
    config = DQNConfig(env=WORLDS + "Maze-v0", steps=10_000, num_envs=4, **TABLE)
    agent, _ = trained(dqn, config)
    world = Maze()
    expected = optimal_values(world, 0.9)[:5]
    q = q_values(agent.policy, rows_of(world))
    assert np.array_equal(q.argmax(1), expected.argmax(1))
    open_ = world.allowed[:5]
    np.testing.assert_allclose(q[open_], expected[open_], atol=0.15)


@pytest.mark.parametrize("world", [Mirage, Maze])
def test_ppo_reaches_the_best_allowed_action_everywhere(world):
    """Chance of the best action by value iteration over 0.9 in each state, exactly 0 off the mask."""
    config = PPOConfig(
        env=WORLDS + f"{world.__name__}-v0",
        steps=6_000,
        num_steps=32,
        num_epochs=5,
        minibatch_size=128,
        lr=0.03,
        gamma=0.9,
        hidden=(),
        eval_every=0,
    )
    agent, _ = trained(ppo, config)
    expected = optimal_values(world(), 0.9)
    rows = rows_of(world())
    chance = probabilities(agent, rows)
    best = expected[: len(rows)].argmax(1)
    assert (chance[np.arange(len(rows)), best] > 0.9).all(), chance
    assert (chance[rows[:, 1:] == 0] == 0).all()
