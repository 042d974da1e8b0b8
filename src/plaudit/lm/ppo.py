"""PPO with four roles: teach a language model by a score for whole answers, near a reference.

One step: draw answers, score them, penalise every token's distance from the reference, assign
credit with a critic, and take a few clipped gradient steps on the same answers.

    r_t  = −β (log π_old − log π_ref)_t + reward_t   (an answer's score is on its last token)
    A_t  = Σ (γλ)^k δ_{t+k}, whitened over all chosen tokens;   R_t = A_t + V_t
    L_π  = mean over chosen tokens of −min(ρA, clip(ρ, 1±ε) A),      ρ = π/π_old
    L_V  = mean over chosen tokens of ½ max((V−R)², (clip(V, V_old±ε_v)−R)²)

Sources: Schulman et al. 2017 (1707.06347); Ziegler et al. 2019 (1909.08593); Ouyang et al. 2022
(2203.02155); Huang et al. 2024, "The N+ implementation details" (2403.17031).

Departures: actor and critic have an optimiser each, so their losses need no relative weight; the
log-probabilities of the old policy are those the sampler drew with, not those of a second pass,
unless `importance_cap` says that the sampler's policy is another: then L_π weighs every token by
min(cap, π_old/π_drawn), with π_old of a pass of the trainer.
A row of NaN is one that the reward abstains from: it is left out.
Left out: an entropy bonus, and bootstrapping the value of answers cut by the length limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from plaudit.lm.loop import (
    KLController,
    RunningMoments,
    added,
    minibatches,
    prompt_batch,
    samples,
)
from plaudit.lm.steps import corrected, credit, token_steps
from plaudit.ops import (
    aggregate,
    clipped_surrogate,
    clipped_value_loss,
    explained_variance,
    kl_k2,
    masked_sum,
    masked_whiten,
    outcome_reward,
)
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.losses import Numbers, Part, cut
from plaudit.records.roles import Actor, Critic, Reference, Reward
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved, StepCounter
from plaudit.records.types import Prompt, Replier, Trajectories
from plaudit.records.watch import Watch


class PPOConfig(Config):
    """Settings of PPO on text. A token's reward and a score are in the reward model's units."""

    num_steps: int = Field(10, ge=1, description="Rollouts, each followed by updates.")
    prompts_per_step: int = Field(16, ge=1, description="Prompts drawn for a rollout.")
    answers_per_prompt: int = Field(
        4, ge=1, description="Answers to each prompt; they share the prompt's computation."
    )
    num_epochs: int = Field(
        1,
        ge=1,
        description="Passes over a rollout (Huang et al. 2024 use 4); a second costs as much again.",
    )
    num_minibatches: int = Field(
        4, ge=1, description="Optimiser steps in an epoch; prompts are not split across them."
    )
    lr: float = Field(2e-4, gt=0, description="The actor's first learning rate; falls to 0.")
    critic_lr: float = Field(
        1.5e-4, gt=0, description="The critic's first learning rate; falls to 0."
    )
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token (Ziegler et al. 2019).")
    lam: float = Field(0.95, ge=0, le=1, description="GAE's decay (Ziegler et al. 2019).")
    clip: float = Field(0.2, gt=0, description="Range of the ratio (Schulman et al. 2017).")
    value_clip: float = Field(
        0.2, gt=0, description="How far a value may move in one rollout (Huang et al. 2024)."
    )
    kl_coef: float = Field(
        0.1, ge=0, description="First β: the score one nat of distance from the reference costs."
    )
    kl_target: float | None = Field(
        6.5,
        gt=0,
        description="Nats per answer that β is steered to; none keeps β fixed (Ziegler et al.).",
    )
    kl_horizon: int = Field(
        300,
        ge=1,
        description="Answers over which β may change by a fifth (Ziegler et al.: 10,000).",
    )
    score_scaling: Literal["none", "running_std"] = Field(
        "none",
        description="Divide scores by their running standard deviation, or leave them.",
    )
    missing_eos_penalty: float = Field(
        0.5,
        ge=0,
        description="Taken from the scaled score of an answer that the length limit cut.",
    )
    truncated: Literal["train", "mask"] = Field(
        "train",
        description="Answers that the length limit cut: learned from as they are scored, or left "
        "out of both losses and their denominators.",
    )
    critic_steps: int = Field(
        0,
        ge=0,
        description="Of the steps, the first ones that teach the critic alone (2503.01491).",
    )
    policy_lam: float | None = Field(
        None,
        ge=0,
        le=1,
        description="GAE's decay of the policy's advantages where the critic's is another "
        "(VAPO, 2504.05118: lam 1, policy_lam 0.95); none: lam.",
    )
    max_policy_kl: float = Field(
        0.1,
        gt=0,
        description="Nats per token between old and new policy at which a rollout's updates stop.",
    )
    importance_cap: float | None = Field(
        None,
        ge=1,
        description="Most that a token counts for where the sampler is of lower precision (2: "
        "Ionides 2008); none: the sampler's log-probabilities are the trainer's.",
    )
    save_every: int = Field(5, ge=1, description="Steps between checkpoints.")


@dataclass(frozen=True)
class ClippedPolicy:
    """L_π of the chosen tokens, where the batch's field `adv` is their advantage, and `weight`, if
    it has one, what each of them counts for."""

    needs: ClassVar[tuple[str, ...]] = ("logp", "entropy")
    together: ClassVar[bool] = False

    clip: float

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, and sums over tokens: loss, KL to the old policy, clipping, entropy, ratio."""
        loss = clipped_surrogate(
            part["logp"], part.logp_old, part["adv"], clip_low=self.clip, clip_high=self.clip
        )
        if "weight" in part.fields:
            loss = loss * part["weight"]
        logp = part["logp"].detach()
        ratio = (logp - part.logp_old).exp()
        numbers = {
            "loss/policy_avg": loss,
            "policy/approxkl_avg": kl_k2(logp, part.logp_old),
            "policy/clipfrac_avg": ((ratio - 1).abs() > self.clip).float(),
            "policy/entropy_avg": part["entropy"],
            "val/ratio": ratio,
        }
        sums = {name: masked_sum(x.detach(), part.chosen) for name, x in numbers.items()}
        return aggregate(loss, part.chosen, part.denominator), sums


