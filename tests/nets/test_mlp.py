"""The net of one flat vector against torch's own layers, and against differences."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.nets.mlp import MLP, frozen, layers, orthogonal, polyak_
from plaudit.records.errors import UserError


def net_of(sizes=(3, 8, 6, 2), activation="tanh", copies=1, seed=0, **options):
    net = MLP(
        sizes, activation=activation, rng=np.random.default_rng(seed), copies=copies, **options
    )
    with torch.no_grad():  # biases begin at 0, which would hide mistakes
        net.flat.add_(0.1 * torch.randn(net.flat.shape, generator=torch.Generator().manual_seed(5)))
    return net


def torch_twin(net, number=0):
    """The same net from torch's layers, with the weights of one copy."""
    parts, flat = [], net.flat.detach().view(net.copies, -1)[number]
    act, start = (nn.Tanh if net.activation == "tanh" else nn.ReLU), 0
    for num_in, num_out in zip(net.sizes[:-1], net.sizes[1:], strict=True):
        linear = nn.Linear(num_in, num_out)
        end = start + num_in * num_out
        linear.weight.data = flat[start:end].view(num_out, num_in).clone()
        linear.bias.data = flat[end : end + num_out].clone()
        start = end + num_out
        parts += [linear, act()]
    return nn.Sequential(*parts[:-1])


