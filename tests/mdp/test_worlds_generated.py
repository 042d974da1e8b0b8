"""Worlds drawn at random: their distribution, their independence of size, their rooms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import generated, world


@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 1000), st.data())
@settings(max_examples=30, deadline=None)
def test_each_row_of_a_garnet_has_distinct_sorted_states(num_states, num_actions, seed, data):
    branching = data.draw(st.integers(1, num_states))
    mdp = world(
        "garnet", num_states=num_states, num_actions=num_actions, branching=branching, seed=seed
    )
    targets = mdp.transition.indices.reshape(-1, branching)
    assert (np.diff(targets, axis=1) > 0).all()
    assert targets.min() >= 0
    assert targets.max() < num_states
    assert (mdp.transition.data > 0).all()


def test_garnet_draws_states_evenly_and_probabilities_by_cutting_a_stick():
    """Each state is chosen with b/S; each probability has mean 1/b and variance (b - 1)/(b²(b + 1))."""
    mdp = world("garnet", num_states=50, num_actions=400, branching=5, seed=3)
    chosen = np.bincount(mdp.transition.indices, minlength=50)
    expected = 20_000 * 5 / 50
    assert np.abs(chosen - expected).max() < 5 * np.sqrt(20_000 * 0.1 * 0.9)
    p = mdp.transition.data.reshape(-1, 5)
    assert p.var() == pytest.approx(4 / (25 * 6), rel=0.03)
    for k in range(5):  # no place in the row is favoured
        assert p[:, k].mean() == pytest.approx(0.2, abs=5 * np.sqrt(4 / 150 / 20_000))
    assert mdp.reward.mean() == pytest.approx(0, abs=5 / np.sqrt(20_000))
    assert mdp.reward.std() == pytest.approx(1, rel=0.03)


def test_the_seed_alone_decides():
    for name in ("garnet", "random-sparse", "maze"):
        one, same, other = (world(name, seed=s) for s in (1, 1, 2))
        assert np.array_equal(one.transition.indices, same.transition.indices), name
        assert np.array_equal(one.transition.data, same.transition.data), name
        assert not np.array_equal(one.transition.indices, other.transition.indices), name


def test_a_world_of_many_chunks(monkeypatch):
    monkeypatch.setattr(generated, "CHUNK", 7)
    mdp = world("random-sparse", num_states=33, num_actions=3, branching=4, seed=5)
    targets = mdp.transition.indices.reshape(-1, 4)
    assert targets.shape == (99, 4)
    assert (np.diff(targets, axis=1) > 0).all()
    assert len({tuple(row) for row in targets}) > 90
    assert (mdp.reward >= 0).all()
    assert (mdp.reward < 1).all()


def slow_room(mdp, noise):
    """The room's rows from its drawing, one move at a time."""
    grid, count = mdp.grid, mdp.num_states
    rows = np.zeros((count * 4, count))
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    for (r, c), s in np.ndenumerate(grid):
        if s < 0:
            continue
        for a in range(4):
            if s == count - 1:
                rows[s * 4 + a, s] = 1
                continue
            for turn, p in ((0, 1 - noise), (1, noise / 2), (-1, noise / 2)):
                y, x = r + moves[(a + turn) % 4][0], c + moves[(a + turn) % 4][1]
                inside = 0 <= y < grid.shape[0] and 0 <= x < grid.shape[1] and grid[y, x] >= 0
                rows[s * 4 + a, grid[y, x] if inside else s] += p
    return rows


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 6), (5, 4), (8, 8)])
def test_a_room_moves_as_it_is_drawn(noise, shape):
    mdp = world("maze", rows=shape[0], columns=shape[1], walls=0.2, noise=noise, seed=4)
    assert np.allclose(mdp.transition.toarray(), slow_room(mdp, noise), atol=1e-15)
    for row in range(mdp.num_states * 4):
        part = mdp.transition.indices[mdp.transition.indptr[row] : mdp.transition.indptr[row + 1]]
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_every_cell_of_a_maze_leads_to_the_goal(seed):
    mdp = world("maze", rows=15, columns=15, walls=0.35, gamma=1.0, seed=seed)
    value = solve(mdp).value
    assert value[0] <= -28  # the corners are 28 steps apart
    assert (value >= -mdp.num_states).all()
    assert np.array_equal(value, np.round(value))
    assert mdp.terminal.sum() == 1


def test_an_open_room_without_noise_is_a_distance():
    mdp = world("noisy-grid", rows=6, columns=9, noise=0.0, gamma=1.0)
    value = solve(mdp).value[mdp.grid]
    r, c = np.indices((6, 9))
    assert np.array_equal(value, -((5 - r) + (8 - c)).astype(float))
    always_right = np.ones(mdp.num_states, int)
    always_right[8::9] = 2
    assert evaluate(mdp, always_right).value[0] == -13
