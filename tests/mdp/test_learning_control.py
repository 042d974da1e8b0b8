"""Learners of control against slow ones fed the same random words, against each other and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.sampled_control import LEARNERS, Slow
from plaudit.mdp import MDP
from plaudit.mdp.learning import (
    ALGORITHMS,
    Learned,
    by_visits,
    double_q_learning,
    dyna_q,
    dyna_q_plus,
    expected_sarsa,
    linear,
    n_step_q_sigma,
    n_step_sarsa,
    n_step_tree_backup,
    q_learning,
    sarsa,
    sarsa_lambda,
    sarsa_lambda_replacing,
)

OWN = {
    "sarsa_lambda": {"lam": 0.8},
    "sarsa_lambda_replacing": {"lam": 0.8},
    "q_lambda": {"lam": 0.8},
    "n_step_sarsa": {"n": 3},
    "n_step_tree_backup": {"n": 3, "target_epsilon": 0.1},
    "n_step_q_sigma": {"n": 3, "sigma": 0.4},
    "dyna_q": {"num_planning": 3},
    "dyna_q_plus": {"num_planning": 3, "kappa": 0.01},
    "prioritized_sweeping": {"num_planning": 3, "theta": 0.01},
}
EXACT = {"q_learning", "double_q_learning", "sarsa", "sarsa_lambda", "dyna_q"}


def slow_and_fast(seed, num_states=6, num_actions=3):
    """A world for the oracle and for us: missing actions and noise, or rewards by next state."""
    rng = np.random.default_rng(seed)
    end = num_states - 1
    p = rng.dirichlet(np.full(num_states, 0.4), size=(num_actions, num_states))
    p[p < 0.05] = 0
    p /= p.sum(-1, keepdims=True)
    p[:, end] = np.eye(num_states)[end]
    r = rng.normal(size=p.shape)
    r[:, end] = 0
    exists = np.ones((num_states, num_actions), bool)
    std = rng.random(exists.shape) * (rng.random(exists.shape) < 0.3)
    std[end] = 0
    if seed % 2:
        reward = r
    else:
        exists[:end, 1:] = rng.random((end, num_actions - 1)) < 0.7
        reward = r[:, :, 0].T.copy()
        r = np.repeat(reward.T[:, :, None], num_states, axis=2)
        reward[~exists] = -np.inf
    initial = rng.dirichlet(np.ones(num_states))
    initial[end] = 0
    initial /= initial.sum()
    terminal = np.arange(num_states) == end
    slow = Slow(p, r, 0.9, exists, terminal, initial, std)
    return slow, MDP(p, reward, 0.9, initial=initial, reward_std=std)


def same(first: Learned, second: Learned) -> bool:
    """Bit for bit, with everything that is carried."""
    arrays = [
        (*run.walk, *run.memory, run.episode_return, run.episode_length) for run in (first, second)
    ]
    return first.num_steps == second.num_steps and all(
        a.tobytes() == b.tobytes() for a, b in zip(*arrays, strict=True)
    )


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("seed", range(4))
def test_a_slow_learner_fed_the_same_words_learns_the_same(name, seed):
    slow, world = slow_and_fast(seed)
    said = {"num_steps": 1500, "alpha": 0.2, "epsilon": 0.2, "seed": seed, **OWN.get(name, {})}
    truth = slow.run(LEARNERS[name], limit=20, **said)
    found = ALGORITHMS[name](world, max_episode_steps=20, **said).q
    if name in EXACT:
        assert found.tobytes() == truth.tobytes()
    else:  # sums are taken in another order
        assert np.allclose(found, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("split", [1, 250, 997])
def test_a_run_in_two_parts_is_the_undivided_run(name, split):
    """Schedules, traces, windows, models, the step in the episode and its return are carried."""
    _, world = slow_and_fast(0)
    said = {
        "alpha": by_visits(0.7),
        "epsilon": linear(0.9, 0.1, 700),
        "seed": 5,
        "max_episode_steps": 9,
        **OWN.get(name, {}),
    }
    whole = ALGORITHMS[name](world, num_steps=1000, **said)
    first = ALGORITHMS[name](world, num_steps=split, **said)
    kept = first.q.copy()
    second = ALGORITHMS[name](world, num_steps=1000 - split, start=first, **said)
    assert same(second, whole)
    assert (first.q == kept).all()  # going on leaves what is given untouched


def test_results_cannot_be_written():
    _, world = slow_and_fast(0)
    found = q_learning(world, num_steps=10)
    for array in (found.q, found.value, found.policy, found.episode_return, found.walk.rng):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_episodes_are_counted_across_chunks_of_the_loop():
    """More steps than one chunk holds: every step is in an episode, finished or not."""
    _, world = slow_and_fast(1)
    found = q_learning(world, num_steps=200_001, max_episode_steps=7)
    open_episode = found.num_steps - found.episode_length.sum()
    assert 0 <= open_episode < 7
    assert found.episode_length.max() == 7
    assert found.walk.visits.sum() == found.num_steps == 200_001


SAID = {"num_steps": 3000, "alpha": 0.3, "epsilon": 0.2, "max_episode_steps": 11}


@pytest.mark.parametrize("seed", range(3))
def test_one_step_forms_are_the_plain_learners_bit_for_bit(seed):
    _, world = slow_and_fast(seed)
    said = {**SAID, "seed": seed}
    plain = sarsa(world, **said).q.tobytes()
    assert n_step_sarsa(world, n=1, **said).q.tobytes() == plain
    assert sarsa_lambda(world, lam=0.0, **said).q.tobytes() == plain
    assert sarsa_lambda_replacing(world, lam=0.0, **said).q.tobytes() == plain
    by_expectation = expected_sarsa(world, **said).q.tobytes()
    assert n_step_tree_backup(world, n=1, target_epsilon=0.2, **said).q.tobytes() == by_expectation
    greedy = q_learning(world, **said).q.tobytes()
    assert n_step_tree_backup(world, n=1, target_epsilon=0.0, **said).q.tobytes() == greedy
    assert dyna_q(world, num_planning=0, **said).q.tobytes() == greedy
    assert dyna_q_plus(world, num_planning=0, kappa=0.5, **said).q.tobytes() == greedy
    assert len({plain, by_expectation, greedy}) == 3


@pytest.mark.parametrize("n", [1, 2, 5])
def test_q_sigma_with_all_sampling_is_n_step_sarsa(n):
    _, world = slow_and_fast(0)
    sampled = n_step_q_sigma(world, n=n, sigma=1.0, **SAID).q
    assert np.allclose(sampled, n_step_sarsa(world, n=n, **SAID).q, rtol=0, atol=1e-12)


def test_expected_sarsa_is_the_expectation_of_sarsa():
    """One step from state 0 into state 1, whose q are 3, 3, 1 and a missing action; α = 1, γ = 0.5.

    With ε = 0.3 the probabilities are 0.45, 0.45, 0.1, so that the target is
    2 + 0.5 (0.45·3 + 0.45·3 + 0.1·1) = 3.4.
    """
    p = np.zeros((4, 3, 3))
    p[:, 0, 1] = p[:, 1, 2] = p[:, 2, 2] = 1
    reward = np.array([[2.0] * 4, [0, 0, 0, -np.inf], [0.0] * 4])
    world = MDP(p, reward, 0.5, initial=[1, 0, 0])
    q_start = np.array([[1.0, 0, 0, 0], [3, 3, 1, 0], [0, 0, 0, 0]])
    said = {"num_steps": 1, "alpha": 1.0, "epsilon": 0.3, "q_start": q_start}

    def target(learner, seed):
        found = learner(world, seed=seed, **said)
        (changed,) = np.argwhere(found.walk.visits)
        assert changed[0] == 0
        return found.q[tuple(changed)], found.walk.at[1]

    assert target(expected_sarsa, 0)[0] == pytest.approx(3.4, abs=1e-15)
    drawn = [target(sarsa, seed) for seed in range(2000)]
    of_action = {action: value for value, action in drawn}
    assert of_action == {0: 3.5, 1: 3.5, 2: 2.5}
    probability = {0: 0.45, 1: 0.45, 2: 0.1}
    exact = sum(probability[a] * value for a, value in of_action.items())
    assert exact == pytest.approx(3.4, abs=1e-15)
    for action, p_a in probability.items():  # and SARSA draws so: within four standard errors
        share = np.mean([a == action for _, a in drawn])
        assert abs(share - p_a) < 4 * np.sqrt(p_a * (1 - p_a) / 2000)


def chain():
    """0 → 1 → end with rewards 1 and 2, one action, γ = 0.9."""
    return MDP([np.eye(3)[[1, 2, 2]]], [[1.0], [2.0], [0.0]], 0.9, initial=[1, 0, 0])


def test_one_episode_by_hand():
    """α = 0.5 from q = 0. SARSA: q0 = ½·1, q1 = ½·2.

    λ = 0.5: after δ = 1, q0 = 0.5 and e0 = 0.45; after δ = 2, q1 = 1, q0 = 0.5 + ½·2·0.45 = 0.95.
    Two steps: q0 = ½ (1 + 0.9·2) = 1.4, and then q1 = ½·2 = 1.
    """
    said = {"num_steps": 2, "alpha": 0.5}
    assert sarsa(chain(), **said).value == pytest.approx([0.5, 1, 0])
    assert sarsa_lambda(chain(), lam=0.5, **said).value == pytest.approx([0.95, 1, 0])
    assert n_step_sarsa(chain(), n=2, **said).value == pytest.approx([1.4, 1, 0])
    assert n_step_sarsa(chain(), n=7, **said).value == pytest.approx([1.4, 1, 0])
    found = q_learning(chain(), **said)
    assert found.episode_return == pytest.approx([3])
    assert found.episode_length == pytest.approx([2])


def test_accumulating_and_replacing_traces_by_hand():
    """A state that stays once, for nothing, and then ends, for 1, is met twice: e = 2 against e = 1.

    γ = λ = 1, α = 0.5, q = 0: first δ = 0 + q - q = 0, then δ = 1: q = ½·1·2 = 1 against ½·1·1.
    """
    world = MDP([np.array([[0.5, 0.5], [0, 1.0]])], np.array([[[0, 1.0], [0, 0]]]), 1.0)
    for seed in range(40):
        found = sarsa_lambda(world, lam=1.0, alpha=0.5, num_steps=2, seed=seed)
        if found.episode_length.tolist() == [2]:
            break
    other = sarsa_lambda_replacing(world, lam=1.0, alpha=0.5, num_steps=2, seed=seed)
    assert (found.value[0], other.value[0]) == (1.0, 0.5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_cut_episode_has_a_future(name):
    """One state that pays 1 for ever, episodes cut after 5 steps: q = 1 / (1 - γ) = 10."""
    own = {**OWN.get(name, {}), **({"kappa": 0.0} if name == "dyna_q_plus" else {})}
    world = MDP([np.eye(1)], [[1.0]], 0.9)
    found = ALGORITHMS[name](world, num_steps=4000, max_episode_steps=5, alpha=0.2, **own)
    assert found.value[0] == pytest.approx(10, abs=0.12 if name == "prioritized_sweeping" else 1e-6)
    assert (found.episode_length == 5).all()
    assert (found.episode_return == 5).all()


def test_alpha_by_visits_is_the_plain_average():
    """A pair that ends at once: with α = 1/n its q is the mean of its noisy rewards."""
    world = MDP([np.eye(2)[[1, 1]]], [[3.0], [0.0]], 1.0, reward_std=[[2.0], [0.0]])
    found = q_learning(world, num_steps=500, alpha=by_visits())
    assert found.value[0] == pytest.approx(found.episode_return.mean(), abs=1e-12)
    assert abs(found.value[0] - 3) < 4 * 2 / np.sqrt(500)
    slower = q_learning(world, num_steps=3, alpha=by_visits(0.5, first=0.5)).value[0]
    x, y, z = found.episode_return[:3]
    after_two = 0.5 * x + (0.5 / 2**0.5) * (y - 0.5 * x)
    assert slower == pytest.approx(after_two + 0.5 / 3**0.5 * (z - after_two), abs=1e-12)


def test_a_linear_schedule_goes_down_and_stays():
    """Reward 1 and an end at every step: 1 - q = Π (1 - α_t), α = 0.5, 0.4, 0.3, 0.2, 0.1, 0.1 …"""
    world = MDP([np.eye(2)[[1, 1]]], [[1.0], [0.0]], 1.0)
    found = q_learning(world, num_steps=6, alpha=linear(0.5, 0.1, 4))
    assert 1 - found.value[0] == pytest.approx(0.5 * 0.6 * 0.7 * 0.8 * 0.9 * 0.9, abs=1e-15)


def test_optimism_explores_without_epsilon():
    """Ten actions that pay 1: greedy stays with the first it finds, unless all look better."""
    world = MDP([np.eye(2)[[1, 1]]] * 10, [[1.0] * 10, [0.0] * 10], 1.0)
    humble = q_learning(world, num_steps=50, epsilon=0.0)
    hopeful = q_learning(world, num_steps=50, epsilon=0.0, q_start=5.0)
    assert (humble.walk.visits[0] > 0).sum() == 1
    assert (hopeful.walk.visits[0] > 0).all()
    assert hopeful.value[1] == 0  # a terminal state is worth nothing, whatever q_start says


def test_epsilon_by_visits_counts_those_of_the_state():
    """ε = 1/n at the n-th visit, actions 0 (best) and 1: about ½ ln n explorations, not ½ n."""
    world = MDP([np.eye(2)[[1, 1]]] * 2, [[1.0, 0.0], [0.0, 0.0]], 1.0)
    found = q_learning(world, num_steps=20_000, epsilon=by_visits(), q_start=[[0.9, 0.1], [0, 0]])
    expected = 0.5 * np.sum(1 / np.arange(1, 20_001))
    assert abs(found.walk.visits[0, 1] - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_missing_action_is_never_taken_and_holds_minus_infinity(name):
    _, world = slow_and_fast(2)
    assert not world.available.all()
    found = ALGORITHMS[name](world, num_steps=5000, epsilon=0.5, max_episode_steps=20)
    assert (np.isneginf(found.q) == ~world.available).all()
    assert found.walk.visits[~world.available].sum() == 0
    assert (found.walk.visits[world.available & ~world.terminal[:, None]] > 0).all()


def test_no_episode_begins_where_it_would_be_over():
    world = MDP([np.eye(3)[[1, 2, 2]]], [[1.0], [2.0], [0.0]], 0.9, initial=[0.25, 0.25, 0.5])
    found = q_learning(world, num_steps=3000)
    assert set(found.episode_length) == {1, 2}
    share = np.mean(found.episode_length == 2)
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / found.episode_length.size)


def test_double_q_learning_shows_the_mean_of_its_tables():
    _, world = slow_and_fast(0)
    found = double_q_learning(world, num_steps=2000)
    assert not np.allclose(found.memory.first, found.memory.second)
    assert (found.q == (found.memory.first + found.memory.second) / 2).all()