def flat_grad(twin):
    return torch.cat([p.grad.reshape(-1) for p in twin.parameters()])


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 8, 2), (3, 64, 64, 5), (1, 7, 6, 5, 1)])
@pytest.mark.parametrize("num_rows", [1, 2, 37])
def test_values_and_gradients_are_those_of_torchs_layers(activation, sizes, num_rows):
    net = net_of(sizes, activation)
    twin = torch_twin(net)
    x, y = inputs(num_rows, sizes[0]).requires_grad_(), inputs(num_rows, sizes[0]).requires_grad_()
    weight = inputs(num_rows, sizes[-1], seed=2)
    (net(x) * weight).sum().backward()
    (twin(y) * weight).sum().backward()
    torch.testing.assert_close(net(x), twin(y), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.flat.grad, flat_grad(twin), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shared", [True, False])
def test_copies_are_nets_of_their_own(activation, shared):
    net = net_of(activation=activation, copies=3)
    x = inputs(5, 3) if shared else inputs(3, 5, 3)
    x.requires_grad_()
    weight = inputs(3, 5, 2, seed=2)
    out = net(x)
    (out * weight).sum().backward()
    grads, of_x = [], torch.zeros_like(x)
    for number in range(3):
        twin = torch_twin(net, number)
        part = (x if shared else x[number]).detach().clone().requires_grad_()
        value = twin(part)
        torch.testing.assert_close(out[number], value, rtol=1e-5, atol=1e-6)
        (value * weight[number]).sum().backward()
        grads.append(flat_grad(twin))
        of_x += part.grad if shared else torch.eye(3)[number][:, None, None] * part.grad
    torch.testing.assert_close(net.flat.grad, torch.cat(grads), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, of_x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_float32_gradients_agree_with_differences_in_float64(activation):
    net = net_of(activation=activation, copies=2)
    x, weight = inputs(4, 3), inputs(2, 4, 2, seed=2)
    (net(x) * weight).sum().backward()
    wide = copy.deepcopy(net).double()
    found = torch.empty_like(net.flat)
    with torch.no_grad():
        for i in range(net.flat.numel()):
            ends = []
            for step in (1e-6, -1e-6):
                wide.flat[i] += step
                ends.append(float((wide(x.double()) * weight).sum()))
                wide.flat[i] -= step
            found[i] = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(net.flat.grad, found, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("copies", [1, 2])
def test_in_double_the_gradient_passes_gradcheck_twice(copies):
    net = net_of(copies=copies).double()
    x = inputs(3, 3).double().requires_grad_()
    names = {"flat": net.flat.detach().clone().requires_grad_()}

    def outputs(x, flat):
        return torch.func.functional_call(net, {"flat": flat}, (x,))

    torch.autograd.gradcheck(outputs, (x, names["flat"]))
    torch.autograd.gradgradcheck(outputs, (x, names["flat"]))


def test_two_calls_before_backward_do_not_disturb_each_other():
    net = net_of()
    x, y = inputs(6, 3), inputs(6, 3, seed=9)
    first, second = net(x), net(y)
    net.infer(y.numpy())
    (first.square().sum() + second.exp().sum()).backward()
    together = net.flat.grad.clone()
    net.flat.grad = None
    net(x).square().sum().backward()
    net(y).exp().sum().backward()
    torch.testing.assert_close(together, net.flat.grad, rtol=1e-6, atol=1e-6)


def test_what_changed_before_backward_is_noticed():
    net = net_of()
    x = inputs(4, 3)
    out = net(x)
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    out = net(x)
    with torch.no_grad():
        net.flat.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_frozen_weights_get_no_gradient_and_inputs_get_theirs():
    net = net_of(copies=2)
    x = inputs(4, 3).requires_grad_()
    net(x).sum().backward()
    free, x.grad, net.flat.grad = x.grad, None, None
    with frozen(net):
        out = net(x)
    out.sum().backward()
    assert net.flat.grad is None
    assert net.flat.requires_grad
    torch.testing.assert_close(x.grad, free)


def test_frozen_leaves_frozen_what_was_so():
    net = net_of()
    net.flat.requires_grad_(False)
    with frozen(net):
        pass
    assert not net.flat.requires_grad


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("copies", [1, 2])
def test_infer_is_forward(activation, copies):
    net = net_of(activation=activation, copies=copies)
    x = inputs(5, 3)
    with torch.no_grad():
        silent = net(x)
    assert not silent.requires_grad
    assert np.array_equal(net.infer(x.numpy()), silent.numpy())
    assert np.array_equal(net.infer(x.numpy()), net(x).detach().numpy())


def test_infer_sees_weights_as_they_are_now():
    net = net_of()
    x = inputs(5, 3).numpy()
    with torch.no_grad():
        net.flat.zero_()
    assert (net.infer(x) == 0).all()
    net.flat.data = torch.ones_like(net.flat)
    assert (net.infer(x) != 0).all()


def test_a_copied_net_has_views_of_its_own():
    net = net_of()
    x = inputs(5, 3).numpy()
    before = net.infer(x)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.flat.zero_()
    assert (other.infer(x) == 0).all()
    assert np.array_equal(net.infer(x), before)


def test_the_same_call_twice_is_the_same_bit_for_bit():
    grads = []
    for _ in range(2):
        net = net_of(copies=2)
        net(inputs(33, 3)).square().sum().backward()
        grads.append(net.flat.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_nan_is_kept(activation):
    net = net_of(activation=activation)
    x = inputs(3, 3)
    x[1, 0] = torch.nan
    out = net(x)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()
    out.sum().backward()
    assert net.flat.grad.isnan().any()


def test_strided_inputs_and_gradients_are_read_right():
    net = net_of()
    wide = inputs(10, 6)
    part = wide[::2, ::2]
    torch.testing.assert_close(net(part), net(part.contiguous()))
    net(part)[:, :1].sum().backward()
    twin = torch_twin(net)
    twin(part)[:, :1].sum().backward()
    torch.testing.assert_close(net.flat.grad, flat_grad(twin), rtol=1e-5, atol=1e-6)


def test_wrong_shapes_are_named():
    net = net_of()
    with pytest.raises(UserError, match=r"takes \[B, 3\], found shape \[5, 4\]"):
        net(inputs(5, 4))
    with pytest.raises(UserError, match=r"found shape \[3\]"):
        net(inputs(3))
    with pytest.raises(UserError, match=r"\[2, B, 3\], found shape \[4, 5, 3\]"):
        net_of(copies=2)(inputs(4, 5, 3))
    with pytest.raises(UserError, match="did you mean 'relu'"):
        net_of(activation="relo")


def test_orthogonal_weights_are_orthonormal_times_their_gain():
    for rows, columns in [(5, 3), (3, 5), (4, 4)]:
        q = orthogonal(rows, columns, np.random.default_rng(0))
        gram = q.T @ q if rows > columns else q @ q.T
        np.testing.assert_allclose(gram, np.eye(min(rows, columns)), atol=1e-12)
    net = MLP((4, 16, 2), rng=np.random.default_rng(0), gain_out=0.01)
    (first, bias), (last, _) = layers(net.flat.detach().numpy(), (4, 16, 2), 1)
    np.testing.assert_allclose(first.T @ first, 2 * np.eye(4), atol=1e-5)
    np.testing.assert_allclose(last @ last.T, 1e-4 * np.eye(2), atol=1e-8)
    assert (bias == 0).all()


def test_uniform_weights_lie_in_torchs_range_and_fill_it():
    net = MLP((100, 200, 3), rng=np.random.default_rng(0), init="uniform")
    (weight, bias), _ = layers(net.flat.detach().numpy(), (100, 200, 3), 1)
    assert 0.099 < np.abs(weight).max() <= 0.1
    assert np.abs(bias).max() <= 0.1
    assert abs(weight.std() - 0.2 / np.sqrt(12)) < 1e-3


def test_copies_begin_different_and_seeds_repeat():
    net = MLP((3, 4, 2), rng=np.random.default_rng(0), copies=2)
    again = MLP((3, 4, 2), rng=np.random.default_rng(0), copies=2)
    first, second = net.flat.detach().view(2, -1)
    assert not torch.equal(first, second)
    assert torch.equal(net.flat, again.flat)


def test_polyak_moves_a_share_of_the_way():
    target, source = net_of(seed=0), net_of(seed=3)
    before = target.flat.detach().clone()
    polyak_(target, source, 0.25)
    torch.testing.assert_close(target.flat.detach(), 0.75 * before + 0.25 * source.flat.detach())
    polyak_(target, source, 1.0)
    assert torch.equal(target.flat, source.flat)
    polyak_(target, net_of(seed=7), 0.0)
    assert torch.equal(target.flat, source.flat)


@pytest.mark.parametrize("copies", [1, 2])
def test_infer_in_another_dtype_is_the_same_in_float32(copies):
    net = net_of(copies=copies)
    x = inputs(5, 3).numpy()
    fast = net.infer(x)
    slow = net.double().infer(x)
    assert slow.dtype == np.float32
    np.testing.assert_allclose(slow, fast, rtol=1e-5, atol=1e-6)
    assert np.array_equal(net.float().infer(x), fast)
