"""Worlds that pay a caller's reward: what it is told, what is scaled, what episodes say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from plaudit.envs.make import make_env, make_worlds
from plaudit.envs.native import Native
from plaudit.envs.rewarded import Rewarded, rewarded
from plaudit.envs.settings import WorldSettings

FILE = str(Path(__file__).with_name("strange_envs.py"))


def pushes(rng, num_envs):
    return rng.integers(0, 2, num_envs)


def test_the_reward_is_told_of_true_transitions_before_scaling():
    """The last observation of an episode, never the first of the next; in the world's own units."""
    plain = WorldSettings(env="CartPole-v1", num_envs=3)
    scaled = plain.model_copy(update={"normalise_obs": True, "normalise_reward": True})
    told = []

    def reward(obs, action, next_obs, terminated):
        told.append((obs.copy(), action.copy(), next_obs.copy(), terminated.copy()))
        return np.zeros(len(obs))

    raw, rng = make_worlds(plain, seed=5), np.random.default_rng(0)
    worlds = rewarded(make_worlds(scaled, seed=5, gamma=0.99), reward)
    obs, _ = raw.reset(), worlds.reset()
    for _ in range(60):
        actions = pushes(rng, 3)
        moved = raw.step(actions)
        worlds.step(actions)
        for seen, true in zip(
            told[-1], (obs, actions, moved.next_obs, moved.terminated), strict=True
        ):
            np.testing.assert_array_equal(seen, true)
        obs = moved.obs
    assert any(ended.any() for *_, ended in told)


def test_scaling_acts_on_the_reward_given():
    """Deviations grow with the reward, so five times as much is scaled to the same numbers."""
    settings = WorldSettings(env="CartPole-v1", num_envs=2, normalise_reward=True)
    own = make_worlds(settings, seed=5, gamma=0.9)
    five = rewarded(
        make_worlds(settings, seed=5, gamma=0.9),
        lambda obs, a, next_obs, end: np.full(len(obs), 5.0),
    )
    rng = np.random.default_rng(0)
    own.reset(), five.reset()
    for step in range(80):
        actions = pushes(rng, 2)
        one, other = own.step(actions).reward, five.step(actions).reward
        assert step < 2 or one == pytest.approx(other, rel=1e-5)
    assert five.return_scale.statistics.var[0] == pytest.approx(
        25 * own.return_scale.statistics.var[0]
    )


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_keep_their_own_return_and_sum_the_one_given(mode):
    """Steps that only reset are paid nothing; here the reward given counts 2 for each step."""
    make = lambda: make_env(WorldSettings(env="CartPole-v1"))  # noqa: E731
    env = SyncVectorEnv([make] * 2, autoreset_mode=mode)
    native = Native(env, name="CartPole-v1", seed=3, timeout=60.0)
    worlds = Rewarded(native, lambda obs, a, next_obs, end: np.full(len(obs), 2.0))
    rng, ended = np.random.default_rng(1), []
    worlds.reset()
    for _ in range(120):
        moved = worlds.step(pushes(rng, 2))
        assert (moved.reward == 2.0 * moved.mask).all()
        ended += moved.episodes
    worlds.close()
    assert len(ended) > 5
    assert all(e.ret == e.length and e.given_ret == 2.0 * e.length for e in ended)


def test_returns_go_on_from_where_they_were_saved():
    settings = WorldSettings(
        env=f"{FILE}:Drawing-v0", num_envs=2, frame_stack=2, normalise_obs=True
    )

    def reward(obs, action, next_obs, terminated):
        return next_obs.reshape(len(obs), -1).sum(1)

    def make():
        return rewarded(make_worlds(settings, seed=1), reward)

    one, other = make(), make()
    one.reset()
    spec, rng = one.action_spec, np.random.default_rng(0)

    def draw():
        shape = (2, *spec.shape)
        if spec.kind == "box":
            return rng.uniform(-1, 1, shape).astype(np.float32)
        return rng.integers(0, spec.sizes[0], shape)

    for _ in range(7):
        one.step(draw())
    obs = other.restore(one.state())
    for _ in range(40):
        actions = draw()
        a, b = one.step(actions), other.step(actions)
        assert a.episodes == b.episodes
        assert a.reward.tobytes() == b.reward.tobytes()
    assert obs.shape == a.obs.shape
