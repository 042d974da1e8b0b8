"""The learners of control in Gymnasium environments: the same numbers as from the table."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from plaudit.mdp import MDP
from plaudit.mdp.learning import ALGORITHMS, learn_in, linear, q_learning
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from plaudit.records.errors import UserError

OWN = {"dyna_q_plus": {"kappa": 0.0}, "prioritized_sweeping": {"theta": 1e-3}}


class Bell(gymnasium.Env):
    """One state, counted from 7, that pays 1 for each of two actions, counted from 3."""

    observation_space = Discrete(1, start=7)
    action_space = Discrete(2, start=3)

    def __init__(self, *, terminates):
        self.terminates, self.steps, self.seeds, self.seen = terminates, 0, [], set()

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        self.seeds.append(seed)
        return 7, {}

    def step(self, action):
        self.seen.add(action)
        self.steps += 1
        over = self.steps == 4
        return 7, 1.0, over and self.terminates, over and not self.terminates, {}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_truncated_episode_has_a_future_in_an_environment(name):
    """1 a step for ever, cut every 4 steps: q = 1 / (1 - 0.8) = 5 for every learner."""
    said = {"num_steps": 1500, "gamma": 0.8, "alpha": 0.2, "epsilon": 0.3, **OWN.get(name, {})}
    bell = Bell(terminates=False)
    found = learn_in(name, bell, **said)
    assert found.value[0] == pytest.approx(5, abs=0.01)
    assert (found.episode_length == 4).all()
    assert found.episode_return.size == 375
    assert bell.seen == {3, 4}


def test_a_terminated_episode_has_none():
    """A single state that ends at its fourth step is worth q = E[1 + 0.8 q or 1], below 5."""
    found = learn_in("q_learning", Bell(terminates=True), num_steps=8000, gamma=0.8, alpha=0.002)
    assert found.value[0] == pytest.approx(1 / (1 - 0.8 * 3 / 4), abs=0.05)


def test_the_seed_reaches_the_environment_once():
    bell = Bell(terminates=False)
    first = learn_in("sarsa", bell, num_steps=10, seed=42)
    learn_in("sarsa", bell, num_steps=10, seed=42, start=first)
    assert bell.seeds[0] == 42
    assert set(bell.seeds[1:]) == {None}


def test_a_run_goes_on_in_a_new_episode():
    bell = Bell(terminates=False)
    first = learn_in("n_step_sarsa", bell, num_steps=10, n=3)
    assert first.episode_length.tolist() == [4, 4]
    assert first.walk.at[0] == -1
    assert first.memory.at[1] == 0  # the cut episode left nothing unlearned
    second = learn_in("n_step_sarsa", bell, num_steps=9, n=3, start=first)
    assert second.num_steps == 19
    assert second.episode_length.tolist() == [4, 4, 4, 4]


def test_the_limit_of_the_learner_cuts_episodes_too():
    found = learn_in("q_learning", Bell(terminates=False), num_steps=9, max_episode_steps=3)
    assert found.episode_length.tolist() == [3, 3, 3]


def test_a_lake_that_does_not_slip_gives_the_planners_q():
    """Deterministic moves and α = 1: the q of every pair that was tried is exact."""
    found = learn_in(
        "q_learning",
        gymnasium.make("FrozenLake-v1", is_slippery=False),
        num_steps=30_000,
        alpha=1.0,
        epsilon=1.0,
        seed=1,
    )
    truth = solve(world("frozenlake-4x4", slip=0.0))
    tried = found.walk.visits > 0
    assert tried[~world("frozenlake-4x4").terminal].all()
    assert np.allclose(found.q[tried], truth.q[tried], atol=1e-12)


def test_stepping_the_lake_is_sampling_its_table():
    """V(start) learned in the environment lies among those that seeds give from the table.

    The two draw other numbers of one law; four standard deviations of the difference are allowed,
    and the mean over the table's seeds is near the planner's value.
    """
    lake = world("frozenlake-4x4")
    said = {"num_steps": 60_000, "alpha": linear(0.3, 0.005, 60_000), "epsilon": 0.5}
    states = np.flatnonzero(~lake.terminal)
    table = np.array(
        [
            q_learning(lake, seed=seed, max_episode_steps=100, **said).value[states]
            for seed in range(60)
        ]
    )
    spread = table.std(axis=0, ddof=1)
    stepped = [learn_in("q_learning", "FrozenLake-v1", seed=seed, **said) for seed in range(3)]
    values = np.array([found.value[states] for found in stepped])
    allowed = 4 * spread * np.sqrt(1 / 3 + 1 / 60)
    assert (np.abs(values.mean(axis=0) - table.mean(axis=0)) < allowed).all()
    truth = solve(lake)
    assert truth.value[0] == pytest.approx(0.542026, abs=5e-7)
    assert np.abs(values.mean(axis=0) - truth.value[states]).max() < 0.05
    for found in stepped:
        assert evaluate(lake, found.policy).value[0] > 0.95 * truth.value[0]


def test_an_environment_that_cannot_be_learned_in_is_said_so():
    class Reals(Bell):
        observation_space = Box(-1, 1, (2,))

    class Knobs(Bell):
        action_space = Box(-1, 1, (1,))

    with pytest.raises(UserError, match=r"its observation space is Box.*; expected Discrete"):
        learn_in("q_learning", Reals(terminates=True), num_steps=1)
    with pytest.raises(UserError, match=r"its action space is Box.*; expected Discrete"):
        learn_in("q_learning", Knobs(terminates=True), num_steps=1)
    with pytest.raises(UserError, match=r"'FrozenLke-v1' cannot be made \(did you mean 'FrozenL"):
        learn_in("q_learning", "FrozenLke-v1", num_steps=1)
    with pytest.raises(UserError, match="env: a MDP; expected a Gymnasium environment or its id"):
        learn_in("q_learning", MDP([np.eye(1)], [0.0], 0.9), num_steps=1)


def test_an_unknown_learner_or_option_is_said_with_the_nearest():
    with pytest.raises(UserError, match=r"no learner 'qlearning' \(did you mean 'q_learning'\?\)"):
        learn_in("qlearning", Bell(terminates=True), num_steps=1)
    with pytest.raises(UserError, match=r"sarsa has no option 'alhpa' \(did you mean 'alpha'\?\)"):
        learn_in("sarsa", Bell(terminates=True), num_steps=1, alhpa=0.1)
    with pytest.raises(UserError, match="sarsa has no option 'lam'"):
        learn_in("sarsa", Bell(terminates=True), num_steps=1, lam=0.1)
    with pytest.raises(UserError, match=r"gamma: 1\.5; expected a number from 0 to 1"):
        learn_in("sarsa", Bell(terminates=True), num_steps=1, gamma=1.5)


def test_a_run_cut_inside_a_tables_episode_cannot_go_on_elsewhere():
    still = MDP([np.eye(1)] * 2, [[1.0, 1.0]], 0.9)
    inside = q_learning(still, num_steps=3)
    with pytest.raises(UserError, match="it stands inside an episode elsewhere"):
        learn_in("q_learning", Bell(terminates=True), num_steps=1, start=inside)
    between = learn_in("q_learning", Bell(terminates=False), num_steps=5)
    assert q_learning(still, num_steps=5, start=between).num_steps == 10


def test_without_gymnasium_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"needs Gymnasium: pip install .gymnasium>"):
        learn_in("q_learning", "FrozenLake-v1", num_steps=1)
