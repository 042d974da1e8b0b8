"""Running statistics against all values kept and reckoned anew in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from envs.strange_envs import Counting
from plaudit.envs.make import make_worlds
from plaudit.envs.native import Native
from plaudit.envs.normalise import Normalised, ReturnScale
from plaudit.envs.settings import WorldSettings
from plaudit.envs.statistics import Statistics
from plaudit.records.errors import UserError

FILE = str(Path(__file__).with_name("strange_envs.py"))
DRAWING = WorldSettings(
    env=f"{FILE}:Drawing-v0", num_envs=3, normalise_obs=True, normalise_reward=True
)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    shift=st.sampled_from([0.0, 1e3, -1e6]),
    seed=st.integers(0, 99),
)
def test_batches_add_up_to_the_statistics_of_all(sizes, shift, seed):
    rng = np.random.default_rng(seed)
    statistics, kept = Statistics(4), []
    for size in sizes:
        values = rng.normal(shift, 3.0, (size, 4))
        mask = rng.random(size) < 0.7
        statistics.update(values, mask)
        kept.append(values[mask])
    every = np.concatenate(kept)
    assert statistics.count[0] == len(every)
    if len(every):
        np.testing.assert_allclose(statistics.mean, every.mean(0), rtol=1e-12, atol=1e-12)
        # Squares of values near 1e6 lose about 1e-16·1e12 of a variance near 9.
        np.testing.assert_allclose(statistics.var, every.var(0), rtol=1e-9, atol=1e-9)


def test_scaled_by_hand():
    statistics = Statistics(2)
    assert statistics.apply(np.array([[3, -40]], np.float32)).tolist() == [[3, -10]]
    statistics.update(np.array([[1.0, 5.0], [3.0, 5.0]]), np.ones(2, bool))
    # Means 2 and 5, deviations 1 and 0: (3 - 2)/1 = 1, (100 - 2)/1 is cut to 10, (5 - 5)/1e-4 = 0.
    found = statistics.apply(np.array([[[3, 5], [100, 5]]], np.float32))
    np.testing.assert_allclose(found, [[[1, 0], [10, 0]]], atol=1e-7)
    assert found.dtype == np.float32


def oracle(raw_obs, raw, gamma):
    """Every output of Normalised, from all that was seen so far, step by step."""
    seen, returns = [raw_obs.astype(np.float64)], []
    now = np.zeros(len(raw_obs))

    def scaled(obs):
        every = np.concatenate(seen)
        return ((obs - every.mean(0)) / np.sqrt(every.var(0) + 1e-8)).clip(-10, 10)

    yield scaled(raw_obs), None, None
    for moved in raw:
        seen.append(moved.next_obs[moved.mask].astype(np.float64))
        now = np.where(moved.mask, gamma * now + moved.reward, now)
        returns += now[moved.mask].tolist()
        reward = (moved.reward / np.sqrt(np.var(returns) + 1e-8)).clip(-10, 10)
        now = np.where(moved.boundary, 0.0, now)
        yield scaled(moved.obs), scaled(moved.next_obs), np.where(moved.mask, reward, 0)


def test_worlds_are_scaled_as_reckoned_anew():
    plain = DRAWING.model_copy(update={"normalise_obs": False, "normalise_reward": False})
    raw, worlds = (make_worlds(settings, seed=2, gamma=0.99) for settings in (plain, DRAWING))
    rng = np.random.default_rng(0)
    first, obs = raw.reset(), worlds.reset()
    steps, found = [], [(obs, None, None)]
    for _ in range(60):
        actions = rng.uniform([-1, 2], [1, 5], (3, 2)).astype(np.float32)
        steps.append(raw.step(actions))
        moved = worlds.step(actions)
        assert moved.episodes == steps[-1].episodes
        found.append((moved.obs, moved.next_obs, moved.reward))
    for ours, expected in zip(found, oracle(first, steps, 0.99), strict=True):
        for one, other in zip(ours, expected, strict=True):
            if other is not None:
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert sum(len(moved.episodes) for moved in steps) > 5


def test_rows_off_the_mask_do_not_count():
    vector = SyncVectorEnv([Counting] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    worlds = Normalised(
        Native(vector, name="Counting", seed=0, timeout=600),
        statistics=Statistics(2),
        return_scale=ReturnScale(2, 0.5),
    )
    worlds.reset()
    for actions in ([1, 0], [0, 0], [0, 0]):
        moved = worlds.step(np.array(actions))
    # First observations 2; transitions 2 + 1 (copy 0 only resets) + 2.
    assert worlds.statistics.count[0] == 2 + 5
    shown = [(1, 0), (1, 0), (1, 1), (1, 1), (1, 2), (2, 1), (1, 3)]
    np.testing.assert_allclose(worlds.statistics.mean, np.mean(shown, 0), rtol=1e-12)
    # Discounted returns: copy 0: 11, then anew 21; copy 1: 11, 12 + 5.5, 13 + 8.75.
    returns = [11, 11, 17.5, 21, 21.75]
    scale = worlds.return_scale
    assert scale.ret.tolist() == [21, 21.75]
    np.testing.assert_allclose(scale.statistics.var[0], np.var(returns), rtol=1e-12)
    np.testing.assert_allclose(moved.reward, np.array([21, 13]) / np.std(returns), rtol=1e-6)
    worlds.close()


def test_all_kinds_of_vector_count_alike():
    found = []
    for mode in AutoresetMode:
        vector = SyncVectorEnv([Counting] * 2, autoreset_mode=mode)
        worlds = Normalised(
            Native(vector, name="Counting", seed=0, timeout=600),
            statistics=Statistics(2),
            return_scale=None,
        )
        worlds.reset()
        for _ in range(2):
            worlds.step(np.array([1, 2]))
            if mode is AutoresetMode.NEXT_STEP:
                worlds.step(np.array([0, 0]))
        found.append((worlds.statistics.mean.tolist(), worlds.statistics.var.tolist()))
        worlds.close()
    assert found[0] == found[1] == found[2]


def test_evaluation_uses_copies_that_stay_and_raw_rewards():
    training = make_worlds(DRAWING, seed=0, gamma=0.99)
    training.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        training.step(rng.uniform([-1, 2], [1, 5], (3, 2)).astype(np.float32))
    evaluation = make_worlds(DRAWING, seed=1, num_envs=2, training=False)
    plain = DRAWING.model_copy(update={"normalise_obs": False})
    raw = make_worlds(plain, seed=1, num_envs=2, training=False)
    evaluation.statistics.copy_from(training.statistics)
    before = training.statistics.mean.copy(), training.statistics.var.copy()
    obs, seen = evaluation.reset(), raw.reset()
    begin = evaluation.state()
    for _ in range(20):
        np.testing.assert_array_equal(obs, training.statistics.apply(seen))
        actions = rng.uniform([-1, 2], [1, 5], (2, 2)).astype(np.float32)
        moved, plainly = evaluation.step(actions), raw.step(actions)
        np.testing.assert_array_equal(moved.reward, plainly.reward)
        obs, seen = moved.obs, plainly.obs
    assert np.array_equal(evaluation.statistics.mean, before[0])
    assert np.array_equal(evaluation.statistics.var, before[1])
    # Going back to the beginning keeps the newer statistics that were copied since.
    training.statistics.update(np.full((1, 3), 5.0), np.ones(1, bool))
    evaluation.statistics.copy_from(training.statistics)
    assert np.array_equal(evaluation.restore(begin), training.statistics.apply(raw_first()))
    for worlds in (training, evaluation, raw):
        worlds.close()


def raw_first():
    plain = DRAWING.model_copy(update={"normalise_obs": False})
    worlds = make_worlds(plain, seed=1, num_envs=2, training=False)
    first = worlds.reset()
    worlds.close()
    return first


def test_statistics_are_kept_and_read_again():
    statistics = Statistics(3)
    statistics.update(np.random.default_rng(0).normal(size=(5, 3)), np.ones(5, bool))
    again = Statistics.from_saved(statistics.state())
    obs = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    assert np.array_equal(again.apply(obs), statistics.apply(obs))
    again.update(obs, np.ones(4, bool))
    assert statistics.count[0] == 5


def test_images_are_not_normalised_twice():
    settings = WorldSettings(
        env=f"{FILE}:Drawing-v0", env_options={"kind": "image"}, normalise_obs=True
    )
    with pytest.raises(UserError, match="normalise_obs = true, but observations hold images"):
        make_worlds(settings, seed=0)


def test_the_discount_of_scaled_returns_is_the_callers():
    settings = WorldSettings(normalise_reward=True)
    worlds = make_worlds(settings, seed=0, gamma=0.5)
    assert worlds.return_scale.gamma == 0.5
    worlds.close()
    with pytest.raises(ValueError, match="give make_worlds gamma"):
        make_worlds(settings, seed=0)
    make_worlds(settings, seed=0, training=False).close()  # scales no rewards
