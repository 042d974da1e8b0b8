"""Log-probabilities from whatever a model does after its decoder: linear, scaled, capped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPTJConfig,
    GraniteConfig,
    LlamaConfig,
)

from plaudit.models.heads import LMHead
from plaudit.records.sampling import Sampling

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS: dict[str, tuple[Any, bool]] = {
    "linear": (LlamaConfig(**SIZES), True),
    "bias": (GPTJConfig(vocab_size=300, n_embd=32, n_layer=2, n_head=4, rotary_dim=4), True),
    "scale": (CohereConfig(**SIZES, logit_scale=0.25), False),
    "divisor": (GraniteConfig(**SIZES, logits_scaling=3.0), False),
    "cap": (Gemma2Config(**SIZES, final_logit_softcapping=4.0), False),
    "a cap of the size in use": (Gemma2Config(**SIZES, final_logit_softcapping=30.0), False),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 7},
        {"top_p": 0.8},
        {"temperature": 1.3, "min_p": 0.1},
    ],
)
def test_numbers_and_gradients_are_those_of_the_models_own_logits(name, how) -> None:
    config, is_linear = HEADS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
    if name == "bias":
        torch.nn.init.normal_(model.lm_head.bias)
    head = LMHead(model)
    assert head.is_linear is is_linear
    ids = torch.randint(3, 300, (1, 40))
    hidden = model.base_model(ids).last_hidden_state[0].detach().requires_grad_(True)
    token = torch.randint(0, 300, (40,))
    weight = torch.randn(40, dtype=torch.float64)
    logp, entropy = head.token_stats(hidden, token, Sampling(max_new_tokens=1, **how))
    (logp * weight).sum().backward()
    grads = [hidden.grad.clone(), model.get_output_embeddings().weight.grad.clone()]

    hidden.grad = None
    model.zero_grad()
    tail = model(ids).logits[0]  # the whole model, for what the logits must be
    torch.testing.assert_close(head.logits(hidden), tail, rtol=1e-9, atol=1e-9)
    z = head.logits(hidden) / how.get("temperature", 1.0)
    kept = kept_tokens(z.detach(), **how) | torch.nn.functional.one_hot(token, 300).bool()
    plain = z.masked_fill(~kept, -torch.inf).log_softmax(-1)
    wanted = plain.gather(1, token[:, None])[:, 0]
    (wanted * weight).sum().backward()
    torch.testing.assert_close(logp, wanted, rtol=1e-9, atol=1e-9)
    p = plain.detach().exp()
    torch.testing.assert_close(entropy.detach(), -(p * p.clamp(min=1e-300).log()).sum(-1))
    torch.testing.assert_close(grads[0], hidden.grad, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(
        grads[1], model.get_output_embeddings().weight.grad, rtol=1e-8, atol=1e-10
    )


def kept_tokens(
    z: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
):
    """By sorting every row: written apart from `ops.filtering`."""
    del temperature
    p = z.softmax(-1)
    keep = p >= min_p * p.max(-1, keepdim=True).values
    for row, values in enumerate(z):
        order = values.argsort(descending=True)
        if top_k:
            keep[row, order[top_k:]] = False
        if top_p < 1:
            mass = values[order].softmax(-1).cumsum(-1)
            num = int((mass < top_p).sum()) + 1
            keep[row, order[num:]] = False
    return keep
