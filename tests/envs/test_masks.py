"""Masks of actions: each observation carries that of its own state, in every kind of vector."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import plaudit
from envs.masked_envs import ALLOWED, LAST, PAIR_ALLOWED, Barred
from plaudit.envs.make import make_worlds
from plaudit.envs.native import Native
from plaudit.envs.rollout import collect
from plaudit.envs.settings import WorldSettings
from plaudit.nets.action_values import any_action
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("masked_envs.py"))
KINDS = ["sync", "processes", "NEXT_STEP", "SAME_STEP", "DISABLED"]


@pytest.fixture
def make():
    """Worlds of a kind that are closed afterwards."""
    made = []

    def one(kind="sync", num_envs=3, frame_stack=1, normalise_obs=False, **options):
        if kind in ("sync", "processes"):
            settings = WorldSettings(
                env=f"{FILE}:Barred-v0",
                env_options={name: str(value) for name, value in options.items()},
                num_envs=num_envs,
                vector=kind,
                frame_stack=frame_stack,
                normalise_obs=normalise_obs,
            )
            worlds = make_worlds(settings, seed=5)
        else:
            vector = SyncVectorEnv(
                [lambda: Barred(**options)] * num_envs, autoreset_mode=AutoresetMode[kind]
            )
            worlds = Native(vector, name="Barred", seed=5, timeout=20)
        made.append(worlds)
        return worlds

    yield one
    for worlds in made:
        worlds.close()


def split(obs, table):
    """(state, mask) of rows that begin with a state's number and end with its mask."""
    return obs[:, 0].astype(int), obs[:, -table.shape[1] :]


def at_random(table, rng):
    """A policy of allowed actions by the masks alone."""
    sizes = [4] if table is ALLOWED else [2, 3]

    def act(obs):
        masks, begin, chosen = obs[:, -table.shape[1] :] != 0, 0, []
        for size in sizes:
            chosen.append(any_action(size, masks[:, begin : begin + size], rng))
            begin += size
        return chosen[0] if len(sizes) == 1 else np.stack(chosen, 1)

    return act


