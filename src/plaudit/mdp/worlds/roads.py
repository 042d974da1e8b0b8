"""Driving worlds: the taxi of Dietterich and the racetrack of Sutton & Barto."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from plaudit.mdp.model import MDP
from plaudit.mdp.worlds.rules import Outcomes, check_probability, tabulated

STOPS = ((0, 0), (0, 4), (4, 0), (4, 3))
"""Red, green, yellow and blue."""

FENCES = frozenset({(0, 1), (1, 1), (3, 0), (3, 2), (4, 0), (4, 2)})
"""Cells with a fence at their right."""

IN_TAXI = 4


class Ride(NamedTuple):
    """Where the taxi is, where the passenger is (4: in the taxi), and where it wants to go."""

    row: int
    column: int
    passenger: int
    destination: int

    def __str__(self) -> str:
        at = "in taxi" if self.passenger == IN_TAXI else "RGYB"[self.passenger]
        return f"{self.row},{self.column} {at} to {'RGYB'[self.destination]}"


def taxi(*, gamma: float = 1.0) -> MDP:
    """A taxi fetches a passenger in a 5×5 town and delivers for 20; a step costs 1, a blunder 10.

    The best return is 7.93 on average over the 300 starts. States are numbered as Gymnasium numbers
    them; those of a delivered passenger are terminal.
    Source: Dietterich 2000; Gymnasium's Taxi-v3.
    """
    rides = [
        Ride(r, c, p, d) for r in range(5) for c in range(5) for p in range(5) for d in range(4)
    ]

    def outcomes(ride: Ride, action: int) -> Outcomes[Ride]:
        if (ride.row, ride.column) == STOPS[
            ride.destination
        ] and ride.passenger == ride.destination:
            return [(1.0, ride, 0.0)]
        return [(1.0, *_driven(ride, action))]

    begin = [ride for ride in rides if ride.passenger not in (IN_TAXI, ride.destination)]
    actions = ["south", "north", "east", "west", "pickup", "dropoff"]
    start = {ride: 1 / len(begin) for ride in begin}
    return tabulated(rides, actions, outcomes, gamma, start=start)


def _driven(ride: Ride, action: int) -> tuple[Ride, float]:
    r, c = ride.row, ride.column
    stop = STOPS.index((r, c)) if (r, c) in STOPS else None
    if action == 0:
        return ride._replace(row=min(r + 1, 4)), -1.0
    if action == 1:
        return ride._replace(row=max(r - 1, 0)), -1.0
    if action == 2:
        return ride._replace(column=c if (r, c) in FENCES else min(c + 1, 4)), -1.0
    if action == 3:
        return ride._replace(column=c if (r, c - 1) in FENCES else max(c - 1, 0)), -1.0
    if action == 4 and stop is not None and ride.passenger == stop:
        return ride._replace(passenger=IN_TAXI), -1.0
    if action == 5 and stop is not None and ride.passenger == IN_TAXI:
        return ride._replace(passenger=stop), 20.0 if stop == ride.destination else -1.0
    return ride, -10.0


TRACK = (
    "###.............F",
    "##..............F",
    "##..............F",
    "#...............F",
    "................F",
    "................F",
    "..........#######",
    *(".........########",) * 7,
    *("#........########",) * 8,
    *("##.......########",) * 7,
    *("###......########",) * 2,
    "###SSSSSS########",
)


class Car(NamedTuple):
    """A cell of the track, and the cells upwards and rightwards that the car moves in a step."""

    row: int
    column: int
    up: int
    right: int

    def __str__(self) -> str:
        return f"{self.row},{self.column} at {self.up},{self.right}"


END = Car(-1, -1, 0, 0)


def racetrack(*, noise: float = 0.1, gamma: float = 1.0) -> MDP:
    """A car on a right turn: speed changes by -1, 0 or 1 each way; off the track it starts again.

    Speeds are 0 to 4 and never both 0 but at the start; each step costs 1; with probability `noise`
    a change is ignored. A car passes the cells nearest to the straight line of its move (of two as
    near, the one an even number of cells away).
    Source: Sutton & Barto 2018, exercise 5.12, the left track of figure 5.5.
    """
    check_probability("noise", noise)
    height, width = len(TRACK), len(TRACK[0])
    starts = [Car(r, c, 0, 0) for r in range(height) for c in range(width) if TRACK[r][c] == "S"]
    changes = [(up, right) for up in (1, 0, -1) for right in (-1, 0, 1)]

    @cache
    def moved(car: Car, up: int, right: int) -> Car | None:
        """The car after a move, END over the finish, None off the track."""
        steps = max(up, right)
        for i in range(1, steps + 1):
            r, c = car.row - round(up * i / steps), car.column + round(right * i / steps)
            if not (0 <= r < height and 0 <= c < width) or TRACK[r][c] == "#":
                return None
            if TRACK[r][c] == "F":
                return END
        return Car(car.row - up, car.column + right, up, right)

    def outcomes(car: Car, action: int) -> Iterator[tuple[float, Car, float]]:
        if car == END:
            yield 1.0, END, 0.0
            return
        for p, (up, right) in ((1 - noise, changes[action]), (noise, (0, 0))):
            speed = (min(max(car.up + up, 0), 4), min(max(car.right + right, 0), 4))
            if speed == (0, 0):
                speed = (car.up, car.right)  # a car under way keeps moving
            ahead = moved(car, *speed)
            if ahead is None:
                for start in starts:
                    yield p / len(starts), start, -1.0
            else:
                yield p, ahead, -1.0

    cars = _reachable(starts, lambda car: [n for a in range(9) for _, n, _ in outcomes(car, a)])
    names = [f"{up:+d},{right:+d}" for up, right in changes]
    start = {car: 1 / len(starts) for car in starts}
    return tabulated(cars, names, outcomes, gamma, start=start)


def _reachable(starts: list[Car], neighbours: Callable[[Car], list[Car]]) -> list[Car]:
    found, waiting = set(starts), list(starts)
    while waiting:
        for car in neighbours(waiting.pop()):
            if car not in found:
                found.add(car)
                waiting.append(car)
    return sorted(found)


ROAD_WORLDS: dict[str, Callable[..., MDP]] = {"taxi": taxi, "racetrack": racetrack}
