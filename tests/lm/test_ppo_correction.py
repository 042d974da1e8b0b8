"""PPO on answers that another policy than the trainer's drew."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from plaudit.lm.ppo import ClippedPolicy, PPOConfig, ppo
from plaudit.lm.steps import corrected
from plaudit.records.events import Step
from plaudit.records.losses import Part
from tabular_roles import (
    ONE_TOKEN,
    TableActor,
    TableCritic,
    TableReference,
    TableReward,
    prompts_of,
)


class RoundedActor(TableActor):
    """Draws from logits that are off by up to `error`, and tells what it drew with."""

    def __init__(self, logits: torch.Tensor, error: float) -> None:
        super().__init__(logits)
        generator = torch.Generator().manual_seed(7)
        self.error = error * (2 * torch.rand(logits.shape, generator=generator) - 1)

    def generate(self, prompts, **how):
        exact, self.logits = self.logits, self.logits.detach() + self.error
        batch = super().generate(prompts, **how)
        self.logits = exact
        return batch


def table(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ref, reward = (torch.randn(3, 6, generator=generator).double() for _ in range(2))
    return ref, reward


def run(actor: TableActor, **options) -> list[Step]:
    ref, reward = table()
    given = {"prompts_per_step": 3, "answers_per_prompt": 512, "num_minibatches": 1}
    given |= {"num_epochs": 1, "lr": 0.05, "critic_lr": 0.2, "kl_coef": 0.7, "kl_target": None}
    config = PPOConfig(**{**given, "value_clip": 10.0, "max_policy_kl": 1.0, **options})
    events = ppo(
        config,
        actor=actor,
        critic=TableCritic(3),
        reference=TableReference(ref),
        reward=TableReward(reward),
        prompts=prompts_of(3),
        sampling=ONE_TOKEN,
        seed=0,
    )
    return [event for event in events if isinstance(event, Step)]


def test_of_an_exact_sampler_the_correction_changes_no_bit() -> None:
    ref = table()[0]
    actors = [TableActor(ref), TableActor(ref)]
    how = {"num_steps": 3, "num_epochs": 2, "num_minibatches": 3}
    plain = run(actors[0], **how)
    weighed = run(actors[1], **how, importance_cap=2.0)
    assert torch.equal(actors[0].logits, actors[1].logits)
    for a, b in zip(plain, weighed, strict=True):
        assert b.metrics == {**a.metrics, "sampler/ratio": 1.0, "sampler/ratio_std": 0.0}


def test_before_an_update_the_ratio_is_1_and_how_far_the_sampler_is_off_is_told() -> None:
    actor = RoundedActor(table()[0], 0.3)
    metrics = run(actor, num_steps=1, importance_cap=2.0)[0].metrics
    assert metrics["val/ratio"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-12)
    p, q = table()[0].softmax(-1), (table()[0] + actor.error).softmax(-1)
    spread = math.sqrt(float((p * p / q).sum(-1).mean() - 1))
    assert metrics["sampler/ratio"] == pytest.approx(1.0, abs=4 * spread / math.sqrt(1536))
    assert metrics["sampler/ratio_std"] == pytest.approx(spread, rel=0.1)
    # Without it the first ratio is the sampler's error.
    plain = run(RoundedActor(table()[0], 0.3), num_steps=1)[0].metrics
    assert plain["policy/approxkl_avg"] > 1e-3


def test_the_gradient_over_what_another_policy_drew_is_the_policy_gradient() -> None:
    """Enumerated: Σ q w ∇(−ρA) = −Σ p A ∇log p at ρ = 1, which Σ q ∇(−ρA) is not."""
    ref, reward = table()
    logits, drawn = ref.clone().requires_grad_(True), ref + RoundedActor(ref, 0.3).error
    token = torch.arange(6).expand(3, 6)
    mask = torch.ones(3, 6, dtype=torch.bool)
    share = drawn.softmax(-1)
    batch = TableActor(drawn).generate(
        prompts_of(3), num_answers=1, sampling=ONE_TOKEN, seed=0
    )  # whose fields are then those of all tokens at once
    batch = replace(batch, token=token, chosen=mask, there=mask, logp=drawn.log_softmax(-1))
    batch, weight, _ = corrected(batch, ref.log_softmax(-1), cap=10.0)
    logp = logits.log_softmax(-1)
    # A token's share of the draws as its advantage's factor: the mean over draws, enumerated.
    fields = {"adv": reward * share, "weight": weight}
    part = Part(mask, batch.logp, 1.0, {"logp": logp, "entropy": logp.detach()}, fields)
    loss, _ = ClippedPolicy(0.2)(part)
    found = torch.autograd.grad(loss, logits)[0]
    exact = torch.autograd.grad(-(logits.softmax(-1) * reward).sum(), logits)[0]
    torch.testing.assert_close(found, exact)


def test_a_rounded_sampler_reaches_the_optimum_of_the_kl_regularised_bandit() -> None:
    """π* ∝ π_ref·exp(r/β), as with an exact sampler."""
    ref, reward = table()
    actor = RoundedActor(ref, 0.3)
    run(actor, num_steps=60, num_epochs=4, lr=0.1, importance_cap=2.0, save_every=1000)
    optimum = (ref.log_softmax(-1) + reward / 0.7).softmax(-1)
    total_variation = 0.5 * (actor.logits.detach().softmax(-1) - optimum).abs().sum(-1)
    assert float(total_variation.max()) < 0.03
