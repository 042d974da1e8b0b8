"""Adapters: gradients by the chain rule, merged weights in the sampler, and peft's own loader."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from plaudit.engine.learner import AdamConfig
from plaudit.engine.local import LocalActor, LocalReference
from plaudit.engine.shared import SharedBackbone
from plaudit.engine.tops import LoRA
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.models.formats.save import save_language_model
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from simple_losses import weighted_step
from tiny_models import tiny_llama

LAYERS = 4
RANK = 3
SAMPLING = Sampling(max_new_tokens=6)
ADAM = AdamConfig(max_grad_norm=1e9)
PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=LAYERS)


@pytest.fixture
def lm(folder) -> LanguageModel:
    return load_language_model(folder, dtype=torch.float64)


def actor_of(lm: LanguageModel, top: int = 2) -> LocalActor:
    return LocalActor(SharedBackbone(lm, num_top_layers=top), adam=ADAM, lora=LoRA(RANK))


def drawn(actor: LocalActor):
    prompts = [actor.backbone.lm.codec.prompt(text) for text in PROMPTS]
    return actor.generate(prompts, num_answers=3, sampling=SAMPLING, seed=0)


def step(actor, batch, *, lr: float) -> None:
    weight = torch.linspace(-1, 1, batch.chosen.numel()).view(batch.chosen.shape)
    weighted_step(actor, batch, weight.to(batch.logp.dtype), lr=lr)


def logits(model, ids=tuple(range(3, 40))) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


@pytest.mark.parametrize("top", [1, 2, LAYERS])
def test_an_untrained_adapter_is_the_model(lm, top) -> None:
    plain = LocalActor(
        SharedBackbone(replace(lm, model=copy.deepcopy(lm.model)), num_top_layers=top)
    )
    actor = actor_of(lm, top)
    batch, other = drawn(actor), drawn(plain)
    assert torch.equal(batch.token, other.token)
    torch.testing.assert_close(actor.logprobs(batch), plain.logprobs(batch), rtol=0, atol=1e-12)


@pytest.mark.parametrize("top", [2, LAYERS])
def test_gradients_are_those_of_the_whole_weights_by_the_chain_rule(lm, top) -> None:
    """W' = W + s·B·A, so dB = s·dW'·Aᵀ and dA = s·Bᵀ·dW', with dW' of the merged model."""
    actor = actor_of(lm, top)
    batch = drawn(actor)
    step(actor, batch, lr=1e-2)  # B is zero before, and so would be dA
    merged = replace(lm, model=copy.deepcopy(lm.model))
    whole = LocalActor(SharedBackbone(merged, num_top_layers=top), adam=ADAM)
    step(whole, batch, lr=0.0)
    step(actor, batch, lr=0.0)
    layers = {n: m for n, m in actor.top.base.named_modules() if hasattr(m, "get_delta_weight")}
    assert len(layers) == 7 * top
    for name, layer in layers.items():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        full = whole.learner.parameters[f"base.{name}.weight"].grad
        torch.testing.assert_close(b.grad, 2.0 * full @ a.T, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(a.grad, 2.0 * b.T @ full, rtol=1e-4, atol=1e-9)


def test_adapters_learn_and_nothing_else_does(lm) -> None:
    actor = actor_of(lm)
    reference = LocalReference(actor.backbone)
    batch = drawn(actor)
    frozen = {n: p.clone() for n, p in actor.top.named_parameters() if not p.requires_grad}
    trunk = [p.clone() for p in actor.backbone.trunk.parameters()]
    before = reference.logprobs(batch)
    step(actor, batch, lr=1e-2)
    assert all("lora_" in name for name in actor.learner.parameters)
    for name, p in actor.top.named_parameters():
        assert (p.grad is not None) == ("lora_" in name)
        assert name not in frozen or torch.equal(p, frozen[name])
    assert all(
        torch.equal(a, b) for a, b in zip(trunk, actor.backbone.trunk.parameters(), strict=True)
    )
    assert torch.equal(reference.logprobs(batch), before)
    assert not torch.allclose(actor.logprobs(batch), before, atol=1e-4)


@pytest.mark.parametrize("top", [2, LAYERS])
def test_the_sampler_draws_from_the_merged_weights(lm, top) -> None:
    actor = actor_of(lm, top)
    for _ in range(3):
        batch = drawn(actor)
        torch.testing.assert_close(actor.logprobs(batch), batch.logp, rtol=0, atol=1e-9)
        step(actor, batch, lr=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restored_actor_goes_on_to_the_same_bits(folder, dtype) -> None:
    results = []
    for stop in (False, True):
        actor = actor_of(load_language_model(folder, dtype=dtype))
        batch = drawn(actor)
        step(actor, batch, lr=1e-2)
        if stop:
            arrays, facts = actor.state()
            arrays = {k: v.clone() for k, v in arrays.items()}
            actor = actor_of(load_language_model(folder, dtype=dtype))
            actor.restore((arrays, facts))
        batch = drawn(actor)
        step(actor, batch, lr=1e-2)
        results.append((actor.version, batch.token, *actor.backbone.lm.model.parameters()))
    assert results[0][0] == results[1][0] == 2
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        assert torch.equal(a, b)


# peft asks transformers by an older name; nothing of ours does.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("top", [2, LAYERS])
def test_peft_loads_the_adapter_to_the_merged_models_logits(folder, tmp_path, top) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    actor = actor_of(load_language_model(folder), top)
    start = logits(actor.backbone.lm.model)
    for _ in range(2):  # the second save replaces the first
        batch = drawn(actor)
        step(actor, batch, lr=1e-1)
        actor.save_adapter(tmp_path / "adapter")
    lm = actor.backbone.lm
    merged = AutoModelForCausalLM.from_pretrained(
        save_language_model(tmp_path / "model", lm.model, lm.codec)
    )
    assert not torch.allclose(logits(merged), start, atol=1e-2)
    assert torch.equal(logits(merged), logits(lm.model))
    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(adapted), logits(merged), rtol=1e-4, atol=1e-5)
    names = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    numbers = sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n)
    assert numbers == sum(p.numel() for p in actor.learner.parameters.values())


@pytest.mark.parametrize("rank", [-1, 0, 17])
def test_a_rank_that_no_map_can_have_is_refused(lm, rank) -> None:
    """The smallest map, of keys and values, is 16 × 32 here."""
    with pytest.raises(UserError, match=f"lora_rank is {rank}, but the model's maps allow ranks"):
        LocalActor(SharedBackbone(lm, num_top_layers=2), lora=LoRA(rank))


def test_a_head_that_no_adapter_learns_gets_no_gradient(tmp_path) -> None:
    """With every layer adapted and an output layer of its own, which stays as it was read."""
    folder = tiny_llama(tmp_path / "untied", layers=LAYERS, untied=True)
    lm = load_language_model(folder, dtype=torch.float64)
    actor = actor_of(lm, LAYERS)
    batch = drawn(actor)
    step(actor, batch, lr=1e-2)
    assert all(p.grad is None for p in lm.model.parameters())
