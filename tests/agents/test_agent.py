"""Agents: acting on raw observations, and being kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from plaudit.agents.agent import Agent
from plaudit.agents.evaluation import EVALUATION_SEED
from plaudit.control.ppo import PPOConfig, ppo
from plaudit.envs.copies import episode_seeds
from plaudit.envs.make import make_env
from plaudit.envs.settings import WorldSettings
from plaudit.envs.spaces import action_codec, obs_codec
from plaudit.envs.statistics import Statistics
from plaudit.nets.policies import actor
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint
from plaudit.records.state import part_of

STRANGE = str(Path(__file__).parent.parent / "envs" / "strange_envs.py") + ":"


def fresh(**settings: Any) -> Agent:
    """An untrained agent of a world."""
    chosen = WorldSettings(**settings)
    env = make_env(chosen)
    spec = obs_codec(env.observation_space).spec
    policy = actor(
        spec, action_codec(env.action_space).spec, rng=np.random.default_rng(0), gain_out=1
    )
    env.close()
    return Agent("ppo", chosen, policy)


def taught(**keys: Any) -> Agent:
    """After two short rounds of PPO."""
    config = PPOConfig(steps=256, num_envs=2, num_steps=64, eval_every=0, num_epochs=1, **keys)
    last = [event for event in ppo(config) if isinstance(event, Checkpoint)][-1]
    return Agent.from_saved(part_of(last.state(), "agent"))


def test_acts_as_its_net_says():
    agent = fresh(env="CartPole-v1")
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=1)
    for _ in range(5):
        action = agent.act(obs)
        assert isinstance(action, int)
        assert action == int(agent.policy.net.infer(obs[None].astype(np.float32)).argmax())
        obs, *_ = env.step(action)


def test_draws_by_its_probabilities_when_asked():
    agent = fresh(env="CartPole-v1")
    obs = np.array([0.1, -0.2, 0.05, 0.3], np.float32)
    logits = agent.policy.net.infer(obs[None])[0].astype(np.float64)
    chance = np.exp(logits[1]) / np.exp(logits).sum()
    drawn = np.mean([agent.act(obs, deterministic=False) for _ in range(4000)])
    assert drawn == pytest.approx(chance, abs=4 * np.sqrt(0.25 / 4000))


@pytest.mark.parametrize("kind", ["vector", "image", "mixture"])
def test_acts_in_every_kind_of_space(kind):
    agent = fresh(env=STRANGE + "Drawing-v0", env_options={"kind": kind})
    env = make_env(agent.settings)
    obs, _ = env.reset(seed=0)
    action = agent.act(obs)
    assert env.action_space.contains(action)
    env.step(action)


def test_frames_are_stacked_and_forgotten_between_episodes():
    agent = taught(env="CartPole-v1", frame_stack=3)
    rows = np.eye(4, dtype=np.float32)
    seen: list[np.ndarray] = []
    act = agent.policy.act
    agent.policy.act = lambda obs, rng: (seen.append(obs[0]), act(obs, rng))[1]  # type: ignore
    for row in rows[:3]:
        agent.act(row)
    agent.begin()
    agent.act(rows[3])
    expected = [
        np.concatenate([rows[0]] * 3),
        np.concatenate([rows[0], rows[0], rows[1]]),
        np.concatenate(rows[:3]),
        np.concatenate([rows[3]] * 3),
    ]
    np.testing.assert_array_equal(seen, expected)


def test_observations_are_scaled_as_in_training():
    agent = taught(env="Pendulum-v1", normalise_obs=True)
    assert agent.statistics is not None
    assert agent.statistics.count[0] > 200
    obs = np.array([0.3, 0.9, -4.0], np.float32)
    scaled = (obs - agent.statistics.mean) / np.sqrt(agent.statistics.var + 1e-8)
    mean = agent.policy.net.infer(np.clip(scaled, -10, 10)[None].astype(np.float32))
    np.testing.assert_allclose(agent.act(obs), np.clip(mean[0], -2, 2), atol=1e-5)


@pytest.mark.parametrize(
    "keys", [{"env": "CartPole-v1"}, {"env": "Pendulum-v1", "normalise_obs": True}]
)
def test_saved_and_loaded_it_plays_the_same_episodes(tmp_path, keys):
    agent = taught(**keys)
    again = Agent.load(agent.save(tmp_path / "agent"))
    assert sorted(p.name for p in (tmp_path / "agent").iterdir()) == [
        "agent.json",
        "model.safetensors",
    ]
    assert again.evaluate(3) == agent.evaluate(3)
    assert again.settings == agent.settings
    assert agent.evaluate(3, seed=11) != agent.evaluate(3, seed=12)


def test_returns_are_the_worlds_own_whatever_was_scaled():
    agent = taught(env="Pendulum-v1", normalise_obs=True, normalise_reward=True)
    env = make_env(agent.settings)
    (episode,) = [e for e in agent.evaluate(2) if e.env == 0]
    obs, _ = env.reset(seed=episode_seeds(agent.settings.seed + EVALUATION_SEED, 0, 0)[0])
    ret, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
        ret, over = ret + reward, terminated or truncated
    assert ret == pytest.approx(episode.ret, rel=1e-4)


def test_an_agent_keeps_its_world_and_nothing_of_its_training():
    agent = taught(env="CartPole-v1", lr=1e-3)
    assert type(agent.settings) is WorldSettings
    assert "lr" not in agent.state()[1]["settings"]


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (np.zeros(3, np.float32), "shape (3,), not (4,)"),
        (np.zeros(4, np.complex64), "no array of numbers"),
        ("left", "no array of numbers"),
    ],
)
def test_an_observation_of_another_world_is_refused(obs, words):
    with pytest.raises(UserError) as error:
        fresh(env="CartPole-v1").act(obs)
    assert words in str(error.value)


def test_a_folder_without_an_agent_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no agent in .*: it holds no agent.json"):
        Agent.load(tmp_path)


def test_an_agent_of_another_format_is_refused():
    arrays, facts = fresh(env="CartPole-v1").state()
    with pytest.raises(UserError, match="format 99; this version reads 1"):
        Agent.from_saved((arrays, {**facts, "format": 99}))


def test_statistics_of_another_size_do_not_fit():
    assert Statistics.from_saved((Statistics(3).state()[0], {})).apply(np.ones((2, 3))).shape == (
        2,
        3,
    )
