"""Worlds with many numbered states, with nothing to see, and with actions that know no bounds."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import plaudit
from plaudit.agents.q_learning import new_replay
from plaudit.control.dqn import DQNConfig
from plaudit.envs.make import make_worlds
from plaudit.envs.settings import WorldSettings
from plaudit.nets.control_nets import network
from plaudit.nets.mlp_look_up import LookUpMLP
from plaudit.records.errors import UserError


class Numbered(gymnasium.Env):
    """One of n states at random; action state mod 2 pays 1; an episode has four steps."""

    def __init__(self, n: int = 5000, several: bool = False) -> None:
        self.observation_space = spaces.MultiDiscrete([n, n]) if several else spaces.Discrete(n)
        self.action_space = spaces.Discrete(2)
        self.n, self.several = n, several

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._next(), {}

    def _next(self):
        self.at = int(self.np_random.integers(self.n))
        return np.array([self.at, 0]) if self.several else self.at

    def step(self, action):
        reward = float(action == self.at % 2)
        self.time += 1
        return self._next(), reward, self.time == 4, False, {}


class Blind(gymnasium.Env):
    """A bandit of three arms, of which the last is best, that shows `shown`."""

    def __init__(self, shown: str) -> None:
        self.observation_space, self.shown = {
            "empty box": (spaces.Box(0, 1, (0,)), np.zeros(0, np.float32)),
            "empty dict": (spaces.Dict({}), {}),
            "empty tuple": (spaces.Tuple([]), ()),
            "one value": (spaces.Discrete(1), 0),
            "one value each": (spaces.MultiDiscrete([1, 1]), np.zeros(2, np.int64)),
        }[shown]
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}

    def step(self, action):
        return self.shown, [0.1, 0.3, 0.8][int(action)], True, False, {}


class Aim(gymnasium.Env):
    """Pays −(u − 3)² for a first number without bounds, −(v + 2)²/10 for a second of at least 0."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Box(np.float32([-np.inf, 0]), np.float32([np.inf, np.inf]))
    lowest = np.zeros(2)
    highest = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        Aim.lowest, Aim.highest = np.minimum(Aim.lowest, action), np.maximum(Aim.highest, action)
        reward = -float((action[0] - 3) ** 2 + 0.1 * (action[1] + 2) ** 2)
        return np.ones(1, np.float32), reward, True, False, {}


@pytest.fixture(autouse=True)
def known():
    """The worlds above by their ids."""
    ids = {"Numbered-v0": Numbered, "Blind-v0": Blind, "Aim-v0": Aim}
    for name, kind in ids.items():
        gymnasium.register(id=name, entry_point=kind)
    yield
    for name in ids:
        del gymnasium.registry[name]


# --- many numbered states


@pytest.mark.parametrize("several", [False, True])
def test_a_step_is_kept_in_as_many_bytes_however_many_states_there_are(several):
    """A number each, not a code: 10 states and 100,000 take the same."""
    sizes = []
    for n in (10, 100_000):
        options = {"n": str(n), "several": str(several).lower()}
        config = DQNConfig(env="Numbered-v0", env_options=options, buffer_size=64)
        worlds = make_worlds(config, seed=0)
        replay = new_replay(config, worlds)
        sizes.append(replay.obs.nbytes)
        assert worlds.reset().shape == (1, 1 + several)
    assert sizes == [64 * 4 * (1 + several)] * 2


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("dqn", {"learning_starts": 16, "buffer_size": 100_000}),
        ("ppo", {"num_steps": 8, "num_epochs": 2}),
        ("a2c", {}),
        ("sac_discrete", {"learning_starts": 40, "hidden": (8,), "batch_size": 16}),
        ("ppo_kl", {"num_steps": 8, "num_epochs": 2}),
        ("dqn_distributional", {"learning_starts": 16, "num_quantiles": 4}),
    ],
)
def test_many_states_are_looked_up(name, keys):
    keys = {"hidden": (16,), **keys}
    agent = plaudit.learn(name, "Numbered-v0", steps=64, eval_every=0, **keys)
    net = agent.policy.net
    assert isinstance(net.mlp, LookUpMLP)
    assert net.mlp.sizes[0] == 5000
    assert agent.act(4999) in (0, 1)


