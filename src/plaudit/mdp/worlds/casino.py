"""Games of chance as exact worlds: the gambler's problem and blackjack from an infinite deck.

Blackjack is a finite MDP: the state is (player's sum, dealer's card, usable ace), and sticking leads
to win, draw or lose with the exact probabilities of the dealer's play.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from plaudit.mdp.model import MDP
from plaudit.mdp.worlds.rules import Outcomes, check_least, tabulated
from plaudit.records.errors import UserError


def gambler(*, p_heads: float = 0.4, goal: int = 100, gamma: float = 1.0) -> MDP:
    """A gambler stakes on a coin until the capital is 100 or 0; reaching 100 pays 1.

    State and action are capital and stake (0 included, as in the book). V(50) = p_heads.
    Source: Sutton & Barto 2018, example 4.3.
    """
    if not 0 < p_heads < 1:
        raise UserError(f"p_heads: {p_heads}; expected a probability between 0 and 1")
    check_least("goal", goal, 2)

    def outcomes(capital: int, stake: int) -> Outcomes[int]:
        if capital in (0, goal):
            return [(1.0, capital, 0.0)] if stake == 0 else []
        if stake > min(capital, goal - capital):
            return []
        win = capital + stake
        return [(p_heads, win, float(win == goal)), (1 - p_heads, capital - stake, 0.0)]

    start = dict.fromkeys(range(1, goal), 1 / (goal - 1))
    stakes = [str(stake) for stake in range(goal // 2 + 1)]
    return tabulated(range(goal + 1), stakes, outcomes, gamma, start=start)


class Hand(NamedTuple):
    """A player's sum with the dealer's card (1 is an ace); `natural`: 21 as dealt."""

    total: int
    dealer: int
    ace: bool
    natural: bool = False

    def __str__(self) -> str:
        if self.natural:
            return f"natural against {self.dealer}"
        return f"{self.total} against {self.dealer}" + (" with ace" if self.ace else "")


ENDS = {"win": 1.0, "draw": 0.0, "lose": -1.0}
CARDS = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}
"""Probability of each value: ten, jack, queen and king are 10."""


def drawn(total: int, ace: bool, card: int) -> tuple[int, bool]:
    """The sum and whether an ace still counts 11, after one more card; over 21 is bust."""
    if card == 1 and total + 11 <= 21:
        return total + 11, True
    total += card
    return (total - 10, False) if total > 21 and ace else (total, ace)


@cache
def dealer_totals(total: int, ace: bool) -> dict[int, float]:
    """Probability of the dealer's final sums, drawing to 17 or more (22: bust)."""
    if total >= 17:
        return {min(total, 22): 1.0}
    reached: dict[int, float] = defaultdict(float)
    for card, p in CARDS.items():
        for final, q in dealer_totals(*drawn(total, ace, card)).items():
            reached[final] += p * q
    return dict(reached)


def _stick(hand: Hand) -> Iterator[tuple[float, Hand | str, float]]:
    shown = (11, True) if hand.dealer == 1 else (hand.dealer, False)
    for total, p in dealer_totals(*shown).items():
        if total == 22 or total < hand.total:
            yield p, "win", 1.0
        else:
            yield p, *(("draw", 0.0) if total == hand.total else ("lose", -1.0))


def _natural(hand: Hand) -> Iterator[tuple[float, Hand | str, float]]:
    """A natural is beaten by nothing; only a dealer's natural equals it."""
    also = {1: CARDS[10], 10: CARDS[1]}.get(hand.dealer, 0.0)
    yield 1 - also, "win", 1.0
    yield also, "draw", 0.0


def _outcomes(hand: Hand | str, action: int) -> Iterator[tuple[float, Hand | str, float]]:
    if isinstance(hand, str):
        yield 1.0, hand, 0.0
    elif hand.natural:
        yield from _natural(hand)
    elif action == 0:
        yield from _stick(hand)
    else:
        for card, p in CARDS.items():
            total, ace = drawn(hand.total, hand.ace, card)
            if total > 21:
                yield p, "lose", -1.0
            else:
                yield p, Hand(total, hand.dealer, ace), 0.0


def blackjack(*, gamma: float = 1.0) -> MDP:
    """Blackjack: stick or hit against a dealer who stops at 17; win 1, draw 0, lose -1.

    A natural counts as any 21. The best play is worth -0.046556, sticking on 20 is worth -0.353554.
    Source: Gymnasium's Blackjack-v1, default rules; Sutton & Barto 2018, example 5.1.
    """
    start: dict[Hand | str, float] = defaultdict(float)
    for dealer, p in CARDS.items():
        for (total, ace, _), q in _dealt().items():
            start[Hand(total, dealer, ace)] += p * q
    return _table(start, least=4, naturals=False, gamma=gamma)


def blackjack_book(*, gamma: float = 1.0) -> MDP:
    """Blackjack as the book tells it: below 12 the player always hits, and a natural wins at once.

    States are the book's 200 and ten naturals, which the dealer can only draw with.
    Source: Sutton & Barto 2018, example 5.1.
    """
    start: dict[Hand | str, float] = defaultdict(float)
    for dealer, p in CARDS.items():
        for (total, ace, natural), q in _dealt().items():
            for (at_least_12, still), r in _hit_to_12(total, ace).items():
                start[Hand(at_least_12, dealer, still, natural)] += p * q * r
    return _table(start, least=12, naturals=True, gamma=gamma)


def _table(start: dict[Hand | str, float], *, least: int, naturals: bool, gamma: float) -> MDP:
    dealt = [(total, False) for total in range(least, 22)] + [(t, True) for t in range(12, 22)]
    states: list[Hand | str] = [Hand(t, d, ace) for t, ace in dealt for d in CARDS]
    if naturals:
        states += [Hand(21, d, True, natural=True) for d in CARDS]
    states += list(ENDS)
    return tabulated(states, ["stick", "hit"], _outcomes, gamma, start=start)


def _dealt() -> dict[tuple[int, bool, bool], float]:
    """(sum, usable ace, natural) of two cards."""
    found: dict[tuple[int, bool, bool], float] = defaultdict(float)
    for first, p in CARDS.items():
        for second, q in CARDS.items():
            total, ace = drawn(*drawn(0, False, first), second)
            found[total, ace, total == 21] += p * q
    return found


@cache
def _hit_to_12(total: int, ace: bool) -> dict[tuple[int, bool], float]:
    if total >= 12:
        return {(total, ace): 1.0}
    reached: dict[tuple[int, bool], float] = defaultdict(float)
    for card, p in CARDS.items():
        for final, q in _hit_to_12(*drawn(total, ace, card)).items():
            reached[final] += p * q
    return dict(reached)


CASINO_WORLDS: dict[str, Callable[..., MDP]] = {
    "gambler": gambler,
    "blackjack": blackjack,
    "blackjack-book": blackjack_book,
}
