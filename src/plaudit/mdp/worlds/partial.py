"""Worlds that are only partly seen: the tiger, hallways, tag and rock sampling of the literature.

The tables come from the rules in the papers; where a paper leaves something open (who moves first,
what a failed action shows), the files that the field exchanges were followed, as each world says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import sparse

from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.records.errors import UserError

Cell = tuple[int, int]

NORTH, EAST, SOUTH, WEST = range(4)
STEPS: tuple[Cell, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Row and column of a step north, east, south, west on a map read from the top."""


def tiger(*, accuracy: float = 0.85, gamma: float = 0.95) -> POMDP:
    """Behind one of two doors is a tiger, which can be heard before a door is opened.

    Listening costs 1 and tells the side with probability `accuracy`; the right door pays 10, the
    tiger costs 100, and either way the doors are closed again at random. From an even belief the
    optimal value is 19.371368375 with the defaults, (10γ - 1)/(1 - γ²) with perfect hearing.
    Source: Cassandra, Kaelbling & Littman 1994; Kaelbling, Littman & Cassandra 1998, section 5.
    """
    if not 0.5 <= accuracy <= 1:
        raise UserError(f"accuracy: {accuracy}; expected 0.5 to 1")
    even = np.full((2, 2), 0.5)
    heard = np.array([[accuracy, 1 - accuracy], [1 - accuracy, accuracy]])
    return POMDP(
        [np.eye(2), even, even],
        [heard, even, even],
        [[-1.0, -100.0, 10.0], [-1.0, 10.0, -100.0]],
        gamma,
        initial=[0.5, 0.5],
        states=["tiger-left", "tiger-right"],
        actions=["listen", "open-left", "open-right"],
        observations=["hear-left", "hear-right"],
    )


def line_maze(*, gamma: float = 0.75) -> POMDP:
    """Four cells in a line that look alike, but for the goal, which pays 1 and puts one elsewhere.

    States 0 to 3 with the goal at 2; actions west and east; leaving the goal pays 1 and leads to
    each of the others with a third.
    Source: A. R. Cassandra's collection of small POMDPs ("1d").
    """
    west, east = np.zeros((4, 4)), np.zeros((4, 4))
    for table, step in ((west, -1), (east, 1)):
        for s in (0, 1, 3):
            table[s, min(max(s + step, 0), 3)] = 1.0
        table[2, [0, 1, 3]] = 1 / 3
    seen = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    return POMDP(
        [west, east],
        seen,
        [0.0, 0.0, 1.0, 0.0],
        gamma,
        initial=[1 / 3, 1 / 3, 0, 1 / 3],
        actions=["west", "east"],
        observations=["nothing", "goal"],
    )


# --- hallways

HALLWAY = ("...........", "##.#.#.#+##")
HALLWAY2 = ("#.....#", "..#.#..", "#.#.#.#", "..#.#.+", "#.....#")
"""Maps: . a cell, + the goal, # rock."""

SEES_WALL, SEES_NONE_FALSELY = 0.9, 0.05


def hallway(*, gamma: float = 0.95) -> POMDP:
    """A robot that does not know where it is looks for a room off a corridor: 60 states.

    A state is a cell and a heading (4·cell + heading; north, east, south, west); the robot stays,
    goes forward or turns, unreliably, and senses walls in the four directions relative to itself,
    unreliably too; three rooms and the goal have a landmark each, seen from the corridor facing
    them. Arriving in the goal pays 1, and the next step starts anew.
    Source: Littman, Cassandra & Kaelbling 1995, appendix.
    """
    return _corridors(HALLWAY, gamma, landmarks=True)


def hallway2(*, gamma: float = 0.95) -> POMDP:
    """A robot lost in a larger office floor without landmarks: 92 states.

    As `hallway`, on another map.
    Source: Littman, Cassandra & Kaelbling 1995, appendix.
    """
    return _corridors(HALLWAY2, gamma, landmarks=False)


