"""A2C: its gradient written out against the readable formulas, known optima, the peer, going on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control.closed_worlds import (
    STAY_VALUE,
    TWO_STATE_GAMMA,
    TWO_STATE_VALUE,
    bandit_soft_optimum,
    regulator_cost,
    regulator_optimum,
)
from control.runs import (
    WORLDS,
    assert_goes_on,
    control,
    critic_of,
    gradient_of,
    logged,
    probabilities,
    trained,
)
from plaudit.agents.actor_critic import advantages, by_autograd, by_logits, objective
from plaudit.control.a2c import A2CConfig, a2c
from plaudit.envs.make import make_worlds
from plaudit.envs.rollout import Experience, collect
from plaudit.nets.actions import Categorical
from plaudit.nets.control_nets import network
from plaudit.nets.policies import actor
from plaudit.ops import gae, score_function_loss
from plaudit.records.spaces import ActionSpec, ObsSpec

# --- the gradient


def experience(seed: int, spec: ActionSpec, num_envs: int = 4, num_steps: int = 6) -> Experience:
    """Random steps with ends of both kinds, and rows that are no transitions."""
    rng = np.random.default_rng(seed)
    shape = (num_envs, num_steps)
    mask = rng.random(shape) < 0.85
    mask[0, 0] = True
    terminated = (rng.random(shape) < 0.15) & mask
    boundary = terminated | ((rng.random(shape) < 0.15) & mask)
    final_at = np.argwhere(boundary)
    if spec.kind == "box":
        action = rng.standard_normal((*shape, *spec.sizes)).astype(np.float32)
    else:
        action = np.stack([rng.integers(n, size=shape) for n in spec.sizes], -1)
        action = action[..., 0] if spec.kind == "discrete" else action
    obs = rng.standard_normal((*shape, 3)).astype(np.float32)
    return Experience(
        obs=obs,
        action=action,
        reward=rng.standard_normal(shape).astype(np.float32),
        terminated=terminated,
        boundary=boundary,
        mask=mask,
        last_obs=rng.standard_normal((num_envs, 3)).astype(np.float32),
        final_at=final_at,
        final_obs=rng.standard_normal((len(final_at), 3)).astype(np.float32),
    )


@pytest.mark.parametrize(
    "spec",
    [
        ActionSpec("discrete", (3,)),
        ActionSpec("multi_discrete", (2, 3)),
        ActionSpec("box", (2,), (-1.0, -1.0), (1.0, 1.0)),
    ],
    ids=lambda spec: spec.kind,
)
@pytest.mark.parametrize("lam", [1.0, 0.8])
def test_the_way_back_is_autograds_through_the_readable_loss(spec, lam):
    """In float64 through torch's layers: mean of −log π·A + 0.7·½(V − R)² − 0.2·H over the steps."""
    seen, rng = experience(3, spec), np.random.default_rng(1)
    obs_spec = ObsSpec.vector(3)
    policy = actor(obs_spec, spec, hidden=(8,), rng=rng, gain_out=1.0)
    critic = network(obs_spec, 1, hidden=(8,), rng=rng)
    params = [*policy.parameters(), *critic.parameters()]
    numbers, back = objective(
        policy, critic, seen, gamma=0.9, lam=lam, value_coef=0.7, entropy_coef=0.2
    )
    back()
    ours = gradient_of(*params)

    policy.double()
    critic.double()
    for p in params:
        p.grad = None
    rows = torch.from_numpy(seen.obs).double().flatten(0, 1)
    judged = critic(torch.from_numpy(seen.all_obs()).double())[:, 0]
    value, next_value = (torch.from_numpy(x) for x in seen.values_of(judged.detach().numpy()))
    mask = torch.from_numpy(seen.mask)
    adv = gae(
        torch.from_numpy(seen.reward).double(),
        value,
        next_value,
        torch.from_numpy(seen.terminated),
        torch.from_numpy(seen.boundary),
        gamma=0.9,
        lam=lam,
        mask=mask,
    )
    out = policy(rows)
    action = torch.from_numpy(seen.action).flatten(0, 1)
    gain = score_function_loss(policy.head.logp(out, action).view(adv.shape), adv)[mask].mean()
    entropy = policy.head.entropy(out).view(adv.shape)[mask].mean()
    error = 0.5 * ((judged[: adv.numel()].view(adv.shape) - (adv + value))[mask] ** 2).mean()
    (gain + 0.7 * error - 0.2 * entropy).backward()
    np.testing.assert_allclose(ours, gradient_of(*params), rtol=2e-4, atol=2e-5)
    expected = {"loss/policy": gain, "loss/value": error, "policy/entropy": entropy}
    assert numbers == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-4)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_those_of_ops(seed, gamma, lam):
    seen, rng = experience(seed, ActionSpec("discrete", (2,))), np.random.default_rng(seed)
    value, next_value = rng.standard_normal((2, *seen.reward.shape)).astype(np.float32)
    ours = advantages(
        seen.reward, value, next_value, seen.terminated, seen.boundary, seen.mask, gamma, lam
    )
    columns = (seen.reward, value, next_value, seen.terminated, seen.boundary)
    theirs = gae(
        *(torch.from_numpy(x) for x in columns),
        gamma=gamma,
        lam=lam,
        mask=torch.from_numpy(seen.mask),
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_advantages_by_hand():
    """γ = 0.5, λ = 1, V = (1, 2, 4); rewards 1, 2, 3; cut after the second, in a state worth 8.

    A_1 = 2 + 0.5·8 − 2 = 4; A_0 = (1 + 0.5·2 − 1) + 0.5·4 = 3; A_2, ended: 3 − 4 = −1.
    """
    row = np.float32([[1, 2, 3]])
    value, ahead = np.float32([[1, 2, 4]]), np.float32([[2, 8, 99]])
    ends, stops = np.array([[False, False, True]]), np.array([[False, True, True]])
    every = np.ones((1, 3), np.bool_)
    found = advantages(row, value, ahead, ends, stops, every, 0.5, 1.0)
    np.testing.assert_array_equal(found, [[3, 4, -1]])


def test_a_logit_of_minus_infinity_is_an_action_that_is_never_drawn():
    logits = np.float32([[0.0, -np.inf, 1.0]])
    action, weight = np.array([2]), np.ones(1, np.float32)
    adv = np.float32([1.5])
    ours = by_logits(logits, action, adv, weight, 0.1)
    finite = by_autograd(
        Categorical(ActionSpec("discrete", (2,))),
        np.float32([[0.0, 1.0]]),
        np.array([1]),
        adv,
        weight,
        0.1,
    )
    np.testing.assert_allclose(ours[0][:, [0, 2]], finite[0], atol=1e-6)
    assert ours[0][0, 1] == 0.0
    assert ours[1:] == pytest.approx(finite[1:3], rel=1e-5)


def test_a_rollout_that_ends_within_an_episode_goes_on_in_the_critics_opinion():
    """n-step (λ = 1): R_t = r_t + γ·r_{t+1} + … + γ^k·V(last), the peers' off-by-one (trap 7)."""
    config = A2CConfig(num_envs=3, num_steps=4)
    worlds = make_worlds(config, seed=0)
    rng = np.random.default_rng(0)
    critic = network(worlds.obs_spec, 1, rng=rng)
    seen = collect(worlds, lambda obs: rng.integers(2, size=3), worlds.reset(), 4)
    worlds.close()
    assert not seen.boundary.any()
    value, next_value = seen.values_of(critic.infer(seen.all_obs())[:, 0])
    adv = advantages(
        seen.reward, value, next_value, seen.terminated, seen.boundary, seen.mask, 0.9, 1.0
    )
    last = critic.infer(seen.last_obs)[:, 0]
    for t in range(4):
        expected = sum(0.9**k for k in range(4 - t)) + 0.9 ** (4 - t) * last
        np.testing.assert_allclose(adv[:, t] + value[:, t], expected, rtol=1e-5)


# --- known optima


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bandit_reaches_the_soft_optimum(seed):
    """With an entropy bonus c the best policy is softmax(r / c), in closed form."""
    config = A2CConfig(
        env=WORLDS + "Bandit-v0",
        steps=60_000,
        seed=seed,
        num_envs=16,
        entropy_coef=0.3,
        lr=1e-2,
        lr_schedule="linear",
        eval_every=0,
    )
    agent, _ = trained(a2c, config)
    found = probabilities(agent, np.eye(3)[:2])
    np.testing.assert_allclose(found, bandit_soft_optimum(0.3), atol=0.03)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truncation_bootstraps_with_the_final_observations_value(seed):
    """Stay-v0 (trap 1): who takes its time limit for an end leaves, which is worth 6, not 10."""
    config = A2CConfig(
        env=WORLDS + "Stay-v0",
        steps=60_000,
        seed=seed,
        gamma=0.9,
        lr=3e-3,
        lr_schedule="linear",
        max_grad_norm=10.0,
        eval_every=0,
    )
    agent, saved = trained(a2c, config)
    assert agent.act(0) == 0
    value = critic_of(config, saved).infer(np.eye(2, dtype=np.float32)[:1]).item()
    assert value == pytest.approx(STAY_VALUE, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_state_that_pays_for_ever_is_worth_its_geometric_sum(seed):
    """TwoState-v0: −1/(1 − 0.95) = −20 to 1e-3 relative, never seen to its end."""
    config = A2CConfig(
        env=WORLDS + "TwoState-v0",
        steps=60_000,
        seed=seed,
        num_envs=8,
        gamma=TWO_STATE_GAMMA,
        lr=0.1,
        lr_schedule="linear",
        max_grad_norm=10.0,
        hidden=(),
        eval_every=0,
    )
    _, saved = trained(a2c, config)
    found = critic_of(config, saved).infer(np.eye(2, dtype=np.float32))[:, 0]
    assert found[1] == pytest.approx(TWO_STATE_VALUE[1], rel=1e-3)
    assert found[0] == pytest.approx(TWO_STATE_VALUE[0], abs=0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_linear_quadratic_regulator(seed):
    """The learned policy costs no more than 2e-3 above Riccati's, which is 0.672."""
    gamma = 0.9
    config = A2CConfig(
        env=WORLDS + "Regulator-v0",
        steps=800_000,
        seed=seed,
        num_envs=16,
        num_steps=10,
        gamma=gamma,
        lam=0.9,
        entropy_coef=0.003,
        lr=2e-3,
        lr_schedule="linear",
        eval_every=0,
    )
    agent, _ = trained(a2c, config)
    _, p, c = regulator_optimum(gamma)
    assert regulator_cost(control(agent), gamma) == pytest.approx(p / 3 + c, abs=2e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole(seed):
    config = A2CConfig(
        steps=60_000,
        seed=seed,
        num_steps=16,
        gamma=0.98,
        lr=1e-2,
        lr_schedule="linear",
        max_grad_norm=10.0,
        eval_every=0,
    )
    agent, _ = trained(a2c, config)
    assert np.mean([episode.ret for episode in agent.evaluate(20)]) >= 250


# --- what it says, and going on


def test_what_is_logged():
    names = {"loss/policy", "loss/value", "policy/entropy", "grad_norm", "lr", "rollout/return"}
    config = A2CConfig(steps=2000, lr_schedule="linear", eval_every=0)
    for name in names:
        assert np.isfinite(logged(a2c(config), name)).all()
    rates = logged(a2c(config), "lr")
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"env": "CartPole-v1", "lr_schedule": "linear"},
        {"env": "Pendulum-v1", "normalise_obs": True, "normalise_reward": True},
        {"env": "FrozenLake-v1", "num_envs": 1, "num_steps": 1},
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(keys):
    config = A2CConfig(
        **{"steps": 200, "num_envs": 4, "eval_every": 100, "eval_episodes": 2, **keys}
    )
    assert_goes_on(a2c, config)
