"""TD3: its smoothing and delays, exploration, and going on. Closed forms are with those of SAC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.control.td3 import Learner, TD3Config, smoothed, td3
from plaudit.envs.replay import Batch
from plaudit.records.events import Checkpoint, Done, Evaluation, Event
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

BOX_2 = ActionSpec("box", (1,), (-2.0,), (2.0,))


def finished(events: list[Event]) -> Saved:
    """The state at the end of a run."""
    assert isinstance(events[-1], Done)
    return [event for event in events if isinstance(event, Checkpoint)][-1].state()


def some_batch(rng: np.random.Generator) -> Batch:
    obs, next_obs = rng.standard_normal((2, 16, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (16, 1)).astype(np.float32)
    reward = rng.standard_normal(16).astype(np.float32)
    return Batch(obs, action, reward, next_obs, np.full(16, 0.9, "f"), np.arange(16))


def test_trap_10_noise_is_clipped_and_so_is_the_action():
    """σ = 0.2, c = 0.5: 0.3 + 0.2·1 = 0.5; noise 0.2·4 = 0.8 counts 0.5, and 0.9 + 0.5 counts 1."""
    action = np.array([[0.3], [0.3], [0.9], [-0.9]], np.float32)
    noise = np.array([[1.0], [4.0], [4.0], [-4.0]], np.float32)
    found = smoothed(action, noise, std=0.2, clip=0.5)
    assert found[:, 0] == pytest.approx([0.5, 0.8, 1.0, -1.0])
    assert found.dtype == np.float32


@given(st.floats(-1, 1, width=32), st.floats(-9, 9, width=32))
def test_trap_10_a_smoothed_action_is_near_and_within_bounds(action, noise):
    found = smoothed(np.full((1, 1), action, "f"), np.full((1, 1), noise, "f"), std=0.2, clip=0.5)
    assert abs(found.item()) <= 1.0
    assert abs(found.item() - action) <= 0.5 + 1e-6


def test_trap_10_noise_is_in_units_of_the_range():
    """Bounds ±2: an exploring action of 0 with σ = 0.1 reaches the world with deviation 0.2."""
    learner = Learner(TD3Config(hidden=(8,)), ObsSpec.vector(3), BOX_2, np.random.default_rng(0))
    obs = np.zeros((40000, 3), np.float32)
    still = learner.policy.to_env(learner.policy.act(obs, None))
    moved = learner.policy.to_env(learner.policy.act(obs, np.random.default_rng(1)))
    assert (moved - still).std() == pytest.approx(0.2, abs=0.005)
    assert learner.policy.to_env(np.array([[-1.0], [1.0]], "f"))[:, 0].tolist() == [-2.0, 2.0]


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_trap_10_actor_and_both_targets_move_together_and_only_in_their_turn(delay):
    rng = np.random.default_rng(0)
    learner = Learner(
        TD3Config(hidden=(8,), policy_delay=delay, tau=0.5), ObsSpec.vector(3), BOX_2, rng
    )
    slow = (learner.policy, learner.policy_target, learner.critic_target)

    def weights() -> list[np.ndarray]:
        return [np.concatenate([p.detach().numpy() for p in m.parameters()]) for m in slow]

    for turn in range(1, 7):
        before = weights()
        metrics = learner.update(some_batch(rng), rng.standard_normal((16, 1), dtype=np.float32))
        moved = [not np.array_equal(a, b) for a, b in zip(before, weights(), strict=True)]
        assert moved == [turn % delay == 0] * 3
        assert ("loss/actor" in metrics) == (turn % delay == 0)


def test_target_is_the_lesser_critic_of_the_smoothed_target_action():
    """Critics linear in the action, by hand: Q̄ = (2a, 1 − a), π̄ = 0, noise 1·0.2: min(0.4, 0.8)."""
    rng = np.random.default_rng(0)
    learner = Learner(TD3Config(hidden=()), ObsSpec.vector(1), BOX_2, rng)
    with torch.no_grad():
        learner.policy_target.net.mlp.flat.zero_()
        learner.critic_target.mlp.flat.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0, -1.0, 1.0]))
        learner.critic.mlp.flat.zero_()
    one = np.ones((1, 1), np.float32)
    batch = Batch(one, one, np.ones(1, "f"), one, np.full(1, 0.5, "f"), np.arange(1))
    metrics = learner.update(batch, one)
    # y = 1 + 0.5·0.4 = 1.2; both critics say 0: 1.2² + 1.2² = 2.88
    assert metrics["loss/critic"] == pytest.approx(2.88)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_going_on_from_a_checkpoint_is_bit_for_bit(num_envs):
    config = TD3Config(
        steps=181,
        learning_starts=30,
        num_envs=num_envs,
        hidden=(16, 16),
        batch_size=16,
        buffer_size=100,
        eval_every=90,
        eval_episodes=2,
    )
    events = list(td3(config))
    for event in td3(config):
        if isinstance(event, Checkpoint) and event.step >= 101:
            saved = event.state()
            break
    again = list(td3(config, saved=saved))
    said = [event for event in again if not isinstance(event, Checkpoint)]
    assert said == [e for e in events if not isinstance(e, Checkpoint)][-len(said) :]
    (arrays, facts), (expected, facts_expected) = finished(again), finished(events)
    assert facts == facts_expected
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert np.array_equal(array, expected[name]), name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_swings_a_pendulum_up_in_seconds(seed):
    """Mean of 10 episodes at or above −300 within 7,500 steps; doing nothing is about −1,200."""
    keys: dict[str, Any] = {"hidden": (64, 64), "batch_size": 64, "buffer_size": 10_000}
    config = TD3Config(
        steps=7500,
        eval_every=1500,
        eval_episodes=10,
        gamma=0.98,
        learning_starts=500,
        tau=0.02,
        seed=seed,
        **keys,
    )
    run = td3(config)
    best = max(event.metrics["eval/return"] for event in run if isinstance(event, Evaluation))
    assert best >= -300.0
