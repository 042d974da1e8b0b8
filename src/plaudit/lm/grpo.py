"""GRPO and its kin: answers of one prompt are judged against each other, and no critic is needed.

    A_i = (r_i − mean of the group) / (std of the group)
    L   = Σ_i Σ_t w_it ℓ(ρ_it, A_i) / D   +  kl_coef · KL(π ‖ π_ref)   −  entropy_coef · entropy

ℓ is an entry of `ops/policy_losses.py` (key `loss`). `scale` says what divides r − mean, and
`denominator` what a token counts for: its share of its answer, D answers (GRPO); one, D the tokens
of the optimiser's whole batch (DAPO); one, D answers times the length limit (Dr.GRPO). The KL is
in an answer's score (k1), or in the loss as k2, whose gradient is that of KL(π ‖ π_ref).

| variant | loss | scale | denominator | source |
|---|---|---|---|---|
| grpo | clip | group | answer | Shao et al. 2024, 2402.03300 |
| dr_grpo | clip | none | constant | Liu et al. 2025, 2503.20783 |
| dapo (the default) | clip, clip_high 0.28, refills | group | tokens | Yu et al. 2025, 2503.14476 |
| gspo | gspo, 3e-4 and 4e-4 | group | answer | Zheng et al. 2025, 2507.18071 |
| cispo | cispo | group | tokens | MiniMax 2025, 2506.13585 |

With several rewards `combine` adds them up before they are standardised, or standardises each
(`apart`: GDPO, Liu et al. 2026, 2601.05242), so that one of small variance is not drowned.
Fixed points: with scale none and the KL in the loss the optimum is that of kl_coef·G/(G − 1), since
the mean includes the answer's own reward; dividing by the std has another optimum than
π_ref exp(r/β) altogether (docs/algorithms/grpo.md). Use `rloo` where that optimum is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plaudit.lm.learning import EntropyController, Position, Surrogate, learn
from plaudit.lm.loop import samples
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows, numbers, rollout
from plaudit.lm.steps import corrected
from plaudit.ops import (
    centred_advantage,
    group_advantage,
    masked_sample_variance,
    masked_variance,
    masked_whiten,
)
from plaudit.ops.policy_losses import OF_ANSWERS, SurrogateKeys
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.losses import cut
from plaudit.records.roles import Actor, Judge, Reference
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved
from plaudit.records.types import Prompt
from plaudit.records.watch import Watch


class GRPOConfig(RolloutKeys):
    """Settings of GRPO and its variants."""

    loss: Literal["clip", "gspo", "gmpo", "cispo", "sapo"] = Field(
        "clip", description="The surrogate: an entry of docs/algorithms/grpo.md."
    )
    scale: Literal["group", "batch", "none"] = Field(
        "group",
        description="What divides r − mean: std of the group's scores, of the batch's "
        "(2508.08221), or nothing.",
    )
    ddof: int = Field(1, ge=0, le=1, description="std divides by n − ddof.")
    eps: float = Field(1e-4, ge=0, description="Added to the std.")
    denominator: Literal["answer", "tokens", "constant"] = Field(
        "tokens",
        description="A token counts for its share of its answer, for one of all tokens of the "
        "optimiser's batch, or for one of answers times the length limit.",
    )
    combine: Literal["sum", "apart"] = Field(
        "sum", description="Several rewards: summed, then standardised; or each standardised."
    )
    clip: float = Field(0.2, gt=0, description="How far the ratio may fall below 1.")
    clip_high: float | None = Field(
        None, gt=0, description="How far it may rise above 1; none: as clip (DAPO: 0.28)."
    )
    ratio_cap: float = Field(
        5.0, gt=0, description="Most that cispo's ratio counts for (2510.13786)."
    )
    kl_coef: float = Field(
        0.0,
        ge=0,
        description="β: what a nat of distance from the reference costs; 0: no reference.",
    )
    kl_in: Literal["loss", "reward"] = Field(
        "loss",
        description="Where the KL stands: k2 of each token in the loss, k1 of a whole answer in its score.",
    )
    entropy_coef: float = Field(
        0.0,
        ge=0,
        description="Bonus for each nat of a token's entropy; the first where a target is set.",
    )
    entropy_target: float | None = Field(
        None,
        gt=0,
        description="Nats per token below which entropy_coef grows by 0.005 a step, and above which "
        "it falls to 0 (He et al. 2025, 2505.22312).",
    )

    @model_validator(mode="after")
    def _of_answers(self) -> GRPOConfig:
        if self.loss in OF_ANSWERS and self.denominator != "answer":
            raise ValueError(
                f"loss {self.loss} is of whole answers: set denominator to answer, "
                f"not {self.denominator}"
            )
        fined = self.truncated == "penalty" or self.overlong
        if self.combine == "apart" and (fined or (self.kl_coef and self.kl_in == "reward")):
            raise ValueError(
                "combine apart standardises each reward by itself, and has no place for fines for "
                "length or a KL in the reward: set combine to sum, or leave them out"
            )
        return self

    @property
    def coefficients(self) -> SurrogateKeys:
        """The surrogate's coefficients."""
        high = self.clip if self.clip_high is None else self.clip_high
        return SurrogateKeys(self.clip, high, self.ratio_cap)


