"""Jack's car rental: two lots, Poisson customers and returns, cars moved overnight.

Poisson tails are summed exactly: nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, pdtrc

from plaudit.mdp.model import MDP

Floats: TypeAlias = NDArray[np.float64]

FEE = 10.0
"""What a customer pays for a car."""


def jacks_car_rental(*, capacity: int = 20, most_moved: int = 5, gamma: float = 0.9) -> MDP:
    """Two car lots with up to 20 cars each: move up to five overnight at 2 each, rent them at 10.

    V*(0, 0) = 421.414, V*(20, 20) = 636.990. Action "+2" moves two cars from the first lot.
    Source: Sutton & Barto 2018, example 4.2.
    """

    def cost(moved: int, first: int, second: int) -> float:
        return 2.0 * abs(moved)

    return _rental(cost, capacity, most_moved, gamma)


def jacks_car_rental_shuttle(*, capacity: int = 20, most_moved: int = 5, gamma: float = 0.9) -> MDP:
    """Jack's car rental where one car a night goes to the second lot for free, and over 10 cars park at 4.

    Source: Sutton & Barto 2018, exercise 4.7.
    """

    def cost(moved: int, first: int, second: int) -> float:
        driven = moved - 1 if moved > 0 else -moved
        return 2.0 * driven + 4.0 * ((first > 10) + (second > 10))

    return _rental(cost, capacity, most_moved, gamma)


def _rental(
    cost: Callable[[int, int, int], float], capacity: int, most_moved: int, gamma: float
) -> MDP:
    lots = (_day(capacity, rents=3.0, returns=3.0), _day(capacity, rents=4.0, returns=2.0))
    size = capacity + 1
    moves = range(-most_moved, most_moved + 1)
    rows = np.zeros((size, size, len(moves), size, size))
    reward = np.full((size, size, len(moves)), -np.inf)
    for first in range(size):
        for second in range(size):
            for a, moved in enumerate(moves):
                if -second <= moved <= first:
                    x, y = min(first - moved, capacity), min(second + moved, capacity)
                    rows[first, second, a] = np.outer(lots[0][0][x], lots[1][0][y])
                    income = FEE * (lots[0][1][x] + lots[1][1][y])
                    reward[first, second, a] = income - cost(moved, x, y)
    return MDP(
        rows.reshape(-1, size * size),
        reward.reshape(size * size, -1),
        gamma,
        states=[f"{first},{second}" for first in range(size) for second in range(size)],
        actions=[f"{moved:+d}" if moved else "0" for moved in moves],
        grid=np.arange(size * size).reshape(size, size)[::-1],  # the first lot grows upwards
    )


def _day(capacity: int, *, rents: float, returns: float) -> tuple[Floats, Floats]:
    """p(cars in the evening | cars in the morning) [C + 1, C + 1], and the expected rents [C + 1]."""
    evening, rented = np.zeros((capacity + 1, capacity + 1)), np.zeros(capacity + 1)
    for cars in range(capacity + 1):
        out = _poisson_up_to(cars, rents)
        rented[cars] = out @ np.arange(cars + 1)
        for hired in range(cars + 1):
            left = cars - hired
            evening[cars, left:] += out[hired] * _poisson_up_to(capacity - left, returns)
    return evening, rented


def _poisson_up_to(most: int, mean: float) -> Floats:
    """Probabilities of 0 to most - 1, and of `most` or more."""
    k = np.arange(most)
    p = np.exp(k * np.log(mean) - mean - gammaln(k + 1))
    return np.append(p, pdtrc(most - 1, mean) if most else 1.0)


RENTAL_WORLDS: dict[str, Callable[..., MDP]] = {
    "jacks-car-rental": jacks_car_rental,
    "jacks-car-rental-shuttle": jacks_car_rental_shuttle,
}
