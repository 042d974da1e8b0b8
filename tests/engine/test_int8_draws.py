"""Answers drawn by products of bytes, in the engine and in PPO."""

from __future__ import annotations

import pytest
import torch

from plaudit.engine.local import LocalActor, LocalCritic, LocalReference, SharedBackbone
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.models.formats.load import load_language_model
from plaudit.models.sampling.quantised import sums_exactly
from plaudit.ops import outcome_reward
from plaudit.records.errors import UserError
from plaudit.records.events import Step
from plaudit.records.sampling import Sampling
from tiny_models import tiny_llama

needs_bytes = pytest.mark.skipif(not sums_exactly(), reason="needs exact products of bytes (VNNI)")
TEXTS = ("What is a river?", "Write one sentence about a cart.", "hi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_llama(
        tmp_path_factory.mktemp("model") / "tiny", width=64, heads=2, kv_heads=1, layers=4
    )


def backbone_of(folder, top: int = 2, dtype: torch.dtype = torch.float32) -> SharedBackbone:
    lm = load_language_model(folder, dtype=dtype)
    with torch.no_grad():  # as they are made no layer adds anything, and no logit stands out
        for weight in (p for p in lm.model.parameters() if p.ndim == 2):
            weight.mul_(7)
    return SharedBackbone(lm, num_top_layers=top, sampler_precision="int8")


@needs_bytes
@pytest.mark.parametrize("top", [2, 4])
def test_before_an_update_the_ratio_is_1_although_bytes_drew(folder, top: int) -> None:
    backbone = backbone_of(folder, top)
    actor = LocalActor(backbone)
    prompts = [backbone.lm.codec.prompt(text) for text in TEXTS]

    def reward(batch):
        even = ((batch.token % 2 == 0) & batch.chosen).sum(1) / batch.chosen.sum(1)
        return outcome_reward(even, batch.chosen)

    config = PPOConfig(
        num_steps=2,
        prompts_per_step=3,
        answers_per_prompt=8,
        num_epochs=1,
        num_minibatches=1,
        importance_cap=2.0,
    )
    events = ppo(
        config,
        actor=actor,
        critic=LocalCritic(backbone),
        reference=LocalReference(backbone),
        reward=reward,
        prompts=prompts,
        sampling=Sampling(max_new_tokens=8),
        seed=0,
    )
    for step in (event for event in events if isinstance(event, Step)):
        assert step.metrics["val/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert step.metrics["sampler/ratio"] == pytest.approx(1.0, abs=0.02)
        assert 1e-4 < step.metrics["sampler/ratio_std"] < 0.1
        if step.step == 1:  # the reference is the policy still
            assert step.metrics["objective/kl"] == pytest.approx(0.0, abs=1e-5)


@needs_bytes
def test_kept_states_are_those_of_the_exact_trunk(folder) -> None:
    backbone = backbone_of(folder)
    actor = LocalActor(backbone)
    prompts = [backbone.lm.codec.prompt(text) for text in TEXTS]
    for seed in (0, 1):  # the second answers' states take the place of the first's
        batch = actor.generate(
            prompts, num_answers=3, sampling=Sampling(max_new_tokens=6), seed=seed
        )
        for layout in backbone.layouts(batch):
            kept = backbone.states.find(layout, batch)
            assert kept is not None
            exact = backbone.trunk(layout.token, layout)
            there = layout.own[layout.there]
            torch.testing.assert_close(kept.flatten(0, 1)[there], exact.flatten(0, 1)[there])


@needs_bytes
def test_a_model_that_bytes_change_much_is_refused_at_its_first_answers(folder) -> None:
    backbone = backbone_of(folder)
    with torch.no_grad():  # attention that jumps, and logits of hundreds
        for weight in (p for p in backbone.lm.model.model.layers.parameters() if p.ndim == 2):
            weight.mul_(30)
        backbone.lm.model.model.norm.weight.mul_(10)
    actor = LocalActor(backbone)
    prompts = [backbone.lm.codec.prompt(text) for text in TEXTS]
    with pytest.raises(UserError, match=r"products of bytes change .* nats a token: use sampler_p"):
        actor.generate(prompts, num_answers=2, sampling=Sampling(max_new_tokens=8), seed=0)


def test_weights_that_are_not_float32_are_refused(folder) -> None:
    with pytest.raises(
        UserError, match=r"precision is int8, .*this one is in float64: use float32"
    ):
        backbone_of(folder, dtype=torch.float64)
