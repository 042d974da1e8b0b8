"""Cassandra's file format: all of the grammar, there and back, and a score of malformed files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oracles.partial import random_partial
from plaudit.mdp.partial import POMDP, parse_pomdp, pomdp_text, read_pomdp, write_pomdp
from plaudit.mdp.worlds.partial import PARTIAL_WORLDS, tiger
from plaudit.records.errors import UserError

TIGER = """\
# comments stand anywhere
discount: 0.95
values: reward
states: tiger-left tiger-right   # even here
actions: listen open-left open-right
observations: hear-left hear-right

T:listen
identity
T:open-left
uniform
T:open-right
uniform

O:listen
0.85 0.15
0.15 0.85
O:open-left
uniform
O:open-right
uniform

R:listen : * : * : * -1
R:open-left : tiger-left : * : * -100
R:open-left : tiger-right : * : * 10
R:open-right : tiger-left : * : * 10
R:open-right : tiger-right : * : * -100
"""

SMALL = """\
values: cost
discount: 0.5
observations: 2
actions: go stay
states: a b c
"""


def same(first, second):
    return (
        (first.transition != second.transition).nnz == 0
        and (first.observation != second.observation).nnz == 0
        and np.array_equal(first.reward, second.reward)
        and np.array_equal(first.initial, second.initial)
        and first.gamma == second.gamma
        and (first.states, first.actions, first.observations)
        == (second.states, second.actions, second.observations)
    )


def test_tigers_file_is_tiger():
    found, known = parse_pomdp(TIGER), tiger()
    assert np.array_equal(found.mdp.dense(), known.mdp.dense())
    assert found.dense_observation() == pytest.approx(known.dense_observation(), abs=1e-15)
    assert np.array_equal(found.reward, known.reward)
    assert found.initial.tolist() == [0.5, 0.5]
    assert found.states == known.states


def test_every_form_of_statement():
    found = parse_pomdp(
        SMALL
        + """
