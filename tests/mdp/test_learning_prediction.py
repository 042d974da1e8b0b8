"""Prediction by samples against exact values, closed forms and slow definitions."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.sampled_prediction import (
    lambda_returns,
    online_lambda_return,
    return_variance,
    td_lambda,
)
from plaudit.mdp import MDP, MRP
from plaudit.mdp.learning.batch import batch_monte_carlo, batch_td, episodes_from, episodes_of
from plaudit.mdp.learning.monte_carlo import every_visit_monte_carlo, first_visit_monte_carlo
from plaudit.mdp.learning.temporal_difference import n_step_td, td_prediction
from plaudit.mdp.learning.traces import (
    offline_lambda_return,
    td_lambda_accumulating,
    td_lambda_replacing,
    true_online_td_lambda,
)
from plaudit.mdp.planning import evaluate
from plaudit.records.errors import UserError

SEEDS = (0, 1, 2)
LEARNERS = {
    "first visit": (first_visit_monte_carlo, {"alpha": 0.05}),
    "first visit, average": (first_visit_monte_carlo, {}),
    "every visit": (every_visit_monte_carlo, {"alpha": 0.05}),
    "every visit, average": (every_visit_monte_carlo, {}),
    "TD": (td_prediction, {"alpha": 0.05}),
    "TD, average": (td_prediction, {"alpha": None}),
    "n-step TD": (n_step_td, {"alpha": 0.05, "n": 3}),
    "accumulating": (td_lambda_accumulating, {"alpha": 0.05, "lam": 0.7}),
    "replacing": (td_lambda_replacing, {"alpha": 0.05, "lam": 0.7}),
    "dutch": (true_online_td_lambda, {"alpha": 0.05, "lam": 0.7}),
    "λ-return": (offline_lambda_return, {"alpha": 0.05, "lam": 0.7}),
}
CONSTANT = [name for name in LEARNERS if "average" not in name]


def random_episodic(seed, *, num_states=6, num_actions=3, acyclic=False):
    """A world whose every action ends the episode with probability 0.1 or more, and a policy."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(num_states, 0.5), size=(num_actions, num_states))
    if acyclic:
        transition *= np.triu(np.ones((num_states, num_states)), 1)
    transition[..., -1] += 0.1 + 1e-3
    transition /= transition.sum(-1, keepdims=True)
    transition[:, -1] = np.eye(num_states)[-1]
    reward = rng.normal(size=(num_actions, num_states, num_states))
    reward[:, -1] = 0
    gamma = float(rng.choice([0.8, 1.0]))
    policy = rng.dirichlet(np.ones(num_actions), size=num_states)
    return MDP(transition, reward, gamma), policy, transition, reward


def flattened(transition, reward, policy):
    """p(s'|s) and E[r|s, s'] and E[r²|s, s'] of a policy."""
    weight = policy.T[:, :, None] * transition
    p = weight.sum(0)
    safe = np.where(p > 0, p, 1)
    return p, (weight * reward).sum(0) / safe, (weight * reward**2).sum(0) / safe


def episodes(world, policy, count, seed):
    """The first episodes that any learner with this seed meets."""
    log = episodes_of(world, policy, num_episodes=count, seed=seed)
    last = int(np.flatnonzero(world.terminal)[0])
    for i, j in zip(log.begin, log.begin[1:], strict=False):
        yield np.append(log.state[i:j], last), log.reward[i:j]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("learner", [first_visit_monte_carlo, every_visit_monte_carlo])
