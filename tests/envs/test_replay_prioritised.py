"""Prioritised replay: hand-made arithmetic, and the tree against running sums of a plain list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.envs.replay_prioritised import (
    SMALLEST,
    PrioritisedReplay,
    empty_tree,
    find_leaves,
    set_leaves,
)
from plaudit.envs.worlds import Transition
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec


def replay_of(num_steps: int, *, alpha: float = 1.0, capacity: int = 8) -> PrioritisedReplay:
    replay = PrioritisedReplay(
        capacity, ObsSpec.vector(1), ActionSpec("discrete", (99,)), 1, gamma=0.9, alpha=alpha
    )
    for k in range(num_steps):
        add(replay, k)
    return replay


def add(replay: PrioritisedReplay, k: int) -> None:
    obs, no = np.array([[k]], np.float32), np.zeros(1, bool)
    replay.add(obs, np.array([k]), Transition(obs, obs, np.ones(1), no, no, ~no))


@settings(deadline=None, max_examples=200)
@given(
    size=st.integers(1, 40),
    changes=st.lists(
        st.tuples(st.integers(0, 39), st.floats(0, 1e6) | st.just(0.0)), min_size=1, max_size=60
    ),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_trap_8_the_tree_finds_what_running_sums_find(size, changes, fractions):
    tree, plain = empty_tree(size), np.zeros(size)
    for leaf, value in changes:
        set_leaves(tree, np.array([leaf % size]), np.array([value]))
        plain[leaf % size] = value
    assert tree.dtype == np.float64
    assert tree[1] == pytest.approx(plain.sum(), rel=1e-12)
    if tree[1] == 0:
        return
    upto = np.cumsum(plain)
    for fraction in fractions:
        mass = fraction * tree[1]
        (leaf,) = find_leaves(tree, np.array([mass]))
        assert plain[leaf] > 0
        slack = 1e-9 * upto[-1]
        assert upto[leaf] - plain[leaf] - slack <= mass <= upto[leaf] + slack


def test_trap_8_the_last_of_equal_leaves_wins():
    tree = empty_tree(3)
    set_leaves(tree, np.array([1, 1]), np.array([5.0, 2.0]))
    assert tree[1] == 2.0


def test_trap_8_draws_are_in_proportion_to_priority():
    """|δ| of 1 2 3 4 at α = 1: tenths 1 2 3 4 of the draws, exactly, as draws are stratified."""
    replay = replay_of(4)
    replay.refresh(np.arange(4), np.array([1, -2, 3, -4], np.float32))
    action = replay.sample(100_000, np.random.default_rng(0)).action
    share = np.bincount(action, minlength=4) / 100_000
    np.testing.assert_allclose(share, [0.1, 0.2, 0.3, 0.4], atol=3e-5)


def test_trap_8_weights_by_hand():
    """P = ¼ and ¾ of N = 2 draws at β = ½: (2·¼)^−½ = √2 and (2·¾)^−½ = √⅔; the ratio is √⅓."""
    replay = replay_of(2)
    replay.refresh(np.arange(2), np.array([1, 3], np.float32))
    batch = replay.sample(400, np.random.default_rng(0), beta=0.5)
    assert batch.weight is not None
    by_action = {int(a): float(w) for a, w in zip(batch.action, batch.weight, strict=True)}
    assert by_action == pytest.approx({0: 1.0, 1: (1 / 3) ** 0.5}, rel=1e-6)


def test_trap_8_with_beta_1_a_weighted_mean_is_the_uniform_mean():
    replay = replay_of(5, alpha=0.6)
    replay.refresh(np.arange(5), np.array([0.1, 1, 2, 5, 9], np.float32))
    batch = replay.sample(200_000, np.random.default_rng(0), beta=1.0)
    assert batch.weight is not None
    mean = float((batch.weight * batch.action).sum() / batch.weight.sum())
    assert mean == pytest.approx((0 + 1 + 2 + 3 + 4) / 5, abs=1e-3)


def test_trap_8_what_is_new_has_the_largest_priority_so_far():
    """(8 + ε)^½ for the new one beside (2 + ε)^½ and itself: shares 2:1 … of √8, √2, √8."""
    replay = replay_of(2, alpha=0.5)
    replay.refresh(np.arange(2), np.array([8, 2], np.float32))
    add(replay, 2)
    share = np.bincount(replay.sample(100_000, np.random.default_rng(0)).action) / 100_000
    want = np.sqrt([8, 2, 8])
    np.testing.assert_allclose(share, want / want.sum(), atol=3e-5)
    replay.refresh(np.array([0]), np.array([1], np.float32))  # the largest so far stays √8
    add(replay, 3)
    share = np.bincount(replay.sample(100_000, np.random.default_rng(0)).action) / 100_000
    want = np.sqrt([1, 2, 8, 8])
    np.testing.assert_allclose(share, want / want.sum(), atol=3e-5)


def test_trap_8_no_surprise_is_still_drawn():
    replay = replay_of(2)
    replay.refresh(np.arange(2), np.array([0, 0], np.float32))
    assert set(replay.sample(10, np.random.default_rng(0)).action.tolist()) == {0, 1}
    assert SMALLEST > 0


def test_overwritten_places_lose_their_priority():
    replay = replay_of(3, capacity=2)
    replay.refresh(np.arange(2), np.array([1, 9], np.float32))
    add(replay, 3)  # writes over step 1, whose place had 9; the largest so far is 9
    share = np.bincount(replay.sample(1000, np.random.default_rng(0)).action, minlength=4)
    assert share.tolist() == [0, 0, 100, 900]


def test_restored_goes_on_to_the_bit():
    first = replay_of(11, alpha=0.6)
    first.refresh(np.arange(8), np.linspace(0.1, 7, 8, dtype=np.float32))
    second = replay_of(0, alpha=0.6)
    second.restore(first.state())
    for replay in (first, second):
        add(replay, 50)
    one = first.sample(64, np.random.default_rng(5), beta=0.4)
    two = second.sample(64, np.random.default_rng(5), beta=0.4)
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(one.action, two.action)


def test_an_error_that_is_no_number_is_refused():
    replay = replay_of(2)
    with pytest.raises(UserError, match="not a finite number"):
        replay.refresh(np.arange(2), np.array([1, np.nan], np.float32))
