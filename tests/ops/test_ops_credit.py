"""Returns and advantages: hand-worked numbers, slow oracles, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from oracles import credit
from plaudit import ops

small = st.floats(-5, 5, width=32)
rates = st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0])


@st.composite
def episodes(draw):
    """Arguments of any row: [B, T], with terminations, truncations and steps that do not count."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 8)))
    reward, value, next_value = (
        draw(hnp.arrays(np.float64, shape, elements=small)) for _ in range(3)
    )
    boundary = draw(hnp.arrays(np.bool_, shape))
    terminated = boundary & draw(hnp.arrays(np.bool_, shape))
    mask = draw(hnp.arrays(np.bool_, shape))
    return reward, value, next_value, terminated, boundary, mask


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


@given(episodes(), rates, rates)
def test_gae_is_the_forward_sum_of_td_errors(episode, gamma, lam):
    r, v, nv, term, bound, mask = tensors(*episode)
    got = ops.gae(r, v, nv, term, bound, gamma=gamma, lam=lam, mask=mask)
    want = credit.gae(*episode[:5], gamma, lam, episode[5])
    np.testing.assert_allclose(got.numpy(), want, atol=1e-9)


@given(episodes(), rates, rates)
def test_gae_is_the_weighted_mean_of_all_n_step_advantages(episode, gamma, lam):
    reward, value, _, terminated, boundary, mask = episode
    shifted = credit.next_step_value(value, mask)
    arguments = (reward, value, shifted, terminated, boundary)
    got = ops.gae(*tensors(*arguments), gamma=gamma, lam=lam, mask=torch.from_numpy(mask))
    want = credit.gae_from_n_step_returns(*arguments, gamma, lam, mask)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-9)


@given(episodes(), rates)
def test_the_return_is_the_forward_sum(episode, gamma):
    r, _, nv, term, bound, mask = tensors(*episode)
    got = ops.discounted_return(r, nv, term, bound, gamma=gamma, mask=mask)
    want = credit.discounted_return(
        episode[0], episode[2], episode[3], episode[4], gamma, episode[5]
    )
    np.testing.assert_allclose(got.numpy(), want, atol=1e-9)


def test_gae_by_hand():
    # γ = ½, λ = ½. δ_2 = 3 − 1 = 2 (terminated); δ_1 = 2 + ½·1 − 2 = ½; δ_0 = 1 + ½·2 − 0 = 2.
    # A_2 = 2; A_1 = ½ + ¼·2 = 1; A_0 = 2 + ¼·1 = 2.25.
    end = torch.tensor([False, False, True])
    adv = ops.gae(
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([0.0, 2.0, 1.0]),
        torch.tensor([2.0, 1.0, 100.0]),
        end,
        end,
        gamma=0.5,
        lam=0.5,
    )
    assert adv.tolist() == [2.25, 1.0, 2.0]


def test_truncation_keeps_the_bootstrap_and_termination_drops_it():
    # Step 0 is truncated (bootstraps 10), step 1 terminated (does not), each its own episode.
    reward, value = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])
    next_value = torch.tensor([10.0, 10.0])
    terminated, boundary = torch.tensor([False, True]), torch.tensor([True, True])
    adv = ops.gae(reward, value, next_value, terminated, boundary, gamma=1.0, lam=1.0)
    assert adv.tolist() == [9.0, -1.0]
    ret = ops.discounted_return(reward, next_value, terminated, boundary, gamma=1.0)
    assert ret.tolist() == [11.0, 1.0]


@given(episodes(), rates)
def test_lambda_0_is_the_td_error(episode, gamma):
    r, v, nv, term, bound, _ = tensors(*episode)
    adv = ops.gae(r, v, nv, term, bound, gamma=gamma, lam=0.0)
    want = [
        [x + (0 if t else gamma * n) - y for x, y, n, t in zip(*rows, strict=True)]
        for rows in zip(r.tolist(), v.tolist(), nv.tolist(), term.tolist(), strict=True)
    ]
    np.testing.assert_allclose(adv.numpy(), want, atol=1e-12)