start include: a 2
T: go : a
0 1.0 0
T: go : 1 : c 1
T: 0 : c reset
T: stay identity
T: stay : b : * 0.0
T: stay : b : b 0.25
T: stay : b : c 0.75
O: * : * uniform
O: go : c : 0 0.2
O: go : c : 1 8e-1
O: stay
1 0
.5 .5
0 1
R: * : * : * : * 1
R: go : a : b : * + 2
R: go : c : * : 1 -3.0
R: stay : b
0 0
4 8
12 16
R: stay : c : c 5 7
"""
    )
    moves = found.mdp.dense()
    assert moves[0].tolist() == [[0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]]
    assert moves[1].tolist() == [[1, 0, 0], [0, 0.25, 0.75], [0, 0, 1]]
    seen = found.dense_observation()
    assert seen[0].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]]
    assert seen[1].tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert found.initial.tolist() == [0.5, 0, 0.5]
    # costs: go from c reaches a (seen evenly) or c (0 with 0.2, 1 with 0.8)
    c_go = 0.5 * (0.5 * 1 + 0.5 * -3) + 0.5 * (0.2 * 1 + 0.8 * -3)
    b_stay = 0.25 * (0.5 * 4 + 0.5 * 8) + 0.75 * 16
    assert found.reward == pytest.approx(-np.array([[2, 1], [1, b_stay], [c_go, 7]]))


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("", [1 / 3, 1 / 3, 1 / 3]),
        ("start: uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("start: 0.5 0.25 0.25", [0.5, 0.25, 0.25]),
        ("start: b", [0, 1, 0]),
        ("start: 2", [0, 0, 1]),
        ("start include: b c", [0, 0.5, 0.5]),
        ("start exclude: 1", [0.5, 0, 0.5]),
        ("start: 0.333333 0.333333 0.333333", [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_every_form_of_start(start, expected):
    found = parse_pomdp(SMALL + start + "\nT: * identity\nO: * uniform\n")
    assert found.initial == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("name", ["tiger", "line-maze", "hallway", "hallway2"])
def test_there_and_back_is_the_same_world(name, tmp_path):
    world = PARTIAL_WORLDS[name]()
    write_pomdp(world, tmp_path / "world.pomdp")
    assert same(read_pomdp(tmp_path / "world.pomdp"), world)


@given(st.integers(0, 100_000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_worlds_come_back_as_they_were(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward / 7, gamma, initial=initial)
    assert same(parse_pomdp(pomdp_text(world)), world)


def test_rows_printed_to_six_digits_are_divided_by_their_sum_and_others_kept():
    third = "T: * : * 0.333333 0.333333 0.333333\n"
    found = parse_pomdp(SMALL + "O: * uniform\n" + third)
    assert np.array_equal(found.mdp.dense(), np.full((2, 3, 3), 0.333333 / (3 * 0.333333)))
    nearly = [0.5 + 4e-9, 0.5]  # within what POMDP accepts: as given
    world = POMDP([[nearly, nearly]], [[1.0], [1.0]], [0.0, 1.0], 0.5, initial=nearly)
    assert same(parse_pomdp(pomdp_text(world)), world)


BODY = "T: * identity\nO: * uniform\n"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("", 1, "no 'discount:'"),
        ("discount 0.9\n", 1, "'discount' begins no statement"),
        ("discont: 0.9\n", 1, "did you mean 'discount'"),
        ("discount: high\n", 1, "'high' where the discount was expected"),
        ("discount: 1.2\n", 1, "discount 1.2; expected 0 to 1"),
        (SMALL + "discount: 0.9\n", 6, "'discount' stands twice"),
        (SMALL + BODY + "states: 3\n", 8, "'states' stands twice"),
        ("values: money\n", 1, "'money'; expected 'reward' or 'cost'"),
        ("states: 0\n", 1, "states: 0; expected at least one"),
        ("states: a b a\n", 1, "'a' stands twice"),
        ("states: a 7b\n", 1, "'7b' is not a name"),
        ("states:\nactions: 2\n", 1, "a count or names were expected"),
        ("discount: 0.9\nT: * identity\n", 2, "no 'values:'"),
        ("start: uniform\n", 1, "'start' stands before 'states'"),
        (SMALL + "start: 0.5 0.4 0.2\n", 6, "start: probabilities sum to 1.1"),
        (SMALL + "start: 0.5 0.5\n", 6, "2 numbers for start; expected 3"),
        (SMALL + "start exclude: a b c\n", 6, "no state is left"),
        (SMALL + "start: uniform\nstart: a\n", 7, "'start' stands twice"),
        (SMALL + BODY + "T: fly : a : b 1\n", 8, "'fly' is not among the actions"),
        (SMALL + BODY + "T: go : d : b 1\n", 8, "'d' is not among the states"),
        (SMALL + BODY + "T: go : 3 : b 1\n", 8, "3 of the states; expected 0 to 2"),
        (SMALL + BODY + "T: go : a\n0.5 0.5\n", 9, "2 numbers for a row of T; expected 3"),
        (SMALL + BODY + "T: go : a\n0.5 0.5 0.5\n", 8, "T: probabilities sum to 1.5"),
        (SMALL + BODY + "T: go : a : b 1\n", 8, r"action 0 \(go\), state 0 \(a\): .* sum to 2"),
        (SMALL + BODY + "T: go : a : b -1\n", 8, "-1 is not a probability"),
        (SMALL + "O: * uniform\n", 6, r"T: action 0 \(go\), state 0 \(a\): .* sum to 0"),
        (SMALL + BODY + "O: go\nidentity\n", 9, "'identity' is for T alone"),
        (SMALL + BODY + "O: go : a\n0.5 half\n", 9, "'half' where a number"),
        (SMALL + BODY + "O: go : a : 2 1.0\n", 8, "2 of the observations"),
        (SMALL + BODY + "T: go : a reset\n", 8, "'reset' needs a 'start'"),
        (SMALL + BODY + "R: go : a : b : 0\n", 8, "the file ends where a reward was expected"),
        (SMALL + BODY + "R: go 5\n", 8, "'5' where ':' was expected"),
        (SMALL + BODY + "R: go : a\n1 2 3\n", 9, "3 numbers for a matrix of R; expected 6"),
        (SMALL, 5, "no T, O or R follows"),
    ],
)
def test_malformed_files_are_told_with_their_line(text, line, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        parse_pomdp(text, "world.pomdp")
    assert str(caught.value).startswith(f"world.pomdp:{line}: "), str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_pomdp(tmp_path / "none.pomdp")
    with pytest.raises(UserError, match="cannot be written"):
        write_pomdp(tiger(), tmp_path / "none" / "tiger.pomdp")
    odd = POMDP([[[1.0]]], [[1.0]], [0.0], 0.5, states=["two words"])
    with pytest.raises(UserError, match="'two words' cannot stand"):
        pomdp_text(odd)
