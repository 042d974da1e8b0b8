"""The recurrent core: resets are new sequences, steps in NumPy are torch's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.models.control_nets import arrays, load_arrays
from plaudit.models.recurrent import GRU, gru_from_facts
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
