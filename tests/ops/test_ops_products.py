"""Products by the faster library: the numbers and gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from plaudit.ops import products

SHAPES = [((7, 5), 3), ((2, 6, 5), 3), ((1, 5), 1), ((0, 5), 3), ((130, 64), 96)]


def case(shape, num_out, dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    weight = torch.randn(num_out, shape[-1], generator=g, dtype=torch.float64)
    bias = torch.randn(num_out, generator=g, dtype=torch.float64)
    return [t.to(dtype).requires_grad_() for t in (x, weight, bias)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("shape", "num_out"), SHAPES)
def test_float32_values_and_gradients_are_those_of_double_precision(shape, num_out, with_bias):
    """Every gradient, for inputs of any rank and no rows at all, to float32's own precision."""
    results = []
    for dtype, call in ((torch.float32, products.linear), (torch.float64, F.linear)):
        inputs = case(shape, num_out, dtype)[: 3 if with_bias else 2]
        out = call(*inputs)
        slope = torch.linspace(-1, 1, out.numel(), dtype=dtype).view(out.shape)
        results.append([out, *torch.autograd.grad(out, inputs, slope)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_the_gradient_formula_agrees_with_finite_differences(wanted):
    inputs = case((6, 4), 5, torch.float64)
    for i, x in enumerate(inputs):
        x.requires_grad_(i in wanted)
    assert torch.autograd.gradcheck(products._Linear.apply, inputs)


def test_a_product_may_be_changed_in_place():
    """As a model does that clamps its queries: a view that autograd made could not be."""
    x, weight, bias = case((2, 3, 4), 5, torch.float32)
    for each in (x, weight, bias):
        each.requires_grad_(True)
    out = products.linear(x, weight, bias)
    out.clamp_(min=-0.5, max=0.5)
    out.sum().backward()
    inside = (F.linear(x, weight, bias).detach().abs() < 0.5).float()
    torch.testing.assert_close(x.grad, inside @ weight.detach())
    torch.testing.assert_close(bias.grad, inside.sum((0, 1)))


def test_transposed_arguments_are_read_as_they_lie():
    """What the backward pass multiplies: views, with no copy made first."""
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(40, 24, generator=g), torch.randn(40, 56, generator=g)
    for x, weight in ((a.T, b.T), (a, torch.randn(24, 30, generator=g).T), (b[:, :24], a)):
        want = x.double() @ weight.double().T
        torch.testing.assert_close(products.product(x, weight).double(), want, rtol=1e-5, atol=1e-5)


def test_the_same_product_twice_has_the_same_bits():
    x, weight, _ = case((130, 64), 96, torch.float32)
    copies = [t.detach().clone() for t in (x, weight)]
    assert torch.equal(products.product(*copies), products.product(x.detach(), weight.detach()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_torchs_own(dtype):
    x, weight, bias = (t.detach() for t in case((7, 5), 3, dtype))
    assert torch.equal(products.product(x, weight, bias), F.linear(x, weight, bias))
    assert products.linear(x, weight, bias).dtype == dtype


def test_autocast_still_decides_the_precision():
    x, weight, bias = case((7, 5), 3, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(x, weight, bias).dtype == F.linear(x, weight, bias).dtype
