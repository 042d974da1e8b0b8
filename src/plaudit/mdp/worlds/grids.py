"""Small grid worlds of the literature: rooms, cliffs, wind, ice and mazes.

Cells are (row, column), row 0 above. Actions are named by their direction, so that pictures know
where an arrow points. A move into a wall or out of the grid stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.model import MDP
from plaudit.mdp.worlds.rules import Outcomes, check_probability, tabulated

Cell: TypeAlias = tuple[int, int]

MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
"""Row and column of a step, in the order in which our own grids number their actions."""

KING = {
    **MOVES,
    "up-right": (-1, 1),
    "down-right": (1, 1),
    "down-left": (1, -1),
    "up-left": (-1, -1),
}

ICE = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
"""FrozenLake numbers its actions so."""


def cells(rows: int, columns: int) -> list[Cell]:
    """All cells, row by row: state row · columns + column."""
    return [(r, c) for r in range(rows) for c in range(columns)]


def numbering(rows: int, columns: int, walls: Collection[Cell] = ()) -> NDArray[np.int64]:
    """The `grid` of a world that numbers all its cells, -1 where there is a wall."""
    grid = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    for wall in walls:
        grid[wall] = -1
    return grid


def moved(cell: Cell, move: Cell, rows: int, columns: int, walls: Collection[Cell] = ()) -> Cell:
    """Where a step ends: the next cell, or the same one if that is a wall or outside."""
    r, c = cell[0] + move[0], cell[1] + move[1]
    return (r, c) if 0 <= r < rows and 0 <= c < columns and (r, c) not in walls else cell


def _named(cell: Cell) -> str:
    return f"{cell[0]},{cell[1]}"


def grid_4x4(*, gamma: float = 1.0) -> MDP:
    """A 4×4 room whose two opposite corners end the episode; each step costs 1.

    Under the even policy the values are 0, -14, -18, -20 and -22.
    Source: Sutton & Barto 2018, example 4.1.
    """
    rooms = cells(4, 4)
    ends = ((0, 0), (3, 3))

    def outcomes(cell: Cell, action: int) -> Outcomes[Cell]:
        if cell in ends:
            return [(1.0, cell, 0.0)]
        return [(1.0, moved(cell, list(MOVES.values())[action], 4, 4), -1.0)]

    start = {cell: 1 / 14 for cell in rooms if cell not in ends}
    return tabulated(
        rooms, list(MOVES), outcomes, gamma, start=start, name=_named, grid=numbering(4, 4)
    )


def grid_5x5(*, gamma: float = 0.9) -> MDP:
    """A 5×5 room without end where A leads to A' and pays 10, B to B' and pays 5, and a bump costs 1.

    At gamma 0.9 the even policy has V(A) = 8.8 and the best one V(A) = 24.4.
    Source: Sutton & Barto 2018, examples 3.5 and 3.8.
    """
    rooms = cells(5, 5)
    jumps = {(0, 1): ((4, 1), 10.0), (0, 3): ((2, 3), 5.0)}

    def outcomes(cell: Cell, action: int) -> Outcomes[Cell]:
        if cell in jumps:
            return [(1.0, *jumps[cell])]
        ahead = moved(cell, list(MOVES.values())[action], 5, 5)
        return [(1.0, ahead, -1.0 if ahead == cell else 0.0)]

    start = dict.fromkeys(rooms, 1 / 25)
    return tabulated(
        rooms, list(MOVES), outcomes, gamma, start=start, name=_named, grid=numbering(5, 5)
    )


def grid_4x3(*, noise: float = 0.2, step_reward: float = -0.04, gamma: float = 1.0) -> MDP:
    """The 4×3 room with a pit: moves slip sideways, the exits pay +1 and -1, each step costs 0.04.

    The value of the lower left corner is 0.705.
    Source: Russell & Norvig 2010, section 17.1 (figures 17.1 to 17.3).
    """
    check_probability("noise", noise)
    wall, exits = [(1, 1)], {(0, 3): 1.0, (1, 3): -1.0}
    rooms = [cell for cell in cells(3, 4) if cell not in wall]
    moves = list(MOVES.values())

    def outcomes(cell: Cell, action: int) -> Iterator[tuple[float, Cell, float]]:
        if cell in exits:
            yield 1.0, cell, 0.0
            return
        # The book pays the reward of a state for being there: an exit's is paid on entering it.
        for turn, p in ((0, 1 - noise), (1, noise / 2), (3, noise / 2)):
            ahead = moved(cell, moves[(action + turn) % 4], 3, 4, wall)
            yield p, ahead, step_reward + exits.get(ahead, 0.0)

    grid = np.full((3, 4), -1)
    for i, cell in enumerate(rooms):
        grid[cell] = i
    return tabulated(
        rooms, list(MOVES), outcomes, gamma, start={(2, 0): 1.0}, name=_named, grid=grid
    )


def cliff(*, gamma: float = 1.0) -> MDP:
    """Cliff walking, 4×12: a step costs 1, a step over the cliff costs 100 and leads to the start.

    The best return is -13. Cells of the cliff are numbered but never entered.
    Source: Sutton & Barto 2018, example 6.6.
    """
    return _cliff(gamma, slips=(0,))


def cliff_slippery(*, gamma: float = 1.0) -> MDP:
    """Cliff walking on ice: each move goes ahead or to either side, with a third each.

    The best return is -64.709.
    Source: Gymnasium's CliffWalking-v1 with is_slippery.
    """
    return _cliff(gamma, slips=(3, 0, 1))


def _cliff(gamma: float, slips: tuple[int, ...]) -> MDP:
    rooms, start, goal = cells(4, 12), (3, 0), (3, 11)
    abyss = {(3, c) for c in range(1, 11)}
    moves = list(MOVES.values())

    def outcomes(cell: Cell, action: int) -> Iterator[tuple[float, Cell, float]]:
        if cell == goal:
            yield 1.0, cell, 0.0
            return
        for turn in slips:
            ahead = moved(cell, moves[(action + turn) % 4], 4, 12)
            fell = ahead in abyss
            yield 1 / len(slips), start if fell else ahead, -100.0 if fell else -1.0

    return tabulated(
        rooms,
        list(MOVES),
        outcomes,
        gamma,
        start={start: 1.0},
        name=_named,
        grid=numbering(4, 12, abyss),
    )


WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
"""How many rows upwards each column of the windy grid blows."""


def windy_grid(*, gamma: float = 1.0) -> MDP:
    """A 7×10 room whose middle columns blow upwards; each step costs 1, and 15 steps are the fewest.

    Source: Sutton & Barto 2018, example 6.5.
    """
    return _windy(MOVES, gamma, gusts=(0,))


def windy_grid_king(*, gamma: float = 1.0) -> MDP:
    """The windy grid with a chess king's eight moves; 7 steps are the fewest.

    Source: Sutton & Barto 2018, exercise 6.9.
    """
    return _windy(KING, gamma, gusts=(0,))


def windy_grid_stochastic(*, gamma: float = 1.0) -> MDP:
    """The windy grid with king's moves, where wind is one row less, as told, or one more, a third each.

    Source: Sutton & Barto 2018, exercise 6.10.
    """
    return _windy(KING, gamma, gusts=(-1, 0, 1))


def _windy(moves: dict[str, Cell], gamma: float, gusts: tuple[int, ...]) -> MDP:
    goal = (3, 7)

    def outcomes(cell: Cell, action: int) -> Iterator[tuple[float, Cell, float]]:
        if cell == goal:
            yield 1.0, cell, 0.0
            return
        down, right = list(moves.values())[action]
        blows = gusts if WIND[cell[1]] else (0,)
        for gust in blows:
            row = cell[0] + down - WIND[cell[1]] - gust
            yield 1 / len(blows), (min(max(row, 0), 6), min(max(cell[1] + right, 0), 9)), -1.0

    return tabulated(
        cells(7, 10),
        list(moves),
        outcomes,
        gamma,
        start={(3, 0): 1.0},
        name=_named,
        grid=numbering(7, 10),
    )


LAKE_4 = ("SFFF", "FHFH", "FFFH", "HFFG")
LAKE_8 = (
    "SFFFFFFF",
    "FFFFFFFF",
    "FFFHFFFF",
    "FFFFFHFF",
    "FFFHFFFF",
    "FHHFFFHF",
    "FHFFHFHF",
    "FFFHFFFG",
)


def frozen_lake_4x4(*, slip: float = 2 / 3, gamma: float = 0.99) -> MDP:
    """Over a 4×4 frozen lake to the goal, past holes: a move slips to either side; the goal pays 1.

    At gamma 0.99 the start is worth 0.542026; `slip` is the probability of not going ahead.
    Source: Gymnasium's FrozenLake-v1, map 4x4.
    """
    return frozen_lake(LAKE_4, slip=slip, gamma=gamma)


def frozen_lake_8x8(*, slip: float = 2 / 3, gamma: float = 0.99) -> MDP:
    """Over an 8×8 frozen lake to the goal, past holes: a move slips to either side; the goal pays 1.

    At gamma 0.99 the start is worth 0.414640; `slip` is the probability of not going ahead.
    Source: Gymnasium's FrozenLake-v1, map 8x8.
    """
    return frozen_lake(LAKE_8, slip=slip, gamma=gamma)


def frozen_lake(lake: tuple[str, ...], *, slip: float, gamma: float) -> MDP:
    """A lake drawn in letters: S start, F ice, H hole, G goal (both end the episode)."""
    check_probability("slip", slip)
    rows, columns = len(lake), len(lake[0])
    moves = list(ICE.values())

    def outcomes(cell: Cell, action: int) -> Iterator[tuple[float, Cell, float]]:
        if lake[cell[0]][cell[1]] in "HG":
            yield 1.0, cell, 0.0
            return
        for turn, p in ((3, slip / 2), (0, 1 - slip), (1, slip / 2)):
            ahead = moved(cell, moves[(action + turn) % 4], rows, columns)
            yield p, ahead, 1.0 if lake[ahead[0]][ahead[1]] == "G" else 0.0

    begin = [cell for cell in cells(rows, columns) if lake[cell[0]][cell[1]] == "S"]
    return tabulated(
        cells(rows, columns),
        list(ICE),
        outcomes,
        gamma,
        start={cell: 1 / len(begin) for cell in begin},
        name=_named,
        grid=numbering(rows, columns),
    )


DYNA = ((1, 2), (2, 2), (3, 2), (4, 5), (0, 7), (1, 7), (2, 7))


def dyna_maze(*, gamma: float = 0.95) -> MDP:
    """The 6×9 maze on which planning with a learned model is shown; the goal pays 1, 14 steps away.

    Source: Sutton & Barto 2018, example 8.1.
    """
    return _open_maze(DYNA, (2, 0), gamma)


def blocking_maze(*, changed: bool = False, gamma: float = 0.95) -> MDP:
    """A 6×9 maze with its gap at the right, and at the left once it has `changed`.

    10 steps are the fewest before, 16 after. States are numbered alike in both.
    Source: Sutton & Barto 2018, example 8.2.
    """
    wall = [(3, c) for c in (range(1, 9) if changed else range(8))]
    return _open_maze(wall, (5, 3), gamma)


def shortcut_maze(*, changed: bool = False, gamma: float = 0.95) -> MDP:
    """A 6×9 maze with its gap at the left; once it has `changed`, a shorter way opens at the right.

    16 steps are the fewest before, 10 after. States are numbered alike in both.
    Source: Sutton & Barto 2018, example 8.3.
    """
    wall = [(3, c) for c in range(1, 8 if changed else 9)]
    return _open_maze(wall, (5, 3), gamma)


def _open_maze(walls: Collection[Cell], start: Cell, gamma: float) -> MDP:
    """A 6×9 maze with the goal in the upper right. Walls are numbered too, so that they may move."""
    goal = (0, 8)

    def outcomes(cell: Cell, action: int) -> Outcomes[Cell]:
        if cell == goal:
            return [(1.0, cell, 0.0)]
        ahead = moved(cell, list(MOVES.values())[action], 6, 9, walls)
        return [(1.0, ahead, 1.0 if ahead == goal else 0.0)]

    return tabulated(
        cells(6, 9),
        list(MOVES),
        outcomes,
        gamma,
        start={start: 1.0},
        name=_named,
        grid=numbering(6, 9, walls),
    )


GRID_WORLDS: dict[str, Callable[..., MDP]] = {
    "grid-4x4": grid_4x4,
    "grid-5x5": grid_5x5,
    "grid-4x3": grid_4x3,
    "cliff": cliff,
    "cliff-slippery": cliff_slippery,
    "windy-grid": windy_grid,
    "windy-grid-king": windy_grid_king,
    "windy-grid-stochastic": windy_grid_stochastic,
    "frozenlake-4x4": frozen_lake_4x4,
    "frozenlake-8x8": frozen_lake_8x8,
    "dyna-maze": dyna_maze,
    "blocking-maze": blocking_maze,
    "shortcut-maze": shortcut_maze,
}