@given(episodes(), rates)
def test_lambda_1_with_the_shifted_value_is_return_minus_value(episode, gamma):
    r, v, _, _, _, mask = tensors(*episode)
    nv = ops.next_step_value(v, mask)
    end = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)  # one finished episode a row
    adv = ops.gae(r, v, nv, end, end, gamma=gamma, lam=1.0, mask=mask)
    ret = ops.discounted_return(r, nv, end, end, gamma=gamma, mask=mask)
    torch.testing.assert_close(adv + torch.where(mask, v, 0.0), ret, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_constant_reward_gives_the_closed_form(gamma):
    # Σ_{k<n} γ^k = (1 − γ^n)/(1 − γ); with the limit 1/(1 − γ) as bootstrap, the limit everywhere.
    n, limit = 50, 1 / (1 - gamma)
    reward, never = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)
    bare = ops.discounted_return(reward, 0 * reward, never, never, gamma=gamma)
    left = torch.arange(n, 0, -1, dtype=torch.float64)
    torch.testing.assert_close(bare, (1 - gamma**left) * limit)
    full = ops.discounted_return(reward, limit * reward, never, never, gamma=gamma)
    torch.testing.assert_close(full, torch.full_like(full, limit))
    exact = ops.gae(reward, limit * reward, limit * reward, never, never, gamma=gamma, lam=0.95)
    torch.testing.assert_close(exact, torch.zeros_like(exact))


@given(episodes(), rates, rates, st.data())
def test_masking_equals_deleting(episode, gamma, lam, data):
    r, v, nv, term, bound, mask = (x[0] for x in tensors(*episode))
    keep = mask.nonzero().squeeze(-1)
    few = [x[keep] for x in (r, v, nv, term, bound)]
    adv = ops.gae(r, v, nv, term, bound, gamma=gamma, lam=lam, mask=mask)
    torch.testing.assert_close(adv[keep], ops.gae(*few, gamma=gamma, lam=lam))
    ret = ops.discounted_return(r, nv, term, bound, gamma=gamma, mask=mask)
    torch.testing.assert_close(ret[keep], ops.discounted_return(few[0], *few[2:], gamma=gamma))
    np.testing.assert_array_equal(
        ops.next_step_value(v, mask)[None].numpy(),
        credit.next_step_value(v[None].numpy(), mask[None].numpy()),
    )


@given(episodes(), rates, rates, st.integers(0, 4), st.booleans())
def test_padding_changes_nothing_even_if_it_holds_nan(episode, gamma, lam, amount, on_the_left):
    arguments = tensors(*episode)
    pad = (amount, 0) if on_the_left else (0, amount)
    rubbish = [float("nan"), float("inf"), float("nan"), True, False, False]
    padded = [
        torch.nn.functional.pad(x, pad, value=value)
        for x, value in zip(arguments, rubbish, strict=True)
    ]

    def adv(r, v, nv, term, bound, mask):
        return ops.gae(r, v, nv, term, bound, gamma=gamma, lam=lam, mask=mask)

    def ret(r, v, nv, term, bound, mask):
        return ops.discounted_return(r, nv, term, bound, gamma=gamma, mask=mask)

    for f in (adv, ret):
        want = torch.nn.functional.pad(f(*arguments), pad)
        torch.testing.assert_close(f(*padded), want, rtol=0, atol=0)


@given(episodes(), rates, rates)
def test_no_credit_crosses_a_boundary(episode, gamma, lam):
    r, v, nv, term, bound, mask = tensors(*episode)
    adv = ops.gae(r, v, nv, term, bound, gamma=gamma, lam=lam, mask=mask)
    # Everything after a row's first counted boundary may change; what is before may not.
    after = ((bound & mask).cumsum(-1) - (bound & mask).int()) > 0
    other = ops.gae(
        torch.where(after, r + 7, r), v, nv, term, bound, gamma=gamma, lam=lam, mask=mask
    )
    assert torch.equal(adv[~after], other[~after])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)])
