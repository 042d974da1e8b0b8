"""Losses in one pass against the formulas of ops under autograd, branch by branch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.nets.actions import Categorical, Gaussian, MultiCategorical
from plaudit.nets.control_nets import network
from plaudit.nets.fused_losses import ppo_terms, value_terms
from plaudit.nets.loss_kernels import standardised
from plaudit.ops import clipped_surrogate, clipped_value_loss, kl_k3
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

INF = float("inf")
HEADS = {
    "categorical": Categorical(ActionSpec("discrete", (4,))),
    "two": Categorical(ActionSpec("discrete", (2,))),
    "multi": MultiCategorical(ActionSpec("multi_discrete", (2, 3, 4))),
    "gaussian": Gaussian(ActionSpec("box", (3,), (-1.0,) * 3, (1.0,) * 3), log_std=-0.4),
}


def case(head, num_rows=64, seed=0, spread=0.5):
    """Params, actions, old log-probabilities near and far from the new, and credit of both signs."""
    rng = np.random.default_rng(seed)
    params = rng.standard_normal((num_rows, head.num_params), dtype=np.float32)
    action = head.draw(params, rng)
    logp = head.logp(torch.from_numpy(params), torch.from_numpy(action)).detach().numpy()
    noise, adv = rng.standard_normal((2, num_rows), dtype=np.float32)
    return params, action, logp + spread * noise, adv


def by_ops(head, params, action, logp_old, adv, *, clip_low, clip_high, entropy_coef):
    """Numbers as an algorithm writes them, in float64, and the gradients of the loss."""
    params, action, old, adv = (torch.from_numpy(x) for x in (params, action, logp_old, adv))
    params, old, adv = params.double().requires_grad_(), old.double(), adv.double()
    held = {k: p.detach().double().requires_grad_() for k, p in head.named_parameters()}
    head.forward = lambda p: (head.logp(p, action), head.entropy(p))
    logp, entropy = torch.func.functional_call(head, held, (params,))
    del head.forward
    loss = clipped_surrogate(logp, old, adv, clip_low=clip_low, clip_high=clip_high).mean()
    (loss - entropy_coef * entropy.mean()).backward()
    ratio = (logp - old).exp()
    outside = ((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).double().mean()
    numbers = (loss, entropy.mean(), kl_k3(old, logp).mean(), outside)
    grads = [x.grad.numpy() for x in (params, *held.values())]
    return [x.item() for x in numbers], *grads, *[None] * (2 - len(grads))


def require_ops(head, *batch, rtol=1e-5, atol=1e-7, **options):
    """Compares `ppo_terms` with `by_ops`; returns the former."""
    terms = ppo_terms(head, *batch, **options)
    numbers, grad, grad_log_std = by_ops(head, *batch, **options)
    assert list(terms.numbers) == pytest.approx(numbers, rel=rtol, abs=atol)
    np.testing.assert_allclose(terms.grad, grad, rtol=rtol, atol=atol)
    assert (terms.grad_log_std is None) == (grad_log_std is None)
    if grad_log_std is not None:
        np.testing.assert_allclose(terms.grad_log_std, grad_log_std, rtol=rtol, atol=atol)
    return terms


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (1.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("coef", [0.0, 0.01, 1.0])
def test_ppo_is_ops_under_autograd(head, low, high, coef):
    options = {"clip_low": low, "clip_high": high, "entropy_coef": coef}
    require_ops(head, *case(head), **options)


@given(seed=st.integers(0, 10_000), num_rows=st.integers(1, 9), spread=st.floats(0, 3))
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_ppo_is_ops_for_any_batch(head, seed, num_rows, spread):
    options = {"clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.05}
    require_ops(head, *case(head, num_rows, seed, spread), rtol=1e-4, atol=1e-5, **options)


def test_each_branch_of_the_clip_by_hand():
    """Logits (0, 0), action 0, clip 0.2: ρ = ½/p_old. dL/dlogit₀ = −ρA·½ where it flows, else 0.

    ρ = 1.5 (p_old ⅓): A = 1 is held at 1.2, loss −1.2, no gradient; A = −1 flows: loss 1.5, ¾.
    ρ = 0.5 (p_old 1): A = 1 flows: loss −0.5, −¼; A = −1 is held at 0.8: loss 0.8, none.
    ρ = 1: flows for both signs.
    """
    p_old = torch.tensor([1 / 3, 1 / 3, 1.0, 1.0, 0.5, 0.5])
    adv = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    action = torch.zeros(6, dtype=torch.int64)
    found = ppo_terms(
        HEADS["two"], np.zeros((6, 2), np.float32), action.numpy(), p_old.log().numpy(),
        adv.numpy(), clip_low=0.2, clip_high=0.2, entropy_coef=0.0,
    )  # fmt: skip
    slopes = np.array([0.0, 0.75, -0.25, 0.0, -0.5, 0.5]) / 6
    np.testing.assert_allclose(found.grad, np.stack([slopes, -slopes], 1), atol=1e-7)
    assert found.numbers.policy == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8 - 1.0 + 1.0) / 6)
    assert found.numbers.entropy == pytest.approx(math.log(2))
    assert found.numbers.clipfrac == pytest.approx(4 / 6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_on_the_edge_of_the_range_and_without_credit_torch_is_followed(sign):
    """Ratio exactly 1 with a range of no width, and A = 0."""
    params = torch.zeros(2, 2, requires_grad=True)
    action, adv = torch.tensor([0, 1]), torch.tensor([sign, 0.0])
    logp = HEADS["two"].logp(params, action)
    old, options = logp.detach(), {"clip_low": 0.0, "clip_high": 0.0}
    clipped_surrogate(logp, old, adv, **options).mean().backward()
    batch = (x.detach().numpy() for x in (params, action, old, adv))
    found = ppo_terms(HEADS["two"], *batch, entropy_coef=0.0, **options)
    assert np.array_equal(found.grad, params.grad.numpy())
    assert np.abs(found.grad[0]).sum() > 0


def test_excluded_actions_get_no_gradient_and_spoil_nothing():
    head = HEADS["categorical"]
    params, action, logp_old, adv = case(head)
    params[:, 1] = -INF
    action[action == 1] = 0
    options = {"clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.1}
    terms = require_ops(head, params, action, logp_old, adv, **options)
    assert (terms.grad[:, 1] == 0).all()


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("where", ["params", "logp_old", "adv"])
def test_nan_is_told(head, where):
    params, action, logp_old, adv = case(head, 4)
    {"params": params, "logp_old": logp_old, "adv": adv}[where][2] = np.nan
    options = {"clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.0}
    terms = ppo_terms(head, params, action, logp_old, adv, **options)
    assert math.isnan(terms.numbers.policy)
    assert np.isnan(terms.grad).any(1).tolist() == [False, False, True, False]
    if terms.grad_log_std is not None:
        assert np.isnan(terms.grad_log_std).all()


def value_by_ops(value, ret, old=None, clip=None):
    """The loss in float64, and its gradient."""
    value, ret, old = (x if x is None else torch.from_numpy(x).double() for x in (value, ret, old))
    value.requires_grad_()
    loss = 0.5 * (value - ret) ** 2
    if clip is not None:
        loss = clipped_value_loss(value, old, ret, clip=clip)
    loss.mean().backward()
    return loss.mean().item(), value.grad.numpy()


@given(seed=st.integers(0, 10_000), num_rows=st.integers(1, 40), clip=st.floats(0.01, 2.0))
def test_value_losses_are_ops_under_autograd(seed, num_rows, clip):
    drawn = np.random.default_rng(seed).standard_normal((3, num_rows), dtype=np.float32)
    value, ret, old = drawn
    for value_old, width in ((old, clip), (None, None)):
        loss, grad = value_terms(value, ret, value_old=value_old, clip=width)
        expected, expected_grad = value_by_ops(value, ret, value_old, width)
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-7)


def test_value_clip_on_edges_and_ties_is_torchs():
    """V on either boundary, inside, outside, and outside with equal squares (R in the middle)."""
    value = np.array([0.5, -0.5, 0.25, 1.0, -1.0, 1.0, 0.5, -0.5, 2.0], np.float32)
    ret = np.array([3.0, 3.0, 3.0, 3.0, 3.0, 0.75, 0.0, -2.0, -4.0], np.float32)
    old = np.zeros_like(value)
    loss, grad = value_terms(value, ret, value_old=old, clip=0.5)
    expected, expected_grad = value_by_ops(value, ret, old, 0.5)
    assert loss == pytest.approx(expected)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-6)
    assert len(set((grad / (value - ret)).tolist())) > 3  # shares 1, ¾, ½ and 0 all occur


def test_value_nan_is_told_and_half_given_clips_are_refused():
    value, zeros = np.array([1.0, np.nan], np.float32), np.zeros(2, np.float32)
    for options in ({}, {"value_old": zeros, "clip": 0.2}):
        loss, grad = value_terms(value, zeros, **options)
        assert math.isnan(loss)
        assert np.isnan(grad).tolist() == [False, True]
    for options in ({"value_old": zeros}, {"clip": 0.2}):
        with pytest.raises(ValueError, match="together or not at all"):
            value_terms(value, zeros, **options)


def test_standardised_is_the_sample_deviations():
    x = np.array([1.0, 2.0, 3.0, 6.0], np.float32)
    # mean 3, sample variance (4 + 1 + 0 + 9)/3
    np.testing.assert_allclose(standardised(x, 1e-8), (x - 3) / math.sqrt(14 / 3), rtol=1e-6)
    assert standardised(np.array([5.0], np.float32), 1e-8).tolist() == [5.0]
    assert standardised(np.full(3, 2.0, np.float32), 1e-8).tolist() == [0.0, 0.0, 0.0]
    large = np.arange(100, dtype=np.float32) + np.float32(1e6)
    np.testing.assert_allclose(standardised(large, 0.0).mean(), 0.0, atol=1e-6)


@pytest.mark.parametrize("image", [False, True])
def test_a_traced_net_gives_the_gradients_of_forward_and_they_add_up(image):
    spec = ObsSpec.vector(5)
    if image:
        spec = ObsSpec((1, 6, 6), "uint8", (Piece("obs", "image", (1, 6, 6)),))
    net = network(spec, 3, hidden=(8,), rng=np.random.default_rng(0), init="uniform")
    rng = np.random.default_rng(1)
    obs = rng.standard_normal((4, 5), dtype=np.float32)
    if image:
        obs = rng.integers(0, 256, (4, 1, 6, 6), dtype=np.uint8)
    weight = rng.standard_normal((4, 3), dtype=np.float32)
    out, back = net.traced(obs)
    back(weight)
    once = [p.grad.clone() for p in net.parameters()]
    again, back = net.traced(obs)
    back(weight)
    assert np.array_equal(out, again)
    twice = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    torch_out = net(torch.from_numpy(obs))
    (torch_out * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(out, torch_out.detach().numpy(), rtol=1e-5, atol=1e-6)
    for p, single, double in zip(net.parameters(), once, twice, strict=True):
        torch.testing.assert_close(single, p.grad)
        torch.testing.assert_close(double, 2 * p.grad)