def _corridors(plan: tuple[str, ...], gamma: float, *, landmarks: bool) -> POMDP:
    cells = [(r, c) for r, row in enumerate(plan) for c, mark in enumerate(row) if mark in ".+"]
    number = {cell: i for i, cell in enumerate(cells)}
    goal = next(i for i, (r, c) in enumerate(cells) if plan[r][c] == "+")
    num_states = 4 * len(cells)
    initial = np.ones(num_states)
    initial[4 * goal : 4 * goal + 4] = 0
    initial /= initial.sum()
    transition = np.zeros((5, num_states, num_states))
    for i in range(len(cells)):
        for heading in range(4):
            _drive(transition, cells, number, i, heading)
    transition[:, 4 * goal : 4 * goal + 4] = initial
    reward = np.zeros((5, num_states, num_states))
    reward[:, :, 4 * goal : 4 * goal + 4] = 1.0
    return POMDP(
        transition,
        _sensed(cells, number, goal, landmarks),
        reward,
        gamma,
        initial=initial,
        actions=["stay", "forward", "turn-right", "turn-around", "turn-left"],
    )


def _drive(
    transition: Floats, cells: list[Cell], number: dict[Cell, int], i: int, heading: int
) -> None:
    """Where the five actions lead from a cell and heading."""
    s = 4 * i + heading

    def beside(turn: int) -> int | None:
        (r, c), (dr, dc) = cells[i], STEPS[(heading + turn) % 4]
        return number.get((r + dr, c + dc))

    transition[0, s, s] = 1.0
    slips = [(0, 0, 0.8), (1, 1, 0.05), (3, 3, 0.05), (2, 2, 0.025), (2, 0, 0.025)]
    for turn, facing, p in slips:  # ahead; to a side, facing it; back, facing either way
        to = beside(turn)
        if to is not None:
            transition[1, s, 4 * to + (heading + facing) % 4] += p
    transition[1, s, s] += 1 - transition[1, s].sum()
    turned = {2: (0.1, 0.7, 0.1, 0.1), 3: (0.1, 0.15, 0.6, 0.15), 4: (0.1, 0.1, 0.1, 0.7)}
    for action, p_turn in turned.items():
        for turn, p in enumerate(p_turn):
            transition[action, s, 4 * i + (heading + turn) % 4] = p


def _sensed(cells: list[Cell], number: dict[Cell, int], goal: int, landmarks: bool) -> Floats:
    """O(o|s'): four wall sensors ahead, right, behind, left as bits; then landmarks; the goal."""
    rooms = [(r - 1, c) for r, c in cells if r > 0] if landmarks else []
    seen = np.zeros((4 * len(cells), 17 + len(rooms)))
    for i, (r, c) in enumerate(cells):
        for heading in range(4):
            s = 4 * i + heading
            if i == goal:
                seen[s, -1] = 1.0
            elif heading == SOUTH and (r, c) in rooms:
                seen[s, 16 + rooms.index((r, c))] = 1.0
            else:
                steps = [STEPS[(heading + turn) % 4] for turn in range(4)]
                seen[s, :16] = _wall_bits([(r + dr, c + dc) not in number for dr, dc in steps])
    return seen


def _wall_bits(walls: list[bool]) -> Floats:
    p: Floats = np.ones(1)
    for wall in walls:
        sees = SEES_WALL if wall else SEES_NONE_FALSELY
        p = np.outer(p, [1 - sees, sees]).ravel()
    return p


# --- tag

TAG_CELLS: tuple[Cell, ...] = tuple(
    (x, y) for y in range(5) for x in range(10) if y < 2 or 5 <= x <= 7
)
"""Columns and rows, counted from the lower left: two rows of ten, three of three above them."""


TAG_ODDITIES: dict[tuple[Cell, Cell], dict[Cell, float]] = {
    ((9, 1), (9, 1)): {(9, 0): 0.25, (8, 1): 0.25, (9, 1): 0.5},
    ((7, 3), (5, 3)): {(5, 2): 0.2, (5, 3): 0.6, (7, 3): 0.2},
    ((6, 4), (6, 3)): {(6, 2): 0.2, (5, 3): 0.2, (6, 3): 0.4, (7, 3): 0.2},
    ((6, 4), (6, 4)): {(6, 3): 1 / 6, (5, 4): 1 / 6, (7, 4): 1 / 6, (6, 4): 0.5},
}
"""(robot, opponent): where the opponent goes in the file TagAvoid, against its own rule."""


