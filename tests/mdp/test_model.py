"""What a finite world takes, in which forms, and what it says to those that are malformed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from plaudit.mdp import MDP, MRP
from plaudit.records.errors import UserError


def random_parts(seed, num_states=5, num_actions=3):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states) * 0.4, size=(num_actions, num_states))
    transition[transition < 1e-3] = 0
    transition /= transition.sum(-1, keepdims=True)
    return transition, rng.normal(size=(num_states, num_actions))


def same_world(left, right):
    assert np.array_equal(left.transition.toarray(), right.transition.toarray())
    assert np.array_equal(left.reward, right.reward)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_every_form_of_a_world_is_the_same_world(seed):
    transition, reward = random_parts(seed)
    num_actions, num_states, _ = transition.shape
    world = MDP(transition, reward, 0.9)
    rows = np.array([transition[a, s] for s in range(num_states) for a in range(num_actions)])
    for form in (
        [sparse.csr_array(t) for t in transition],
        [sparse.coo_matrix(t) for t in transition],
        sparse.csr_array(rows),
        sparse.csc_matrix(rows),
        rows,
        transition.tolist(),
    ):
        same_world(MDP(form, reward, 0.9), world)
    assert np.array_equal(world.dense(), transition)


def test_rewards_of_next_states_are_averaged():
    transition, _ = random_parts(3)
    paid = np.random.default_rng(4).normal(size=transition.shape)
    world = MDP(transition, paid, 0.9)
    expected = np.einsum("ast,ast->sa", transition, paid)
    assert np.allclose(world.reward, expected, atol=1e-14)
    for row in range(15):
        s, a = divmod(row, 3)
        for k in range(world.transition.indptr[row], world.transition.indptr[row + 1]):
            assert world.reward_next[k] == paid[a, s, world.transition.indices[k]]
    same = MDP([sparse.csr_array(t) for t in transition], [sparse.csr_array(r) for r in paid], 0.9)
    assert np.allclose(same.reward, expected, atol=1e-14)


def test_a_state_reward_is_every_actions():
    transition, _ = random_parts(1)
    world = MDP(transition, np.arange(5.0), 0.9)
    assert np.array_equal(world.reward, np.repeat(np.arange(5.0)[:, None], 3, axis=1))


def test_a_policy_makes_a_chain():
    transition, reward = random_parts(7)
    rng = np.random.default_rng(8)
    policy = rng.dirichlet(np.ones(3), size=5)
    chain = MDP(transition, reward, 0.8).under(policy)
    assert isinstance(chain, MRP)
    expected = sum(policy[:, a, None] * transition[a] for a in range(3))
    assert np.allclose(chain.transition.toarray(), expected, atol=1e-15)
    assert np.allclose(chain.reward, (policy * reward).sum(1))
    one = MDP(transition, reward, 0.8).under([0, 1, 2, 0, 1])
    assert np.array_equal(one.transition.toarray()[1], transition[1, 1])


def test_terminal_states_stay_and_pay_nothing():
    transition = np.zeros((2, 3, 3))
    transition[:, 0, 1] = transition[:, 1, 1] = transition[:, 2, 2] = 1
    world = MDP(transition, [[1, 1], [0, 0], [0, 0.5]], 0.9)
    assert world.terminal.tolist() == [False, True, False]
    assert np.array_equal(world.initial, [0.5, 0, 0.5])


def test_missing_actions_have_no_row():
    transition = np.full((2, 2, 2), 0.5)
    transition[1, 0] = 7.0  # not looked at
    world = MDP(transition, [[1, -np.inf], [0, 2]], 0.9)
    assert world.available.tolist() == [[True, False], [True, True]]
    assert world.transition.indptr.tolist() == [0, 2, 2, 4, 6]
    with pytest.raises(UserError, match="state 0 takes action 1, which does not exist"):
        world.under([1, 0])


def test_missing_actions_beside_rewards_of_next_states():
    transition, _ = random_parts(5)
    paid = np.random.default_rng(6).normal(size=transition.shape)
    paid[1, 2] = -np.inf
    world = MDP(transition, paid, 0.9)
    assert np.argwhere(~world.available).tolist() == [[2, 1]]
    assert world.reward_next.size == world.transition.nnz
    rest = np.where(np.isneginf(paid), 0, paid)
    expected = np.einsum("ast,ast->sa", transition, rest)
    assert np.allclose(
        np.where(world.available, world.reward, 0)[[0, 1, 3, 4]], expected[[0, 1, 3, 4]]
    )
    sparse_paid = [sparse.csr_array(r) for r in paid]
    same_world(MDP([sparse.csr_array(t) for t in transition], sparse_paid, 0.9), world)
    paid[1, 2, 0] = 1.0
    with pytest.raises(UserError, match=r"reward: state 2, action 1, next state \d has -inf"):
        MDP(transition, paid, 0.9)


def test_worlds_are_frozen_and_large_ones_not_copied():
    rows = sparse.csr_array(np.full((4, 2), 0.5))
    world = MDP(rows, np.zeros((2, 2)), 0.9)
    assert np.shares_memory(world.transition.data, rows.data)
    for array in (world.transition.data, world.reward, world.initial):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        world.gamma = 0.5


def test_names_are_found_or_the_nearest_is_said():
    world = MDP(np.full((1, 2, 2), 0.5), [0.0, 1.0], 0.9, states=["left", "right"])
    assert world.state("right") == world.state(1) == 1
    with pytest.raises(UserError, match=r"no state named 'rigth' \(did you mean 'right'\?\)"):
        world.state("rigth")
    with pytest.raises(UserError, match="action 4: expected 0 to 0"):
        world.action(4)


GOOD = np.full((2, 3, 3), 1 / 3)


def changed(*where, to):
    transition = GOOD.copy()
    transition[where] = to
    return transition


def bad_next():
    rows = sparse.csr_array(np.full((6, 3), 1 / 3))
    rows.indices = rows.indices.copy()
    rows.indices[4] = 9
    return rows


MALFORMED = {
    "sum": (
        {"transition": changed(1, 2, 0, to=0.5)},
        "state 2, action 1: probabilities sum to 1.16",
    ),
    "sum named": (
        {"transition": changed(0, 1, 0, to=0.0), "states": ["a", "b", "c"], "actions": ["l", "r"]},
        r"state 1 \(b\), action 0 \(l\): probabilities sum to 0.666",
    ),
    "empty row": (
        {"transition": changed(0, 0, to=0.0)},
        "state 0, action 0: probabilities sum to 0",
    ),
    "negative": (
        {"transition": changed(0, 0, to=[-0.5, 1, 0.5])},
        "state 0, action 0: a probability is -0.5",
    ),
    "nan": (
        {"transition": changed(0, 1, 1, to=np.nan)},
        "state 1, action 0: a probability is nan",
    ),
    "infinite": (
        {"transition": changed(0, 1, 1, to=np.inf)},
        "state 1, action 0: a probability is inf",
    ),
    "not square": (
        {"transition": np.ones((2, 3, 4)) / 4},
        r"shape \(2, 3, 4\); expected \[A, S, S\]",
    ),
    "one dimension": ({"transition": np.ones(3)}, r"shape \(3,\); expected \[A, S, S\]"),
    "rows left over": ({"transition": np.full((7, 3), 1 / 3)}, "7 rows of 3 states"),
    "no states": ({"transition": np.ones((2, 0, 0))}, "at least one state"),
    "no actions": ({"transition": np.ones((0, 3))}, "0 rows of 3 states"),
    "unequal matrices": (
        {"transition": [sparse.eye_array(3), sparse.eye_array(4)]},
        "expected one square shape",
    ),
    "words": ({"transition": [["a", "b"]]}, "transition: not an array of numbers"),
    "complex": ({"transition": sparse.csr_array(np.eye(3) * 1j)}, "complex numbers"),
    "next state": ({"transition": bad_next()}, "next state 9; expected 0 to 2"),
    "reward shape": (
        {"reward": np.zeros((3, 4))},
        r"reward: shape \(3, 4\); expected \[3\], \[3, 2\]",
    ),
    "reward nan": ({"reward": [[0, 0], [np.nan, 0], [0, 0]]}, "reward: state 1, action 0 has nan"),
    "reward inf": ({"reward": [0, np.inf, 0]}, "reward: state 1, action 0 has inf"),
    "reward next nan": (
        {"reward": np.full((2, 3, 3), np.nan)},
        "reward: state 0, action 0, next state 0 has nan",
    ),
    "reward words": ({"reward": ["x", "y", "z"]}, "reward: not an array of numbers"),
    "no action at all": (
        {"reward": [[0, 0], [-np.inf, -np.inf], [0, 0]]},
        "state 1 has no action",
    ),
    "gamma high": ({"gamma": 1.01}, "gamma: 1.01; expected a number from 0 to 1"),
    "gamma low": ({"gamma": -0.1}, "gamma: -0.1"),
    "gamma nan": ({"gamma": float("nan")}, "gamma: nan"),
    "gamma word": ({"gamma": "0.9"}, "gamma: '0.9' is not a number"),
    "initial sum": ({"initial": [0.5, 0.4, 0]}, "initial: probabilities sum to 0.9"),
    "initial shape": ({"initial": [1.0]}, r"initial: shape \(1,\); expected \[3\]"),
    "initial negative": ({"initial": [2, -1, 0]}, "initial: entry 1 is -1"),
    "names few": ({"states": ["a"]}, "states: 1 names; expected 3"),
    "names twice": ({"states": ["a", "b", "a"]}, "states: the name 'a' stands twice"),
    "actions few": ({"actions": ["go"]}, "actions: 1 names; expected 2"),
    "noise negative": ({"reward_std": -np.ones((3, 2))}, "reward_std: state 0, action 0 has -1"),
    "noise shape": ({"reward_std": [1, 1, 1]}, r"reward_std: shape \(3,\); expected \(3, 2\)"),
    "grid": ({"grid": [[0, 1], [2, 3]]}, "grid: expected rows and columns of states from 0 to 2"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_world_is_told_in_one_sentence(kind):
    change, said = MALFORMED[kind]
    parts = {"transition": GOOD, "reward": np.zeros((3, 2)), "gamma": 0.9} | change
    with pytest.raises(UserError, match=said) as caught:
        MDP(parts.pop("transition"), parts.pop("reward"), parts.pop("gamma"), **parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ([0, 1], "policy: shape"),
        ([0, 1, 2], "state 2 has action 2; expected 0 to 1"),
        ([0.0, 1.0, 0.0], "policy: shape .* of float64"),
        ([[0.5, 0.5], [0.5, 0.4], [1, 0]], "probabilities of state 1 sum to 0.9"),
        ([[0.5, 0.5], [1.5, -0.5], [1, 0]], "state 1, action 1 has probability -0.5"),
    ],
)
def test_a_malformed_policy_is_told_in_one_sentence(policy, said):
    with pytest.raises(UserError, match=said):
        MDP(GOOD, np.zeros((3, 2)), 0.9).under(policy)


def test_a_chain_refuses_actions():
    with pytest.raises(UserError, match="as a Markov reward process has no actions"):
        MRP(np.full((6, 3), 1 / 3), np.zeros(3), 0.9)
    with pytest.raises(UserError, match="an MRP has no actions, so no reward of -inf"):
        MRP(np.eye(2), [0, -np.inf], 0.9)
