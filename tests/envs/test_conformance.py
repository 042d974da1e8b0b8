"""Every kind of vector, in every autoreset mode, gives each step exactly the credit it is due."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.strange_envs import Counting
from plaudit.envs.make import make_worlds
from plaudit.envs.native import Native
from plaudit.envs.settings import WorldSettings
from plaudit.envs.stack import Stacked
from plaudit.envs.worlds import Episode, Transition
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("strange_envs.py"))
KINDS = ["sync", "processes", "NEXT_STEP", "SAME_STEP", "DISABLED"]


@pytest.fixture
def make():
    """Worlds of a kind that are closed afterwards."""
    made = []

    def one(kind, num_envs, env="Counting-v0", **more):
        if kind in ("sync", "processes"):
            settings = WorldSettings(
                env=f"{FILE}:{env}", num_envs=num_envs, vector=kind, step_timeout=600, **more
            )
            worlds = make_worlds(settings, seed=5)
        else:
            vector = SyncVectorEnv([Counting] * num_envs, autoreset_mode=AutoresetMode[kind])
            worlds = Native(vector, name="Counting", seed=5, timeout=600)
        made.append(worlds)
        return worlds

    yield one
    for worlds in made:
        worlds.close()


# Actions of two copies. Counting rewards 10·episode + step, and shows (episode, step).
SCRIPT = [[0, 1, 0, 0, 2, 3], [2, 0, 0, 0, 1, 0]]
T, F = True, False
# (obs, action, reward, next_obs, terminated, truncated), by hand.
CREDIT = [
    [
        ((1, 0), 0, 11, (1, 1), F, F),
        ((1, 1), 1, 12, (1, 2), T, F),
        ((2, 0), 0, 21, (2, 1), F, F),
        ((2, 1), 0, 22, (2, 2), F, F),
        ((2, 2), 2, 23, (2, 3), F, T),
        ((3, 0), 3, 31, (3, 1), T, T),
    ],
    [
        ((1, 0), 2, 11, (1, 1), F, T),
        ((2, 0), 0, 21, (2, 1), F, F),
        ((2, 1), 0, 22, (2, 2), F, F),
        ((2, 2), 0, 23, (2, 3), F, F),
        ((2, 3), 1, 24, (2, 4), T, F),
        ((3, 0), 0, 31, (3, 1), F, F),
    ],
]
EPISODES = [
    [Episode(0, 11 + 12, 2), Episode(0, 21 + 22 + 23, 3), Episode(0, 31, 1)],
    [Episode(1, 11, 1), Episode(1, 21 + 22 + 23 + 24, 4)],
]


def played(worlds, script):
    """What each copy was credited with, its actions taken from its own script; and episodes."""
    left = [deque(actions) for actions in script]
    credit, episodes = [[] for _ in script], [[] for _ in script]
    obs = worlds.reset()
    while any(left):
        actions = np.array([(queue or [0])[0] for queue in left])
        moved = worlds.step(actions)
        for row, queue in enumerate(left):
            if moved.mask[row] and queue:
                queue.popleft()
                credit[row].append(
                    (
                        tuple(obs[row]),
                        actions[row],
                        moved.reward[row],
                        tuple(moved.next_obs[row]),
                        moved.terminated[row],
                        moved.truncated[row],
                    )
                )
                episodes[row] += [one for one in moved.episodes if one.env == row]
        obs = moved.obs
    return credit, episodes


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_has_the_credit_written_by_hand(make, kind):
    credit, episodes = played(make(kind, 2), SCRIPT)
    assert credit == CREDIT
    assert episodes == EPISODES


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_off_the_mask_only_where_a_step_resets(make, kind):
    worlds = make(kind, 2)
    worlds.reset()
    masks = [worlds.step(np.array(a)).mask.tolist() for a in ([1, 0], [0, 0], [0, 2], [0, 0])]
    late = kind == "NEXT_STEP"
    assert masks == [[T, T], [not late, T], [T, T], [T, not late]]


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_end_one_acts_on_the_new_episode(make, kind):
    worlds = make(kind, 2)
    assert worlds.reset().tolist() == [[1, 0], [1, 0]]
    moved = worlds.step(np.array([3, 0]))
    assert moved.next_obs.tolist() == [[1, 1], [1, 1]]
    assert moved.boundary.tolist() == [T, F]
    if kind == "NEXT_STEP":
        assert moved.mask.all()
        moved = worlds.step(np.array([1, 0]))  # the action is ignored
        assert (moved.reward.tolist(), moved.boundary.tolist()) == ([0, 12], [F, F])
        assert moved.obs.tolist() == [[2, 0], [1, 2]]
    else:
        assert moved.obs.tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_given_is_not_written_to_again(make, kind):
    worlds = make(kind, 2)
    given = [worlds.reset()]
    for actions in ([0, 1], [0, 0], [2, 0], [3, 0], [0, 0]):
        moved = worlds.step(np.array(actions))
        given += [moved.obs, moved.next_obs, moved.reward, moved.terminated, moved.mask]
        kept = [array.copy() for array in given]
        worlds.step(np.array([0, 0]))
        assert all(np.array_equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_frames_never_come_from_another_episode(make, kind):
    credit, _ = played(Stacked(make(kind, 2), 2), SCRIPT)
    # By hand from CREDIT: the frame before, or the same one again at an episode's start.
    assert [step[0] for step in credit[0]] == [
        (1, 0, 1, 0),
        (1, 0, 1, 1),
        (2, 0, 2, 0),
        (2, 0, 2, 1),
        (2, 1, 2, 2),
        (3, 0, 3, 0),
    ]
    assert [step[3] for step in credit[0]] == [
        (1, 0, 1, 1),
        (1, 1, 1, 2),
        (2, 0, 2, 1),
        (2, 1, 2, 2),
        (2, 2, 2, 3),
        (3, 0, 3, 1),
    ]


@pytest.mark.parametrize("kind", ["sync", "processes"])
@pytest.mark.parametrize(
    ("env", "more"), [("Limited-v0", {}), ("Counting-v0", {"max_episode_steps": 3})]
)
def test_the_time_limit_truncates_and_keeps_what_terminates(make, kind, env, more):
    worlds = make(kind, 1, env=env, **more)
    worlds.reset()
    flags = []
    for action in (0, 0, 0, 0, 0, 1, 1, 0):
        moved = worlds.step(np.array([action]))
        flags.append((bool(moved.terminated[0]), bool(moved.truncated[0])))
    assert flags == [(F, F), (F, F), (F, T), (F, F), (F, F), (T, T), (T, F), (F, F)]


def test_max_episode_steps_stands_in_place_of_the_ids_own_limit(make):
    worlds = make("sync", 1, env="Limited-v0", max_episode_steps=5)
    worlds.reset()
    lengths = [worlds.step(np.array([0])).truncated[0] for _ in range(5)]
    assert lengths == [F, F, F, F, T]


def test_processes_and_sync_give_the_same_bit_for_bit(make):
    rng = np.random.default_rng(0)
    both = [make(kind, 3, env="Drawing-v0") for kind in ("sync", "processes")]
    first = [worlds.reset() for worlds in both]
    assert np.array_equal(*first)
    num_ends = 0
    for _ in range(100):
        actions = rng.uniform([-1, 2], [1, 5], (3, 2)).astype(np.float32)
        one, other = (worlds.step(actions) for worlds in both)
        assert_same(one, other)
        num_ends += len(one.episodes)
    assert num_ends > 5


def assert_same(one: Transition, other: Transition) -> None:
    for name in ("obs", "next_obs", "reward", "terminated", "truncated", "mask"):
        found, expected = getattr(one, name), getattr(other, name)
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()
    assert one.episodes == other.episodes


@pytest.mark.parametrize("kind", ["sync", "processes"])
def test_cartpole_is_what_gymnasium_gives_stepped_by_hand(kind):
    worlds = make_worlds(WorldSettings(num_envs=2, vector=kind), seed=11)
    envs = [gymnasium.make("CartPole-v1") for _ in range(2)]
    episodes = [0, 0]
    rng = np.random.default_rng(1)
    obs = worlds.reset()
    for row, env in enumerate(envs):
        assert np.array_equal(obs[row], env.reset(seed=seed_of(11, row, 0))[0])
    for _ in range(300):
        actions = rng.integers(0, 2, 2)
        moved = worlds.step(actions)
        for row, env in enumerate(envs):
            seen, reward, terminated, truncated, _ = env.step(actions[row])
            assert np.array_equal(moved.next_obs[row], seen)
            assert moved.reward[row] == reward
            assert (moved.terminated[row], moved.truncated[row]) == (terminated, truncated)
            if terminated or truncated:
                episodes[row] += 1
                seen, _ = env.reset(seed=seed_of(11, row, episodes[row]))
            assert np.array_equal(moved.obs[row], seen)
    worlds.close()
    assert min(episodes) > 5


def seed_of(seed: int, copy: int, episode: int) -> int:
    """Of an episode below 256: its place in the first block of the copy's sequence."""
    words = np.random.SeedSequence((seed, copy, 0)).generate_state(256)
    return int(words[episode]) // 2


