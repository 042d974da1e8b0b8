"""Q actor-critic: the policy gradient theorem and SARSA's fixed point exactly, optima, going on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import plaudit.control.qac as qac_file
from control.closed_worlds import BANDIT_REWARD, Branch
from control.runs import (
    WORLDS,
    assert_goes_on,
    critic_of,
    gradient_of,
    linear_logits,
    probabilities,
    slope,
    softmax,
    trained,
)
from plaudit.control.qac import Moves, QACConfig, objectives, qac
from plaudit.nets.control_nets import network
from plaudit.nets.policies import actor
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec

WORLD, GAMMA = Branch(), 0.9
ONE_HOT, EVERY = np.eye(3, dtype=np.float32), np.array([True])


def exact_q(chosen):
    """Q^π [S, A] of Branch-v0 without a time limit: a linear system."""
    by_policy = np.einsum("sa,ast->st", chosen, WORLD.transition)
    value = np.linalg.solve(np.eye(3) - GAMMA * by_policy, (chosen * WORLD.reward).sum(1))
    return WORLD.reward + GAMMA * (WORLD.transition @ value).T


def tables(seed):
    """A policy with a table of logits, and a critic whose table is Q^π of it."""
    rng = np.random.default_rng(seed)
    obs_spec, spec = ObsSpec.vector(3), ActionSpec("discrete", (2,))
    policy = actor(obs_spec, spec, hidden=(), rng=rng, gain_out=1.0)
    critic = network(obs_spec, 2, hidden=(), rng=rng)
    chosen = softmax(linear_logits(policy.net.mlp.flat.detach().double().numpy(), 2, 3))
    q = exact_q(chosen)
    with torch.no_grad():
        critic.mlp.flat.copy_(torch.from_numpy(np.concatenate((q.T.ravel(), np.zeros(2)))))
    return policy, critic, chosen, q


def move(s, a, t, b):
    """The step from s by a to t, where b is next."""
    return Moves(
        obs=ONE_HOT[[s]],
        action=np.array([a]),
        reward=np.float32([WORLD.reward[s, a]]),
        next_obs=ONE_HOT[[t]],
        terminated=np.array([t == 2]),
        next_action=np.array([b]),
    )


@pytest.mark.parametrize("credit", ["q", "advantage"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_actors_expected_step_is_the_policy_gradient(seed, credit):
    """Σ_s d(s) Σ_a π(a|s)·Q^π(s, a)·∇log π(a|s) = ∇J, with d the discounted visits (Sutton 2000)."""
    policy, critic, chosen, _ = tables(seed)
    config, flat = QACConfig(gamma=GAMMA, credit=credit), policy.net.mlp.flat
    by_policy = np.einsum("sa,ast->st", chosen, WORLD.transition)
    by_policy[2] = 0.0
    visits = np.linalg.solve(np.eye(3) - GAMMA * by_policy.T, WORLD.initial)
    total = np.zeros(flat.numel())
    for s in range(2):
        for a in range(2):
            flat.grad = None
            _, improve, _ = objectives(config, policy, critic, move(s, a, 0, 0), EVERY)
            improve()
            total += visits[s] * chosen[s, a] * gradient_of(flat)

    def worth(theta):
        other = softmax(linear_logits(theta, 2, 3))
        return float(WORLD.initial @ (other * exact_q(other)).sum(1))

    np.testing.assert_allclose(
        total, -slope(worth, flat.detach().double().numpy()), rtol=2e-4, atol=2e-5
    )


def test_the_critics_expected_step_is_zero_at_the_policys_own_q():
    policy, critic, chosen, q = tables(0)
    config, flat = QACConfig(gamma=GAMMA), critic.mlp.flat
    for s in range(2):
        for a in range(2):
            total = np.zeros(flat.numel())
            for t in range(3):
                for b in range(2):
                    flat.grad = None
                    numbers, _, judge = objectives(config, policy, critic, move(s, a, t, b), EVERY)
                    judge()
                    total += WORLD.transition[a, s, t] * chosen[t, b] * gradient_of(flat)
                    assert numbers["q/mean"] == pytest.approx(q[s, a], rel=1e-6)
            np.testing.assert_allclose(total, 0.0, atol=1e-6)


def test_a_termination_removes_what_is_ahead_and_the_target_has_no_gradient():
    """δ = r − Q(s, a) at an end; else r + γ·Q(s', a') − Q(s, a): ∂½δ²/∂Q(s, a) = −δ, and no other."""
    policy, critic, _, q = tables(1)
    config = QACConfig(gamma=GAMMA)
    for t, ahead in ((2, 0.0), (1, GAMMA * q[1, 0])):
        critic.mlp.flat.grad = None
        numbers, _, judge = objectives(config, policy, critic, move(0, 1, t, 0), EVERY)
        judge()
        delta = WORLD.reward[0, 1] + ahead - q[0, 1]
        weight = gradient_of(critic.mlp.flat)[:6].reshape(2, 3)
        expected = np.zeros((2, 3))
        expected[1, 0] = -delta
        np.testing.assert_allclose(weight, expected, atol=1e-5)
        assert numbers["loss/critic"] == pytest.approx(delta**2 / 2, rel=1e-5)


def test_where_an_episode_is_cut_the_next_action_is_drawn_in_the_state_of_the_cut(monkeypatch):
    """A policy that goes right from cell 4 on and left before says which state it was asked in."""
    seen = []
    losses = qac_file.objectives

    def sharp(obs_spec, action_spec, **keys):
        policy = actor(obs_spec, action_spec, hidden=(), rng=np.random.default_rng(0))
        right = np.where(np.arange(9) >= 4, 50.0, -50.0)
        with torch.no_grad():
            flat = np.concatenate((-right, right, np.zeros(2)))
            policy.net.mlp.flat.copy_(torch.from_numpy(flat))
        return policy

    def watched(config, policy, critic, moves, mask):
        seen.append(moves)
        return losses(config, policy, critic, moves, mask)

    monkeypatch.setattr(qac_file, "objectives", watched)
    monkeypatch.setattr(qac_file, "actor", sharp)
    keys = {"steps": 400, "num_envs": 4, "lr": 1e-12, "eval_every": 0}
    trained(qac, QACConfig(env=WORLDS + "Corridor-v0", max_episode_steps=2, **keys))
    told_apart = 0
    for before, after in itertools.pairwise(seen):
        wanted = before.next_obs[:, 0] >= 4
        going_on = ~before.terminated
        assert (before.next_action == wanted)[going_on].all()
        cut = going_on & (before.next_obs != after.obs).any(1)
        told_apart += int((cut & (wanted != (after.obs[:, 0] >= 4))).sum())
    assert told_apart > 10


def test_actions_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="of Pendulum-v1 are box: a2c and ppo take any action"):
        next(qac(QACConfig(env="Pendulum-v1")))


def test_rows_that_are_no_transitions_count_for_nothing():
    policy, critic, _, _ = tables(0)
    config = QACConfig(gamma=GAMMA, entropy_coef=0.3)
    one, two = move(0, 1, 1, 0), move(1, 0, 2, 1)
    both = Moves(
        *(
            np.concatenate((a, b))
            for a, b in zip(vars(one).values(), vars(two).values(), strict=True)
        )
    )
    found = []
    for moves, mask in ((one, EVERY), (both, np.array([True, False]))):
        for net in (policy, critic):
            net.zero_grad()
        numbers, improve, judge = objectives(config, policy, critic, moves, mask)
        improve()
        judge()
        grads = gradient_of(policy.net.mlp.flat, critic.mlp.flat)
        found.append((numbers, grads))
    assert found[0][0] == pytest.approx(found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-7)


# --- known optima


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("credit", ["q", "advantage"])
def test_bandit_is_solved_and_its_arms_are_valued(seed, credit):
    config = QACConfig(
        env=WORLDS + "Bandit-v0",
        steps=10_000,
        seed=seed,
        num_envs=16,
        credit=credit,
        entropy_coef=0.05,
        lr=3e-3,
        critic_lr=1e-2,
        lr_schedule="linear",
        eval_every=0,
    )
    agent, saved = trained(qac, config)
    chosen = probabilities(agent, np.eye(3)[:2])
    assert chosen[0, 1] > 0.9
    assert chosen[1, 0] > 0.9
    q = critic_of(config, saved, 3).infer(np.eye(3, dtype=np.float32)[:2])
    np.testing.assert_allclose(q[[0, 1], [1, 0]], BANDIT_REWARD[[0, 1], [1, 0]], atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truncation_bootstraps_with_the_final_states_value(seed):
    """Stay-v0 (trap 1): Q(stay) = 10 and Q(leave) = 6; who takes the cut for an end leaves."""
    config = QACConfig(
        env=WORLDS + "Stay-v0",
        steps=24_000,
        seed=seed,
        num_envs=16,
        gamma=0.9,
        credit="advantage",
        lr=1e-3,
        critic_lr=1e-2,
        lr_schedule="linear",
        eval_every=0,
    )
    agent, saved = trained(qac, config)
    assert agent.act(0) == 0
    stay, leave = critic_of(config, saved, 2).infer(np.eye(2, dtype=np.float32)[:1])[0]
    assert stay == pytest.approx(10.0, rel=2e-3)
    assert leave == pytest.approx(6.0, abs=0.3)


# --- going on


@pytest.mark.parametrize(
    "keys",
    [{"env": "CartPole-v1"}, {"env": "FrozenLake-v1", "num_envs": 2, "lr_schedule": "linear"}],
)
def test_a_stopped_run_goes_on_bit_for_bit(keys):
    config = QACConfig(
        **{"steps": 160, "num_envs": 4, "eval_every": 80, "eval_episodes": 2, **keys}
    )
    assert_goes_on(qac, config)