@dataclass(frozen=True)
class ClippedValue:
    """L_V of the chosen tokens; fields `ret` and `value_old` are their returns and old values."""

    needs: ClassVar[tuple[str, ...]] = ("value",)
    together: ClassVar[bool] = False

    clip: float

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, and its sum and that of clipping over tokens."""
        value, old = part["value"], part["value_old"]
        loss = clipped_value_loss(value, old, part["ret"], clip=self.clip)
        moved = ((value.detach() - old).abs() > self.clip).float()
        numbers = {"loss/value_avg": loss, "val/clipfrac_avg": moved}
        sums = {name: masked_sum(x.detach(), part.chosen) for name, x in numbers.items()}
        return aggregate(loss, part.chosen, part.denominator), sums


def ppo(
    config: PPOConfig,
    *,
    actor: Actor,
    critic: Critic,
    reference: Reference,
    reward: Reward,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    gold: Reward | None = None,
    replier: Replier | None = None,
    watch: Watch | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Improve `actor` on `prompts`; `saved` is a checkpoint's state to continue from.

    `sampling` says how answers are drawn, and so which distribution every log-probability, ratio
    and KL is of. `seed` decides prompts, draws and minibatches. `gold` is a second judge whose mean
    is logged and never trained on: where it falls while the reward rises, the reward is being
    exploited. With a `replier` every answer goes on as a conversation of several turns.

    Yields, for each step, a `Rollout`, a `Step` and a `Checkpoint`; at the end `Done`.
    """
    moments, done = RunningMoments(), StepCounter()
    beta = KLController(config.kl_coef, config.kl_target, config.kl_horizon)
    watch = Watch() if watch is None else watch
    parts = Parts(actor=actor, critic=critic, beta=beta, moments=moments, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < config.num_steps and not watch.reached:
        step = done.step
        asked = prompt_batch(len(prompts), step=step, size=config.prompts_per_step, seed=seed)
        batch = actor.generate(
            [prompts[i] for i in asked],
            num_answers=config.answers_per_prompt,
            sampling=sampling,
            seed=int(np.random.SeedSequence((seed, 2, step)).generate_state(1)[0]),
            replier=replier,
        )
        weight: dict[str, Tensor] = {}
        apart: dict[str, float] = {}
        if config.importance_cap is not None:
            logp = actor.logprobs(batch)
            batch, weight["weight"], apart = corrected(batch, logp, cap=config.importance_cap)
        given = reward(batch)
        rows = _learned_rows(config, batch, given)
        if len(rows) < len(batch):
            batch, given, weight = batch.select(rows), given[rows], cut(weight, rows)
        logp_ref = reference.logprobs(batch)
        value = critic.values(batch)

        score = given.sum(1)
        moments.add(score.tolist())
        scale = moments.std if config.score_scaling == "running_std" else 1.0
        penalty = config.missing_eos_penalty * batch.truncated.to(given.dtype)
        judged = given / scale - outcome_reward(penalty, batch.chosen)
        steps = token_steps(batch, value=value, reward=judged, logp_ref=logp_ref, kl_coef=beta.coef)
        adv, ret = credit(steps, gamma=config.gamma, lam=config.lam)
        if config.policy_lam is not None:
            adv, _ = credit(steps, gamma=config.gamma, lam=config.policy_lam)
        fields = {"adv": masked_whiten(adv, batch.chosen), "ret": ret, "value_old": value}
        fields |= weight

        share = 1.0 - step / config.num_steps
        taught = actor if step >= config.critic_steps else None
        update = _update(config, taught, critic, batch, fields, share=share, key=(seed, 3, step))
        distance = ((batch.logp - logp_ref) * batch.chosen).sum(1)
        kl = float(((batch.logp - logp_ref) * batch.chosen).sum() / len(batch))
        metrics = {
            **_rollout_metrics(batch, score, judged, kl, beta.coef),
            **update,
            **apart,
            **({} if gold is None else {"gold/mean": float(gold(batch).sum(1).mean())}),
            "val/explained_variance": explained_variance(
                value[batch.chosen].double(), ret[batch.chosen].double()
            ),
            "lr": config.lr * share,
        }
        beta.adapt(kl, num_answers=len(batch))
        done.step = step + 1
        yield Rollout(step + 1, samples(batch, logp_ref=logp_ref, score=score, kl=distance), {})
        yield Step(step + 1, config.num_steps, metrics)
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step, {"kl_coef": beta.coef})


