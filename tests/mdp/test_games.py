"""Matrix games: closed forms, known equilibria, the minimax theorem, regret bounds, sentences."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.games import value_by_kernels
from plaudit.mdp.games import (
    MatrixGame,
    fictitious_play,
    nash_zero_sum,
    pure_equilibria,
    regret_matching,
    regret_matching_plus,
    support_enumeration,
)
from plaudit.mdp.games.zero_sum import solve_matrix
from plaudit.mdp.worlds.games import GAME_WORLDS, climbing, penalty
from plaudit.records.errors import UserError

matrices = st.integers(1, 5).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(-4, 4), min_size=columns, max_size=columns),
            min_size=rows,
            max_size=rows,
        )
    )
)


def compiled_solution(paid):
    paid = np.array(paid, dtype=float)
    x, y = np.empty(paid.shape[0]), np.empty(paid.shape[1])
    value, gap = solve_matrix(paid, x, y)
    return value, gap, x, y


# --- zero sum


@given(st.lists(st.integers(-9, 9), min_size=4, max_size=4))
def test_two_by_two_has_a_closed_form(entries):
    a, b, c, d = entries
    lower, upper = max(min(a, b), min(c, d)), min(max(a, c), max(b, d))
    if lower == upper:
        expected = Fraction(lower)
    else:  # no saddle: (ad - bc) / (a + d - b - c), row plays (d - c) / (a + d - b - c)
        expected = Fraction(a * d - b * c, a + d - b - c)
        x = Fraction(d - c, a + d - b - c)
    found = nash_zero_sum(MatrixGame([[a, b], [c, d]]))
    assert found.bound <= 1e-12
    assert found.value == pytest.approx(float(expected), abs=1e-12)
    if lower != upper:
        assert found.strategies[0][0] == pytest.approx(float(x), abs=1e-12)


@pytest.mark.parametrize(("rock", "paper", "scissors"), [(1, 1, 1), (2, 1, 1), (1, 5, 3)])
def test_rock_paper_scissors_with_weights(rock, paper, scissors):
    # Winning with rock pays `rock`, and so on. Indifference: each action is played in proportion
    # to the stake of the pair it is not in: rock beats scissors, so paper's share is rock's stake.
    paid = [[0, -paper, rock], [paper, 0, -scissors], [-rock, scissors, 0]]
    expected = np.array([scissors, rock, paper]) / (rock + paper + scissors)
    found = nash_zero_sum(MatrixGame(paid))
    assert found.value == pytest.approx(0, abs=1e-12)
    assert np.allclose(found.strategies, expected, atol=1e-12)


def test_a_game_of_more_rows_than_columns():
    # With q = P(column 0) the rows pay 5 - 4q, 2 + 2q and 5.5 - 6q. The greatest of them is least
    # where the first two cross, at q = 1/2, value 3; the third pays 2.5 there.
    found = nash_zero_sum(MatrixGame([[1, 5], [4, 2], [-0.5, 5.5]]))
    assert found.value == pytest.approx(3, abs=1e-12)
    assert found.strategies[1] == pytest.approx([0.5, 0.5], abs=1e-12)
    # x = (p, 1 - p): 4 - 3p = 2 + 3p, p = 1/3.
    assert found.strategies[0] == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-12)


@given(matrices)
def test_minimax_theorem(paid):
    game = MatrixGame(paid)
    found = nash_zero_sum(game)
    x, y = found.strategies
    matrix = np.array(paid, dtype=float)
    assert (matrix @ y).max() - (x @ matrix).min() <= found.bound <= 1e-11
    assert game.exploitability(found.strategies) <= found.bound
    assert found.value == pytest.approx(value_by_kernels(paid), abs=1e-9)


@given(matrices, st.floats(1e-6, 1e6), st.floats(-1e3, 1e3))
def test_the_compiled_simplex_is_the_linear_programme(paid, scale, shift):
    matrix = np.array(paid, dtype=float) * scale + shift
    value, gap, x, y = compiled_solution(matrix)
    size = np.abs(matrix).max()
    assert 0 <= gap <= 1e-12 * size
    assert x.sum() == pytest.approx(1)
    assert y.sum() == pytest.approx(1)
    assert min(x.min(), y.min()) >= 0
    assert value == pytest.approx(nash_zero_sum(MatrixGame(matrix)).value, abs=1e-11 * size)


@pytest.mark.parametrize("seed", range(5))
def test_the_compiled_simplex_on_larger_games(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=tuple(rng.integers(5, 40, 2)))
    value, gap, _, _ = compiled_solution(matrix)
    assert gap <= 1e-12
    assert value == pytest.approx(nash_zero_sum(MatrixGame(matrix)).value, abs=1e-10)


# --- equilibria of two players

KNOWN = {
    "matching-pennies": [((0.5, 0.5), (0.5, 0.5))],
    "rock-paper-scissors": [((1 / 3,) * 3, (1 / 3,) * 3)],
    "prisoners-dilemma": [((0, 1), (0, 1))],
    "battle-of-the-sexes": [
        ((1, 0), (1, 0)),
        ((0, 1), (0, 1)),
        ((2 / 3, 1 / 3), (1 / 3, 2 / 3)),
    ],
    "chicken": [((1, 0), (0, 1)), ((0, 1), (1, 0)), ((2 / 3, 1 / 3), (2 / 3, 1 / 3))],
    "stag-hunt": [((1, 0), (1, 0)), ((0, 1), (0, 1)), ((0.5, 0.5), (0.5, 0.5))],
}


def as_set(equilibria):
    return {tuple(np.round(np.concatenate(e.strategies), 12)) for e in equilibria}


@pytest.mark.parametrize("name", KNOWN)
def test_textbook_games_have_their_known_equilibria(name):
    found = support_enumeration(GAME_WORLDS[name]())
    assert found.nondegenerate
    assert as_set(found.equilibria) == {
        tuple(np.round(np.concatenate(pair), 12)) for pair in KNOWN[name]
    }


def test_von_stengels_example():
    # von Stengel 2002, equation (2.5): three rows, two columns, three equilibria.
    first = [[3, 3], [2, 5], [0, 6]]
    second = [[3, 2], [2, 6], [3, 1]]
    found = support_enumeration(MatrixGame([first, second]))
    assert found.nondegenerate
    assert as_set(found.equilibria) == {
        tuple(np.round(e, 12))
        for e in (
            (1, 0, 0, 1, 0),
            (4 / 5, 1 / 5, 0, 2 / 3, 1 / 3),
            (0, 1 / 3, 2 / 3, 1 / 3, 2 / 3),
        )
    }


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_coordination_game_has_two_to_the_n_less_one(size):
    # The identity for both: every nonempty support, mixed evenly (Quint & Shubik 1997).
    found = support_enumeration(MatrixGame([np.eye(size), np.eye(size)]))
    assert len(found.equilibria) == 2**size - 1
    assert found.nondegenerate


@given(st.integers(0, 100_000))
def test_every_equilibrium_is_one_and_their_number_is_odd(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 4, 2)
    game = MatrixGame(rng.normal(size=(2, rows, columns)))
    found = support_enumeration(game)
    assert found.nondegenerate
    assert len(found.equilibria) % 2 == 1  # Wilson 1971
    for equilibrium in found.equilibria:
        assert game.exploitability(equilibrium.strategies) <= 1e-14
        assert np.allclose(game.expected(equilibrium.strategies), equilibrium.payoffs)
    pure = {tuple(int(x.argmax()) for x in e.strategies) for e in found.equilibria}
    assert set(pure_equilibria(game)) <= pure


@given(matrices.filter(lambda paid: len(paid) + len(paid[0]) <= 7))
def test_extreme_equilibria_of_a_zero_sum_game_pay_its_value(paid):
    game = MatrixGame(paid)
    found = support_enumeration(game)
    assert found.equilibria
    for equilibrium in found.equilibria:
        assert equilibrium.payoffs[0] == pytest.approx(value_by_kernels(paid), abs=1e-9)


def test_a_degenerate_game_says_so():
    # The column player is indifferent when the row player plays its first row: a continuum.
    found = support_enumeration(MatrixGame([[[1, 1], [0, 2]], [[1, 1], [0, 0]]]))
    assert not found.nondegenerate
    assert tuple(np.concatenate(found.equilibria[0].strategies)) == (1, 0, 1, 0)
    # Its other extreme, y = (1/2, 1/2), where the rows pay alike, is there too.
    assert (1, 0, 0.5, 0.5) in as_set(found.equilibria)


def test_pure_equilibria_of_three_players():
    # Everyone is paid 1 if all agree: both unanimous outcomes, and nothing else is stable ...
    paid = np.zeros((3, 2, 2, 2))
    paid[:, 0, 0, 0] = paid[:, 1, 1, 1] = 1
    assert pure_equilibria(MatrixGame(paid)) == [(0, 0, 0), (1, 1, 1)]
    # ... and with three actions, three different choices are stable too: no one can make all agree.
    paid = np.zeros((3, 3, 3, 3))
    for action in range(3):
        paid[:, action, action, action] = 1
    assert (0, 1, 2) in pure_equilibria(MatrixGame(paid))


def test_common_payoff_games_pay_their_optimum():
    for game, total in ((climbing(), 275), (penalty(), 250)):
        assert 25 * game.payoffs[0].max() == total
        assert (game.payoffs[0] == game.payoffs[1]).all()
    assert pure_equilibria(climbing()) == [(0, 0), (1, 1)]
    assert pure_equilibria(penalty()) == [(0, 0), (1, 1), (2, 2)]


def test_expected_payoffs_of_three_players_by_hand():
    rng = np.random.default_rng(0)
    paid = rng.normal(size=(3, 2, 3, 4))
    x = [rng.dirichlet(np.ones(count)) for count in (2, 3, 4)]
    game = MatrixGame(paid)
    expected = [
        sum(
            x[0][a] * x[1][b] * x[2][c] * paid[p, a, b, c]
            for a in range(2)
            for b in range(3)
            for c in range(4)
        )
        for p in range(3)
    ]
    assert np.allclose(game.expected(x), expected, atol=1e-15)
    second = [
        sum(x[0][a] * x[2][c] * paid[1, a, b, c] for a in range(2) for c in range(4))
        for b in range(3)
    ]
    assert np.allclose(game.deviations(x, player=1), second, atol=1e-15)


# --- dynamics


@pytest.mark.parametrize("seed", range(3))
def test_regret_matching_keeps_its_bound(seed):
    rng = np.random.default_rng(seed)
    game = MatrixGame(rng.uniform(-1, 1, size=(6, 4)))
    width = np.ptp(game.payoffs[0])
    played = regret_matching(game, num_steps=20_000)
    allowed = width * (np.sqrt(6 / played.steps) + np.sqrt(4 / played.steps))
    assert (played.trace <= allowed).all()
    assert played.trace[-1] == pytest.approx(played.exploitability, abs=1e-12)
    assert played.regrets.sum() == pytest.approx(played.exploitability, abs=1e-12)
    value = nash_zero_sum(game).value
    assert abs(game.expected(played.strategies)[0] - value) <= played.exploitability
    assert not (played.trace <= allowed / 1e6).any()  # it is not at rest from the start


@pytest.mark.parametrize("seed", range(3))
def test_regret_matching_plus_is_far_closer(seed):
    game = MatrixGame(np.random.default_rng(seed).uniform(-1, 1, size=(6, 4)))
    plain, plus = (f(game, num_steps=20_000) for f in (regret_matching, regret_matching_plus))
    assert plus.exploitability < plain.exploitability / 3
    assert plus.exploitability < 1e-3


@pytest.mark.parametrize("name", ["matching-pennies", "rock-paper-scissors"])
def test_fictitious_play_converges_in_zero_sum_games(name):
    game = GAME_WORLDS[name]()
    played = fictitious_play(game, num_steps=100_000)
    assert played.exploitability < 0.02
    assert played.trace[0] > 0.5
    for strategy in played.strategies:
        assert np.abs(strategy - 1 / strategy.size).max() < 0.01


def test_fictitious_play_cycles_in_shapleys_game():
    # Shapley 1964: the one equilibrium is even, and fictitious play never comes near it.
    first, second = np.eye(3), [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    game = MatrixGame([first, second])
    assert len(support_enumeration(game).equilibria) == 1
    played = fictitious_play(game, num_steps=200_000)
    assert played.trace[played.steps > 100].min() > 0.1


def test_fictitious_play_by_hand():
    # Matching pennies, ties to the first action: (0, 0), then the mismatcher turns, and so on:
    # t=2: x best against b=0 is 0, y best against a=0 is 1; t=3: b's so far (0, 1) tie, x takes 0;
    # y against a's (0, 0): 1; t=4: b's (0, 1, 1): x takes 1; y: 1.
    played = fictitious_play(GAME_WORLDS["matching-pennies"](), num_steps=4)
    assert np.array_equal(played.joint * 4, [[1, 2], [0, 1]])
    assert np.array_equal(played.last, [[0, 1], [0, 1]])


def test_regret_matching_by_hand():
    # Prisoner's dilemma from (1/2, 1/2): payoffs (1.5, 3), mean 2.25, regrets (-.75, .75): defect.
    played = regret_matching(GAME_WORLDS["prisoners-dilemma"](), num_steps=2)
    assert np.array_equal(played.last, [[0, 1], [0, 1]])
    assert np.array_equal(played.joint, [[0.125, 0.125], [0.125, 0.625]])


# --- what is refused


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MatrixGame([1, 2]), "payoffs: shape"),
        (lambda: MatrixGame(np.zeros((3, 2, 2))), r"payoffs: shape \(3, 2, 2\); expected \[n, A_0"),
        (lambda: MatrixGame([[1, np.nan]]), r"player 0 at joint action \(0, 1\) has nan"),
        (lambda: MatrixGame([[1, 2], [3]]), "payoffs: not an array of numbers"),
        (lambda: MatrixGame([["a"]]), "payoffs: not an array of numbers"),
        (lambda: MatrixGame([[1, 2]], actions=[["a"], ["b"]]), "actions of player 1: 1 names"),
        (lambda: MatrixGame([[1, 2]], actions=[["a"]]), "1 lists of names for 2 players"),
        (lambda: MatrixGame([[1, 2]], players=["p", "p"]), "the name 'p' stands twice"),
        (lambda: climbing().exploitability([[1, 0, 0]]), "strategies: 1 of them; expected one for"),
        (
            lambda: climbing().expected([[1, 0, 0], [1, 1, 0]]),
            "strategy of player 1: probabilities sum to 2, not 1",
        ),
        (lambda: climbing().action(0, "d"), "player 0 has no action 'd'"),
        (lambda: climbing().action(1, 3), "action 3 of player 1: expected 0 to 2"),
        (lambda: nash_zero_sum(climbing()), "not zero sum, so no linear programme"),
        (
            lambda: support_enumeration(MatrixGame(np.zeros((12, 12)))),
            "12 × 12 actions have 2,704,156 pairs of supports, above 50,000",
        ),
        (lambda: support_enumeration(MatrixGame(np.zeros((3, 2, 2, 2)))), "this game has 3"),
        (lambda: regret_matching(climbing(), num_steps=0), "num_steps: 0; expected 1 or more"),
        (lambda: fictitious_play(MatrixGame(np.zeros((3, 2, 2, 2))), num_steps=1), "two players"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_payoffs_are_frozen():
    with pytest.raises(ValueError, match="read-only"):
        climbing().payoffs[0, 0, 0] = 1.0


def test_actions_are_found_by_name():
    assert GAME_WORLDS["chicken"]().action(0, "dare") == 1
