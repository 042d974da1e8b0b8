"""Looking up is the product with one-hot codes: outputs, gradients, whole updates."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from plaudit.nets.control_nets import network, network_from_facts
from plaudit.nets.mlp import MLP
from plaudit.nets.mlp_look_up import LookUpMLP
from plaudit.nets.one_hot import Features
from plaudit.nets.optim import FlatAdam
from plaudit.nets.recurrent_policies import recurrent_actor
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

ONE = ObsSpec((1,), "float32", (Piece("obs", "choice", (1,), (90,)),))
SEVERAL = ObsSpec((3,), "float32", (Piece("obs", "choice", (3,), (40, 1, 30)),))
MIXED = ObsSpec(
    (6,),
    "float32",
    (
        Piece("a", "vector", (2,)),
        Piece("b", "choice", (2,), (60, 7)),
        Piece("c", "vector", (1,)),
        Piece("d", "choice", (1,), (5,)),
    ),
)
MASKED = ObsSpec((6,), "float32", (*SEVERAL.pieces, Piece("action_mask", "mask", (3,))))
SPECS = {"one": ONE, "several": SEVERAL, "mixed": MIXED, "masked": MASKED}


def drawn(spec, rng, num_rows=40):
    """Rows, many of them alike in a choice; and the same spelled out by hand."""
    rows, codes = [], []
    for piece in spec.pieces:
        if piece.kind == "choice":
            for size in piece.sizes:
                number = rng.integers(0, min(size, 9), num_rows)
                rows.append(number[:, None])
                codes.append(np.eye(size)[number])
        elif piece.kind == "vector":
            rows.append(rng.standard_normal((num_rows, piece.size)))
            codes.append(rows[-1])
        else:
            rows.append(rng.integers(0, 2, (num_rows, piece.size)))
    return np.concatenate(rows, 1).astype(np.float32), np.concatenate(codes, 1).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_codes_are_spelled_as_by_hand(name):
    spec, rng = SPECS[name], np.random.default_rng(0)
    x, codes = drawn(spec, rng)
    features = Features(spec)
    assert features.num_features == spec.num_features
    assert np.array_equal(features.one_hot(x), codes)
    assert np.array_equal(features.one_hot_tensor(torch.from_numpy(x)).numpy(), codes)
    assert np.array_equal(features.one_hot(x.reshape(4, 10, -1)), codes.reshape(4, 10, -1))
    assert features.one_hot(codes) is codes


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 8)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", SPECS)
def test_looking_up_is_the_product_with_codes(name, activation, hidden, copies):
    spec, rng = SPECS[name], np.random.default_rng(0)
    x, codes = drawn(spec, rng)
    keys = {"activation": activation, "init": "uniform", "copies": copies}
    sizes = (*hidden, 3)
    one = LookUpMLP(Features(spec), sizes, rng=np.random.default_rng(1), **keys)
    other = MLP((spec.num_features, *sizes), rng=np.random.default_rng(1), **keys)
    assert torch.equal(one.flat, other.flat)
    out, trace = one.trace(x)
    expected, expected_trace = other.trace(codes)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(one.infer(x), out)
    grad = rng.standard_normal(out.shape).astype(np.float32)
    found, _ = one.backprop(trace, grad, weights=True, inputs=False)
    right, _ = other.backprop(expected_trace, grad, weights=True, inputs=False)
    np.testing.assert_allclose(found, right, atol=3e-5)
    np.testing.assert_allclose(one.forward(torch.from_numpy(x)).detach(), expected, atol=1e-6)
    one.forward(torch.from_numpy(x)).backward(torch.from_numpy(grad))
    np.testing.assert_allclose(one.flat.grad, right, atol=3e-5)
    wide = copy.deepcopy(one).double()
    in_torch = wide.forward(torch.from_numpy(x).double()).detach().numpy()
    np.testing.assert_allclose(in_torch, expected, atol=1e-5)


def test_one_choice_alone_is_exact():
    x = np.arange(90, dtype=np.float32)[:, None]
    net = network(ONE, 4, rng=np.random.default_rng(0))
    assert isinstance(net.mlp, LookUpMLP)
    assert np.array_equal(net.infer(x), net.infer(np.eye(90, dtype=np.float32)))


@pytest.mark.parametrize("again", [False, True])
def test_a_gradient_forgets_the_one_before(again):
    """The columns of an earlier batch are 0 again."""
    net = network(ONE, 4, rng=np.random.default_rng(0)).mlp
    for row in (3, 5):
        x = np.array([[row]], np.float32)
        out, trace = net.trace(x)
        flat, _ = net.backprop(trace, np.ones_like(out), weights=True, inputs=False, again=again)
    columns = flat[: 64 * 90].reshape(64, 90)
    assert np.flatnonzero(columns.any(0)).tolist() == [5]


@pytest.mark.parametrize("name", ["one", "mixed"])
def test_a_trained_net_is_that_of_codes(name):
    """Twenty steps of Adam on both; large and small weights agree to rounding."""
    spec = SPECS[name]
    nets = [network(spec, 2, hidden=(8,), rng=np.random.default_rng(2)) for _ in range(2)]
    optimisers = [FlatAdam(net.parameters(), lr=1e-2) for net in nets]
    rng = np.random.default_rng(3)
    for _ in range(20):
        x, codes = drawn(spec, rng)
        goal = rng.standard_normal((len(x), 2)).astype(np.float32)
        for net, optimiser, seen in zip(nets, optimisers, (x, codes), strict=True):
            out, back = net.traced(seen)
            optimiser.zero_grad()
            back((out - goal) / len(x))
            optimiser.step()
    np.testing.assert_allclose(*(net.mlp.flat.detach() for net in nets), atol=1e-5)


def test_facts_and_arrays_make_the_same_net():
    net = network(MASKED, 3, rng=np.random.default_rng(0), bars=True)
    other = network_from_facts(net.facts())
    other.load_state_dict(net.state_dict())
    x, _ = drawn(MASKED, np.random.default_rng(1))
    assert other.infer(x).tobytes() == net.infer(x).tobytes()


def test_a_number_out_of_its_range_is_never_looked_up():
    net = network(ONE, 4, rng=np.random.default_rng(0))
    for number in (-1, 90):
        with pytest.raises(AssertionError, match="out of its range"):
            net.infer(np.array([[number]], np.float32))


def test_a_recurrent_net_sees_codes():
    spec, rng = MIXED, np.random.default_rng(0)
    shape = {"num_hidden": 6, "hidden": (5,), "activation": "tanh"}
    actions = ActionSpec("discrete", (3,))
    x, codes = drawn(spec, rng, 12)
    policy = recurrent_actor(spec, actions, rng=np.random.default_rng(1), **shape)
    plain = recurrent_actor(
        ObsSpec.vector(spec.num_features), actions, rng=np.random.default_rng(1), **shape
    )
    plain.load_state_dict(policy.state_dict())
    memory, other = policy.net.memory(12), plain.net.memory(12)
    for _ in range(3):
        found = policy.net.infer(x, memory)
        assert np.array_equal(found, plain.net.infer(codes, other))
    hidden = torch.zeros(4, 6)
    by_time = [torch.from_numpy(a.reshape(3, 4, -1)) for a in (x, codes)]
    one, two = policy.net(by_time[0], hidden)[0], plain.net(by_time[1], hidden)[0]
    assert torch.equal(one, two)
