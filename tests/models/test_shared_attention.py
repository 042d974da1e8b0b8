"""Attention in parts against attention under the whole mask, and against rows of one answer."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from layout_rows import batch_of
from plaudit.models import shared_attention as module
from plaudit.models.backbone import gather_places, top_of
from plaudit.models.layout import Layout, micro_layouts, pack
from plaudit.models.shared_attention import shared_attention

# prompts of three lengths; an answer of nothing, one longer than its prompt, one alone
ANSWERS = [(0, 4), (0, 7), (0, 1), (1, 6), (1, 0), (2, 2), (2, 9), (2, 3), (3, 5)]


def always(monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(module, "_LEAST_SAVED", -(2**62))
    return pack(batch_of([5, 9, 3, 1], ANSWERS), pad_id=0)


def states(layout: Layout) -> list[torch.Tensor]:
    """Queries, keys and values [R, H, L, D], as a model makes them."""
    torch.manual_seed(0)
    num_rows, num_places = layout.segment.shape
    made = [torch.randn(num_rows, num_places, 2, 4, dtype=torch.float64) for _ in range(3)]
    return [x.transpose(1, 2).requires_grad_() for x in made]


@pytest.mark.parametrize("window", [None, 1, 3, 6])
def test_parts_give_what_the_whole_mask_gives(monkeypatch, window) -> None:
    """Values and gradients of every real token, where windows reach over prompts and answers too."""
    layout = always(monkeypatch)
    mask = layout.attention(torch.float64, window=window)
    given = states(layout)
    real = (layout.segment >= 0)[:, None, :, None]
    weight = torch.randn(given[0].shape, dtype=torch.float64) * real
    found = []
    for block in (contextlib.nullcontext(), shared_attention(layout, [mask])):
        with block:
            out = F.scaled_dot_product_attention(*given, attn_mask=mask, scale=0.3)
        gradients = torch.autograd.grad((out * weight).sum(), given)
        found.append((out.detach() * real, *gradients))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_attention_under_another_mask_is_left_as_it_is(monkeypatch) -> None:
    layout = always(monkeypatch)
    mask, other = layout.attention(torch.float64), layout.attention(torch.float64, window=2)
    given = states(layout)
    wanted = F.scaled_dot_product_attention(*given, attn_mask=other)
    with shared_attention(layout, [mask]):
        assert torch.equal(F.scaled_dot_product_attention(*given, attn_mask=other), wanted)


def model(family: str):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 1000, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    if family == "mistral":
        made = MistralForCausalLM(MistralConfig(**shape, sliding_window=20))
    else:
        made = LlamaForCausalLM(LlamaConfig(**shape))
    return made.double().eval()


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_model_gives_the_answers_of_a_prompt_what_rows_of_their_own_give(family) -> None:
    """Hidden states and gradients of the weights, at lengths where the parts are in use."""
    batch = batch_of([40, 25], [(0, 110)] * 3 + [(0, 81)] + [(1, 105)] * 4)
    lm = model(family)
    top, found = top_of(lm, 0), []
    for one_each in (False, True):
        states = torch.zeros(len(batch), 110, 16, dtype=torch.float64)
        for layout in micro_layouts(batch, pad_id=0, max_tokens=1200, one_each=one_each):
            if not one_each:
                block = shared_attention(layout, [layout.attention(torch.float64)])
                assert not isinstance(block, contextlib.nullcontext)
            hidden = gather_places(top(layout.token, layout), layout.before)
            rows = torch.zeros_like(states).index_copy(
                0, torch.tensor(layout.rows), F.pad(hidden, (0, 0, 0, 110 - hidden.shape[1]))
            )
            states = states + rows * batch.chosen[:, :, None]
        weight = torch.sin(torch.arange(states.numel(), dtype=torch.float64)).view(states.shape)
        gradients = torch.autograd.grad((states * weight).sum(), list(lm.model.parameters()))
        found.append((states.detach(), *gradients))
    for packed, alone in zip(*found, strict=True):  # transformers' norms are float32 in any model
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