def tag(*, gamma: float = 0.95) -> POMDP:
    """A robot chases an opponent who runs from it and is seen only when caught up with: 870 states.

    State 30·robot + opponent, or 30·robot + 29 once tagged. The robot moves exactly; the opponent
    moves away with probability 0.4 along each axis (both ways at evens if level), staying where
    walls are and otherwise with 0.2. A move costs 1, tagging pays 10, tagging thin air costs 10 and
    freezes both. The robot sees its own cell, or "here" when both share one. Tagged is for ever,
    and only the tag action costs nothing there.
    Source: Pineau, Gordon & Thrun 2003, section 5; what it leaves open as in the file TagAvoid.
    """
    return _chase({}, gamma)


def tag_avoid(*, gamma: float = 0.95) -> POMDP:
    """Tag as the field's file has it, with the four places where that file departs from the rule.

    In four pairs of cells the opponent moves otherwise than `tag` says (in one of them across two
    cells); published bounds for TagAvoid are bounds for this table.
    Source: the file TagAvoid.pomdp distributed with SARSOP (Kurniawati, Hsu & Lee 2008).
    """
    return _chase(TAG_ODDITIES, gamma)


def _chase(oddities: dict[tuple[Cell, Cell], dict[Cell, float]], gamma: float) -> POMDP:
    number = {cell: i for i, cell in enumerate(TAG_CELLS)}
    count = len(TAG_CELLS)
    num_states = count * (count + 1)
    transition = np.zeros((5, num_states, num_states))
    seen = np.zeros((5, num_states, count + 1))
    reward = np.full((num_states, 5), -1.0)
    steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
    for robot, (x, y) in enumerate(TAG_CELLS):
        tagged = robot * (count + 1) + count
        transition[:, tagged, tagged] = 1.0
        seen[:, tagged, robot] = 1.0
        reward[tagged, 4] = 0.0
        for other in range(count):
            s = robot * (count + 1) + other
            together = robot == other
            odd = oddities.get(((x, y), TAG_CELLS[other]))
            flight = _fleeing(TAG_CELLS[other], (x, y), number)
            if odd is not None:
                flight = {number[cell]: p for cell, p in odd.items()}
            for action, (dx, dy) in enumerate(steps):
                goes = number.get((x + dx, y + dy), robot)
                for to, p in flight.items():
                    transition[action, s, goes * (count + 1) + to] += p
            transition[4, s, tagged if together else s] = 1.0
            reward[s, 4] = 10.0 if together else -10.0
            seen[:4, s, count if together else robot] = 1.0
            seen[4, s, robot] = 1.0
    initial = np.tile(np.append(np.ones(count), 0.0), count) / count**2
    return POMDP(
        [sparse.csr_array(table) for table in transition],
        seen,
        reward,
        gamma,
        initial=initial,
        actions=["north", "south", "east", "west", "tag"],
        observations=[f"at-{x}-{y}" for x, y in TAG_CELLS] + ["here"],
    )


def _fleeing(other: Cell, robot: Cell, number: dict[Cell, int]) -> dict[int, float]:
    """Where the opponent goes: 0.4 along each axis away from the robot, 0.2 nowhere."""
    here = number[other]
    found = {here: 0.2}
    for axis in range(2):
        difference = other[axis] - robot[axis]
        ways = (
            [(1, 0.2), (-1, 0.2)] if difference == 0 else [(int(math.copysign(1, difference)), 0.4)]
        )
        for way, p in ways:
            cell = (other[0] + way, other[1]) if axis == 0 else (other[0], other[1] + way)
            to = number.get(cell, here)
            found[to] = found.get(to, 0.0) + p
    return found


# --- rock sample


class Instance(NamedTuple):
    """Columns and rows of the rocks from the lower left, the start, and the sensor's reach."""

    rocks: tuple[Cell, ...]
    start: Cell
    half_distance: float


PUBLISHED = {
    (4, 4): Instance(((3, 1), (2, 1), (1, 3), (1, 0)), (0, 2), math.log(2)),
    (5, 5): Instance(((2, 4), (0, 4), (3, 3), (2, 2), (4, 1)), (0, 2), 4.0),
    (5, 7): Instance(((1, 0), (2, 1), (1, 2), (2, 2), (4, 2), (0, 3), (3, 4)), (0, 2), 20.0),
    (7, 8): Instance(
        ((2, 0), (0, 1), (3, 1), (6, 3), (2, 4), (3, 4), (5, 5), (1, 6)), (0, 3), 20.0
    ),
}
"""The instances that papers compare on, as generated by the files of their author's solver."""


