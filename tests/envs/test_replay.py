"""Replay: hand-made arithmetic, and a slow oracle that keeps every copy's steps in a list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.envs.replay import Batch, Replay
from plaudit.envs.worlds import Transition
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

SEEN, CHOICE = ObsSpec.vector(1), ActionSpec("discrete", (100_000,))


def transition(
    next_obs: list[float],
    reward: list[float],
    end: str,
    mask: list[bool] | None = None,
) -> Transition:
    """A vector step; `end` has a letter for each copy: - goes on, T terminated, c cut off."""
    after = np.array(next_obs, np.float32)[:, None]
    return Transition(
        after,
        after,
        np.array(reward, np.float64),
        np.array([letter in "Tb" for letter in end]),
        np.array([letter in "cb" for letter in end]),
        np.array([True] * len(end) if mask is None else mask),
    )


def one_copy(ends: str, *, n: int, capacity: int = 10, gamma: float = 0.5) -> Replay:
    """A copy that saw 0, 1, 2, … with rewards 1, 2, 4, …; step k led to k + 1/2."""
    replay = Replay(capacity, SEEN, CHOICE, 1, gamma=gamma, n=n)
    for k, end in enumerate(ends):
        step = transition([k + 0.5], [2.0**k], end)
        replay.add(np.array([[k]], np.float32), np.array([k]), step)
    return replay


def drawn(batch: Batch) -> dict[int, tuple[float, float, float]]:
    """Return, next observation and discount by the action, which is unique to each step."""
    rows = zip(batch.action, batch.reward, batch.next_obs[:, 0], batch.discount, strict=True)
    return {int(a): (float(r), float(o), float(d)) for a, r, o, d in rows}


def test_trap_1_a_truncation_bootstraps_from_the_last_observation_and_a_termination_from_none():
    got = drawn(one_copy("-cT-", n=1).batch(np.arange(4)))
    assert got[0] == (1.0, 0.5, 0.5)
    assert got[1] == (2.0, 1.5, 0.5)  # γ = 1/2, from its own next observation, not step 2's 2.0
    assert got[2] == (4.0, 2.5, 0.0)


def test_trap_1_terminated_and_truncated_at_once_has_no_future():
    assert drawn(one_copy("b", n=1).batch(np.arange(1)))[0] == (1.0, 0.5, 0.0)


def test_trap_7_n_step_by_hand():
    """Three steps at γ = 1/2, rewards 1 2 4 8 16 32; step 2 terminates and step 4 is cut off."""
    got = drawn(one_copy("--T-c-", n=3).batch(np.arange(6)))
    assert got[0] == (1 + 2 / 2 + 4 / 4, 2.5, 0.0)
    assert got[1] == (2 + 4 / 2, 2.5, 0.0)
    assert got[2] == (4.0, 2.5, 0.0)
    assert got[3] == (8 + 16 / 2, 4.5, 0.25)  # two steps long: γ², from the true last observation
    assert got[4] == (16.0, 4.5, 0.5)
    assert got[5] == (32.0, 5.5, 0.5)  # the newest step: cut off for now


def test_trap_7_the_write_head_is_a_truncation_after_wrapping():
    """Room for 4 of 6 steps: 2 3 4 5 are held in slots 2 3 0 1, and 5 must not lead on to 2."""
    replay = one_copy("------", n=3, capacity=4)
    got = drawn(replay.batch(np.arange(4)))
    assert sorted(got) == [2, 3, 4, 5]
    assert len(replay) == 4
    assert got[2] == (4 + 8 / 2 + 16 / 4, 4.5, 0.125)
    assert got[3] == (8 + 16 / 2 + 32 / 4, 5.5, 0.125)
    assert got[4] == (16 + 32 / 2, 5.5, 0.25)
    assert got[5] == (32.0, 5.5, 0.5)


def test_trap_7_copies_do_not_mix():
    """Two copies, two steps each at γ = 1/2: rewards 1 2 in the first, 10 20 in the second."""
    replay = Replay(4, SEEN, CHOICE, 2, gamma=0.5, n=2)
    replay.add(np.zeros((2, 1), np.float32), np.array([0, 10]), transition([1, 2], [1, 10], "--"))
    replay.add(np.zeros((2, 1), np.float32), np.array([1, 11]), transition([3, 4], [2, 20], "-T"))
    got = drawn(replay.batch(np.arange(4)))
    assert got == {
        0: (2.0, 3.0, 0.25),
        1: (2.0, 3.0, 0.5),
        10: (20.0, 4.0, 0.0),
        11: (20.0, 4.0, 0.0),
    }


def slow_chain(
    stream: list[tuple[int, float, float, str]], at: int, *, n: int, gamma: float
) -> tuple[float, float, float]:
    """Return, next observation, discount from step `at` of one copy's list, by recursion."""
    _, reward, after, end = stream[at]
    if end in "Tb":
        return reward, after, 0.0
    if end == "c" or n == 1 or at == len(stream) - 1:
        return reward, after, gamma
    later, last, discount = slow_chain(stream, at + 1, n=n - 1, gamma=gamma)
    return reward + gamma * later, last, gamma * discount


