"""A model's linear maps by the faster library: plain modules, fresh weights, the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from plaudit.models.formats.load import load_language_model
from plaudit.models.linear import fast_linear
from plaudit.ops.products import onednn_is_faster
from tiny_models import tiny_llama


def test_other_functions_are_left_as_they_are() -> None:
    x = torch.randn(3, 4)
    wanted = x.softmax(-1), nn.functional.silu(x), x @ x.T
    with fast_linear():
        got = x.softmax(-1), nn.functional.silu(x), x @ x.T
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_step_of_the_optimiser_is_seen_at_once() -> None:
    """Weights are read where they are: in place, after a copy, and never from a packed copy."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    x = torch.randn(5, 8)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    twin = copy.deepcopy(layer)
    for _ in range(3):
        with fast_linear():
            out = layer(x)
        torch.testing.assert_close(out, x @ layer.weight.T + layer.bias)
        out.square().sum().backward()
        optimiser.step()
    with fast_linear():
        assert not torch.allclose(layer(x), twin(x))
    assert type(layer) is nn.Linear
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.skipif(not onednn_is_faster(), reason="torch's own product is used on this processor")
def test_the_block_alone_sends_products_to_the_other_library() -> None:
    layer, x = nn.Linear(8, 6), torch.randn(5, 8)
    with fast_linear():
        assert "_Linear" in type(layer(x).grad_fn.next_functions[0][0]).__name__
    assert "Addmm" in type(layer(x).grad_fn).__name__


def test_a_whole_model_keeps_its_logits_and_gradients(tmp_path) -> None:
    model = load_language_model(tiny_llama(tmp_path / "tiny")).model
    token = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(model).double()
    want = exact(token).logits
    want.log_softmax(-1)[..., 0].sum().backward()
    with fast_linear():
        logits = model(token).logits
    logits.log_softmax(-1)[..., 0].sum().backward()
    torch.testing.assert_close(logits.double(), want, rtol=1e-4, atol=1e-5)
    for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-3, atol=1e-4, msg=name)
