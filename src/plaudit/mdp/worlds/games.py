"""Classic games by name: the small ones of every textbook, and Littman's soccer.

Two-player games list the row player's payoffs first. Sources stand beside each game.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from plaudit.mdp.games.model import MarkovGame, MatrixGame


def matching_pennies() -> MatrixGame:
    """One wants to match and the other to differ: only (1/2, 1/2) is safe; value 0."""
    sides = ("heads", "tails")
    return MatrixGame([[1, -1], [-1, 1]], players=("matcher", "mismatcher"), actions=(sides, sides))


def rock_paper_scissors() -> MatrixGame:
    """Each action beats one other: (1/3, 1/3, 1/3), value 0."""
    names = ("rock", "paper", "scissors")
    return MatrixGame([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], actions=(names, names))


def prisoners_dilemma() -> MatrixGame:
    """Defecting is better whatever the other does, and worse if both do it (Tucker 1950).

    Payoffs 3, 0, 5, 1 as in Axelrod 1984. One equilibrium: both defect.
    """
    row = [[3, 0], [5, 1]]
    return _symmetric(row, ("cooperate", "defect"))


def battle_of_the_sexes() -> MatrixGame:
    """Both want to meet, each at another place: two pure equilibria and (2/3, 1/3), (1/3, 2/3).

    Source: Luce & Raiffa 1957, with 0 where they do not meet.
    """
    places = ("ballet", "fight")
    return MatrixGame([[[2, 0], [0, 1]], [[1, 0], [0, 2]]], actions=(places, places))


def chicken() -> MatrixGame:
    """To dare pays unless both do: two pure equilibria, and one in which each dares with 1/3.

    Payoffs of Aumann 1974, section 2.
    """
    return _symmetric([[6, 2], [7, 0]], ("yield", "dare"))


def stag_hunt() -> MatrixGame:
    """The stag needs both; the hare is safe: two pure equilibria and (1/2, 1/2) (Rousseau 1755)."""
    return _symmetric([[2, 0], [1, 1]], ("stag", "hare"))


def climbing() -> MatrixGame:
    """A shared payoff whose best cell, 11, stands beside penalties of -30.

    Source: Claus & Boutilier 1998; 25 repeats at the optimum pay 275.
    """
    names = ("a", "b", "c")
    return _shared([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], names)


def penalty(k: float = -100.0) -> MatrixGame:
    """A shared payoff with two best cells, 10, and a penalty k where the two are confused.

    Source: Claus & Boutilier 1998; 25 repeats at the optimum pay 250.
    """
    names = ("a", "b", "c")
    return _shared([[10, 0, k], [0, 2, 0], [k, 0, 10]], names)


def _symmetric(row: Sequence[Sequence[float]], names: tuple[str, ...]) -> MatrixGame:
    paid = np.array(row, dtype=np.float64)
    return MatrixGame(np.stack([paid, paid.T]), actions=(names, names))


def _shared(paid: Sequence[Sequence[float]], names: tuple[str, ...]) -> MatrixGame:
    return MatrixGame([paid, paid], actions=(names, names))


def big_match(gamma: float = 0.9) -> MarkovGame:
    """The row player may end the game, once, in the round in which the other errs.

    States: play, lost (0 for ever), won (1 for ever), paid as in the game of Gillette 1957. Every
    state's value times 1 - γ: 1/2, 0, 1. The row player ends with probability (1 - γ) / (2 - γ).
    """
    transition = np.zeros((3, 2, 2, 3))
    transition[0, 0, :, 0] = 1  # continue: the play goes on
    transition[0, 1, 0, 1] = 1  # end against left: lost
    transition[0, 1, 1, 2] = 1  # end against right: won
    transition[1, :, :, 1] = transition[2, :, :, 2] = 1
    reward = np.zeros((3, 2, 2))
    reward[0] = [[1, 0], [0, 1]]
    reward[2] = 1
    return MarkovGame(
        transition,
        reward,
        gamma,
        initial=[1, 0, 0],
        states=("play", "lost", "won"),
        actions=(("continue", "end"), ("left", "right")),
    )


ROWS, COLUMNS = 4, 5
MOVES = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1), "stand": (0, 0)}
GOAL_ROWS = (1, 2)


def soccer(gamma: float = 0.9) -> MarkovGame:
    """Two players and a ball on a field of 4 × 5: 760 states and the end after a goal.

    Both choose a move; the two are made in an order drawn evenly. Who moves into the other loses
    the ball to it and stays. A's goal lies beyond the middle of the west side, B's of the east;
    carrying the ball into one's goal pays 1 to the scorer and -1 to the other. Any other way off
    the field is no move. Play begins as in the figure, with the ball to either evenly.
    By symmetry the beginning is worth 0. Source: Littman 1994, section 5.
    """
    cells = ROWS * COLUMNS
    pairs = [(a, b) for a in range(cells) for b in range(cells) if a != b]
    number = {(*pair, ball): 2 * i + ball for i, pair in enumerate(pairs) for ball in (0, 1)}
    over, moves = len(number), list(MOVES.values())
    entries: dict[tuple[int, int], float] = {}
    reward = np.zeros((over + 1, len(moves), len(moves)))
    for (a, b, ball), s in number.items():
        for i, first in enumerate(moves):
            for j, second in enumerate(moves):
                row = (s * len(moves) + i) * len(moves) + j
                for order in ((0, 1), (1, 0)):
                    after, paid = _played((a, b), ball, (first, second), order)
                    to = over if after is None else number[after]
                    entries[row, to] = entries.get((row, to), 0.0) + 0.5
                    reward[s, i, j] += 0.5 * paid
    for row in range(over * len(moves) ** 2, (over + 1) * len(moves) ** 2):
        entries[row, over] = 1.0
    rows, columns = np.array(list(entries)).T
    shape = ((over + 1) * len(moves) ** 2, over + 1)
    transition = sparse.csr_array((list(entries.values()), (rows, columns)), shape=shape)
    initial = np.zeros(over + 1)
    begin = (2 * COLUMNS + 3, 1 * COLUMNS + 1)
    initial[[number[(*begin, 0)], number[(*begin, 1)]]] = 0.5
    names = [_state_name(*key) for key in number]
    return MarkovGame(
        transition,
        reward,
        gamma,
        initial=initial,
        states=[*names, "over"],
        actions=(tuple(MOVES), tuple(MOVES)),
    )


def _played(
    places: tuple[int, int], ball: int, moves: tuple[tuple[int, int], ...], order: tuple[int, int]
) -> tuple[tuple[int, int, int] | None, float]:
    """((a, b, who has the ball) or None after a goal, what A is paid) once both have moved."""
    at = list(places)
    for player in order:
        row, column = divmod(at[player], COLUMNS)
        down, right = moves[player]
        goal_column = -1 if player == 0 else COLUMNS
        if ball == player and column + right == goal_column and row in GOAL_ROWS:
            return None, 1.0 if player == 0 else -1.0
        if not (0 <= row + down < ROWS and 0 <= column + right < COLUMNS):
            continue
        to = (row + down) * COLUMNS + column + right
        if to == at[1 - player]:
            ball = 1 - player
        else:
            at[player] = to
    return (at[0], at[1], ball), 0.0


def _state_name(a: int, b: int, ball: int) -> str:
    return f"A{divmod(a, COLUMNS)} B{divmod(b, COLUMNS)} ball {'AB'[ball]}".replace(" ", "")


GAME_WORLDS: dict[str, Callable[[], MatrixGame | MarkovGame]] = {
    "matching-pennies": matching_pennies,
    "rock-paper-scissors": rock_paper_scissors,
    "prisoners-dilemma": prisoners_dilemma,
    "battle-of-the-sexes": battle_of_the_sexes,
    "chicken": chicken,
    "stag-hunt": stag_hunt,
    "climbing": climbing,
    "penalty": penalty,
    "big-match": big_match,
    "soccer": soccer,
}
"""Games by name."""
