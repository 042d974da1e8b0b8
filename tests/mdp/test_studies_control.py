"""Published figures on control by samples, from fewer runs than the books' and with their errors."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.mdp import MDP
from plaudit.mdp.learning import by_visits, expected_sarsa, linear, q_learning, sarsa
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from studies.control import (
    after_episodes,
    blocking_maze_reward,
    cliff_by_alpha,
    cliff_returns,
    dyna_maze_steps,
    maximisation_bias,
    shortcut_maze_reward,
    windy_grid_episodes,
)


def greedy_steps(mdp, policy, most=1000):
    """Steps of a policy from the first state of a deterministic world to its end."""
    state, steps = int(mdp.initial.argmax()), 0
    while not mdp.terminal[state] and steps < most:
        row = state * mdp.num_actions + policy[state]
        state = int(mdp.transition.indices[mdp.transition.indptr[row]])
        steps += 1
    return steps


@pytest.mark.parametrize(("name", "fewest"), [("windy-grid", 15), ("windy-grid-king", 7)])
@pytest.mark.parametrize("seed", range(3))
def test_the_way_through_the_wind(name, fewest, seed):
    """Example 6.5 and exercise 6.9: 15 steps, and 7 with the king's moves."""
    grid = world(name)
    off_policy = q_learning(grid, num_steps=400_000, alpha=0.5, epsilon=0.3, seed=seed)
    assert greedy_steps(grid, off_policy.policy) == fewest
    assert off_policy.value[int(grid.initial.argmax())] == pytest.approx(-fewest)
    cooling = linear(0.5, 0.0, 300_000)
    on_policy = sarsa(grid, num_steps=400_000, alpha=0.3, epsilon=cooling, seed=seed)
    assert (on_policy.episode_length[-20:] <= fewest + 2).all()


def test_sarsa_in_the_wind_finishes_as_many_episodes_as_the_figure():
    """The figure's one run ends near 170 episodes in 8,000 steps; the first 1,000 make a few."""
    episodes = windy_grid_episodes(num_runs=60)
    assert 150 < episodes.mean["SARSA"][-1] < 170
    spread = episodes.standard_error["SARSA"][-1] * np.sqrt(60)
    assert abs(170 - episodes.mean["SARSA"][-1]) < 2 * spread
    assert episodes.mean["SARSA"][10] < 5


def test_exploring_in_the_wind_costs_two_steps():
    """ "About 17", says example 6.5: 17.05 for the optimal moves made ε-greedily, exactly."""
    grid = world("windy-grid")
    share = np.full((grid.num_states, 4), 0.1 / 4)
    share[np.arange(grid.num_states), solve(grid).policy] += 0.9
    exact = -evaluate(grid, share).value[int(grid.initial.argmax())]
    assert exact == pytest.approx(17.05, abs=0.005)
    lengths = sarsa(grid, num_steps=2_000_000, alpha=0.1, epsilon=0.1).episode_length[20_000:]
    assert lengths.mean() == pytest.approx(exact, abs=0.1)


def cliff_follower(epsilon, policy_of):
    """The exact return of an ε-greedy walk along the cliff for given greedy actions."""
    cliff = world("cliff")
    share = np.full((cliff.num_states, 4), epsilon / 4)
    share[np.arange(cliff.num_states), policy_of] += 1 - epsilon
    return evaluate(cliff, share).value[int(cliff.initial.argmax())]


def test_the_cliff_in_example_6_6():
    """Online Q-learning falls: -45.8 to -50.8 by how it breaks ties; SARSA goes the safe way."""
    curves = cliff_returns(num_runs=60)
    last = {label: mean[-100:].mean() for label, mean in curves.mean.items()}
    error = {label: e[-100:].mean() / 10 for label, e in curves.standard_error.items()}
    assert -51.5 - 3 * error["Q-learning"] < last["Q-learning"] < -45.8 + 3 * error["Q-learning"]
    assert -30 < last["SARSA"] < -20.71


@pytest.mark.parametrize("seed", range(3))
def test_what_learners_on_the_cliff_come_to(seed):
    """-13 at best; the best ε-greedy walk (ε = 0.1) returns -20.71, and learns to go around."""
    cliff = world("cliff")
    start = int(cliff.initial.argmax())
    off = after_episodes(q_learning, cliff, 2000, alpha=1.0, seed=seed)
    assert off.value[start] == pytest.approx(-13)
    assert greedy_steps(cliff, off.policy) == 13
    on = after_episodes(expected_sarsa, cliff, 12_000, alpha=by_visits(0.6), seed=seed)
    returns = on.episode_return[2000:]
    error = returns.std(ddof=1) / np.sqrt(returns.size)
    assert returns.mean() == pytest.approx(-20.71, abs=4 * error + 0.15)
    assert greedy_steps(cliff, on.policy) == 15
    assert cliff_follower(0.1, on.policy) == pytest.approx(-20.71, abs=0.01)
    assert -51 < cliff_follower(0.1, off.policy) < -45.7


