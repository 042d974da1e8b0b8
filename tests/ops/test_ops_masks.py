"""Sums, moments, whitening and the one reduction."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from plaudit import ops

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
finite = st.floats(-100, 100, width=32)


def masked_lists(least=1):
    return st.lists(st.tuples(finite, st.booleans()), min_size=1, max_size=12).filter(
        lambda pairs: sum(m for _, m in pairs) >= least
    )


def tensors(pairs):
    return (
        torch.tensor([x for x, _ in pairs], dtype=torch.float64),
        torch.tensor([m for _, m in pairs]),
    )


@given(masked_lists(least=2))
def test_moments_agree_with_the_standard_library(pairs):
    x, mask = tensors(pairs)
    kept = [value for value, m in pairs if m]
    assert ops.masked_sum(x, mask).item() == pytest.approx(sum(kept), abs=1e-9)
    assert ops.masked_mean(x, mask).item() == pytest.approx(statistics.fmean(kept), abs=1e-9)
    assert ops.masked_variance(x, mask).item() == pytest.approx(
        statistics.pvariance(kept), rel=1e-9, abs=1e-9
    )
    assert ops.masked_sample_variance(x, mask).item() == pytest.approx(
        statistics.variance(kept), rel=1e-9, abs=1e-9
    )


def test_hand_worked_moments_along_an_axis():
    # Row 0 keeps 1, 3: mean 2, population variance 1, sample variance 2. Row 1 keeps 2, 2, 8:
    # mean 4, squares 4 + 4 + 16 = 24, over 3 = 8, over 2 = 12.
    x = torch.tensor([[1.0, 99.0, 3.0], [2.0, 2.0, 8.0]])
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert ops.masked_sum(x, mask, dim=1).tolist() == [4, 12]
    assert ops.masked_mean(x, mask, dim=1).tolist() == [2, 4]
    assert ops.masked_variance(x, mask, dim=1).tolist() == [1, 8]
    assert ops.masked_sample_variance(x, mask, dim=1).tolist() == [2, 12]


@given(masked_lists(least=2))
def test_masking_equals_deleting(pairs):
    x, mask = tensors(pairs)
    kept = x[mask]
    everything = torch.ones_like(kept, dtype=torch.bool)
    for f in (ops.masked_whiten, ops.masked_scale):
        torch.testing.assert_close(f(x, mask)[mask], f(kept, everything))
        assert (f(x, mask)[~mask] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nothing_off_the_mask_is_read(bad):
    x = torch.tensor([1.0, bad, 3.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    loss = ops.aggregate(x, mask, 4.0)
    loss.backward()
    assert loss.item() == 1.0
    assert x.grad.tolist() == [0.25, 0.0, 0.25]
    with torch.no_grad():
        assert ops.masked_mean(x, mask).item() == 2.0
        assert ops.masked_whiten(x, mask, eps=0.0).tolist() == [-1.0, 0.0, 1.0]
        assert ops.masked_scale(x, mask, eps=0.0).tolist() == [1.0, 0.0, 3.0]


@given(masked_lists(least=2), st.floats(0.1, 10), finite)
def test_whitening_has_mean_0_and_variance_1_whatever_the_scale(pairs, scale, shift):
    x, mask = tensors(pairs)
    assume(ops.masked_variance(x, mask) > 1e-2)
    white = ops.masked_whiten(x, mask, eps=0.0)
    assert ops.masked_mean(white, mask).item() == pytest.approx(0, abs=1e-9)
    assert ops.masked_variance(white, mask).item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(ops.masked_whiten(scale * x + shift, mask, eps=0.0), white)


def test_scaling_keeps_the_mean_where_whitening_removes_it():
    # 2 and 4: mean 3, population std 1.
    x, mask = torch.tensor([2.0, 4.0]), torch.tensor([True, True])
    assert ops.masked_scale(x, mask, eps=0.0).tolist() == [2, 4]
    assert ops.masked_whiten(x, mask, eps=0.0).tolist() == [-1, 1]
    assert ops.masked_scale(10 * x, mask, eps=0.0).tolist() == [2, 4]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, -7.7, 1000.1])
def test_a_constant_whitens_to_exactly_0_and_keeps_its_scale(dtype, constant):
    x = torch.full((3, 7), constant, dtype=dtype)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, 0] = False
    assert (ops.masked_whiten(x, mask, eps=0.0) == 0).all()
    assert torch.equal(ops.masked_scale(x, mask, eps=0.0), torch.where(mask, x, 0.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_noise_is_no_signal_but_the_smallest_real_difference_is(dtype):
    mask = torch.ones(8, dtype=torch.bool)
    noisy = torch.full((8,), 1.0, dtype=dtype)
    noisy[3] += torch.finfo(dtype).eps  # one unit in the last place
    assert (ops.masked_whiten(noisy, mask) == 0).all()
    real = torch.full((8,), 1.0, dtype=dtype)
    real[3] += 32 * torch.finfo(dtype).eps
    # One of eight: (7/8) / √(7/64) = √7 = 2.65.
    assert ops.masked_whiten(real, mask, eps=0.0)[3] > 2


def test_one_outlier_among_many_is_kept_even_in_half_precision():
    x = torch.zeros(400, dtype=torch.bfloat16)
    x[7] = 1.0
    white = ops.masked_whiten(x, torch.ones_like(x, dtype=torch.bool))
    assert white.dtype == torch.bfloat16
    # p = 1/400: (1 − p) / √(p(1 − p)) = √(399)
    assert white[7].item() == pytest.approx(399**0.5, rel=1e-2)


def test_half_precision_is_summed_wide():
    x = torch.full((70_000,), 2.0, dtype=torch.float16)  # 140,000 overflows float16
    mask = torch.ones_like(x, dtype=torch.bool)
    assert ops.masked_sum(x, mask).item() == 140_000
    assert ops.masked_mean(x, mask).item() == 2.0


@given(
    st.lists(st.tuples(finite, st.booleans()), min_size=2, max_size=12),
    st.data(),
    st.floats(0.5, 9),
)
def test_micro_batches_change_neither_loss_nor_gradient(pairs, data, denominator):
    x, mask = tensors(pairs)
    cuts = data.draw(st.sets(st.integers(1, len(pairs) - 1)))
    whole, split = x.clone().requires_grad_(), x.clone().requires_grad_()
    ops.aggregate(whole**2, mask, denominator).backward()
    edges = [0, *sorted(cuts), len(pairs)]
    total = 0.0
    for start, end in pairwise(edges):
        part = ops.aggregate(split[start:end] ** 2, mask[start:end], denominator)
        part.backward()
        total += part.item()
    assert total == pytest.approx(ops.aggregate(x**2, mask, denominator).item(), abs=1e-9)
    assert torch.equal(whole.grad, split.grad)


def test_a_denominator_may_be_a_counted_tensor():
    x, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, True], [True, False]])
    assert ops.aggregate(x, mask, mask.sum()).item() == 2.0


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), torch.tensor(0)])
def test_a_denominator_that_does_not_divide_is_refused(bad):
    with pytest.raises(ValueError, match="positive finite"):
        ops.aggregate(torch.ones(2), torch.ones(2, dtype=torch.bool), bad)


def test_a_denominator_for_each_row_is_refused():
    with pytest.raises(ValueError, match="one number"):
        ops.aggregate(torch.ones(2), torch.ones(2, dtype=torch.bool), torch.ones(2))


def test_too_few_elements_are_refused():
    x, none = torch.ones(3), torch.zeros(3, dtype=torch.bool)
    one = torch.tensor([True, False, False])
    for f in (ops.masked_mean, ops.masked_variance, ops.masked_whiten, ops.masked_scale):
        with pytest.raises(ValueError, match="leaves 0 elements"):
            f(x, none)
    with pytest.raises(ValueError, match="at least 2"):
        ops.masked_sample_variance(x, one)
    assert ops.masked_sum(x, none).item() == 0.0


def test_the_suite_verifies_shapes_and_dtypes():
    with pytest.raises(TypeCheckError):
        ops.aggregate(torch.ones(2, 3), torch.ones(3, dtype=torch.bool), 1.0)
    with pytest.raises(TypeCheckError):
        ops.aggregate(torch.ones(3), torch.ones(3), 1.0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_nothing_is_broadcast_without_the_suite_either():
    mask = torch.ones(3, dtype=torch.bool)
    two = torch.ones(2, 3)
    for f in (ops.masked_sum, ops.masked_mean, ops.masked_variance, ops.masked_sample_variance):
        with pytest.raises(ValueError, match="nothing is broadcast"):
            f(two, mask)
    for f in (ops.masked_whiten, ops.masked_scale, ops.near_constant):
        with pytest.raises(ValueError, match="mask has shape"):
            f(two, mask)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), but x has \(2, 3\)"):
        ops.aggregate(two, mask, 1.0)


def test_a_large_common_offset_costs_no_digits():
    # 1, 2, 4 above ten million, where float32 has steps of 1: the mean 7/3 is not representable.
    x = 1e7 + torch.tensor([1.0, 2.0, 4.0])
    mask = torch.ones(3, dtype=torch.bool)
    assert ops.masked_variance(x, mask).item() == pytest.approx(14 / 9, rel=1e-6)
    rows = ops.masked_variance(torch.stack([x, -x]), torch.ones(2, 3, dtype=torch.bool), dim=1)
    assert rows.tolist() == pytest.approx([14 / 9, 14 / 9], rel=1e-6)
    want = ops.masked_whiten(torch.tensor([1.0, 2.0, 4.0]), mask)
    assert (ops.masked_whiten(x, mask) == 0).all()  # but as scores they are one constant
    assert ops.masked_whiten(x.double(), mask).tolist() == pytest.approx(want.tolist(), abs=1e-6)