def test_any_dtype_and_batch_shape(dtype, shape):
    x, no = torch.ones(shape, dtype=dtype), torch.zeros(shape, dtype=torch.bool)
    adv = ops.gae(x, x, x, no, no, gamma=1.0, lam=1.0)
    assert adv.dtype == dtype
    assert adv.shape == shape
    assert adv[..., 0].eq(4).all()
    assert ops.discounted_return(x, x, no, no, gamma=1.0)[..., 0].eq(5).all()
    assert ops.next_step_value(x, ~no).sum() == x[..., 1:].sum()


def test_gae_gradients_match_finite_differences():
    torch.manual_seed(0)
    r, v, nv = (torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bound = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)
    mask = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda *x: ops.gae(*x, bound, bound, gamma=0.9, lam=0.8, mask=mask), (r, v, nv)
    )
    assert torch.autograd.gradcheck(
        lambda *x: ops.discounted_return(*x, ~bound & False, bound, gamma=0.9, mask=mask), (r, nv)
    )


def test_a_terminated_step_must_be_a_boundary():
    x, yes, no = torch.ones(2), torch.tensor([True, True]), torch.tensor([False, False])
    with pytest.raises(ValueError, match="must be a boundary"):
        ops.gae(x, x, x, yes, no, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match="must be a boundary"):
        ops.discounted_return(x, x, yes, no, gamma=1.0)


@pytest.mark.parametrize(("gamma", "lam"), [(1.1, 1.0), (-0.1, 1.0), (1.0, 2.0), (float("nan"), 1)])
def test_rates_outside_0_to_1_are_refused(gamma, lam):
    x, no = torch.ones(2), torch.zeros(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ops.gae(x, x, x, no, no, gamma=gamma, lam=float(lam))


@pytest.mark.usefixtures("unchecked_shapes")
def test_nothing_is_broadcast():
    x, no = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="next_value has shape"):
        ops.gae(x, x, x[:1], no, no, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match="mask has shape"):
        ops.gae(x, x, x, no, no, gamma=1.0, lam=1.0, mask=~no[:1])
    with pytest.raises(ValueError, match="boundary has shape"):
        ops.discounted_return(x, x, no, no[:1], gamma=1.0)
    with pytest.raises(ValueError, match="mask has shape"):
        ops.next_step_value(x, no[0])


groups = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(2, 6)), elements=small)


def test_group_advantages_by_hand():
    # 1, 2, 3: mean 2, sample std 1. Leave-one-out: 1 − 2.5, 2 − 2, 3 − 1.5.
    reward = torch.tensor([1.0, 2.0, 3.0])
    assert ops.group_advantage(reward, eps=0.0).tolist() == [-1.0, 0.0, 1.0]
    assert ops.leave_one_out_advantage(reward).tolist() == [-1.5, 0.0, 1.5]


@given(groups)
def test_leave_one_out_compares_with_the_mean_of_the_others(reward):
    got = ops.leave_one_out_advantage(torch.from_numpy(reward)).numpy()
    for b, g in np.ndindex(reward.shape):
        others = [reward[b, k] for k in range(reward.shape[1]) if k != g]
        assert got[b, g] == pytest.approx(reward[b, g] - sum(others) / len(others), abs=1e-9)


@given(groups, st.integers(-8, 8))
def test_a_shift_of_a_group_changes_nothing(reward, shift):
    x = torch.from_numpy(np.round(reward, 3))
    torch.testing.assert_close(
        ops.leave_one_out_advantage(x + shift), ops.leave_one_out_advantage(x), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(
        ops.group_advantage(x + shift), ops.group_advantage(x), atol=1e-6, rtol=1e-6
    )


@given(groups)
def test_groups_do_not_see_one_another(reward):
    x = torch.from_numpy(reward)
    for f in (ops.group_advantage, ops.leave_one_out_advantage):
        torch.testing.assert_close(f(x), torch.stack([f(row) for row in x]))


def test_the_last_step_of_rows_with_and_without_steps():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)
    assert ops.last_step(mask).nonzero().tolist() == [[0, 1], [2, 2], [3, 0], [4, 1]]


def test_an_outcome_is_one_reward_and_sums_to_its_score():
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    reward = ops.outcome_reward(torch.tensor([2.5, 9.0]), mask)
    assert reward.tolist() == [[0, 0, 2.5, 0], [0, 0, 0, 0]]