def test_the_step_sizes_of_figure_6_3():
    """Interim: Expected SARSA above SARSA above Q-learning; later SARSA falls apart at great α."""
    interim = cliff_by_alpha(num_runs=40, alphas=(0.2, 0.5, 0.9))
    expected, plain, greedy = (interim.mean[k] for k in ("Expected SARSA", "SARSA", "Q-learning"))
    assert (expected > plain).all()
    assert (plain > greedy).all()
    late = cliff_by_alpha(num_runs=2, num_episodes=3000, alphas=(0.2, 0.9))
    assert (late.mean["Expected SARSA"] > -25).all()
    assert (np.abs(late.mean["Q-learning"] + 50) < 4).all()
    assert late.mean["SARSA"][0] > -30
    assert late.mean["SARSA"][1] < -60


def test_maximisation_bias_of_example_6_7():
    """Share of left turns, Q-learning 83, 46, 12 % and double Q 14, 9, 7 % (10,000 runs)."""
    curves = maximisation_bias(num_runs=1500)
    published = {"Q-learning": (0.83, 0.46, 0.12), "double Q-learning": (0.14, 0.09, 0.07)}
    for label, shares in published.items():
        for episode, share in zip((50, 100, 300), shares, strict=True):
            mean = curves.mean[label][episode - 1]
            error = curves.standard_error[label][episode - 1]
            assert abs(mean - share) < 4 * error + 0.005, (label, episode, mean)
    assert abs(curves.mean["Q-learning"][0] - 0.5) < 0.06  # nothing is known at first


def random_walk_steps(maze):
    """Expected steps of the even random walk from the first state to the goal, by linear algebra."""
    p = maze.under(np.full((maze.num_states, 4), 0.25)).transition.toarray()
    reached = maze.initial > 0
    while True:
        further = reached | ((reached @ p) > 0)
        if (further == reached).all():
            break
        reached = further
    inside = np.flatnonzero(reached & ~maze.terminal)
    steps = np.linalg.solve(np.eye(inside.size) - p[np.ix_(inside, inside)], np.ones(inside.size))
    return steps[np.searchsorted(inside, int(maze.initial.argmax()))]


def test_the_first_episode_in_the_dyna_maze_is_a_random_walk():
    """Whatever is planned: all q are 0 until the goal pays. 868.7 steps in expectation."""
    exact = random_walk_steps(world("dyna-maze"))
    assert exact == pytest.approx(868.7, abs=0.05)
    curves = dyna_maze_steps(num_runs=250, num_episodes=1)
    for label, mean in curves.mean.items():
        assert abs(mean[0] - exact) < 4 * curves.standard_error[label][0], label


def test_planning_in_the_dyna_maze_as_in_figure_8_2():
    """Episodes until 20 steps suffice: 3 or so with 50 planned steps, some 5 with 5, 25 with none."""
    curves = dyna_maze_steps(num_runs=40)

    def first_below_20(label):
        return int(np.argmax(curves.mean[label] < 20)) + 1

    needed = [first_below_20(f"{n} planning steps") for n in (50, 5, 0)]
    assert needed[0] <= 4
    assert needed[0] < needed[1] <= 8
    assert 20 <= needed[2] <= 40
    assert 14 < curves.mean["50 planning steps"][-10:].mean() < 18
    maze = world("dyna-maze")  # the 14th step pays 1
    assert solve(maze).value[int(maze.initial.argmax())] == pytest.approx(0.95**13)


@pytest.mark.parametrize(
    ("study", "change"), [(blocking_maze_reward, 1000), (shortcut_maze_reward, 3000)]
)
def test_dyna_q_plus_is_ahead_when_the_world_changes(study, change):
    """Figures 8.4 and 8.5: with the bonus more is earned after the change."""
    curves = study(num_runs=25)
    at_change = int(np.searchsorted(curves.x, change))
    gain = {label: mean[-1] - mean[at_change] for label, mean in curves.mean.items()}
    error = np.hypot(*(curves.standard_error[label][-1] for label in curves.mean))
    assert gain["Dyna-Q+"] - gain["Dyna-Q"] > 3 * error
    assert curves.mean["Dyna-Q"][at_change] > 20  # both had learned the first maze


def test_the_shortcut_is_found_with_the_bonus_only():
    """After the change 10 steps suffice; going on as before costs 16."""
    curves = shortcut_maze_reward(num_runs=25)
    rate = {label: (mean[-1] - mean[-21]) / 1000 for label, mean in curves.mean.items()}
    assert 1 / rate["Dyna-Q+"] < 16 < 1 / rate["Dyna-Q"]


def test_the_study_of_a_world_with_one_way_counts_exactly():
    """Two steps to the end: `after_episodes` stops at or after the episodes asked for."""
    line = MDP([np.eye(3)[[1, 2, 2]]], [[1.0], [2.0], [0.0]], 1.0, initial=[1, 0, 0])
    found = after_episodes(q_learning, line, 21)
    assert found.episode_return.size >= 21
    assert (found.episode_return == 3).all()