def test_monte_carlo_is_within_its_standard_error(seed, learner):
    world, policy, transition, reward = random_episodic(seed)
    truth = evaluate(world, policy).value
    p, mean, square = flattened(transition, reward, policy)
    variance = return_variance(p, mean, world.gamma, truth)
    # rewards also vary for the same (s, s') between actions: their share of E[G²]
    extra = (p * (square - mean**2)).sum(1)
    going = ~world.terminal
    inner = np.eye(going.sum()) - world.gamma**2 * p[np.ix_(going, going)]
    variance[going] += np.linalg.solve(inner, extra[going])
    found = learner(world, policy, num_episodes=40_000, seed=seed)
    # every-visit returns of one episode overlap; episodes are short, so twice the error is allowed
    slack = 1.0 if learner is first_visit_monte_carlo else 2.0
    z = (found.value - truth)[going] / np.sqrt(variance[going] / found.counts[going])
    assert np.abs(z).max() < 4.0 * slack
    assert found.value[-1] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_visits_are_averaged_as_they_are_defined(seed):
    """First visits and all visits, from lists of returns."""
    world, policy, *_ = random_episodic(seed)
    first, every = [[] for _ in range(6)], [[] for _ in range(6)]
    for states, rewards in episodes(world, policy, 50, seed):
        for t, s in enumerate(states[:-1]):
            g = sum(world.gamma**k * r for k, r in enumerate(rewards[t:]))
            every[s].append(g)
            if s not in states[:t]:
                first[s].append(g)
    assert sum(map(len, first)) < sum(map(len, every))
    for learner, lists in ((first_visit_monte_carlo, first), (every_visit_monte_carlo, every)):
        found = learner(world, policy, num_episodes=50, seed=seed)
        assert np.allclose(found.value, [np.mean(g) if g else 0 for g in lists], atol=1e-12)
        assert found.counts.tolist() == [len(g) for g in lists]


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("seed", SEEDS)
def test_constant_steps_hover_about_the_planners_value(name, seed):
    """The average of a constant-α estimate is right up to O(α); its error is that of batch means."""
    world, policy, *_ = random_episodic(seed + 10)
    learner, options = LEARNERS[name]
    options = {**options, "alpha": 0.005}
    truth = evaluate(world, policy).value
    trace = learner(
        world, policy, num_episodes=60_000, seed=seed, start_value=truth, trace_every=1, **options
    ).trace[20_000:]
    means = trace.reshape(20, -1, truth.size).mean(1)
    error = means.std(0, ddof=1) / np.sqrt(20)
    assert (np.abs(means.mean(0) - truth) <= 4.5 * error + 0.01).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_come_from_afar(name):
    world, policy, *_ = random_episodic(4)
    learner, options = LEARNERS[name]
    truth = evaluate(world, policy).value
    going = ~world.terminal
    start = np.where(going, truth + 3.0, 0.0)
    found = learner(world, policy, num_episodes=30_000, seed=1, start_value=start, **options)
    assert np.abs(found.value - truth).max() < (0.8 if name == "TD, average" else 0.45)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_in_two_parts_is_the_whole_run(name):
    world, policy, *_ = random_episodic(3)
    learner, options = LEARNERS[name]
    whole = learner(world, policy, num_episodes=100, seed=8, trace_every=7, **options)
    part = learner(world, policy, num_episodes=50, seed=8, trace_every=7, **options)
    kept = part.value.copy(), part.rng.copy()
    both = learner(world, policy, num_episodes=50, seed=99, start=part, trace_every=7, **options)
    for field in ("value", "counts", "rng", "trace"):
        assert np.array_equal(getattr(whole, field), getattr(both, field)), field
    assert (whole.num_episodes, whole.num_steps) == (both.num_episodes, both.num_steps)
    assert np.array_equal(part.value, kept[0])
    assert not part.value.flags.writeable
    assert not part.rng.flags.writeable
    assert np.array_equal(part.rng, kept[1])
    other = learner(world, policy, num_episodes=100, seed=9, **options)
    assert not np.array_equal(whole.value, other.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_n_from_one_to_all_leads_from_td_to_monte_carlo(seed):
    world, policy, *_ = random_episodic(seed)
    same = {"num_episodes": 200, "alpha": 0.1, "seed": seed}
    one = n_step_td(world, policy, n=1, **same)
    assert np.array_equal(one.value, td_prediction(world, policy, **same).value)
    every = n_step_td(world, policy, n=10**9, **same)
    assert np.array_equal(every.value, every_visit_monte_carlo(world, policy, **same).value)
    assert not np.array_equal(one.value, every.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_lambda_zero_is_td(seed):
    world, policy, *_ = random_episodic(seed)
    same = {"num_episodes": 200, "alpha": 0.1, "seed": seed}
    td = td_prediction(world, policy, **same).value
    for learner in (td_lambda_accumulating, td_lambda_replacing, true_online_td_lambda):
        assert np.allclose(learner(world, policy, lam=0.0, **same).value, td, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_lambda_one_is_monte_carlo(seed):
    """Offline always; online where no state comes twice in an episode, as δ then telescopes."""
    world, policy, *_ = random_episodic(seed)
    same = {"num_episodes": 200, "alpha": 0.1, "seed": seed}
    mc = every_visit_monte_carlo(world, policy, **same).value
    assert np.array_equal(offline_lambda_return(world, policy, lam=1.0, **same).value, mc)
    world, policy, *_ = random_episodic(seed, acyclic=True)
    mc = every_visit_monte_carlo(world, policy, **same).value
    for learner in (td_lambda_accumulating, td_lambda_replacing, true_online_td_lambda):
        assert np.allclose(learner(world, policy, lam=1.0, **same).value, mc, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_true_online_is_the_online_lambda_return(lam, seed):
    world, policy, *_ = random_episodic(seed)
    start = np.where(world.terminal, 0.0, 0.3)
    value = start.copy()
    for states, rewards in episodes(world, policy, 25, seed):
        value = online_lambda_return(value, states, rewards, world.gamma, lam, 0.3)
    found = true_online_td_lambda(
        world, policy, lam=lam, num_episodes=25, alpha=0.3, seed=seed, start_value=0.3
    )
    assert np.allclose(found.value, value, rtol=0, atol=1e-11)
    other = td_lambda_accumulating(
        world, policy, lam=lam, num_episodes=25, alpha=0.3, seed=seed, start_value=0.3
    )
    assert not np.allclose(other.value, value, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_traces_are_those_of_the_definition(seed):
    world, policy, *_ = random_episodic(seed)
    for learner, replacing in ((td_lambda_accumulating, False), (td_lambda_replacing, True)):
        value = np.zeros(world.num_states)
        for states, rewards in episodes(world, policy, 30, seed):
            value = td_lambda(value, states, rewards, world.gamma, 0.8, 0.2, replacing=replacing)
        found = learner(world, policy, lam=0.8, num_episodes=30, alpha=0.2, seed=seed)
        assert np.allclose(found.value, value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_the_lambda_return_is_a_mixture_of_n_step_returns(lam):
    world, policy, *_ = random_episodic(1)
    value = np.where(world.terminal, 0.0, 0.5)
    for states, rewards in episodes(world, policy, 30, 5):
        targets = lambda_returns(value, states, rewards, world.gamma, lam, len(rewards))
        for s, target in zip(states, targets, strict=False):
            value[s] += 0.2 * (target - value[s])
    found = offline_lambda_return(
        world, policy, lam=lam, num_episodes=30, alpha=0.2, seed=5, start_value=0.5
    )
    assert np.allclose(found.value, value, rtol=0, atol=1e-12)


def test_n_step_returns_by_hand():
    """0 → 1 → 2 → 3 → end, rewards 1, 2, 4, 8, γ = 1/2, n = 2, α = 1/2, V = 0 but V(2) = 10.

    After step 2: G_0 = 1 + 2/2 + 10/4 = 4.5, V(0) = 2.25. Step 3: G_1 = 2 + 4/2 + 0 = 4, V(1) = 2.
    Step 4 is the end: G_2 = 4 + 8/2 = 8, V(2) = 10 - 1 = 9; G_3 = 8, V(3) = 4.
    """
    transition = np.eye(5, k=1)
    transition[4, 4] = 1
    start = [1.0, 0, 0, 0, 0]
    world = MDP(transition[None], np.array([[1.0], [2], [4], [8], [0]]), 0.5, initial=start)
    found = n_step_td(
        world, [0] * 5, n=2, num_episodes=1, alpha=0.5, start_value=np.array([0.0, 0, 10, 0, 0])
    )
    assert found.value.tolist() == [2.25, 2.0, 9.0, 4.0, 0.0]
    assert found.counts.tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        (td_prediction, {}),
        (n_step_td, {"n": 4}),
        (td_lambda_accumulating, {"lam": 0.5}),
        (td_lambda_replacing, {"lam": 0.5}),
        (true_online_td_lambda, {"lam": 0.5}),
        (offline_lambda_return, {"lam": 0.5}),
    ],
)
def test_a_cut_episode_bootstraps(learner, options):
    """A world without end, cut after 7 steps: treating the cut as the end would say far less."""
    chain = MRP([[0.5, 0.5], [0.2, 0.8]], [1.0, 3.0], 0.9)
    truth = evaluate(chain).value
    found = learner(
        chain, num_episodes=20_000, max_steps=7, alpha=0.01, seed=2, trace_every=1, **options
    )
    assert np.abs(found.trace[10_000:].mean(0) - truth).max() < 0.1
    assert found.num_steps == 7 * 20_000
    assert found.counts.sum() == found.num_steps, "each step is learned from once"


def test_a_chain_is_learned_like_its_world():
    world, policy, *_ = random_episodic(2)
    chain = world.under(policy)
    found = td_prediction(chain, num_episodes=30_000, alpha=0.01, seed=0, trace_every=1)
    truth = evaluate(chain).value
    assert np.abs(found.trace[5_000:].mean(0) - truth).max() < 0.05


def test_batch_methods_predict_as_the_book_does():
    """Eight episodes: A 0 B 0; B 1 six times; B 0. TD says V(A) = 3/4, Monte Carlo 0 (example 6.4)."""
    log = [([0, 1], [0.0, 0.0]), *[([1], [1.0])] * 6, ([1], [0.0])]
    batch = episodes_from(log, num_states=2)
    assert np.allclose(batch_td(batch, gamma=1.0), [0.75, 0.75], atol=1e-8)
    assert np.allclose(batch_monte_carlo(batch, gamma=1.0), [0.0, 0.75], atol=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_td_is_certainty_equivalence_and_batch_mc_the_average(seed):
    world, policy, *_ = random_episodic(seed)
    batch = episodes_of(world, policy, num_episodes=60, seed=seed)
    count = np.zeros((6, 6))
    paid = np.zeros(6)
    for s, r, after in zip(batch.state, batch.reward, batch.after, strict=True):
        count[s, after if after >= 0 else 5] += 1
        paid[s] += r
    visited = count.sum(1)
    count[visited == 0, 5] = 1
    chain = MRP(count / count.sum(1, keepdims=True), paid / np.maximum(visited, 1), world.gamma)
    found = batch_td(batch, gamma=world.gamma)
    assert np.allclose(found, evaluate(chain).value, atol=1e-7)
    average = every_visit_monte_carlo(world, policy, num_episodes=60, seed=seed).value
    assert np.allclose(batch_monte_carlo(batch, gamma=world.gamma), average, atol=1e-8)


def test_batch_that_diverges_says_so():
    world, policy, *_ = random_episodic(0)
    batch = episodes_of(world, policy, num_episodes=200)
    with pytest.raises(UserError, match=r"alpha: 0\.9 diverges on these episodes; up to"):
        batch_td(batch, gamma=1.0, alpha=0.9)
    with pytest.warns(UserWarning, match="still moved after 3 sweeps"):
        batch_td(batch, gamma=1.0, max_sweeps=3)


def bad_calls():
    world, policy, *_ = random_episodic(0)
    chain = world.under(policy)
    loop = MDP([[[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1.0]]], [[1.0], [1.0], [0.0]], 0.9)
    td = {"num_episodes": 5}
    earlier = td_prediction(world, policy, **td)
    yield td_prediction, (world, policy), {"num_episodes": 0}, "num_episodes: 0; expected a whole"
    yield (
        td_prediction,
        (world, policy),
        {"num_episodes": 2.5},
        "num_episodes: 2.5; expected a whole",
    )
    yield (
        td_prediction,
        (world, policy),
        {**td, "alpha": 0.0},
        "alpha: 0.0; expected a number above",
    )
    yield (
        td_prediction,
        (world, policy),
        {**td, "alpha": 1.5},
        "alpha: 1.5; expected a number above",
    )
    yield td_prediction, (world, policy), {**td, "seed": -1}, "seed: -1; expected an integer"
    yield td_prediction, (world, policy), {**td, "max_steps": 0}, "max_steps: 0; expected a whole"
    yield td_prediction, (world, policy), {**td, "trace_every": 0}, "trace_every: 0; expected"
    yield td_prediction, (world, None), td, "policy: missing; an MDP has a value only under a"
    yield td_prediction, (chain, policy), td, "policy: a Markov reward process takes no policy"
    yield td_prediction, (loop, [0, 0, 0]), td, "comes to state 0 never ends; give max_steps"
    yield first_visit_monte_carlo, (loop, [0, 0, 0]), td, "comes to state 0 never ends"
    yield td_prediction, (world, policy[:3]), td, r"policy: shape \(3, 3\)"
    yield (
        td_prediction,
        (world, policy),
        {**td, "start_value": np.ones(6)},
        "start_value: terminal state 5 has 1.0; expected 0",
    )
    yield td_prediction, (world, policy), {**td, "start_value": [1.0]}, r"start_value: shape \(1,\)"
    yield td_prediction, (world, policy), {**td, "start_value": np.nan}, "state 0 is not finite"
    yield (
        td_prediction,
        (world, policy),
        {**td, "start": earlier, "start_value": 1.0},
        "start_value: `start` already holds a value",
    )
    yield td_prediction, (loop, [0, 0, 0]), {**td, "start": earlier, "max_steps": 3}, "in 6 states"
    yield n_step_td, (world, policy), {**td, "n": 0}, "n: 0; expected a whole number"
    yield td_lambda_replacing, (world, policy), {**td, "lam": 1.1}, "lam: 1.1; expected a number"
    yield td_lambda_replacing, (world, policy), {**td, "lam": 0.5, "alpha": None}, "alpha: None"
    yield (
        episodes_from,
        ([([0, 1], [1.0])],),
        {"num_states": 2},
        "episode 0: 2 states and 1 rewards",
    )
    yield episodes_from, ([([0.5], [1.0])],), {"num_states": 2}, "episode 0: states of float64"
    yield episodes_from, ([([2], [1.0])],), {"num_states": 2}, "episode 0: expected states from 0"
    yield episodes_from, ([([], [])],), {"num_states": 2}, "no episode has a step"


def test_bad_input_is_told_in_one_sentence():
    for function, given, options, message in bad_calls():
        with pytest.raises(UserError, match=message):
            function(*given, **options)
