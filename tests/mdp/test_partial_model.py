"""POMDPs and their worlds: every form of table, beliefs by summing paths, and malformed tables."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from oracles.partial import path_probability, random_partial
from plaudit.mdp.partial import POMDP, belief_update
from plaudit.mdp.worlds.partial import (
    PARTIAL_WORLDS,
    TAG_CELLS,
    hallway,
    hallway2,
    rock_sample,
    tag,
    tag_avoid,
    tiger,
)
from plaudit.records.errors import UserError

SLOW = [HealthCheck.too_slow]


def tables():
    transition = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.0, 1.0]]])
    observation = np.array(
        [[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]]
    )
    return transition, observation, np.array([[1.0, 2.0], [3.0, 4.0]])


# --- the model


def test_observations_in_every_form_are_one_world():
    transition, observation, reward = tables()
    forms = [
        observation,
        list(observation),
        [sparse.csr_array(part) for part in observation],
        sparse.csr_array(observation.transpose(1, 0, 2).reshape(4, 3)),
    ]
    for form in forms:
        world = POMDP(transition, form, reward, 0.9)
        assert np.array_equal(world.dense_observation(), observation)
    for one in (observation[0], sparse.csr_array(observation[0])):
        world = POMDP(transition, one, reward, 0.9)
        assert np.array_equal(world.dense_observation(), np.stack([observation[0]] * 2))
    assert (world.num_states, world.num_actions, world.num_observations) == (2, 2, 3)


def test_a_reward_by_observation_becomes_its_expectation():
    transition, observation, _ = tables()
    paid = np.random.default_rng(0).normal(size=(2, 2, 2, 3))
    world = POMDP(transition, observation, paid, 0.9)
    for s, a in itertools.product(range(2), range(2)):
        expected = sum(
            transition[a, s, t] * observation[a, t, o] * paid[a, s, t, o]
            for t in range(2)
            for o in range(3)
        )
        assert world.reward[s, a] == pytest.approx(expected, abs=1e-12)


def test_a_world_is_frozen():
    world = tiger()
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.mdp = None
    with pytest.raises(ValueError, match="read-only"):
        world.observation.data[0] = 1.0
    assert (world.state("tiger-right"), world.action("open-left"), world.seen("hear-right")) == (
        1,
        1,
        1,
    )
    assert world.mdp.num_states == 2
    assert "2 states, 3 actions, 2 observations" in repr(world)


def broken(part, index, value):
    transition, observation, reward = (array.copy() for array in tables())
    {"T": transition, "O": observation, "R": reward}[part][index] = value
    return lambda: POMDP(
        transition, observation, reward, 0.9, states=["up", "down"], actions=["stay", "go"]
    )


def made(**changed):
    transition, observation, reward = tables()
    given_tables = {
        "transition": transition,
        "observation": observation,
        "reward": reward,
        "gamma": 0.9,
    }
    return lambda: POMDP(**{**given_tables, **changed})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (broken("O", (1, 1, 0), 0.5), r"action 1 \(go\), next state 1 \(down\): .* sum to 1.25"),
        (
            broken("O", (0, 0, 0), -0.1),
            r"action 0 \(stay\), next state 0 \(up\): a probability is -0.1",
        ),
        (broken("O", (0, 1, 2), np.nan), "a probability is nan"),
        (broken("T", (0, 1, 0), 0.3), r"state 1 \(down\), action 0 \(stay\): .* sum to 1.1"),
        (broken("T", (1, 0, 0), -1.0), "a probability is -1"),
        (broken("R", (1, 0), np.nan), "state 1, action 0 has nan"),
        (broken("R", (1, 0), -np.inf), "every action exists everywhere"),
        (made(observation=np.eye(3)), "observation: 2 matrices of shapes .*3, 3"),
        (made(observation=[np.eye(2)]), "observation: 1 matrices"),
        (made(observation=[1.0, 2.0]), r"observation: shape \(2,\)"),
        (made(observation=[["a"]]), "observation: not an array of numbers"),
        (made(observation=[np.eye(2), np.ones((2, 3))]), "observation: not an array"),
        (made(observation=np.empty((2, 2, 0))), "observation: 2 matrices of shapes"),
        (made(reward=np.zeros((2, 2, 2, 2))), r"reward: shape .*expected \(2, 2, 2, 3\)"),
        (made(reward=np.full((2, 2, 2, 3), np.inf)), "observation 0 has inf"),
        (made(reward=np.zeros(5)), "reward: shape"),
        (made(gamma=1.5), "gamma: 1.5"),
        (made(initial=[0.5, 0.6]), "initial: probabilities sum to 1.1"),
        (made(observations=["a", "b"]), "observations: 2 names; expected 3"),
        (made(observations=["a", "b", "a"]), "the name 'a' stands twice"),
        (made(states=["x"]), "states: 1 names"),
        (lambda: tiger().seen("hear-lef"), "did you mean 'hear-left'"),
        (lambda: tiger().seen(2), "observation 2: expected 0 to 1"),
        (lambda: tiger().action("lisen"), "did you mean 'listen'"),
    ],
)
def test_malformed_tables_are_told_in_a_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


# --- beliefs


@given(st.integers(0, 100_000))
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
def test_updates_are_conditional_probabilities_of_paths(seed):
    transition, observation, reward, gamma, initial = random_partial(seed)
    world = POMDP(transition, observation, reward, gamma, initial=initial)
    rng = np.random.default_rng(seed)
    belief, actions, seen, chance = initial, [], [], 1.0
    for _ in range(4):
        actions.append(int(rng.integers(world.num_actions)))
        together = [
            path_probability(transition, observation, initial, actions, [*seen, o])
            for o in range(world.num_observations)
        ]
        seen.append(int(np.argmax([joint.sum() for joint in together])))
        belief, p = belief_update(world, belief, actions[-1], seen[-1])
        chance *= p
        joint = together[seen[-1]]
        assert chance == pytest.approx(joint.sum(), rel=1e-9)
        assert belief == pytest.approx(joint / joint.sum(), abs=1e-9)


def test_hearing_the_tiger_by_hand():
    belief, p = belief_update(tiger(), [0.5, 0.5], "listen", "hear-left")
    assert (belief[0], p) == (pytest.approx(0.85), pytest.approx(0.5))
    belief, p = belief_update(tiger(), belief, "listen", "hear-left")
    assert belief[0] == pytest.approx(0.85**2 / (0.85**2 + 0.15**2))
    assert p == pytest.approx(0.85**2 + 0.15**2)


def test_what_is_seen_depends_on_where_one_arrives():
    # from state 0 one surely moves to 1, where only signal 1 is shown
    world = POMDP([[[0, 1], [0, 1]]], [[1, 0], [0, 1]], [0, 0], 0.5, initial=[1, 0])
    belief, p = belief_update(world, [1, 0], 0, 1)
    assert (belief.tolist(), p) == ([0, 1], 1.0)
    with pytest.raises(UserError, match="observation 0 cannot be seen after action 0"):
        belief_update(world, [1, 0], 0, 0)


# --- worlds


def test_sizes_are_those_of_the_papers():
    sizes = {
        "tiger": (2, 3, 2),
        "hallway": (60, 5, 21),
        "hallway2": (92, 5, 17),
        "tag": (870, 5, 30),
        "tagavoid": (870, 5, 30),
        "rocksample": (12545, 13, 2),
    }
    for name, expected in sizes.items():
        world = PARTIAL_WORLDS[name]()
        assert (world.num_states, world.num_actions, world.num_observations) == expected
        assert world.gamma == 0.95


def test_hallway_moves_and_sees_as_published():
    world, moves = hallway(), hallway().mdp.dense()
    east, south = 1, 2
    # the west end facing east: ahead 0.8, bumps 0.05 + 0.05 + 0.05 at three walls, stays 0.05
    assert moves[1, east, 5] == pytest.approx(0.8)
    assert moves[1, east, east] == pytest.approx(0.2)
    # the second cell facing east slips back to the first, facing either way
    assert moves[1, 5, [9, 1, 3, 5]] == pytest.approx([0.8, 0.025, 0.025, 0.15])
    assert moves[3, 0, :4] == pytest.approx([0.1, 0.15, 0.6, 0.15])
    seen = world.dense_observation()[0]
    # three walls felt and the open side not: 0.9³ · 0.95, bits ahead, right, behind, left
    assert seen[0].argmax() == 0b1011
    assert seen[0, 0b1011] == pytest.approx(0.9**3 * 0.95)
    # landmarks over the rooms in the third, fifth, seventh and ninth cell, facing south
    assert [seen[4 * c + south].argmax() for c in (2, 4, 6, 8)] == [16, 17, 18, 19]
    assert world.initial[:56] == pytest.approx(1 / 56)
    assert moves[:, 56:] == pytest.approx(np.broadcast_to(world.initial, (5, 4, 60)))
    assert world.reward[8 * 4 + south, 1] == pytest.approx(0.8)  # facing the goal's room


def test_hallway2_has_its_goal_in_the_fourth_row():
    world = hallway2()
    assert np.flatnonzero(world.initial == 0).tolist() == [68, 69, 70, 71]
    assert world.mdp.dense()[1, 0, [5, 24, 26, 0]] == pytest.approx([0.05, 0.025, 0.025, 0.9])


def test_the_opponent_runs_as_published():
    moves = tag().mdp.dense()
    here = TAG_CELLS.index((7, 1))
    robot = TAG_CELLS.index((5, 0))
    north = robot + 10
    s = 30 * robot + here
    flees = {TAG_CELLS.index((8, 1)): 0.4, TAG_CELLS.index((7, 2)): 0.4, here: 0.2}
    for to, p in flees.items():
        assert moves[0, s, 30 * north + to] == pytest.approx(p)
    assert tag().reward[0].tolist() == [-1, -1, -1, -1, 10]
    assert tag().reward[1, 4] == -10
    assert moves[4, 0, 29] == 1
    different = (abs(tag().transition - tag_avoid().transition) > 1e-9).tocoo().row // 5
    assert sorted(set(different)) == [
        30 * TAG_CELLS.index(r) + TAG_CELLS.index(o)
        for r, o in (((9, 1), (9, 1)), ((7, 3), (5, 3)), ((6, 4), (6, 3)), ((6, 4), (6, 4)))
    ]


def test_the_rover_senses_by_distance():
    world = rock_sample()
    seen = world.observation
    good_first_rock = 256 * (7 * 0 + 3) + 0b10000000
    d = math.hypot(2, 3)
    assert seen[[good_first_rock * 13 + 4]].toarray()[0, 0] == pytest.approx(
        (1 + 2 ** (-d / 20)) / 2
    )
    at_rock = 256 * (7 * 0 + 1) + 0b01000000  # the second rock lies at (0, 1)
    assert world.reward[at_rock, 12] == 10
    assert world.transition[[at_rock * 13 + 12]].indices.tolist() == [256]  # now it is bad
    assert world.reward[256 * (7 * 6), 1] == 10  # east from the east side
    assert world.reward[0, 3] == -100  # west from the west side
    assert world.mdp.terminal[-1]
    assert np.flatnonzero(world.initial).tolist() == list(range(768, 1024))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rock_sample(3, 2), "no published instance"),
        (lambda: rock_sample(7, 8, start=(7, 0)), r"cell \(7, 0\) lies outside"),
        (lambda: rock_sample(4, 4, rocks=((0, 0),) * 4), "1 different rocks; expected 4"),
        (lambda: rock_sample(half_distance=0), "half_distance 0"),
        (lambda: tiger(accuracy=0.2), "accuracy: 0.2"),
    ],
)
def test_worlds_refuse_what_they_cannot_be(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()