def test_cartpole_at_its_limit_is_cut_off_and_not_ended():
    worlds = make_worlds(WorldSettings(), seed=0)
    obs = worlds.reset()
    for _ in range(500):
        angle, speed = obs[0, 2], obs[0, 3]
        moved = worlds.step(np.array([int(angle + speed + 0.1 * obs[0, 1] > 0)]))
        obs = moved.obs
    worlds.close()
    assert moved.episodes == [Episode(0, 500.0, 500)]
    assert (moved.terminated[0], moved.truncated[0]) == (F, T)


def test_gymnasiums_own_vector_of_cartpoles_as_stepped_by_hand():
    worlds = make_worlds(WorldSettings(num_envs=4, vector="native", max_episode_steps=20), seed=2)
    raw = gymnasium.make_vec(
        "CartPole-v1", 4, vectorization_mode="vector_entry_point", max_episode_steps=20
    )
    seed = int(np.random.SeedSequence((2, 0)).generate_state(1)[0]) // 2
    seen, _ = raw.reset(seed=seed)
    assert np.array_equal(worlds.reset(), seen)
    had_ended = np.zeros(4, np.bool_)
    rng = np.random.default_rng(0)
    total, lengths, num_truncated = 0.0, [], 0
    for _ in range(200):
        actions = rng.integers(0, 2, 4)
        seen, reward, terminated, truncated, _ = raw.step(actions)
        moved = worlds.step(actions)
        assert np.array_equal(moved.next_obs, seen)
        assert np.array_equal(moved.mask, ~had_ended)
        assert np.array_equal(moved.reward, reward)
        assert np.array_equal(moved.terminated, terminated)
        assert np.array_equal(moved.truncated, truncated)
        had_ended = terminated | truncated
        total += reward.sum()
        lengths += [episode.length for episode in moved.episodes]
        num_truncated += int((truncated & ~terminated).sum())
        assert all(episode.ret == episode.length for episode in moved.episodes)
    assert max(lengths) == 20
    assert num_truncated > 3
    assert sum(lengths) <= total <= sum(lengths) + 4 * 20
    worlds.close()


