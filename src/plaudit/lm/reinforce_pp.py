"""REINFORCE++: PPO's clipped steps with the whole batch as the baseline in the critic's place.

    r_t = − kl_coef (log π_old − log π_ref)_t  +  score on an answer's last token
    A_t = Σ_{s ≥ t} r_s, whitened over all tokens of the rollout
    L   = mean over tokens of −min(ρA, clip(ρ) A)

With `baseline` group an answer's score is first compared with its group's mean, which is what makes
several answers a prompt worth drawing; the KL is then in the loss (k2), as its authors have it.
Sources: Hu et al. 2025 (2501.03262), sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plaudit.lm.learning import Position, Surrogate, learn
from plaudit.lm.loop import samples
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows, numbers, rollout
from plaudit.lm.steps import corrected
from plaudit.ops import (
    centred_advantage,
    discounted_return,
    last_step,
    masked_whiten,
    outcome_reward,
)
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.losses import cut
from plaudit.records.roles import Actor, Judge, Reference
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved
from plaudit.records.types import Prompt, Trajectories
from plaudit.records.watch import Watch


class ReinforcePPConfig(RolloutKeys):
    """Settings of REINFORCE++."""

    answers_per_prompt: int = Field(
        4, ge=1, description="Answers to each prompt; without a group's baseline 1 will do."
    )
    baseline: Literal["none", "group"] = Field(
        "group", description="What a score is compared with before whitening: its group's mean."
    )
    clip: float = Field(0.2, gt=0, description="Range of a token's ratio.")
    kl_coef: float = Field(
        0.01,
        ge=0,
        description="β: what a nat of distance from the reference costs; 0: no reference.",
    )

    @model_validator(mode="after")
    def _compared(self) -> ReinforcePPConfig:
        if self.baseline == "group" and self.answers_per_prompt < 2:
            raise ValueError(
                "baseline group compares a prompt's answers: set answers_per_prompt to 2 or more, "
                "or baseline to none"
            )
        return self


def reinforce_pp(
    config: ReinforcePPConfig,
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
    parts = Parts(actor=actor, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    in_loss = config.kl_coef if config.baseline == "group" else 0.0
    loss = Surrogate("clip", SurrogateKeys(config.clip, config.clip), kl_coef=in_loss)
    while done.step < config.num_steps and not watch.reached:
        step, place = done.step, done.place
        drawn = rollout(
            config, actor, judge, prompts, place=place, step=step, sampling=sampling, seed=seed
        )
        batch, fields = drawn.batch, {}
        told = numbers(drawn, judge)
        if config.importance_cap is not None:
            logp = actor.logprobs(batch)
            batch, fields["importance"], apart = corrected(batch, logp, cap=config.importance_cap)
            told |= apart
        reward = outcome_reward(_compared(config, drawn), batch.chosen).to(batch.logp)
        logp_ref = None
        if config.kl_coef and reference is not None:
            logp_ref = reference.logprobs(batch)
            distance = (batch.logp - logp_ref) * batch.chosen
            told["objective/kl"] = float(distance.sum(1).mean())
            if in_loss:
                fields["logp_ref"] = logp_ref
            else:
                reward = reward - config.kl_coef * distance
        rows = learned_rows(config, drawn)
        some, own = batch.select(rows), cut(fields, rows)
        own["adv"] = advantages(reward[rows], some)

        lr = config.lr * (1.0 - step / config.num_steps)
        update = learn(
            config, actor, some, loss, own, counting="tokens", lr=lr, key=(seed, 3, step)
        )
        done.step, done.place = step + 1, place + drawn.taken
        yield Rollout(step + 1, samples(batch, logp_ref=logp_ref, score=drawn.score), {})
        yield Step(step + 1, config.num_steps, {**told, **update, "lr": lr})
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def _compared(config: ReinforcePPConfig, drawn: Drawn) -> Tensor:
    """Scores [B], less their group's mean where that is the baseline; 0 where nobody judged."""
    if config.baseline == "none":
        return torch.where(drawn.heard, drawn.score, 0.0)
    values, heard = drawn.groups.spread(drawn.score, drawn.heard)
    return drawn.groups.back(centred_advantage(values, heard))


def advantages(reward: Tensor, batch: Trajectories) -> Tensor:
    """A [B, T] of the rows that are learned from: what follows each token, whitened over all.

    Tokens that the policy did not choose, as a tool's output, pass the return on undiminished.
    """
    if not len(batch):
        return reward
    ends = last_step(batch.chosen)
    ahead = torch.zeros_like(reward)
    ret = discounted_return(reward, ahead, ends, ends, gamma=1.0, mask=batch.chosen)
    return masked_whiten(ret, batch.chosen)
