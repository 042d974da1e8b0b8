"""Optimisers of flat parameters against torch's, step by step, and against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.nets.optim import FlatAdam, FlatRMSprop, clip_grad_norm_
from plaudit.records.errors import UserError


def params_of(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(params, step, scale=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    for p in params:
        g = scale * torch.randn(p.shape, generator=generator)
        p.grad = g.to(p.dtype)


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_adam_is_torchs_step_by_step(eps, betas, scale):
    ours, theirs = params_of((1000,), (7, 3)), params_of((1000,), (7, 3))
    optimiser = FlatAdam(ours, lr=1e-3, betas=betas, eps=eps)
    peer = torch.optim.Adam(theirs, lr=1e-3, betas=betas, eps=eps)
    for step in range(100):
        for group in peer.param_groups:
            group["lr"] = 1e-3 * (1 - step / 200)
        optimiser.lr = 1e-3 * (1 - step / 200)
        give_gradients(ours, step, scale)
        give_gradients(theirs, step, scale)
        optimiser.step()
        peer.step()
        for p, q in zip(ours, theirs, strict=True):
            # a unit in the last place of the weight, and a millionth of the largest move
            torch.testing.assert_close(p, q, rtol=1.2e-7, atol=1e-6 * 1e-3)
        with torch.no_grad():  # errors of one step, not their sum
            for p, q in zip(ours, theirs, strict=True):
                p.copy_(q)


def test_adam_over_many_steps_stays_with_torch_in_float64():
    ours, exact = params_of((500,)), [nn.Parameter(params_of((500,))[0].detach().double())]
    optimiser = FlatAdam(ours, lr=1e-2)
    peer = torch.optim.Adam(exact, lr=1e-2)
    for step in range(300):
        give_gradients(ours, step)
        exact[0].grad = ours[0].grad.double()
        optimiser.step()
        peer.step()
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-5, atol=1e-5)


def test_adam_by_hand():
    """g = 2, then 1; β = (0.5, 0.75), lr 1, eps 0: m̂/√v̂ = 2/2, then (1/3·2 + 2/3·1)/√(3/7·4 + 4/7·1).

    Step 1: m = 1, v = 1; m̂ = 1/0.5 = 2, v̂ = 1/0.25 = 4: p = 0 − 1 = −1.
    Step 2: m = 0.5 + 0.5 = 1, v = 0.75 + 0.25 = 1; m̂ = 1/0.75, v̂ = 1/0.4375:
    p = −1 − 1.333333·√0.4375 = −1.8819171.
    """
    p = nn.Parameter(torch.zeros(1))
    optimiser = FlatAdam([p], lr=1.0, betas=(0.5, 0.75), eps=0.0)
    for gradient, after in [(2.0, -1.0), (1.0, -1.8819171)]:
        p.grad = torch.tensor([gradient])
        optimiser.step()
        assert p.item() == pytest.approx(after, rel=1e-6)


def test_rmsprop_by_hand():
    """v = 1 at first; α 0.5, eps 0.25, lr 1, g = 2 twice.

    v = 0.5 + 0.5·4 = 2.5, p = −2/√2.75 = −1.2060454; v = 1.25 + 2 = 3.25, p −= 2/√3.5 = 1.0690450.
    """
    p = nn.Parameter(torch.zeros(1))
    optimiser = FlatRMSprop([p], lr=1.0, alpha=0.5, eps=0.25)
    for after in (-1.2060454, -2.2750904):
        p.grad = torch.tensor([2.0])
        optimiser.step()
        assert p.item() == pytest.approx(after, rel=1e-6)


def test_rmsprop_is_the_peers_step_by_step():
    peers = pytest.importorskip("stable_baselines3.common.sb2_compat.rmsprop_tf_like")
    ours, theirs = params_of((300,)), params_of((300,))
    optimiser = FlatRMSprop(ours, lr=7e-4)
    peer = peers.RMSpropTFLike(theirs, lr=7e-4, alpha=0.99, eps=1e-5)
    for step in range(50):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimiser.step()
        peer.step()
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [FlatAdam, FlatRMSprop])
def test_other_dtypes_take_the_same_steps(kind):
    ours, wide = params_of((64,)), [nn.Parameter(params_of((64,))[0].detach().double())]
    fast, slow = kind(ours, lr=1e-2), kind(wide, lr=1e-2)
    for step in range(20):
        give_gradients(ours, step)
        wide[0].grad = ours[0].grad.double()
        fast.step()
        slow.step()
    torch.testing.assert_close(ours[0].double(), wide[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [FlatAdam, FlatRMSprop])
def test_a_restored_optimiser_goes_on_bit_for_bit(kind):
    whole, cut = params_of((40,), (3, 2)), params_of((40,), (3, 2))
    first, second = kind(whole, lr=1e-2), kind(cut, lr=1e-2)
    for step in range(6):
        if step == 3:
            saved = second.state()
            second = kind(cut, lr=0.5)
            second.restore(saved)
        for params, optimiser in ((whole, first), (cut, second)):
            give_gradients(params, step)
            optimiser.step()
    for p, q in zip(whole, cut, strict=True):
        assert torch.equal(p, q)


def test_saved_state_is_a_copy_and_wrong_state_is_named():
    params = params_of((4,))
    optimiser = FlatAdam(params, lr=0.1)
    arrays, facts = optimiser.state()
    give_gradients(params, 0)
    optimiser.step()
    assert (arrays["m.0"] == 0).all()
    with pytest.raises(UserError, match=r"shape \(5,\) for m\.0, expected shape \(4,\)"):
        optimiser.restore(({**arrays, "m.0": np.zeros(5, np.float32)}, facts))
    with pytest.raises(UserError, match=r"nothing for v\.0"):
        optimiser.restore(({"m.0": arrays["m.0"]}, facts))


def test_a_parameter_without_gradient_is_left_alone():
    params = params_of((4,), (4,))
    before = [p.detach().clone() for p in params]
    give_gradients(params[:1], 0)
    optimiser = FlatAdam(params, lr=0.1)
    optimiser.step()
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])
    optimiser.zero_grad()
    assert params[0].grad is None


def test_nan_gradients_make_nan_weights():
    for kind in (FlatAdam, FlatRMSprop):
        p = nn.Parameter(torch.ones(3))
        p.grad = torch.tensor([1.0, torch.nan, 1.0])
        kind([p], lr=0.1).step()
        assert p.isnan().tolist() == [False, True, False]


def test_a_step_between_forward_and_backward_is_noticed():
    p = nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    FlatAdam([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("max_norm", [0.1, 0.5, 1e6])
def test_clipping_is_torchs(max_norm):
    ours, theirs = params_of((3000,), (7, 3)), params_of((3000,), (7, 3))
    give_gradients(ours, 1)
    give_gradients(theirs, 1)
    norm = clip_grad_norm_(ours, max_norm)
    exact = torch.cat([p.grad.double().reshape(-1) for p in theirs]).norm()
    assert norm == pytest.approx(float(exact), rel=1e-6)
    nn.utils.clip_grad_norm_(theirs, max_norm)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0)


def test_norms_beyond_float32_are_right_and_nan_is_told():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3e30, 4e30])
    assert clip_grad_norm_([p], 1.0) == pytest.approx(5e30)
    torch.testing.assert_close(p.grad, torch.tensor([0.6, 0.8]))
    p.grad = torch.tensor([torch.nan, 1.0])
    assert np.isnan(clip_grad_norm_([p], 1.0))
    assert p.grad.isnan().all()
    assert clip_grad_norm_([nn.Parameter(torch.zeros(2))], 1.0) == 0.0


def test_bad_settings_are_named():
    with pytest.raises(UserError, match="at least one parameter"):
        FlatAdam([], lr=0.1)
    with pytest.raises(UserError, match="lr must be at least 0, found nan"):
        FlatAdam(params_of((2,)), lr=float("nan"))
