"""Worlds drawn at random, as large as memory holds: Garnets, sparse MDPs, mazes and open rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from plaudit.mdp.compiled import compiled
from plaudit.mdp.model import MDP
from plaudit.mdp.worlds.rules import check_least, check_probability
from plaudit.records.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.signedinteger]

CHUNK = 1 << 18
"""Rows drawn at a time: the random numbers of a chunk stay small beside the world."""

NAMED_CELLS = 10_000
"""Up to so many cells are named; names of millions would outweigh the world."""


def garnet(
    *,
    num_states: int = 100,
    num_actions: int = 4,
    branching: int = 5,
    gamma: float = 0.95,
    seed: int = 0,
) -> MDP:
    """Each state and action leads to `branching` distinct random states; rewards are standard normal.

    Probabilities are the lengths into which random cuts divide a stick (Dirichlet of ones).
    Source: Archibald, McKinnon & Thomas 1995; Bhatnagar et al. 2009, section 6 (there the reward
    is also noisy, here it is its mean).
    """
    rng = _checked(num_states, num_actions, branching, seed)
    rows = _random_rows(rng, num_states, num_actions, branching)
    return MDP(rows, rng.standard_normal((num_states, num_actions)), gamma)


def random_sparse(
    *,
    num_states: int = 1000,
    num_actions: int = 4,
    branching: int = 5,
    gamma: float = 0.99,
    seed: int = 0,
) -> MDP:
    """A sparse random world with rewards even on [0, 1): made for timing, in any size.

    Transitions as in `garnet`. Source: the usual benchmark of solvers.
    """
    rng = _checked(num_states, num_actions, branching, seed)
    rows = _random_rows(rng, num_states, num_actions, branching)
    return MDP(rows, rng.random((num_states, num_actions)), gamma)


def _checked(num_states: int, num_actions: int, branching: int, seed: int) -> np.random.Generator:
    check_least("num_states", num_states, 1)
    check_least("num_actions", num_actions, 1)
    if not 1 <= branching <= num_states:
        raise UserError(f"branching: {branching}; expected 1 to {num_states}, the number of states")
    return _generator(seed)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UserError(f"seed: {seed}; expected an integer of 0 or more")
    return np.random.default_rng(seed)


def _random_rows(
    rng: np.random.Generator, num_states: int, num_actions: int, branching: int
) -> sparse.csr_array:
    count = num_states * num_actions
    index = _index_type(count * branching)
    data, indices = np.empty(count * branching), np.empty(count * branching, index)
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        draws = rng.random((last - first, branching))
        lengths = rng.standard_exponential((last - first, branching))
        part = slice(first * branching, last * branching)
        fill_rows(draws, lengths, num_states, indices[part], data[part])
    indptr = np.arange(0, count * branching + 1, branching, dtype=index)
    return sparse.csr_array((data, indices, indptr), shape=(count, num_states))


def _index_type(transitions: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if transitions < 2**31 else np.int64


@compiled
def fill_rows(
    draws: Floats, lengths: Floats, num_states: int, indices: Indices, data: Floats
) -> None:
    """Distinct sorted states (Floyd's sampling) and probabilities for each row of random numbers."""
    branching = draws.shape[1]
    for row in range(draws.shape[0]):
        begin = row * branching
        total = 0.0
        for k in range(branching):
            total += lengths[row, k]
            last = num_states - branching + k
            state = min(int(draws[row, k] * (last + 1)), last)
            for i in range(k):
                if indices[begin + i] == state:
                    state = last
                    break
            i = k
            while i > 0 and indices[begin + i - 1] > state:
                indices[begin + i] = indices[begin + i - 1]
                i -= 1
            indices[begin + i] = state
        for k in range(branching):
            data[begin + k] = lengths[row, k] / total


def maze(
    *,
    rows: int = 20,
    columns: int = 20,
    walls: float = 0.25,
    noise: float = 0.0,
    step_reward: float = -1.0,
    gamma: float = 0.999,
    seed: int = 0,
) -> MDP:
    """A room with random walls, from the upper left corner to the lower right; each step costs 1.

    `walls` is the share of cells that are walls, `noise` the probability of slipping to a side.
    Cells cut off from the goal become wall; another arrangement is drawn until a way exists.
    Source: a common benchmark, without a first author.
    """
    _check_room(rows, columns, noise)
    if not 0 <= walls < 1:
        raise UserError(f"walls: {walls}; expected a share from 0 to less than 1")
    rng = _generator(seed)
    for _ in range(1000):
        open_cells = rng.random((rows, columns)) >= walls
        open_cells[0, 0] = open_cells[-1, -1] = True
        parts, _ = ndimage.label(open_cells)
        if parts[0, 0] == parts[-1, -1]:
            return _room(parts == parts[-1, -1], noise, step_reward, gamma)
    raise UserError(f"walls: {walls} leaves no way through {rows}×{columns} cells; expected less")


def noisy_grid(
    *,
    rows: int = 300,
    columns: int = 300,
    noise: float = 0.2,
    step_reward: float = -1.0,
    gamma: float = 0.999,
) -> MDP:
    """An open room whose moves slip to a side; each step costs 1 until the lower right corner.

    Source: a common benchmark, without a first author.
    """
    _check_room(rows, columns, noise)
    return _room(np.ones((rows, columns), np.bool_), noise, step_reward, gamma)


def _check_room(rows: int, columns: int, noise: float) -> None:
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise UserError(f"a room of {rows}×{columns}; expected at least two cells")
    check_probability("noise", noise)


def _room(open_cells: NDArray[np.bool_], noise: float, step_reward: float, gamma: float) -> MDP:
    grid = np.full(open_cells.shape, -1, np.int64)
    num_states = int(open_cells.sum())
    grid[open_cells] = np.arange(num_states)
    index = _index_type(num_states * 12)
    data, indices = np.empty(num_states * 12), np.empty(num_states * 12, index)
    indptr = np.empty(num_states * 4 + 1, index)
    used = fill_room(grid, noise, data, indices, indptr)
    if used < 0.9 * data.size:  # else the copy costs more than the memory it would free
        data, indices = data[:used].copy(), indices[:used].copy()
    rows = sparse.csr_array(
        (data[:used], indices[:used], indptr), shape=(num_states * 4, num_states)
    )
    reward = np.full(num_states, step_reward)
    reward[-1] = 0.0
    initial = np.zeros(num_states)
    initial[0] = 1.0
    named = num_states <= NAMED_CELLS
    names = [f"{r},{c}" for r, c in zip(*np.nonzero(open_cells), strict=True)] if named else None
    return MDP(
        rows,
        reward,
        gamma,
        initial=initial,
        states=names,
        actions=["up", "right", "down", "left"],
        grid=grid,
    )


@compiled
def fill_room(
    grid: NDArray[np.int64], noise: float, data: Floats, indices: Indices, indptr: Indices
) -> int:
    """The rows of a room into arrays that are long enough; how much of them was used.

    The last state is the goal. Next states are sorted; those that coincide are one transition.
    """
    num_rows, num_columns = grid.shape
    last = grid.max()
    used = 0
    indptr[0] = 0
    ahead = np.empty(4, np.int64)
    for r in range(num_rows):
        for c in range(num_columns):
            s = grid[r, c]
            if s < 0:
                continue
            ahead[0] = grid[r - 1, c] if r > 0 else -1
            ahead[1] = grid[r, c + 1] if c + 1 < num_columns else -1
            ahead[2] = grid[r + 1, c] if r + 1 < num_rows else -1
            ahead[3] = grid[r, c - 1] if c > 0 else -1
            for a in range(4):
                begin = used
                for turn in range(3):  # ahead, right, left
                    p = 1.0 - noise if turn == 0 else 0.5 * noise
                    target = ahead[(a + (turn if turn < 2 else 3)) % 4]
                    if target < 0:
                        target = s
                    if s == last:
                        target, p = last, 1.0 if turn == 0 else 0.0
                    if p == 0.0:
                        continue
                    i = used
                    while i > begin and indices[i - 1] > target:
                        i -= 1
                    if i > begin and indices[i - 1] == target:
                        data[i - 1] += p
                        continue
                    for j in range(used, i, -1):
                        indices[j], data[j] = indices[j - 1], data[j - 1]
                    indices[i], data[i] = target, p
                    used += 1
                indptr[s * 4 + a + 1] = used
    return used


GENERATED_WORLDS: dict[str, Callable[..., MDP]] = {
    "garnet": garnet,
    "random-sparse": random_sparse,
    "maze": maze,
    "noisy-grid": noisy_grid,
}
