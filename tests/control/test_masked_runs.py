"""Masks of actions in every algorithm: what is barred is never done, saved runs go on, agents act."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import plaudit
from control.runs import assert_goes_on
from envs.masked_envs import ALLOWED
from plaudit.agents.agent import Agent
from plaudit.control.dqn import DQNConfig, dqn
from plaudit.control.ppo import PPOConfig, ppo
from plaudit.pipelines.control.evaluation import judge
from plaudit.records.errors import UserError

BARRED = str(Path(__file__).parents[1] / "envs" / "masked_envs.py") + ":"

# --- nothing barred ever reaches a world

ALGORITHMS: dict[str, dict[str, Any]] = {
    "dqn": {"learning_starts": 100, "net": "dueling", "replay": "prioritised"},
    "dqn_distributional": {"learning_starts": 100, "num_quantiles": 4},
    "ppo": {"num_steps": 32, "entropy_coef": 0.01},
    "ppo_kl": {"num_steps": 32},
    "ppo_recurrent": {"num_steps": 32, "num_epochs": 2, "memory": 8},
    "a2c": {},
    "a3c": {"num_workers": 1},
    "reinforce": {},
    "qac": {"credit": "advantage"},
    "sac_discrete": {"learning_starts": 100, "batch_size": 16, "train_every": 4},
}
SMALL = {"hidden": (8,), "num_envs": 2, "eval_every": 300, "eval_episodes": 4}


@pytest.mark.parametrize("env", ["Barred-v0", "BarredDict-v0"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_algorithm_takes_a_barred_action(name, env):
    """The environment raises at one: acting, exploring, judging, and drawing as in training."""
    agent = plaudit.learn(name, BARRED + env, steps=600, **{**SMALL, **ALGORITHMS[name]})
    agent.evaluate(6, deterministic=False)
    for row in agent.log:
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float)), row


@pytest.mark.parametrize("name", ["ppo", "ppo_kl", "ppo_recurrent", "a2c", "reinforce"])
def test_masks_of_several_choices_are_kept_to(name):
    for form in ("pair", "tuple"):
        keys = {**SMALL, **ALGORITHMS[name], "env_options": {"form": form}}
        agent = plaudit.learn(name, BARRED + "Barred-v0", steps=300, **keys)
        agent.evaluate(4, deterministic=False)


def test_thousands_of_random_moves_are_allowed_ones():
    keys: dict[str, Any] = {"epsilon_end": 1.0, "num_envs": 8, "eval_every": 0, "hidden": (8,)}
    config = DQNConfig(
        env=BARRED + "Barred-v0", env_options={"start": "3"}, steps=8000, train_every=64, **keys
    )
    assert list(dqn(config))


@pytest.mark.parametrize("frames", [1, 2])
def test_dqn_goes_on_bit_for_bit(frames):
    config = DQNConfig(
        env=BARRED + "Barred-v0",
        steps=400,
        save_every=100,
        frame_stack=frames,
        **{**SMALL, "learning_starts": 60},
    )
    assert_goes_on(dqn, config)


def test_ppo_goes_on_bit_for_bit():
    config = PPOConfig(
        env=BARRED + "BarredDict-v0", steps=384, num_steps=32, save_every=64, **SMALL
    )
    assert_goes_on(ppo, config)


# --- agents


def test_an_agent_is_given_the_mask_that_its_world_says(tmp_path):
    agent = plaudit.learn("ppo", BARRED + "Barred-v0", steps=64, num_steps=16, eval_every=0)
    loaded = plaudit.load(agent.save(tmp_path / "agent"))
    env = gymnasium.make("Barred-v0")
    obs, info = env.reset(seed=0)
    for step in range(300):
        action = loaded.act(obs, mask=info["action_mask"], deterministic=step % 2 == 0)
        assert ALLOWED[obs, action] == 1
        obs, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            obs, info = env.reset()
    with pytest.raises(UserError, match=r"masks actions: agent\.act\(obs, mask=info"):
        loaded.act(0)
    with pytest.raises(UserError, match="was given an action_mask that allows none of 4"):
        loaded.act(0, mask=np.zeros(4, bool))
    assert judge(loaded, 5, seed=3).facts()["episodes"] == 5


def test_an_agent_of_a_dict_finds_its_mask_there(tmp_path):
    keys: dict[str, Any] = {"steps": 64, "eval_every": 0, "hidden": (8,), "learning_starts": 500}
    agent = plaudit.learn("dqn", BARRED + "BarredDict-v0", **keys)
    loaded = Agent.load(agent.save(tmp_path / "agent"))
    for state in range(7):
        obs = {"observation": state, "action_mask": ALLOWED[state]}
        assert ALLOWED[state, loaded.act(obs)] == 1
    with pytest.raises(UserError, match="hold their mask"):
        loaded.act(obs, mask=ALLOWED[0])


def test_a_film_keeps_to_the_masks(tmp_path):
    pytest.importorskip("PIL")
    from plaudit.envs.video import record_episode

    agent = plaudit.learn("ppo", BARRED + "Barred-v0", steps=64, num_steps=16, eval_every=0)
    for seed in range(5):
        act = agent.batch(np.random.default_rng(seed))
        record_episode(agent.settings, act, tmp_path / "film.gif", seed)


def test_a_mask_can_be_ignored():
    """Taxi's moves that change nothing are allowed then."""
    keys: dict[str, Any] = {"steps": 64, "num_steps": 8, "eval_every": 0}
    agent = plaudit.learn("ppo", "Taxi-v4", action_mask=False, **keys)
    assert agent.policy.net.obs_spec.num_barred == 0
    assert agent.act(3) in range(6)
    with pytest.raises(UserError, match="was taught without masks"):
        agent.act(3, mask=np.ones(6, np.int8))