@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    num_envs=st.integers(1, 3),
    slots=st.integers(1, 6),
    n=st.integers(1, 5),
    num_steps=st.integers(1, 20),
)
def test_trap_7_against_a_slow_oracle(data, num_envs, slots, n, num_steps):
    replay = Replay(slots * num_envs + num_envs - 1, SEEN, CHOICE, num_envs, gamma=0.9, n=n)
    streams: list[list[tuple[int, float, float, str]]] = [[] for _ in range(num_envs)]
    letters = st.lists(st.sampled_from("---Tcb"), min_size=num_envs, max_size=num_envs)
    masks = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs)
    for k in range(num_steps):
        end, mask = data.draw(letters), data.draw(masks)
        ids = [k * num_envs + b for b in range(num_envs)]
        after, reward = [i + 0.5 for i in ids], [float(i % 7) for i in ids]
        step = transition(after, reward, "".join(end), mask)
        replay.add(np.array(ids, np.float32)[:, None], np.array(ids), step)
        for b in np.flatnonzero(mask):
            streams[b].append((ids[b], reward[b], after[b], end[b]))
    held = [stream[-slots:] for stream in streams]
    assert len(replay) == sum(map(len, held))
    want = {
        stream[at][0]: slow_chain(stream, at, n=n, gamma=0.9)
        for stream in held
        for at in range(len(stream))
    }
    if not want:
        return
    batch = replay.sample(40 * len(want), np.random.default_rng(0))
    got = drawn(batch)
    np.testing.assert_array_equal(batch.obs[:, 0], batch.action)
    assert set(got) <= set(want)
    for action, row in got.items():
        assert row == pytest.approx(want[action], rel=1e-6)


def test_every_step_held_is_drawn_alike_though_copies_hold_different_numbers():
    """Copy 0 holds 1 step and copy 1 holds 3: each of the four in a quarter of the draws."""
    replay = Replay(6, SEEN, CHOICE, 2, gamma=1.0)
    for k in range(3):
        step = transition([0, 0], [0, 0], "--", [k == 1, True])
        replay.add(np.zeros((2, 1), np.float32), np.array([k, 10 + k]), step)
    action = replay.sample(40_000, np.random.default_rng(1)).action
    found, count = np.unique(action, return_counts=True)
    assert found.tolist() == [1, 10, 11, 12]
    # Four standard deviations of a binomial count: 4·√(40000·¼·¾) = 346.
    assert np.abs(count - 10_000).max() < 346


def test_rows_off_the_mask_are_not_held():
    replay = Replay(4, SEEN, CHOICE, 2, gamma=1.0)
    step = transition([1, 2], [1, 1], "--", [False, True])
    replay.add(np.zeros((2, 1), np.float32), np.array([7, 8]), step)
    assert len(replay) == 1
    assert set(replay.sample(50, np.random.default_rng(0)).action.tolist()) == {8}


def test_images_stay_bytes_and_continuous_actions_stay_vectors():
    image = ObsSpec((1, 2, 2), "uint8", (Piece("obs", "image", (1, 2, 2)),))
    replay = Replay(5, image, ActionSpec("box", (3,), (-1,) * 3, (1,) * 3), 1, gamma=0.9)
    seen = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    flag = np.zeros(1, bool)
    replay.add(
        seen,
        np.full((1, 3), 0.5, np.float32),
        Transition(seen, seen, np.ones(1), flag, flag, ~flag),
    )
    batch = replay.sample(2, np.random.default_rng(0))
    assert batch.obs.dtype == np.uint8
    assert batch.obs.shape == (2, 1, 2, 2)
    assert batch.action.dtype == np.float32
    assert batch.action.shape == (2, 3)
    assert (batch.obs[1] == seen[0]).all()


def test_what_was_added_may_be_written_over_by_its_owner():
    replay = Replay(3, SEEN, CHOICE, 1, gamma=0.9)
    obs, step = np.array([[3.0]], np.float32), transition([4.0], [1.0], "-")
    replay.add(obs, np.array([0]), step)
    obs[:], step.next_obs[:] = -1, -1
    batch = replay.sample(1, np.random.default_rng(0))
    assert (batch.obs.item(), batch.next_obs.item()) == (3.0, 4.0)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("num_steps", [3, 11])
def test_restored_goes_on_to_the_bit(num_steps, uneven):
    rng = np.random.default_rng(3)

    def go_on(replay: Replay, start: int, stop: int) -> None:
        for k in range(start, stop):
            mask = [k != 1 or not uneven, True]
            step = transition([k + 0.5, -k - 0.5], [k, -k], "-c" if k % 3 else "T-", mask)
            replay.add(np.array([[k], [-k]], np.float32), np.array([k, 100 + k]), step)

    def new() -> Replay:
        return Replay(10, SEEN, CHOICE, 2, gamma=0.9, n=3)

    first = new()
    go_on(first, 0, num_steps)
    saved = first.state()
    state = rng.bit_generator.state
    go_on(first, num_steps, num_steps + 4)
    want = first.sample(64, rng)

    second = new()
    second.restore(saved)
    go_on(second, num_steps, num_steps + 4)
    rng.bit_generator.state = state
    got = second.sample(64, rng)
    for name in ("obs", "action", "reward", "next_obs", "discount", "rows"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def test_a_cut_ends_every_chain_where_worlds_began_anew():
    replay = one_copy("--", n=3)
    replay.cut()
    replay.add(np.array([[2.0]], np.float32), np.array([2]), transition([2.5], [4.0], "-"))
    got = drawn(replay.batch(np.arange(3)))
    assert got[0] == (1 + 2 / 2, 1.5, 0.25)
    assert got[1] == (2.0, 1.5, 0.5)


def test_too_large_a_replay_is_refused_with_the_size_that_fits():
    with pytest.raises(UserError, match=r"needs .* GiB and .* GiB are free: ask for at most \d+"):
        Replay(10**12, ObsSpec.vector(100), CHOICE, 1, gamma=0.9)


def test_fewer_places_than_copies_are_refused():
    with pytest.raises(UserError, match="at least one for each"):
        Replay(3, SEEN, CHOICE, 4, gamma=0.9)


def test_another_shape_is_not_restored():
    saved = one_copy("--", n=1).state()
    with pytest.raises(UserError, match="had 10 slots of obs"):
        Replay(9, SEEN, CHOICE, 1, gamma=0.5).restore(saved)
