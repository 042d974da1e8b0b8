"""What learners of control say to wrong options, and the Q table as text."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.mdp import MDP
from plaudit.mdp.learning import (
    ALGORITHMS,
    by_visits,
    constant,
    dyna_q,
    dyna_q_plus,
    linear,
    n_step_q_sigma,
    n_step_sarsa,
    n_step_tree_backup,
    prioritized_sweeping,
    q_lambda,
    q_learning,
    q_table,
    sarsa,
    sarsa_lambda,
)
from plaudit.records.errors import UserError


def line(gamma=0.9, initial=None):
    """0 → 1 → end, with a second action that exists in 0 alone and stays."""
    p = np.zeros((2, 3, 3))
    p[0, [0, 1, 2], [1, 2, 2]] = 1
    p[1, [0, 1, 2], [0, 2, 2]] = 1
    return MDP(p, [[1.0, 0.0], [2.0, -np.inf], [0.0, 0.0]], gamma, initial=initial)


def longer():
    return MDP([np.eye(4)[[1, 2, 3, 3]]] * 2, np.ones((4, 2)) * [[1], [1], [1], [0]], 0.9)


MISTAKES = [
    (lambda: q_learning(line(), num_steps=0), "num_steps: 0; expected a whole number of 1 or"),
    (lambda: q_learning(line(), num_steps=1e6), "num_steps: 1000000.0; expected a whole number"),
    (lambda: q_learning(line(), num_steps=True), "num_steps: True; expected a whole number"),
    (lambda: q_learning(line(), num_steps=1, alpha=0), "alpha: 0.0; expected a number above 0"),
    (lambda: q_learning(line(), num_steps=1, alpha=1.5), "alpha: 1.5; expected a number above 0"),
    (lambda: q_learning(line(), num_steps=1, alpha="0.1"), "alpha: '0.1'; expected a number or"),
    (lambda: q_learning(line(), num_steps=1, alpha=np.nan), "alpha: nan; expected a number"),
    (
        lambda: sarsa(line(), num_steps=1, epsilon=-0.1),
        "epsilon: -0.1; expected a number from 0 to",
    ),
    (lambda: sarsa(line(), num_steps=1, epsilon=2), "epsilon: 2.0; expected a number from 0 to 1"),
    (
        lambda: sarsa(line(), num_steps=1, alpha=linear(0.5, -0.1, 9)),
        "alpha: -0.1; expected a number above 0",
    ),
    (lambda: sarsa(line(), num_steps=1, seed=-1), "seed: -1; expected an integer of 0 or more"),
    (lambda: sarsa(line(), num_steps=1, seed=0.5), "seed: 0.5; expected an integer"),
    (lambda: sarsa(line(), num_steps=1, q_start=[1, 2]), r"q_start: shape \(2,\); expected one"),
    (lambda: sarsa(line(), num_steps=1, q_start="high"), "q_start: not a number or an array"),
    (lambda: sarsa(line(), num_steps=1, q_start=np.inf), "q_start: state 0, action 0 has inf"),
    (
        lambda: sarsa(line(), num_steps=1, max_episode_steps=0),
        "max_episode_steps: 0; expected a whole number of 1 or more",
    ),
    (lambda: sarsa_lambda(line(), num_steps=1, lam=1.1), "lam: 1.1; expected a number of 0 to 1"),
    (lambda: q_lambda(line(), num_steps=1, lam="high"), "lam: 'high' is not a number"),
    (lambda: n_step_sarsa(line(), num_steps=1, n=0), "n: 0; expected a whole number of 1 or more"),
    (
        lambda: n_step_tree_backup(line(), num_steps=1, target_epsilon=-1),
        "target_epsilon: -1.0; expected a number from 0 to 1",
    ),
    (
        lambda: n_step_tree_backup(line(), num_steps=1, target_epsilon=by_visits()),
        "target_epsilon: by_visits; expected a number, or a linear schedule",
    ),
    (lambda: n_step_q_sigma(line(), num_steps=1, sigma=2), "sigma: 2; expected a number of 0 to"),
    (lambda: dyna_q(line(), num_steps=1, num_planning=-1), "num_planning: -1; expected a whole"),
    (
        lambda: dyna_q_plus(line(), num_steps=1, kappa=-1),
        "kappa: -1; expected a number of 0 or more",
    ),
    (
        lambda: dyna_q_plus(line(), num_steps=1, kappa=np.inf),
        "kappa: inf; expected a number of 0 or more",
    ),
    (lambda: prioritized_sweeping(line(), num_steps=1, num_planning=0), "num_planning: 0; expect"),
    (lambda: prioritized_sweeping(line(), num_steps=1, theta=-1e-9), "theta: -1e-09; expected"),
    (
        lambda: q_learning("frozenlake-8x8", num_steps=1),
        "a str is not an MDP; learn in a Gymnasium environment with learn_in",
    ),
    (
        lambda: q_learning(line(initial=[0, 0, 1]), num_steps=1),
        "initial: every episode would begin in a terminal state",
    ),
    (
        lambda: q_learning(line(), num_steps=1, start=np.zeros((3, 2))),
        "start: a ndarray; expected what a learner returned",
    ),
    (
        lambda: q_learning(line(), num_steps=1, start=sarsa(line(), num_steps=1)),
        "start: it was learned by sarsa, not q_learning; give its q as q_start",
    ),
    (
        lambda: q_learning(longer(), num_steps=1, start=q_learning(line(), num_steps=1)),
        r"start: q has shape \(3, 2\); expected \(4, 2\)",
    ),
    (
        lambda: n_step_sarsa(line(), num_steps=1, n=2, start=n_step_sarsa(line(), num_steps=1)),
        "start: n_step_sarsa ran with other options, such as n; give the same",
    ),
    (lambda: by_visits(0), "by_visits: power 0; expected a number above 0, at most 1"),
    (lambda: by_visits(1.5), "by_visits: power 1.5; expected a number above 0, at most 1"),
    (lambda: linear(1, 0, 0), "linear: num_steps 0; expected 1 or more"),
    (lambda: constant(np.inf), "schedule: inf; expected a finite number"),
    (lambda: q_table([1, 2]), r"q: shape \(2,\); expected \[S, A\], a row for each state"),
    (lambda: q_table([[np.nan, 1]]), "q: state 0, action 0 has nan; expected a number"),
    (lambda: q_table([["a", "b"]]), "q: not an array of numbers"),
    (lambda: q_table([[1, 2]], actions=["a"]), "actions: 1 names; expected 2"),
    (lambda: q_table([[1, 2]], decimals=-1), "decimals: -1; expected a whole number from 0 to"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES)
def test_a_mistake_is_told_in_one_sentence(mistake, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")) as caught:
        mistake()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence.replace("e. ", "")
    assert not sentence.endswith(".")


def test_worlds_whose_actions_differ_cannot_share_a_run():
    everywhere = MDP(line().dense() + np.array([0, 1])[:, None, None] * _row(1, 2), [1, 2, 0], 0.9)
    first = q_learning(line(), num_steps=3)
    with pytest.raises(UserError, match="state 1, action 1 exists in only one of the two worlds"):
        q_learning(everywhere, num_steps=1, start=first)


def _row(state, next_state):
    p = np.zeros((3, 3))
    p[state, next_state] = 1
    return p


def test_a_run_cannot_go_on_in_a_state_that_has_become_terminal():
    first = q_learning(longer(), num_steps=100, max_episode_steps=1)
    before = longer()
    after = MDP([np.eye(4)] * 2, np.zeros((4, 2)), 0.9, initial=[1, 0, 0, 0])
    assert not before.terminal[first.walk.at[0]]
    with pytest.raises(UserError, match="every episode would begin in a terminal state"):
        q_learning(after, num_steps=1, start=first)
    p = np.zeros((2, 4, 4))
    p[:, [0, 1, 2, 3], [3, 1, 2, 3]] = 1
    moved = MDP(p, np.array([[1.0, 1], [0, 0], [0, 0], [0, 0]]), 0.9)
    inside = q_learning(longer(), num_steps=1, max_episode_steps=9, seed=_seed_into(1))
    with pytest.raises(UserError, match="start: it stands in state 1, which is terminal here"):
        q_learning(moved, num_steps=1, start=inside)


def _seed_into(state):
    """A seed whose first step leads into the state."""
    for seed in range(50):
        if q_learning(longer(), num_steps=1, max_episode_steps=9, seed=seed).walk.at[0] == state:
            return seed
    raise AssertionError("no such seed")


def test_every_learner_says_what_it_does():
    for name, learner in ALGORITHMS.items():
        assert learner.__name__ == name
        assert "Source: " in learner.__doc__


def test_the_q_table_of_the_notes():
    """The first columns of the table that introduces Q-learning, the best of each state marked."""
    q = [[22.0, 21.0, 21.6, 11.6], [19.8, 19.2, 21.2, 21.1], [17.8, 7.8, 6.8, 6.2]]
    assert q_table(q).splitlines() == [
        "Q(s, a)   S1    S2    S3",
        "a1      22.0* 19.8  17.8*",
        "a2      21.0  19.2   7.8",
        "a3      21.6  21.2*  6.8",
        "a4      11.6  21.1   6.2",
    ]


def test_a_wide_q_table_goes_on_below():
    q = np.arange(40.0).reshape(10, 4)
    text = q_table(q, width=30)
    blocks = text.split("\n\n")
    assert len(blocks) == 3
    assert all(len(row) <= 30 for row in text.splitlines())
    headers = " ".join(block.splitlines()[0].removeprefix("Q(s, a)") for block in blocks)
    assert headers.split() == [f"S{i}" for i in range(1, 11)]
    assert text.count("*") == 10


def test_ties_missing_actions_and_names_in_a_q_table():
    q = [[1.0, 1.0, -np.inf], [-2.0, -1.0, -3.0]]
    text = q_table(q, states=["start", "B"], actions=["up", "down", "stay"], decimals=2)
    assert text.splitlines() == [
        "Q(s, a) start      B",
        "up       1.00* -2.00",
        "down     1.00* -1.00*",
        "stay        -  -3.00",
    ]
    assert q_table(q, width=1).count("Q(s, a)") == 2
