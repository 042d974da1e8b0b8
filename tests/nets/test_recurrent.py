"""The recurrent core: resets are new sequences, steps in NumPy are torch's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.nets.control_nets import arrays, load_arrays
from plaudit.nets.recurrent import GRU, gru_from_facts
from plaudit.records.errors import UserError


def core(num_in=3, num_hidden=5, seed=0):
    gru = GRU(num_in, num_hidden, rng=np.random.default_rng(seed))
    with torch.no_grad():
        for p in gru.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
    return gru


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_an_episode_after_a_reset_is_a_sequence_of_its_own(flags):
    gru, starts = core(), torch.tensor(flags).view(7, 2)
    x, state = inputs(7, 2, 3), inputs(2, 5, seed=2)
    out, last = gru(x, state, starts)
    for row in range(2):
        edges = sorted({0, *starts[:, row].nonzero()[:, 0].tolist(), 7})
        for begin, end in itertools.pairwise(edges):
            before = torch.zeros(1, 5) if starts[begin, row] else state[row : row + 1]
            alone, final = gru.cell(x[begin:end, row : row + 1], before[None])
            torch.testing.assert_close(out[begin:end, row], alone[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(last[row], final[0, 0], rtol=1e-5, atol=1e-6)


@given(st.lists(st.booleans(), min_size=10, max_size=10), st.integers(0, 1000))
def test_gradients_are_those_of_torchs_gru(flags, seed):
    """x, first state and all weights, through features and the last state, against double."""
    gru, starts = core(seed=seed % 7), torch.tensor(flags).view(5, 2)
    wide = core(seed=seed % 7).double()
    x, state = inputs(5, 2, 3, seed=seed), inputs(2, 5, seed=seed + 1)
    weight = inputs(5, 2, 5, seed=seed + 2)
    found = []
    for net, dtype in ((gru, torch.float32), (wide, torch.float64)):
        leaves = [a.to(dtype).clone().requires_grad_() for a in (x, state)]
        out, last = net(*leaves, starts)
        ((out * weight.to(dtype)).sum() + last.square().sum()).backward()
        found.append([out, last, *(p.grad.double() for p in (*leaves, *net.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=2e-5, atol=2e-6)


def test_two_sequences_before_backward_and_a_changed_weight():
    gru, starts = core(), torch.zeros(4, 2, dtype=torch.bool)
    state, grads = torch.zeros(2, 5), []
    first, second = (
        gru(inputs(4, 2, 3), state, starts)[0],
        gru(inputs(4, 2, 3, seed=7), state, starts)[0],
    )
    (first.sum() + second.sum()).backward()
    together = [p.grad.clone() for p in gru.parameters()]
    for seed in (1, 7):
        gru.zero_grad()
        gru(inputs(4, 2, 3, seed=seed), state, starts)[0].sum().backward()
        grads.append([p.grad.clone() for p in gru.parameters()])
    for a, b, c in zip(together, *grads, strict=True):
        torch.testing.assert_close(a, b + c, rtol=1e-5, atol=1e-5)
    out = gru(inputs(4, 2, 3), state, starts)[0]
    with torch.no_grad():
        gru.cell.weight_hh_l0.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_in_double_a_step_is_the_same():
    gru = core()
    x, state = inputs(3, 3).numpy(), inputs(3, 5, seed=3).numpy()
    starts = np.array([True, False, False])
    fast = gru.infer(x, state, starts)
    np.testing.assert_allclose(gru.double().infer(x, state, starts), fast, rtol=1e-5, atol=1e-6)


def test_no_gradient_crosses_a_reset():
    gru, x = core(), inputs(6, 2, 3).requires_grad_()
    starts = torch.zeros(6, 2, dtype=torch.bool)
    starts[3, 0] = True
    gru(x, torch.zeros(2, 5), starts)[0][5].sum().backward()
    assert (x.grad[:3, 0] == 0).all()
    assert (x.grad[:3, 1] != 0).all()
    assert (x.grad[3:] != 0).all()


def test_steps_in_numpy_are_the_sequence_in_torch():
    gru, x = core(), inputs(9, 4, 3)
    starts = torch.rand(9, 4, generator=torch.Generator().manual_seed(4)) < 0.3
    out, last = gru(x, torch.from_numpy(gru.first_state(4)), starts)
    state = gru.first_state(4)
    for t in range(9):
        state = gru.infer(x[t].numpy(), state, starts[t].numpy())
        np.testing.assert_allclose(state, out[t].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, last.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_carried_state_goes_on_where_the_sequence_was_cut():
    gru, x = core(), inputs(8, 2, 3)
    starts = torch.zeros(8, 2, dtype=torch.bool)
    starts[5, 1] = True
    whole, _ = gru(x, torch.zeros(2, 5), starts)
    first, state = gru(x[:4], torch.zeros(2, 5), starts[:4])
    second, _ = gru(x[4:], state.detach(), starts[4:])
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-5, atol=1e-6)


def test_nan_in_the_state_before_an_episode_is_not_read():
    gru = core()
    state = torch.full((2, 5), torch.nan)
    starts = torch.tensor([[True, False]])
    out, _ = gru(inputs(1, 2, 3), state, starts)
    assert out[0, 0].isfinite().all()
    assert out[0, 1].isnan().all()
    step = gru.infer(inputs(2, 3).numpy(), state.numpy(), starts[0].numpy())
    assert np.isfinite(step[0]).all()
    assert np.isnan(step[1]).all()


def test_facts_and_arrays_make_the_same_core():
    gru, x = core(), inputs(4, 2, 3)
    starts = torch.zeros(4, 2, dtype=torch.bool)
    again = gru_from_facts(gru.facts())
    load_arrays(again, arrays(gru))
    assert torch.equal(gru(x, torch.zeros(2, 5), starts)[0], again(x, torch.zeros(2, 5), starts)[0])


def test_wrong_shapes_are_named():
    with pytest.raises(UserError, match=r"takes x \[T, B, 3\]"):
        core()(inputs(4, 2, 2), torch.zeros(2, 5), torch.zeros(4, 2, dtype=torch.bool))