@pytest.mark.parametrize("said", ["absent", None, "NEXT_STEP", 1])
def test_an_unknown_autoreset_mode_is_refused(said):
    vector = SyncVectorEnv([Counting] * 2)
    vector.metadata = {} if said == "absent" else {"autoreset_mode": said}
    with pytest.raises(UserError, match=r"autoreset_mode = .*NEXT_STEP, SAME_STEP, DISABLED"):
        Native(vector, name="Counting", seed=0, timeout=600)


def test_same_step_without_final_obs_is_refused():
    class Silent(SyncVectorEnv):
        def step(self, actions):
            *answer, _ = super().step(actions)
            return (*answer, {})

    vector = Silent([Counting] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    worlds = Native(vector, name="Counting", seed=0, timeout=600)
    worlds.reset()
    with pytest.raises(UserError, match=r"environment 1, step 1: gave no final_obs"):
        worlds.step(np.array([0, 1]))
    worlds.close()


def test_a_reset_of_some_leaves_the_others_where_they_are():
    class Careless(SyncVectorEnv):
        """Shows zeros for the copies that were not to be reset."""

        def reset(self, *, seed=None, options=None):
            mask = (options or {}).get("reset_mask")
            obs, info = super().reset(seed=seed, options=options)
            return obs if mask is None else obs * mask[:, None], info

    vector = Careless([Counting] * 2, autoreset_mode=AutoresetMode.DISABLED)
    worlds = Native(vector, name="Counting", seed=0, timeout=600)
    worlds.reset()
    assert worlds.step(np.array([0, 1])).obs.tolist() == [[1, 1], [2, 0]]
    worlds.close()