def grpo(
    config: GRPOConfig,
    *,
    actor: Actor,
    judge: Judge,
    reference: Reference | None = None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Improve `actor` on `prompts` by what `judge` says; `saved` is a checkpoint's state to go on
    from. ValueError where kl_coef is above 0 and there is no reference.

    Yields, for each step, a `Rollout`, a `Step` and a `Checkpoint`; at the end `Done`.
    """
    if config.kl_coef and reference is None:
        raise ValueError("a KL needs a reference: give one, or set kl_coef to 0")
    watch, done = Watch() if watch is None else watch, Position()
    bonus = EntropyController(config.entropy_coef, config.entropy_target)
    parts = Parts(actor=actor, loop=done, bonus=bonus, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < config.num_steps and not watch.reached:
        step, place = done.step, done.place
        drawn = rollout(
            config, actor, judge, prompts, place=place, step=step, sampling=sampling, seed=seed
        )
        batch, importance = drawn.batch, None
        told = numbers(drawn, judge)
        if config.importance_cap is not None:
            logp = actor.logprobs(batch)
            batch, importance, apart = corrected(batch, logp, cap=config.importance_cap)
            told |= apart
        fields = {} if importance is None else {"importance": importance}
        score = drawn.score
        if config.kl_coef and reference is not None:
            fields["logp_ref"] = reference.logprobs(batch)
            distance = ((batch.logp - fields["logp_ref"]) * batch.chosen).sum(1)
            told["objective/kl"] = float(distance.mean())
            if config.kl_in == "reward":
                score = score - config.kl_coef * distance.to(score)
        adv = advantages(config, replace(drawn, score=score), judge.weights)
        fields["adv"] = adv.to(batch.logp)[:, None] * batch.chosen

        loss = Surrogate(
            config.loss,
            config.coefficients,
            kl_coef=config.kl_coef if config.kl_in == "loss" else 0.0,
            entropy_coef=bonus.coef,
        )
        rows = learned_rows(config, drawn)
        lr = config.lr * (1.0 - step / config.num_steps)
        update = learn(
            config,
            actor,
            batch.select(rows),
            loss,
            cut(fields, rows),
            counting=config.denominator,
            lr=lr,
            key=(seed, 3, step),
        )
        bonus.adapt(update.get("policy/entropy_avg"))
        done.step, done.place = step + 1, place + drawn.taken
        yield Rollout(
            step + 1, samples(batch, logp_ref=fields.get("logp_ref"), score=drawn.score), {}
        )
        yield Step(step + 1, config.num_steps, {**told, **update, "lr": lr})
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def advantages(config: GRPOConfig, drawn: Drawn, weights: Sequence[float]) -> Tensor:
    """A [B]: 0 for answers that nobody judged, and where a group's scores are all alike."""
    if config.combine == "sum":
        return _standardised(config, drawn, drawn.score, drawn.heard)
    total = torch.zeros_like(drawn.score)
    for weight, score in zip(weights, drawn.scores.values(), strict=True):
        spoke = ~score.isnan()
        total = total + weight * _standardised(config, drawn, score, spoke).to(total)
    return masked_whiten(total, drawn.heard) if bool(drawn.heard.any()) else total


def _standardised(config: GRPOConfig, drawn: Drawn, score: Tensor, heard: Tensor) -> Tensor:
    """(r − mean) of the group over what `scale` says."""
    groups = drawn.groups
    values, mask = groups.spread(score, heard)
    if config.scale == "group":
        each = group_advantage(values, mask, ddof=config.ddof, eps=config.eps)
        return groups.back(each)
    middle = groups.back(centred_advantage(values, mask))
    if config.scale == "none" or int(heard.sum()) <= config.ddof:
        return middle
    variance = masked_sample_variance if config.ddof else masked_variance
    # where: groups without a signal are 0 already, and all of them where the std is 0 too.
    scaled = middle / (variance(score, heard).sqrt() + config.eps)
    return torch.where(middle == 0.0, 0.0, scaled).to(middle.dtype)
