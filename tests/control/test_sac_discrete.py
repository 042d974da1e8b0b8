"""SAC for choices: closed-form policies and values, gradients, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control.closed_worlds import CORRIDOR_LENGTH, bandit_soft_optimum
from plaudit.control.sac_discrete import (
    Learner,
    SACDiscreteConfig,
    log_softmax,
    of_logits,
    sac_discrete,
    soft_value,
)
from plaudit.nets.control_nets import load_arrays
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Evaluation, Event
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved, part_of

WORLDS = str(Path(__file__).with_name("closed_worlds.py")) + ":"


def finished(events: list[Event]) -> Saved:
    """The state at the end of a run."""
    assert isinstance(events[-1], Done)
    return [event for event in events if isinstance(event, Checkpoint)][-1].state()


def learned(config: SACDiscreteConfig, num_states: int, num_actions: int) -> Learner:
    """The nets at the end of a run in a finite world."""
    saved = finished(list(sac_discrete(config)))
    spec = ActionSpec("discrete", (num_actions,))
    learner = Learner(config, ObsSpec.vector(num_states), spec, np.random.default_rng(0))
    load_arrays(learner.critic, part_of(saved, "critic")[0])
    agent = part_of(saved, "agent")[0]
    own = {n.removeprefix("policy/"): a for n, a in agent.items()}
    learner.policy.load_arrays(own)
    return learner


@given(st.integers(0, 10_000), st.floats(0, 2))
def test_gradient_in_the_logits_is_autograds(seed, alpha):
    """Of −Σ_a π(a)(Q(a) − α log π(a)), a row, in float64."""
    rng = np.random.default_rng(seed)
    logits, q = rng.normal(0, 2, (2, 5, 4)).astype(np.float32)
    variable = torch.from_numpy(logits).double().requires_grad_()
    pi = torch.distributions.Categorical(logits=variable)
    value = (pi.probs * torch.from_numpy(q)).sum(1) + alpha * pi.entropy()
    (-value.sum()).backward()
    logp = log_softmax(logits)
    found = soft_value(q, logp, alpha)
    assert found == pytest.approx(value.detach().numpy(), abs=1e-5)
    assert variable.grad is not None
    assert of_logits(q, logp, found, alpha) == pytest.approx(variable.grad.numpy(), abs=1e-5)


def test_gradient_vanishes_at_the_boltzmann_policy_only():
    """π ∝ exp(Q/α), and then V = α log Σ exp(Q/α)."""
    q, alpha = np.array([[1.0, 0.2, -0.4]], np.float32), 0.5
    logp = log_softmax(q / alpha)
    value = soft_value(q, logp, alpha)
    assert value == pytest.approx(alpha * np.log(np.exp(q / alpha).sum()), abs=1e-6)
    assert of_logits(q, logp, value, alpha) == pytest.approx(np.zeros((1, 3)), abs=1e-6)
    flat = log_softmax(np.zeros_like(q))
    assert abs(of_logits(q, flat, soft_value(q, flat, alpha), alpha)).max() > 0.1


def test_log_softmax_of_far_logits_is_finite():
    assert log_softmax(np.array([[1e4, 0.0], [0.0, 0.0]], "f"))[:, 0] == pytest.approx(
        [0.0, -np.log(2)]
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bandit_reaches_the_boltzmann_optimum(seed):
    """Bandit-v0 at α = 0.3: π = softmax(r/0.3) in both contexts, to 0.01."""
    config = SACDiscreteConfig(
        env=WORLDS + "Bandit-v0",
        alpha=0.3,
        lr=3e-3,
        steps=4000,
        num_envs=4,
        train_every=2,
        hidden=(16,),
        batch_size=64,
        buffer_size=1000,
        eval_every=0,
        seed=seed,
    )
    learner = learned(config, 3, 3)
    pi = np.exp(log_softmax(learner.policy.net.infer(np.eye(3, dtype=np.float32)[:2])))
    assert pi == pytest.approx(bandit_soft_optimum(0.3), abs=0.01)


def corridor_soft_values(gamma: float, alpha: float) -> np.ndarray:
    """Q* [8, 2] of Corridor-v0 with entropy, by soft value iteration over its cells, left and
    right: V = α log Σ exp(Q/α), and the ends pay 0.2 and 1 and are worth nothing after."""
    value = np.zeros(CORRIDOR_LENGTH)
    for _ in range(2000):
        left = np.concatenate([[0.2], gamma * value[:-1]])
        right = np.concatenate([gamma * value[1:], [1.0]])
        q = np.stack([left, right], 1)
        value = alpha * np.log(np.exp(q / alpha).sum(1))
    return q


def test_trap_1_soft_values_of_a_corridor_longer_than_its_limit():
    """Cells 0 to 3 never see the end that pays: only bootstrapping at the cut tells them of it."""
    config = SACDiscreteConfig(
        env=WORLDS + "Corridor-v0",
        alpha=0.1,
        gamma=0.9,
        lr=2e-3,
        tau=0.05,
        steps=8000,
        num_envs=4,
        train_every=2,
        hidden=(32,),
        batch_size=64,
        buffer_size=8000,
        learning_starts=500,
        eval_every=0,
    )
    learner = learned(config, CORRIDOR_LENGTH + 1, 2)
    cells = np.eye(CORRIDOR_LENGTH + 1, dtype=np.float32)[:-1]
    expected = corridor_soft_values(0.9, 0.1)
    q = learner.critic.infer(cells)
    seen = np.exp(expected / 0.1)
    pi = seen / seen.sum(1, keepdims=True)
    assert np.exp(log_softmax(learner.policy.net.infer(cells))) == pytest.approx(pi, abs=0.06)
    tried = pi > 0.05
    assert abs(q.mean(0) - expected)[tried].max() < 0.03


def test_learned_temperature_holds_the_target_entropy():
    """Bandit-v0: half of the most, log 3, whatever the rewards."""
    config = SACDiscreteConfig(
        env=WORLDS + "Bandit-v0",
        target_entropy=0.5,
        lr=3e-3,
        steps=4000,
        num_envs=4,
        train_every=2,
        hidden=(16,),
        batch_size=64,
        buffer_size=1000,
        eval_every=0,
    )
    learner = learned(config, 3, 3)
    logp = log_softmax(learner.policy.net.infer(np.eye(3, dtype=np.float32)[:2]))
    assert -(np.exp(logp) * logp).sum(1).mean() == pytest.approx(0.5 * np.log(3), abs=0.03)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_going_on_from_a_checkpoint_is_bit_for_bit(num_envs):
    config = SACDiscreteConfig(
        steps=240,
        learning_starts=30,
        num_envs=num_envs,
        hidden=(16, 16),
        batch_size=16,
        buffer_size=100,
        eval_every=120,
        eval_episodes=2,
    )
    events = list(sac_discrete(config))
    for event in sac_discrete(config):
        if isinstance(event, Checkpoint) and event.step >= 132:
            saved = event.state()
            break
    again = list(sac_discrete(config, saved=saved))
    said = [event for event in again if not isinstance(event, Checkpoint)]
    assert said == [e for e in events if not isinstance(e, Checkpoint)][-len(said) :]
    (arrays, facts), (expected, facts_expected) = finished(again), finished(events)
    assert facts == facts_expected
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, expected[name]), name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_balances_a_pole_in_seconds(seed):
    """Mean of 10 episodes of CartPole-v1 at or above 150 within 4,500 steps; by chance it is 22."""
    keys: dict[str, Any] = {"hidden": (64, 64), "batch_size": 64, "buffer_size": 10_000}
    config = SACDiscreteConfig(
        steps=4500, eval_every=750, eval_episodes=10, lr=1e-3, target_entropy=0.5, seed=seed, **keys
    )
    run = sac_discrete(config)
    best = max(event.metrics["eval/return"] for event in run if isinstance(event, Evaluation))
    assert best >= 150.0


def test_actions_that_are_no_choice_are_refused():
    with pytest.raises(UserError, match="categorical policy needs a discrete"):
        next(sac_discrete(SACDiscreteConfig(env="Pendulum-v1")))