def test_states_beyond_what_is_written_out_are_learned():
    """200 states, each with its own best action."""
    keys: dict[str, Any] = {"env_options": {"n": 200}, "num_steps": 64, "lr": 0.01, "gamma": 0.0}
    agent = plaudit.learn("ppo", "Numbered-v0", steps=12_000, eval_every=0, hidden=(32,), **keys)
    right = [agent.act(state) == state % 2 for state in range(200)]
    assert np.mean(right) > 0.97


# --- nothing to see


@pytest.mark.parametrize("name", ["ppo", "dqn", "a2c"])
@pytest.mark.parametrize(
    "shown", ["empty box", "empty dict", "empty tuple", "one value", "one value each"]
)
def test_a_bandit_without_observations_is_learned(name, shown):
    keys = {
        "ppo": {"num_steps": 16, "lr": 0.01},
        "dqn": {"learning_starts": 50, "lr": 0.01},
        "a2c": {"lr": 0.02},
    }[name]
    agent = plaudit.learn(
        name,
        "Blind-v0",
        env_options={"shown": shown},
        steps=1000,
        hidden=(8,),
        eval_every=0,
        **keys,
    )
    assert agent.act(Blind(shown).shown) == 2
    assert [episode.ret for episode in agent.evaluate(3)] == [0.8] * 3


# --- no bounds


def test_a_gaussian_acts_without_bounds(tmp_path):
    """The first mean goes to 3, beyond any clip; the second is cut at 0 below and nowhere above."""
    Aim.lowest, Aim.highest = np.zeros(2), np.zeros(2)
    keys: dict[str, Any] = {"num_steps": 16, "lr": 0.03, "steps": 6000}
    agent = plaudit.learn("ppo", "Aim-v0", hidden=(), eval_every=0, **keys)
    action = agent.act(np.ones(1, np.float32))
    assert action[0] == pytest.approx(3, abs=0.5)
    assert action[1] == 0.0
    assert Aim.lowest[1] == 0.0
    assert Aim.lowest[0] < -1
    assert Aim.highest[1] > 1
    loaded = plaudit.load(agent.save(tmp_path / "agent"))
    assert "Infinity" not in (tmp_path / "agent" / "agent.json").read_text()
    assert loaded.act(np.ones(1, np.float32)).tobytes() == action.tobytes()


@pytest.mark.parametrize("name", ["ppo_kl", "a3c", "reinforce", "ppo_recurrent"])
def test_its_siblings_act_without_bounds_too(name):
    more = {"num_workers": 1} if name == "a3c" else {}
    agent = plaudit.learn(name, "Aim-v0", steps=64, eval_every=0, hidden=(8,), **more)
    assert agent.act(np.ones(1, np.float32))[1] >= 0


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_who_stretches_to_bounds_says_who_does_not(name):
    with pytest.raises(
        UserError, match=r"finite bounds, found low .*; ppo, whose Gaussian needs none"
    ):
        plaudit.learn(name, "Aim-v0", steps=64)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_bounds_too_wide_to_stretch_to_are_refused(name):
    """Their difference is no float32: actions would be nan."""

    class Wide(Aim):
        action_space = spaces.Box(np.float32(-3e38), np.float32(3e38), (1,))

    gymnasium.register(id="Wide-v0", entry_point=Wide)
    try:
        with pytest.raises(UserError, match="finite bounds"):
            plaudit.learn(name, "Wide-v0", steps=64)
    finally:
        del gymnasium.registry["Wide-v0"]


def test_critics_of_numbered_states_and_numbers_for_actions():
    """A critic's gradient in its action is that of the net of one-hot codes."""
    from plaudit.agents.twin_critics import critic_input, first_q, least_q

    worlds = make_worlds(WorldSettings(env="Numbered-v0", env_options={"n": "30"}), seed=0)
    keys: dict[str, Any] = {"activation": "relu", "copies": 2, "extra_inputs": 2, "hidden": (8, 8)}
    critic = network(worlds.obs_spec, 1, rng=np.random.default_rng(0), **keys)
    rng = np.random.default_rng(1)
    state = rng.integers(0, 30, 20)
    action = rng.standard_normal((20, 2)).astype(np.float32)
    obs, codes = state[:, None].astype(np.float32), np.eye(30, dtype=np.float32)[state]
    for of in (first_q, least_q):
        for found, expected in zip(of(critic, obs, action), of(critic, codes, action), strict=True):
            assert np.array_equal(found, expected)
    both = critic.infer(critic_input(obs, action))[:, :, 0]
    assert np.allclose(least_q(critic, obs, action)[0], both.min(0), atol=1e-6)