def rock_sample(
    n: int = 7,
    k: int = 8,
    *,
    rocks: tuple[Cell, ...] | None = None,
    start: Cell | None = None,
    half_distance: float | None = None,
    gamma: float = 0.95,
) -> POMDP:
    """A rover on n×n cells, with a sensor for k rocks that are worth sampling or not.

    State 2^k·(n·x + y) + goodness of the rocks (the first rock the highest bit), and last the end.
    Actions: north, east, south, west, check each rock, sample. A good sample pays 10 and makes the
    rock bad, a bad one costs 10, leaving by the east side pays 10 and ends; driving over another
    side or sampling where no rock is costs 100 and ends. A check from distance d tells right with
    probability (1 + 2^(-d/half_distance))/2; other actions always show "good".
    Rocks, start and half distance are those of the published instances for (4, 4), (5, 5), (5, 7)
    and (7, 8), and have to be given for others.
    Source: Smith & Simmons 2004, section 5.
    """
    known = PUBLISHED.get((n, k))
    if known is None and (rocks is None or start is None or half_distance is None):
        raise UserError(
            f"rock_sample: no published instance ({n}, {k}); give rocks, start and half_distance"
        )
    if known is not None:
        rocks = known.rocks if rocks is None else rocks
        start = known.start if start is None else start
        half_distance = known.half_distance if half_distance is None else half_distance
    assert rocks is not None
    assert start is not None
    assert half_distance is not None
    for x, y in (*rocks, start):
        if not (0 <= x < n and 0 <= y < n):
            raise UserError(f"rock_sample: cell ({x}, {y}) lies outside {n} by {n}")
    if len(set(rocks)) != k or len(rocks) != k:
        raise UserError(f"rock_sample: {len(set(rocks))} different rocks; expected {k}")
    if not half_distance > 0:
        raise UserError(f"rock_sample: half_distance {half_distance}; expected above 0")
    return _rover(n, rocks, start, half_distance, gamma)


def _rover(n: int, rocks: tuple[Cell, ...], start: Cell, half: float, gamma: float) -> POMDP:
    k, kinds = len(rocks), 2 ** len(rocks)
    end = n * n * kinds
    good = np.arange(kinds)
    to = np.full((end + 1, k + 5), end)
    reward = np.zeros((end + 1, k + 5))
    sure = np.ones((end + 1, k + 5))  # probability of seeing "good"
    for x in range(n):
        for y in range(n):
            states = kinds * (n * x + y) + good
            for action, (dx, dy) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
                inside = 0 <= x + dx < n and 0 <= y + dy < n
                to[states, action] = kinds * (n * (x + dx) + y + dy) + good if inside else end
                reward[states, action] = 0.0 if inside else (10.0 if x + dx == n else -100.0)
            for rock, (rx, ry) in enumerate(rocks):
                bit = (good >> (k - 1 - rock)) & 1
                clear = 2.0 ** (-math.hypot(x - rx, y - ry) / half)
                to[states, 4 + rock] = states
                sure[states, 4 + rock] = np.where(bit, (1 + clear) / 2, (1 - clear) / 2)
            if (x, y) in rocks:
                mask = 1 << (k - 1 - rocks.index((x, y)))
                to[states, 4 + k] = states & ~mask
                reward[states, 4 + k] = np.where(good & mask, 10.0, -10.0)
            else:
                reward[states, 4 + k] = -100.0
    rows = to.size
    transition = sparse.csr_array(
        (np.ones(rows), to.ravel(), np.arange(rows + 1)), shape=(rows, end + 1)
    )
    observation = sparse.csr_array(np.stack([sure.ravel(), 1 - sure.ravel()], axis=1))
    initial = np.zeros(end + 1)
    begin = kinds * (n * start[0] + start[1])
    initial[begin : begin + kinds] = 1 / kinds
    names = ["north", "east", "south", "west", *(f"check-{i}" for i in range(k)), "sample"]
    return POMDP(
        transition,
        observation,
        reward,
        gamma,
        initial=initial,
        actions=names,
        observations=["good", "bad"],
    )


PARTIAL_WORLDS: dict[str, Callable[..., POMDP]] = {
    "tiger": tiger,
    "line-maze": line_maze,
    "hallway": hallway,
    "hallway2": hallway2,
    "tag": tag,
    "tagavoid": tag_avoid,
    "rocksample": rock_sample,
}