def _update(
    config: PPOConfig,
    actor: Actor | None,
    critic: Critic,
    batch: Trajectories,
    fields: Mapping[str, Tensor],
    *,
    share: float,
    key: tuple[int, ...],
) -> dict[str, float]:
    """The gradient steps on one rollout, the critic's alone where no actor is given; sums over tokens
    become means in the metrics."""
    policy_loss, value_loss = ClippedPolicy(config.clip), ClippedValue(config.value_clip)
    sums: dict[str, float] = {}
    norms: dict[str, float] = {}
    num_tokens, num_updates = 0, 0
    for rows in _dealt(config, batch, key):
        part, own = batch.select(rows), cut(fields, rows)
        count = int(part.chosen.sum())
        norm, acted = {}, {}
        if actor is not None:
            acted = dict(
                actor.update(part, policy_loss, fields=own, denominator=count, lr=config.lr * share)
            )
            norm["grad_norm"] = acted.pop("grad_norm")
        judged = dict(
            critic.update(
                part, value_loss, fields=own, denominator=count, lr=config.critic_lr * share
            )
        )
        norm["grad_norm/critic"] = judged.pop("grad_norm")
        added(norms, norm)
        added(sums, {**acted, **judged})
        num_tokens += count
        num_updates += 1
        if acted.get("policy/approxkl_avg", 0.0) / count > config.max_policy_kl:
            break
    means = {name: x / num_tokens for name, x in sums.items()}
    means |= {name: x / num_updates for name, x in norms.items()}
    return {**means, "policy/num_updates": float(num_updates)}


def _learned_rows(config: PPOConfig, batch: Trajectories, given: Tensor) -> list[int]:
    """Rows that were judged (NaN: the reward abstains), and that were not cut where that matters."""
    kept = ~given.isnan().any(1)
    if config.truncated == "mask":
        kept &= ~batch.truncated.to(kept.device)
    if not bool(kept.any()):
        raise UserError(
            "no answer of a rollout can be learned from: the reward abstains from all of them, or "
            "the length limit cut them all and truncated is mask",
            new_run=True,
        )
    rows: list[int] = kept.nonzero()[:, 0].tolist()
    return rows


def _dealt(config: PPOConfig, batch: Trajectories, key: tuple[int, ...]) -> Iterator[list[int]]:
    """The rows of each minibatch of each epoch."""
    group = batch.group.tolist()
    for epoch in range(config.num_epochs):
        yield from minibatches(group, number=config.num_minibatches, key=(*key, epoch))


def _rollout_metrics(
    batch: Trajectories, score: Tensor, judged: Tensor, kl: float, kl_coef: float
) -> dict[str, float]:
    """What the rollout itself says, before any update."""
    return {
        "objective/scores": float(score.mean()),
        "objective/kl": kl,
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": float(judged.sum(1).mean()) - kl_coef * kl,
        "answer/length": float(batch.chosen.sum() / len(batch)),
        "answer/finished": float(batch.terminated.float().mean()),
        "kl_coef": kl_coef,
    }
