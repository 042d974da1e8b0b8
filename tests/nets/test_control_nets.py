"""Nets for observations: pieces go where they belong, copies are apart, facts rebuild them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from plaudit.nets.control_nets import arrays, load_arrays, network, network_from_facts
from plaudit.nets.mlp import frozen
from plaudit.records.errors import UserError
from plaudit.records.spaces import ObsSpec, Piece

VECTOR = ObsSpec.vector(5)
SMALL = ObsSpec((3, 10, 12), "uint8", (Piece("obs", "image", (3, 10, 12)),))
LARGE = ObsSpec((4, 84, 84), "uint8", (Piece("obs", "image", (4, 84, 84)),))
MIXED = ObsSpec(
    (2 + 75 + 3 + 16,),
    "float32",
    (
        Piece("speed", "vector", (2,)),
        Piece("front", "image", (3, 5, 5)),
        Piece("goal", "vector", (3,)),
        Piece("rear", "image", (1, 4, 4)),
    ),
)
ALL = {"vector": VECTOR, "small": SMALL, "large": LARGE, "mixed": MIXED}


def net_of(spec, **options):
    options = {"hidden": (8,), "init": "uniform", "rng": np.random.default_rng(3), **options}
    return network(spec, 3, **options)


def observations(spec, num_rows=2, seed=0):
    rng = np.random.default_rng(seed)
    if spec.dtype == "uint8":
        return rng.integers(0, 256, (num_rows, *spec.shape), dtype=np.uint8)
    return rng.standard_normal((num_rows, *spec.shape), dtype=np.float32)


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
@pytest.mark.parametrize("copies", [1, 2])
def test_facts_and_arrays_make_the_same_net(spec, copies):
    net, obs = net_of(spec, copies=copies), observations(spec)
    again = network_from_facts(json.loads(json.dumps(net.facts())))
    assert not np.allclose(again.infer(obs), net.infer(obs))
    load_arrays(again, arrays(net))
    out = net.infer(obs)
    assert np.array_equal(again.infer(obs), out)
    assert out.shape == ((2, 3) if copies == 1 else (2, 2, 3))
    np.testing.assert_allclose(net(torch.from_numpy(obs)).detach().numpy(), out, rtol=1e-5)


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
def test_seeds_repeat_and_differ(spec):
    obs = observations(spec)
    first, again = net_of(spec), net_of(spec)
    other = net_of(spec, rng=np.random.default_rng(1))
    assert np.array_equal(first.infer(obs), again.infer(obs))
    assert not np.allclose(first.infer(obs), other.infer(obs))


def test_an_image_is_scaled_to_one_and_seen_by_the_nature_net():
    """By torch's own functional layers, as the paper lists them: 8×8/4, 4×4/2, 3×3/1, 512."""
    net, obs = net_of(LARGE, hidden=()), observations(LARGE)
    f, weights = torch.nn.functional, list(net.eyes[0].parameters())
    x = torch.from_numpy(obs).double() / 255
    for stride, (weight, bias) in zip(
        (4, 2, 1), zip(*[iter(weights[:6])] * 2, strict=True), strict=True
    ):
        x = f.relu(f.conv2d(x, weight.double(), bias.double(), stride=stride))
    assert x.shape == (2, 64, 7, 7)
    x = f.relu(f.linear(x.flatten(1), weights[6].double(), weights[7].double()))
    flat = net.mlp.flat.detach().double()
    expected = f.linear(x, flat[: 3 * 512].view(3, 512), flat[3 * 512 :])
    np.testing.assert_allclose(net.infer(obs), expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_each_piece_of_a_mixture_reaches_its_own_part():
    """Changing one piece changes the features of that piece and no other."""
    net, obs = net_of(MIXED), torch.from_numpy(observations(MIXED, 1)).abs() * 100
    spans = {"speed": (0, 2), "front": (2, 77), "goal": (77, 80), "rear": (80, 96)}
    places = {"speed": (0, 2), "front": (2, 514), "goal": (514, 517), "rear": (517, 1029)}
    before = net._features(obs, 0)
    assert before.shape == (1, 1029)
    for name, (begin, end) in spans.items():
        changed = obs.clone()
        changed[:, begin:end] += 50.0
        moved = (net._features(changed, 0) != before)[0].nonzero()[:, 0]
        low, high = places[name]
        assert len(moved) > 0
        assert low <= moved.min()
        assert moved.max() < high


def test_a_mixtures_image_is_read_in_the_order_of_its_shape():
    net, obs = net_of(MIXED), torch.from_numpy(observations(MIXED, 1)).abs() * 100
    image = obs[:, 2:77].reshape(1, 3, 5, 5)
    assert torch.equal(net._features(obs, 0)[:, 2:514], net.eyes[0](image))


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
def test_extra_inputs_carry_a_gradient_and_come_last(spec):
    net = net_of(spec, copies=2, extra_inputs=2, activation="relu")
    obs = torch.from_numpy(observations(spec)).flatten(1).float()
    action = torch.tensor([[0.1, -0.5], [0.3, 0.7]]).requires_grad_()
    with frozen(net):
        out = net(torch.cat([obs, action], 1))
    out.sum().backward()
    assert out.shape == (2, 2, 3)
    assert (action.grad != 0).all()
    assert all(p.grad is None for p in net.parameters())
    assert not torch.equal(net(torch.cat([obs, action.detach() + 1], 1)), out.detach())


def test_copies_of_an_image_net_share_nothing():
    net, obs = net_of(SMALL, copies=2), torch.from_numpy(observations(SMALL))
    net(obs)[0].sum().backward()
    size = net.mlp.flat.numel() // 2
    assert (net.mlp.flat.grad[:size] != 0).any()
    assert (net.mlp.flat.grad[size:] == 0).all()
    assert any((p.grad != 0).any() for p in net.eyes[0].parameters())
    assert all(p.grad is None or (p.grad == 0).all() for p in net.eyes[1].parameters())


@pytest.mark.parametrize("side", [1, 2, 7, 35, 36, 40])
def test_any_image_size_is_seen(side):
    spec = ObsSpec((1, side, side), "uint8", (Piece("obs", "image", (1, side, side)),))
    assert net_of(spec).infer(observations(spec)).shape == (2, 3)


def test_wrong_observations_and_weights_are_named():
    net = net_of(VECTOR)
    with pytest.raises(UserError, match=r"takes \[B, 5\], found shape \[2, 6\]"):
        net(torch.zeros(2, 6))
    with pytest.raises(UserError, match="takes 96 numbers an observation, found 95"):
        net_of(MIXED)(torch.zeros(2, 95))
    found = arrays(net)
    with pytest.raises(UserError, match=r"the saved weights are \[\], expected \['mlp.flat'\]"):
        load_arrays(net, {})
    with pytest.raises(UserError, match=r"mlp\.flat has shape \(3,\), expected \(75,\)"):
        load_arrays(net, {"mlp.flat": np.zeros(3, np.float32)})
    found["mlp.flat"][:] = 0
    assert (arrays(net)["mlp.flat"] != 0).any()
