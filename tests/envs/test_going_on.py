"""What was saved in the middle of episodes goes on bit for bit, whatever kind of world it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from envs.test_conformance import assert_same
from plaudit.envs.make import make_worlds
from plaudit.envs.native import Native
from plaudit.envs.settings import WorldSettings
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("strange_envs.py"))
DRAWING = f"{FILE}:Drawing-v0"

WORLDS = {
    "cartpole": {"env": "CartPole-v1"},
    "pendulum": {"env": "Pendulum-v1", "max_episode_steps": 30},
    "acrobot": {"env": "Acrobot-v1"},
    "mountain car": {"env": "MountainCarContinuous-v0"},
    "frozen lake": {"env": "FrozenLake-v1", "env_options": {"map_name": "8x8"}},
    "taxi": {"env": "Taxi-v4", "max_episode_steps": 20},
    "blackjack": {"env": "Blackjack-v1"},
    "drawn": {"env": DRAWING},
    "drawn, stacked": {"env": DRAWING, "frame_stack": 3},
    "drawn, scaled": {"env": DRAWING, "normalise_obs": True, "normalise_reward": True},
    "drawn, both": {
        "env": DRAWING,
        "frame_stack": 4,
        "normalise_obs": True,
        "normalise_reward": True,
    },
    "image": {"env": DRAWING, "env_options": {"kind": "image"}, "frame_stack": 2},
    "mixture": {"env": DRAWING, "env_options": {"kind": "mixture"}, "frame_stack": 2},
}
CASES = [(name, "sync") for name in WORLDS] + [("drawn, both", "processes"), ("taxi", "processes")]


def draws(worlds, rng):
    spec = worlds.action_spec
    if spec.kind == "box":
        return rng.uniform(spec.low, spec.high, (worlds.num_envs, *spec.shape)).astype(np.float32)
    return rng.integers(0, spec.sizes[0], worlds.num_envs)


def through_files(saved):
    """As a checkpoint keeps it: arrays as they are, facts as JSON."""
    arrays, facts = saved
    kept = {}
    for name, array in arrays.items():
        assert array.dtype.name in ("float64", "float32", "int64", "uint8"), name
        kept[name] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    return kept, json.loads(json.dumps(facts))


@pytest.mark.parametrize(("name", "vector"), CASES)
def test_a_new_process_would_go_on_bit_for_bit(name, vector):
    settings = WorldSettings(num_envs=3, vector=vector, step_timeout=600, **WORLDS[name])
    rng = np.random.default_rng(3)
    one, other = (make_worlds(settings, seed=7, gamma=0.99) for _ in range(2))
    assert one.gives_state
    one.reset()
    for _ in range(43):
        moved = one.step(draws(one, rng))
    saved = through_files(one.state())
    obs = other.restore(saved)
    assert obs.dtype == moved.obs.dtype
    assert obs.tobytes() == moved.obs.tobytes()
    for _ in range(60):
        actions = draws(one, rng)
        assert_same(one.step(actions), other.step(actions))
    assert_saved_alike(one.state(), other.state())
    one.close()
    other.close()


def assert_saved_alike(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, array in one[0].items():
        assert array.tobytes() == other[0][name].tobytes(), name


def test_a_walker_whose_world_outlives_its_episodes_goes_on_too():
    pytest.importorskip("Box2D")
    settings = WorldSettings(env="BipedalWalker-v3", max_episode_steps=60)
    one, other = (make_worlds(settings, seed=1, gamma=0.99) for _ in range(2))
    rng = np.random.default_rng(0)
    one.reset()
    for _ in range(200):
        one.step(draws(one, rng))
    other.restore(one.state())
    for _ in range(130):
        actions = draws(one, rng)
        assert_same(one.step(actions), other.step(actions))
    one.close()
    other.close()


def test_saving_changes_nothing_and_worlds_can_go_back():
    settings = WorldSettings(num_envs=2, normalise_obs=True, normalise_reward=True, frame_stack=2)
    worlds = make_worlds(settings, seed=1, gamma=0.99)
    rng = np.random.default_rng(0)
    worlds.reset()
    for _ in range(20):
        worlds.step(draws(worlds, rng))
    saved = worlds.state()  # the very arrays: later steps do not write to them
    actions = [draws(worlds, rng) for _ in range(50)]
    first = [worlds.step(one) for one in actions]
    worlds.restore(saved)
    for one, before in zip(actions, first, strict=True):
        assert_same(worlds.step(one), before)
    worlds.close()


def test_seeds_copies_and_episodes_all_differ():
    worlds = [make_worlds(WorldSettings(num_envs=4), seed=seed) for seed in (0, 1)]
    seen = {tuple(row) for one in worlds for row in one.reset()}
    for _ in range(60):
        for one in worlds:
            moved = one.step(np.zeros(4, np.int64))
            seen |= {tuple(moved.obs[episode.env]) for episode in moved.episodes}
    # 8 copies, each with 60 steps of at most 11: episodes that all push left end after 8 to 11.
    assert len(seen) >= 8 * (1 + 60 // 11)
    for one in worlds:
        one.close()


@pytest.mark.parametrize(
    ("env", "vector"), [("Forgetful", "sync"), ("Forgetful", "processes"), ("Moody", "sync")]
)
def test_an_environment_that_does_not_repeat_itself_is_told(env, vector):
    settings = WorldSettings(env=f"{FILE}:{env}-v0", vector=vector, num_envs=2, step_timeout=600)
    worlds = make_worlds(settings, seed=0, gamma=0.99)
    worlds.reset()
    worlds.step(np.zeros(2, np.int64))
    saved = worlds.state()
    with pytest.raises(UserError, match=r"environment [01], step 1 .*same seed and actions"):
        worlds.restore(saved)
    worlds.close()


def test_another_number_of_copies_is_told():
    one, other = (make_worlds(WorldSettings(num_envs=n), seed=0) for n in (2, 3))
    one.reset()
    with pytest.raises(UserError, match="num_envs = 3, but 2 environments were saved"):
        other.restore(one.state())
    one.close()
    other.close()


def test_native_worlds_begin_anew_with_other_episodes_than_before():
    def made():
        vector = SyncVectorEnv([lambda: __import__("gymnasium").make("CartPole-v1")] * 2)
        return Native(vector, name="CartPole-v1", seed=3, timeout=600)

    one, other = made(), made()
    assert not one.gives_state
    first = one.reset()
    one.step(np.zeros(2, np.int64))
    again = other.restore(through_files(one.state()))
    assert not np.isin(again, first).any()
    assert np.array_equal(other.restore(one.state()), again)
    assert np.array_equal(made().reset(), first)
