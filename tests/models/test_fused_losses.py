"""Losses in one pass against the formulas of ops under autograd, branch by branch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.models.actions import Categorical, Gaussian, MultiCategorical
from plaudit.models.control_nets import network
from plaudit.models.fused_losses import ppo_loss, ppo_terms, value_loss
from plaudit.models.loss_kernels import standardised
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
    params = torch.from_numpy(rng.standard_normal((num_rows, head.num_params), dtype=np.float32))
    action = torch.from_numpy(head.draw(params.numpy(), rng))
    noise = torch.from_numpy(rng.standard_normal(num_rows, dtype=np.float32))
    logp_old = head.logp(params, action).detach() + spread * noise
    adv = torch.from_numpy(rng.standard_normal(num_rows, dtype=np.float32))
    return params.requires_grad_(), action, logp_old, adv


def by_ops(head, params, action, logp_old, adv, low, high, coef):
    """The loss and numbers as an algorithm writes them, in float64, and the gradients."""
    wide = params.detach().double().requires_grad_()
    log_std = getattr(head, "log_std", None)
    held = None if log_std is None else log_std.detach().double().requires_grad_()
    names = {} if held is None else {"log_std": held}
    head.forward = lambda p: (head.logp(p, action), head.entropy(p))
    logp, entropy = torch.func.functional_call(head, names, (wide,))
    del head.forward
    old = logp_old.double()
    loss = clipped_surrogate(logp, old, adv.double(), clip_low=low, clip_high=high)
    ratio = (logp - old).exp()
    (loss.mean() - coef * entropy.mean()).backward()
    outside = ((ratio < 1 - low) | (ratio > 1 + high)).double().mean()
    numbers = (loss.mean(), entropy.mean(), kl_k3(old, logp).mean(), outside)
    return [x.item() for x in numbers], wide.grad, None if held is None else held.grad


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (1.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("coef", [0.0, 0.01, 1.0])
def test_ppo_is_ops_under_autograd(head, low, high, coef):
    params, *rest = case(head)
    options = {"clip_low": low, "clip_high": high, "entropy_coef": coef}
    for p in head.parameters():
        p.grad = None
    loss, numbers = ppo_loss(head, params, *rest, **options)
    (2.0 * loss).backward()
    expected, grad, of_log_std = by_ops(head, params, *rest, low, high, coef)
    assert list(numbers) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert loss.item() == pytest.approx(expected[0] - coef * expected[1], rel=1e-5, abs=1e-6)
    torch.testing.assert_close(params.grad.double(), 2 * grad, rtol=1e-5, atol=1e-7)
    if of_log_std is not None:
        found = head.log_std.grad.double()
        torch.testing.assert_close(found, 2 * of_log_std, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10_000), num_rows=st.integers(1, 9), spread=st.floats(0, 3))
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_ppo_is_ops_for_any_batch(head, seed, num_rows, spread):
    params, *rest = case(head, num_rows, seed, spread)
    loss, numbers = ppo_loss(head, params, *rest, clip_low=0.2, clip_high=0.2, entropy_coef=0.05)
    loss.backward()
    expected, grad, _ = by_ops(head, params, *rest, 0.2, 0.2, 0.05)
    assert list(numbers) == pytest.approx(expected, rel=2e-5, abs=1e-5)
    torch.testing.assert_close(params.grad.double(), grad, rtol=1e-4, atol=1e-5)


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
    again = torch.zeros(2, 2, requires_grad=True)
    action, adv = torch.tensor([0, 1]), torch.tensor([sign, 0.0])
    logp_old = params.detach().log_softmax(1)[:, 0]
    options = {"clip_low": 0.0, "clip_high": 0.0}
    ppo_loss(HEADS["two"], params, action, logp_old, adv, entropy_coef=0.0, **options)[0].backward()
    logp = HEADS["two"].logp(again, action)
    clipped_surrogate(logp, logp_old, adv, **options).mean().backward()
    assert torch.equal(params.grad, again.grad)
    assert params.grad[0].abs().sum() > 0


def test_excluded_actions_get_no_gradient_and_spoil_nothing():
    head = HEADS["categorical"]
    params, action, logp_old, adv = case(head)
    with torch.no_grad():
        params[:, 1] = -INF
        action[action == 1] = 0
    loss, numbers = ppo_loss(
        head, params, action, logp_old, adv, clip_low=0.2, clip_high=0.2, entropy_coef=0.1
    )
    loss.backward()
    expected, grad, _ = by_ops(head, params, action, logp_old, adv, 0.2, 0.2, 0.1)
    assert list(numbers) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert (params.grad[:, 1] == 0).all()
    torch.testing.assert_close(params.grad.double(), grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("where", ["params", "logp_old", "adv"])
def test_nan_is_told(head, where):
    params, action, logp_old, adv = case(head, 4)
    with torch.no_grad():
        {"params": params, "logp_old": logp_old, "adv": adv}[where][2] = torch.nan
    loss, _ = ppo_loss(
        head, params, action, logp_old, adv, clip_low=0.2, clip_high=0.2, entropy_coef=0.0
    )
    loss.backward()
    assert loss.isnan()
    assert params.grad[2].isnan().any()
    assert params.grad[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_in_double_the_readable_formulas_are_taken(head):
    params, action, logp_old, adv = case(head)
    options = {"clip_low": 0.2, "clip_high": 0.2, "entropy_coef": 0.01}
    _, fast = ppo_loss(head, params, action, logp_old, adv, **options)
    wide = head.double()
    _, slow = ppo_loss(wide, params.double(), action, logp_old.double(), adv.double(), **options)
    head.float()
    assert list(fast) == pytest.approx(list(slow), rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 10_000), num_rows=st.integers(1, 40), clip=st.floats(0.01, 2.0))
def test_value_losses_are_ops_under_autograd(seed, num_rows, clip):
    generator = torch.Generator().manual_seed(seed)
    value, old, ret = (torch.randn(num_rows, generator=generator) for _ in range(3))
    for fused, plain in [
        (
            lambda v: value_loss(v, ret, value_old=old, clip=clip),
            lambda v: clipped_value_loss(v, old, ret, clip=clip).mean(),
        ),
        (lambda v: value_loss(v, ret), lambda v: (0.5 * (v - ret) ** 2).mean()),
    ]:
        x, y = value.clone().requires_grad_(), value.clone().requires_grad_()
        first, second = fused(x), plain(y)
        (0.5 * first).backward()
        (0.5 * second).backward()
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-7)


def test_value_clip_on_edges_and_ties_is_torchs():
    """V on either boundary, inside, outside, and outside with equal squares (R in the middle)."""
    value = torch.tensor([0.5, -0.5, 0.25, 1.0, -1.0, 1.0, 0.5, -0.5, 2.0])
    old = torch.zeros(9)
    ret = torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0, 0.75, 0.0, -2.0, -4.0])
    x, y = value.clone().requires_grad_(), value.clone().requires_grad_()
    value_loss(x, ret, value_old=old, clip=0.5).backward()
    clipped_value_loss(y, old, ret, clip=0.5).mean().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert len(set((x.grad / (value - ret)).tolist())) > 3  # shares 1, ¾, ½ and 0 all occur


def test_value_nan_is_told_and_half_given_clips_are_refused():
    value = torch.tensor([1.0, torch.nan]).requires_grad_()
    for options in ({}, {"value_old": torch.zeros(2), "clip": 0.2}):
        loss = value_loss(value, torch.zeros(2), **options)
        value.grad = None
        loss.backward()
        assert loss.isnan()
        assert value.grad.isnan().tolist() == [False, True]
    with pytest.raises(ValueError, match="together or not at all"):
        value_loss(value, torch.zeros(2), clip=0.2)


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
