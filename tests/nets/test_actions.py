"""Action heads against torch.distributions in float64, exact enumeration, and counts of draws."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as D

from plaudit.nets.actions import (
    Categorical,
    DeterministicTanh,
    DuelingGreedy,
    Gaussian,
    Greedy,
    MultiCategorical,
    SquashedGaussian,
    head_for,
    head_from_facts,
)
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec

DISCRETE = ActionSpec("discrete", (4,))
MULTI = ActionSpec("multi_discrete", (2, 3, 4))
BOX = ActionSpec("box", (2,), (-1.0, 0.0), (3.0, 10.0))
INF = float("inf")


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def gaussian():
    head = Gaussian(BOX).double()
    head.log_std.data = torch.tensor([-0.7, 0.4], dtype=torch.float64)
    return head


# --- categorical


def test_categorical_is_torchs():
    head, old, new = Categorical(DISCRETE), normal(50, 4, scale=3.0), normal(50, 4, seed=1)
    action = torch.arange(50) % 4
    peer_old, peer = D.Categorical(logits=old), D.Categorical(logits=new)
    torch.testing.assert_close(head.logp(new, action), peer.log_prob(action))
    torch.testing.assert_close(head.entropy(new), peer.entropy())
    torch.testing.assert_close(head.kl(head.snapshot(old), new), D.kl_divergence(peer_old, peer))


def test_an_excluded_action_is_never_drawn_and_its_gradient_is_finite():
    head = Categorical(DISCRETE)
    params = torch.tensor([[0.0, -INF, math.log(3.0), -INF]]).requires_grad_()
    assert float(head.logp(params, torch.tensor([2])).detach()) == pytest.approx(math.log(0.75))
    exact = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    entropy = head.entropy(params)
    assert float(entropy.detach()) == pytest.approx(exact)
    (entropy + head.kl(head.snapshot(params), params)).sum().backward()
    assert params.grad.isfinite().all()
    drawn = head.draw(np.repeat(params.detach().numpy(), 2000, 0), np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 2}


def test_categorical_draws_follow_the_probabilities():
    head, rng = Categorical(DISCRETE), np.random.default_rng(0)
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32)) + np.float32(5)
    drawn = head.draw(np.tile(logits, (40_000, 1)), rng)
    assert drawn.dtype == np.int64
    counts = np.bincount(drawn, minlength=4)
    assert stats.chisquare(counts, 40_000 * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 1e-3


def test_draws_of_one_seed_repeat_and_rows_are_independent():
    head, params = Categorical(DISCRETE), np.zeros((10_000, 4), np.float32)
    first = head.draw(params, np.random.default_rng(3))
    assert np.array_equal(first, head.draw(params, np.random.default_rng(3)))
    table = np.zeros((4, 4))
    np.add.at(table, (first[:-1], first[1:]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


# --- several choices


def test_multi_categorical_is_the_categorical_over_all_combinations():
    head, old, new = MultiCategorical(MULTI), normal(3, 9), normal(3, 9, seed=1)
    actions = torch.tensor(list(itertools.product(range(2), range(3), range(4))))
    table_old = torch.stack([head.logp(old[i].expand(24, 9), actions) for i in range(3)])
    table = torch.stack([head.logp(new[i].expand(24, 9), actions) for i in range(3)])
    torch.testing.assert_close(table.exp().sum(1), torch.ones(3).double())
    torch.testing.assert_close(head.entropy(new), -(table.exp() * table).sum(1))
    exact = (table_old.exp() * (table_old - table)).sum(1)
    torch.testing.assert_close(head.kl(head.snapshot(old), new), exact)


def test_multi_categorical_is_torchs():
    head, params = MultiCategorical(MULTI), normal(6, 9)
    action = torch.tensor([[i % 2, i % 3, i % 4] for i in range(6)])
    peers = [D.Categorical(logits=part) for part in params.split(MULTI.sizes, 1)]
    expected = sum(peer.log_prob(action[:, i]) for i, peer in enumerate(peers))
    torch.testing.assert_close(head.logp(params, action), expected)


def test_multi_categorical_draws_follow_the_joint_probabilities():
    head, rng = MultiCategorical(MULTI), np.random.default_rng(1)
    params = normal(1, 9, seed=3).float()
    drawn = head.draw(np.repeat(params.numpy(), 60_000, 0), rng)
    assert drawn.shape == (60_000, 3)
    assert drawn.dtype == np.int64
    actions = torch.tensor(list(itertools.product(range(2), range(3), range(4))))
    p = head.logp(params.expand(24, 9), actions).double().exp().numpy()
    counts = np.bincount(drawn @ np.array([12, 4, 1]), minlength=24)
    assert stats.chisquare(counts, 60_000 * p / p.sum()).pvalue > 1e-3
    best = head.mode(params.numpy())[0]
    assert tuple(best) == tuple(actions[int(p.argmax())].tolist())


# --- Gaussian


def test_gaussian_is_torchs():
    head, old, mean = gaussian(), normal(9, 2), normal(9, 2, seed=1)
    action = normal(9, 2, seed=2, scale=3.0)
    snapshot = head.snapshot(old)
    peer_old = D.Independent(D.Normal(old, head.log_std.detach().exp()), 1)
    head.log_std.data += 0.3
    peer = D.Independent(D.Normal(mean, head.log_std.exp()), 1)
    torch.testing.assert_close(head.logp(mean, action), peer.log_prob(action))
    torch.testing.assert_close(head.entropy(mean), peer.entropy())
    torch.testing.assert_close(head.kl(snapshot, mean), D.kl_divergence(peer_old, peer))


@pytest.mark.parametrize("what", ["logp", "entropy", "kl"])
def test_gaussian_gradients_agree_with_differences(what):
    head, action = gaussian(), normal(3, 2, seed=2)
    snapshot = head.snapshot(normal(3, 2))
    mean = normal(3, 2, seed=1).requires_grad_()

    def value(mean, log_std):
        # functional_call swaps the parameter for a tensor that gradcheck may vary
        call = {"logp": (head.logp, action), "entropy": (head.entropy,), "kl": (head.kl, snapshot)}
        method, *rest = call[what]
        arguments = (*rest, mean) if what == "kl" else (mean, *rest)
        head.forward = lambda *args: method(*args)
        return torch.func.functional_call(head, {"log_std": log_std}, arguments)

    torch.autograd.gradcheck(value, (mean, head.log_std.detach().clone().requires_grad_()))


def test_gaussian_draws_have_the_distribution_and_are_stored_unclipped():
    head = gaussian().float()
    params = np.tile(np.array([0.5, -1.0], np.float32), (20_000, 1))
    drawn = head.draw(params, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    for i, (mean, log_std) in enumerate([(0.5, -0.7), (-1.0, 0.4)]):
        assert stats.kstest(drawn[:, i], "norm", (mean, math.exp(log_std))).pvalue > 1e-3
    assert (drawn[:, 1] < 0.0).any()
    acted = head.to_env(drawn)
    inside = (drawn >= [-1, 0]).all(1) & (drawn <= [3, 10]).all(1)
    assert (acted[:, 1] >= 0.0).all()
    assert np.array_equal(acted[inside], drawn[inside])
    assert np.array_equal(head.mode(params), params)


def test_a_gaussian_divergence_needs_a_snapshot():
    with pytest.raises(ValueError, match=r"snapshot \[B, 4\], found \[9, 2\]"):
        gaussian().kl(normal(9, 2), normal(9, 2))


# --- squashed Gaussian


def test_squashed_gaussian_is_torchs_transformed_normal():
    head, noise = SquashedGaussian(BOX), normal(40, 2, seed=1)
    params = normal(40, 4, scale=0.5)
    action, logp = head.sample(params, noise)
    mean, log_std = params.chunk(2, -1)
    peer = D.Independent(
        D.TransformedDistribution(D.Normal(mean, log_std.exp()), [D.TanhTransform(cache_size=1)]),
        1,
    )
    torch.testing.assert_close(action, (mean + log_std.exp() * noise).tanh())
    torch.testing.assert_close(logp, peer.log_prob(action), rtol=1e-9, atol=1e-9)


def test_squashed_density_integrates_to_one_in_the_unit_interval():
    """∫ π(a) da over (−1, 1), by the trapezoid rule in u where da = (1 − tanh² u) du."""
    head = SquashedGaussian(ActionSpec("box", (1,), (-2.0,), (2.0,)))
    u = torch.linspace(-9.0, 9.0, 20_001).double()[:, None]
    params = torch.tensor([[0.4, -0.3]]).double().expand(len(u), 2)
    action, logp = head.sample(params, (u - 0.4) / math.exp(-0.3))
    density = logp.exp() * (1 / torch.cosh(u[:, 0]) ** 2)
    assert float(torch.trapezoid(density, u[:, 0])) == pytest.approx(1.0, abs=1e-6)
    assert (action.abs() < 1).all()


def test_the_squash_correction_is_right_far_out_in_float32():
    """At u = ±20 tanh is ±1 to the last digit; log(1 − tanh² u) = 2 log 2 − 2|u| there."""
    head = SquashedGaussian(ActionSpec("box", (1,), (-1.0,), (1.0,)))
    params = torch.tensor([[20.0, 0.0], [-20.0, 0.0]]).requires_grad_()
    action, logp = head.sample(params, torch.zeros(2, 1))
    exact = -0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 40.0)
    assert logp.tolist() == pytest.approx([exact, exact], rel=1e-6)
    assert action[:, 0].tolist() == [1.0, -1.0]
    logp.sum().backward()
    assert params.grad[:, 0].tolist() == pytest.approx([2.0, -2.0])


def test_squashed_gradients_agree_with_differences():
    head, noise = SquashedGaussian(BOX), normal(4, 2, seed=1)
    params = normal(4, 4).requires_grad_()
    torch.autograd.gradcheck(lambda p: head.sample(p, noise), (params,))


def test_log_std_is_held_between_its_limits():
    head, noise = SquashedGaussian(ActionSpec("box", (1,), (-1.0,), (1.0,))), torch.ones(2, 1)
    action, _ = head.sample(torch.tensor([[0.0, 100.0], [0.5, -100.0]]), noise)
    assert action[0, 0] == pytest.approx(math.tanh(math.exp(2.0)))
    assert action[1, 0] == pytest.approx(math.tanh(0.5))


def test_squashed_draws_are_the_samples_of_the_same_noise():
    head, params = SquashedGaussian(BOX), normal(6, 4).float()
    noise = np.random.default_rng(5).standard_normal((6, 2), dtype=np.float32)
    drawn = head.draw(params.numpy(), np.random.default_rng(5))
    expected, _ = head.sample(params, torch.from_numpy(noise))
    np.testing.assert_allclose(drawn, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.mode(params.numpy()), params[:, :2].tanh().numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", [SquashedGaussian, DeterministicTanh])
def test_the_unit_box_is_stretched_to_the_bounds(kind):
    head = kind(BOX)
    unit = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.5]], np.float32)
    world = np.array([[-1.0, 0.0], [3.0, 10.0], [1.0, 7.5]], np.float32)
    np.testing.assert_array_equal(head.to_env(unit), world)
    np.testing.assert_array_equal(head.from_env(world), unit)
    assert head.to_env(unit).dtype == np.float32
    random = head.random(5000, np.random.default_rng(0))
    assert stats.kstest(random[:, 0], "uniform", (-1, 2)).pvalue > 1e-3


@pytest.mark.parametrize("low", [-0.1, 0.1, 1e-3, -7.3])
def test_a_stretched_action_never_leaves_the_bounds_by_rounding(low):
    high = low + 0.7
    head = SquashedGaussian(ActionSpec("box", (1,), (low,), (high,)))
    acted = head.to_env(np.array([[-1.0], [1.0]], np.float32))
    assert acted.min() >= np.float32(low)
    assert acted.max() <= np.float32(high)


def test_unbounded_actions_cannot_be_squashed():
    spec = ActionSpec("box", (1,), (-INF,), (1.0,))
    with pytest.raises(UserError, match="finite bounds, found low"):
        SquashedGaussian(spec)
    acted = Gaussian(spec).to_env(np.array([[-1e9], [5.0]], np.float32))
    assert acted[:, 0].tolist() == [-1e9, 1.0]


# --- deterministic, greedy


def test_deterministic_noise_is_clipped_to_the_unit_box():
    head = DeterministicTanh(BOX, noise_std=0.5)
    params = np.zeros((20_000, 2), np.float32)
    drawn = head.draw(params, np.random.default_rng(0))
    assert drawn.min() == -1.0
    assert drawn.max() == 1.0
    inside = drawn[np.abs(drawn) < 1]
    # A normal of deviation 0.5 leaves [−1, 1] with chance 2Φ(−2) = 0.0455.
    assert np.mean(np.abs(drawn) == 1.0) == pytest.approx(2 * stats.norm.cdf(-2), abs=0.004)
    assert stats.kstest(inside, stats.truncnorm(-2, 2, scale=0.5).cdf).pvalue > 1e-3
    assert (head.mode(params) == 0).all()
    torch.testing.assert_close(head.action(torch.tensor([[0.5]])), torch.tensor([[0.4621172]]))


def test_each_row_tosses_its_own_epsilon_coin():
    """The best action is taken with chance 1 − ε + ε/n, any other with ε/n, and rows differ."""
    head = Greedy(DISCRETE, epsilon=0.4)
    params = np.tile(np.array([0.0, 2.0, 1.0, -1.0], np.float32), (40_000, 1))
    counts = np.bincount(head.draw(params, np.random.default_rng(0)), minlength=4)
    assert stats.chisquare(counts, 40_000 * np.array([0.1, 0.7, 0.1, 0.1])).pvalue > 1e-3
    assert (head.mode(params) == 1).all()
    head.epsilon = 0.0
    assert (head.draw(params, np.random.default_rng(0)) == 1).all()


def test_dueling_values_by_hand_and_greedy_in_them():
    """v = 10, a = (1, 2, 6, −1): mean 2, q = (9, 10, 14, 7)."""
    head = DuelingGreedy(DISCRETE)
    params = torch.tensor([[10.0, 1.0, 2.0, 6.0, -1.0]])
    assert head.q(params).tolist() == [[9.0, 10.0, 14.0, 7.0]]
    assert head.mode(params.numpy()).tolist() == [2]
    assert head.num_params == 5


# --- for all


def test_the_head_for_each_kind_of_action_space():
    assert isinstance(head_for(DISCRETE), Categorical)
    assert isinstance(head_for(MULTI), MultiCategorical)
    assert isinstance(head_for(BOX), Gaussian)
    with pytest.raises(UserError, match="needs a discrete action space, found box"):
        Categorical(BOX)


@pytest.mark.parametrize(
    "head",
    [
        Categorical(DISCRETE),
        MultiCategorical(MULTI),
        Gaussian(BOX),
        SquashedGaussian(BOX),
        DeterministicTanh(BOX, noise_std=0.3),
        Greedy(DISCRETE, epsilon=0.2),
        DuelingGreedy(DISCRETE, epsilon=0.1),
    ],
)
def test_facts_as_json_make_the_same_head(head):
    again = head_from_facts(json.loads(json.dumps(head.facts())))
    params = normal(5, head.num_params).float().numpy()
    drawn = head.draw(params, np.random.default_rng(1))
    assert type(again) is type(head)
    assert np.array_equal(again.draw(params, np.random.default_rng(1)), drawn)
    assert drawn.shape == (5, *head.spec.shape)
    assert drawn.dtype == head.spec.dtype
    assert head.mode(params).shape == drawn.shape


def test_an_unknown_head_is_named():
    with pytest.raises(UserError, match="did you mean 'gaussian'"):
        head_from_facts({"kind": "gausian", "spec": BOX.facts()})
