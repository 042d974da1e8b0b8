"""Classic worlds once more, slowly and from their descriptions: hands of cards, cars, a race."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from math import exp, factorial

import numpy as np


def hand_value(cards):
    raw = sum(cards)
    return raw + 10 if 1 in cards and raw + 10 <= 21 else raw


def blackjack_stick(player_total, dealer_card):
    """Exact (win, draw, lose) of a player who sticks: every sequence of the dealer's cards."""
    result = [Fraction(0)] * 3
    waiting = [([dealer_card], Fraction(1))]
    while waiting:
        cards, p = waiting.pop()
        total = hand_value(cards)
        if total < 17:
            for card in range(1, 11):
                waiting.append(([*cards, card], p * Fraction(4 if card == 10 else 1, 13)))
        elif total > 21 or total < player_total:
            result[0] += p
        else:
            result[1 if total == player_total else 2] += p
    return result


def car_lot_day(*, morning, capacity, rents, returns, most=60):
    """Cars in the evening and expected rents, by going through customers and returns one by one."""
    evening, income = np.zeros(capacity + 1), 0.0
    for wanted in range(most):
        for back in range(most):
            p = exp(-rents - returns) * rents**wanted / factorial(wanted)
            p *= returns**back / factorial(back)
            rented = min(wanted, morning)
            evening[min(morning - rented + back, capacity)] += p
            income += p * rented
    return evening, income


RIGHT_TURN = [  # first and last column of each row of figure 5.5 (left), from the top
    (3, 16), (2, 16), (2, 16), (1, 16), (0, 16), (0, 16), (0, 9),
    *[(0, 8)] * 7, *[(1, 8)] * 8, *[(2, 8)] * 7, *[(3, 8)] * 3,
]  # fmt: skip


def racetrack_fewest_steps(row, column):
    """Breadth first over (cell, speed), without noise and without crashing."""
    start = (row, column, 0, 0)
    steps, waiting = {start: 0}, deque([start])
    while waiting:
        r, c, up, right = state = waiting.popleft()
        for du in (-1, 0, 1):
            for dr in (-1, 0, 1):
                new_up, new_right = up + du, right + dr
                if not (0 <= new_up <= 4 and 0 <= new_right <= 4) or new_up == new_right == 0:
                    continue
                on_track = True
                longest = max(new_up, new_right)
                for i in range(1, longest + 1):
                    y = r - round(Fraction(new_up * i, longest))
                    x = c + round(Fraction(new_right * i, longest))
                    if 0 <= y < 6 and x >= 16:
                        return steps[state] + 1
                    if not (0 <= y < 32 and RIGHT_TURN[y][0] <= x <= RIGHT_TURN[y][1]):
                        on_track = False
                        break
                after = (r - new_up, c + new_right, new_up, new_right)
                if on_track and after not in steps:
                    steps[after] = steps[state] + 1
                    waiting.append(after)
    return None