@pytest.mark.parametrize("last", ["empty", "missing", "full"])
@pytest.mark.parametrize("place", ["info", "obs"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_observation_has_the_mask_of_its_own_state(make, kind, place, last):
    if kind == "processes" and (place == "obs" or last != "empty"):
        pytest.skip("the copies are those of sync")
    worlds = make(kind, place=place, last=last)
    act = at_random(ALLOWED, np.random.default_rng(0))
    obs, ends, steps = worlds.reset(), {"terminated": 0, "truncated": 0}, 0
    for _ in range(200):
        state, mask = split(obs, ALLOWED)
        going_on = state != LAST  # with NEXT_STEP the last state is shown once more
        assert (mask[going_on] == ALLOWED[state[going_on]]).all()
        assert (mask[~going_on] == 1).all()
        moved = worlds.step(act(obs))  # it raises where an action is barred
        state, mask = split(moved.next_obs, ALLOWED)
        cut = moved.truncated & ~moved.terminated
        assert (mask[cut] == ALLOWED[state[cut]]).all()
        assert (mask[moved.terminated] == 1).all()
        assert (state[moved.terminated] == LAST).all()
        ends["terminated"] += moved.terminated.sum()
        ends["truncated"] += cut.sum()
        steps += moved.mask.sum()
        obs = moved.obs
    assert min(ends.values()) > 10
    assert worlds.obs_spec.num_barred == 4
    assert worlds.obs_spec.num_features == LAST + 1


@pytest.mark.parametrize("form", ["pair", "tuple"])
@pytest.mark.parametrize("kind", ["sync", "NEXT_STEP", "SAME_STEP"])
def test_masks_of_several_choices(make, kind, form):
    worlds = make(kind, form=form)
    act = at_random(PAIR_ALLOWED, np.random.default_rng(0))
    obs = worlds.reset()
    for _ in range(100):
        state, mask = split(obs, PAIR_ALLOWED)
        going_on = state != LAST
        assert (mask[going_on] == PAIR_ALLOWED[state[going_on]]).all()
        obs = worlds.step(act(obs)).obs


def test_processes_and_sync_are_one(make):
    one, other = make("sync"), make("processes")
    rng = np.random.default_rng(0)
    obs, same = one.reset(), other.reset()
    for _ in range(60):
        assert obs.tobytes() == same.tobytes()
        actions = at_random(ALLOWED, rng)(obs)
        obs, same = one.step(actions).obs, other.step(actions).obs


def test_a_dict_keeps_its_other_parts(make):
    worlds = make(place="parts", num_envs=2)
    obs = worlds.reset()
    assert [(p.name, p.kind) for p in worlds.obs_spec.pieces] == [
        ("at", "choice"),
        ("clock", "vector"),
        ("action_mask", "mask"),
    ]
    assert (obs[:, 2:] == ALLOWED[obs[:, 0].astype(int)]).all()


def test_an_image_beside_its_mask_stays_bytes():
    class Picture(gymnasium.Env):
        observation_space = spaces.Dict(
            observation=spaces.Box(0, 255, (4, 5, 3), np.uint8),
            action_mask=spaces.MultiBinary(2),
        )
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            image = self.np_random.integers(0, 256, (4, 5, 3), np.uint8)
            self.shown = image
            return {"observation": image, "action_mask": np.array([0, 1], np.int8)}, {}

        def step(self, action):
            return *self.reset()[:1], 0.0, False, False, {}

    gymnasium.register(id="Picture-v0", entry_point=Picture)
    try:
        worlds = make_worlds(WorldSettings(env="Picture-v0", frame_stack=2), seed=0)
        obs = worlds.reset()
        env = worlds.worlds.copies[0].env
        first = np.moveaxis(env.shown, -1, 0).ravel()
        assert obs.dtype == np.uint8
        assert obs[0].tolist() == [*first, *first, 0, 1]
        obs = worlds.step(np.array([1])).obs
        assert obs[0].tolist() == [*first, *np.moveaxis(env.shown, -1, 0).ravel(), 0, 1]
        assert [p.shape for p in worlds.obs_spec.pieces] == [(6, 4, 5), (2,)]
    finally:
        del gymnasium.registry["Picture-v0"]


def test_stacked_only_the_latest_mask_is_shown(make):
    worlds = make(frame_stack=3, num_envs=2)
    obs = worlds.reset()
    assert obs.shape == (2, 3 + 4)
    act = at_random(ALLOWED, np.random.default_rng(0))
    for _ in range(60):
        assert (obs[:, 3:] == ALLOWED[obs[:, 2].astype(int)]).all()
        before = obs
        moved = worlds.step(act(obs))
        obs = moved.obs
        on = ~moved.boundary
        assert (obs[on, :2] == before[on, 1:3]).all()


def test_normalising_leaves_choices_and_masks_alone(make):
    worlds = make(place="parts", normalise_obs=True)
    plain = make(place="parts")
    act = at_random(ALLOWED, np.random.default_rng(0))
    obs, as_it_is = worlds.reset(), plain.reset()
    for _ in range(40):
        assert (obs[:, [0, 2, 3, 4, 5]] == as_it_is[:, [0, 2, 3, 4, 5]]).all()
        actions = act(obs)
        obs, as_it_is = worlds.step(actions).obs, plain.step(actions).obs
    assert (obs[:, 1] != as_it_is[:, 1]).all()
    with pytest.raises(UserError, match="choices, which have no scale"):
        make(normalise_obs=True)


@pytest.mark.parametrize("kind", ["sync", "processes", "NEXT_STEP"])
def test_going_on_has_the_same_masks(make, kind):
    worlds = make(kind)
    act = at_random(ALLOWED, np.random.default_rng(0))
    seen = collect(worlds, act, worlds.reset(), 30)
    again = make(kind)
    obs = again.restore(worlds.state())
    state, mask = split(obs, ALLOWED)
    assert (mask == ALLOWED[state]).all()
    if kind != "NEXT_STEP":
        assert obs.tobytes() == seen.last_obs.tobytes()


WRONG = {
    "shape": r"an action_mask of shape \(3,\), not \(4,\)",
    "dtype": "an action_mask of dtype float64; booleans, or integers 0 and 1, are expected",
    "value": "an action_mask with 2 in it; 0 and 1 are expected",
    "empty": "an action_mask that allows none of 4 actions; at least one is expected",
    "text": "an action_mask that is no array of 4 booleans",
    "ragged": "an action_mask that is no array of 4 booleans",
    "missing": "no action_mask in its info, where its first reset had one",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_mask_is_told_with_its_step(make, wrong):
    worlds = make(wrong=wrong, since=3, num_envs=1)
    act = at_random(ALLOWED, np.random.default_rng(0))
    with pytest.raises(UserError, match=rf"environment 0, step 3.*: gave {WRONG[wrong]}"):
        collect(worlds, act, worlds.reset(), 10)


@pytest.mark.parametrize("wrong", ["shape", "dtype", "empty"])
@pytest.mark.parametrize("kind", ["NEXT_STEP", "SAME_STEP", "DISABLED"])
def test_a_wrong_mask_of_a_vector_is_told_with_its_step(make, kind, wrong):
    worlds = make(kind, wrong=wrong, since=3, num_envs=1)
    act = at_random(ALLOWED, np.random.default_rng(0))
    with pytest.raises(UserError, match=rf"Barred, environment 0, step \d.* {WRONG[wrong]}"):
        collect(worlds, act, worlds.reset(), 10)


@pytest.mark.parametrize("wrong", ["shape", "dtype", "empty"])
def test_a_wrong_first_mask_is_told(make, wrong):
    with pytest.raises(UserError, match=f"environment 0, step 0: its reset gave {WRONG[wrong]}"):
        make(wrong=wrong).reset()


def test_a_mask_of_another_size_in_the_space_is_told():
    class Short(Barred):
        def __init__(self):
            super().__init__("obs")
            mask = spaces.Box(0, 1, (3,), np.int8)
            self.observation_space = spaces.Dict(observation=spaces.Discrete(8), action_mask=mask)

    gymnasium.register(id="Short-v0", entry_point=Short)
    try:
        with pytest.raises(UserError, match=r"Short-v0: .* the shape \(3,\), .* need \(4,\)"):
            make_worlds(WorldSettings(env="Short-v0"), seed=0)
        ignored = make_worlds(WorldSettings(env="Short-v0", action_mask=False), seed=0)
        assert ignored.obs_spec.num_barred == 0
    finally:
        del gymnasium.registry["Short-v0"]


class Late(gymnasium.Env):
    """Says its mask in what steps say, not in what resets say."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, True, False, {"action_mask": np.ones(2, np.int8)}


class Numbers(Late):
    """Masks actions that are numbers."""

    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"action_mask": np.ones(2, np.int8)}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Late, "its step gave an action_mask, but its first reset gave none"),
        (Numbers, "its reset gave an action_mask, but actions of a Box cannot be masked"),
    ],
)
def test_masks_that_cannot_be_heeded_are_refused_and_can_be_ignored(kind, said):
    gymnasium.register(id="Unheeded-v0", entry_point=kind)
    try:
        with pytest.raises(UserError, match=f"{said}.*action_mask false ignores it"):
            plaudit.learn("a2c", "Unheeded-v0", steps=10)
        plaudit.learn("a2c", "Unheeded-v0", steps=10, action_mask=False, eval_every=0)
    finally:
        del gymnasium.registry["Unheeded-v0"]


def test_taxi_says_its_masks():
    worlds = make_worlds(WorldSettings(env="Taxi-v4", num_envs=2), seed=0)
    obs = worlds.reset()
    taxi = gymnasium.make("Taxi-v4").unwrapped
    for row in obs:
        assert row[1:].tolist() == taxi.action_mask(int(row[0])).tolist()
    assert obs.shape == (2, 1 + 6)
    worlds.close()
