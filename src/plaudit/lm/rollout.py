"""What the critic-free algorithms share: a rollout with its scores, and answers beside each other.

    drawn = rollout(config, actor, judge, prompts, place=..., ...)
    drawn.score, drawn.heard          the weighted sum, and whether any judge spoke

Groups whose scores are all the same teach nothing. With `refills` they are left out and further
prompts are drawn, at most so many times; a step that is still short is trained smaller.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.lm.loop import prompts_at
from plaudit.ops import Groups, has_signal
from plaudit.ops.rewards import combined
from plaudit.records.config import Config
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Actor, Judge
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories, join


class RolloutKeys(Config):
    """How answers are drawn and scored, in every critic-free algorithm."""

    num_steps: int = Field(50, ge=1, description="Rollouts, each followed by updates.")
    prompts_per_step: int = Field(8, ge=1, description="Prompts whose answers a step learns from.")
    answers_per_prompt: int = Field(
        8, ge=2, description="Answers to each prompt, which are compared with one another."
    )
    num_epochs: int = Field(1, ge=1, description="Passes over a rollout.")
    num_minibatches: int = Field(
        1, ge=1, description="Optimiser steps in an epoch; prompts are not split across them."
    )
    lr: float = Field(
        1e-4, gt=0, description="First learning rate; falls linearly to 0. 1e-6 for billions."
    )
    truncated: Literal["train", "mask", "penalty"] = Field(
        "train",
        description="Answers that the length limit cut: learned from as they are scored, left out "
        "of the loss and its denominator, or with truncated_penalty taken from the score.",
    )
    truncated_penalty: float = Field(
        1.0, ge=0, description="Taken from the score of a cut answer where truncated is penalty."
    )
    overlong: int = Field(
        0,
        ge=0,
        description="Tokens before the length limit over which up to truncated_penalty is taken, "
        "rising linearly (Yu et al. 2025, 2503.14476: a fifth of the limit); 0: none.",
    )
    refills: int = Field(
        0,
        ge=0,
        description="Further draws at most, in place of prompts all of whose answers score alike.",
    )
    importance_cap: float | None = Field(
        None, ge=1, description="As in ppo: where the sampler is of lower precision."
    )
    save_every: int = Field(5, ge=1, description="Steps between checkpoints.")


@dataclass(frozen=True)
class Drawn:
    """Answers with what was said of them.

    `scores` are the judges' own, by name, NaN where one abstained; `score` [B] is their weighted
    sum less penalties, `heard` [B] whether anybody spoke. `taken` counts prompts that were drawn.
    """

    batch: Trajectories
    scores: Mapping[str, Tensor]
    score: Tensor
    heard: Tensor
    taken: int
    signal: float
    """Share of the drawn groups whose answers do not all score alike."""

    def select(self, rows: Sequence[int]) -> Drawn:
        """Some of the rows."""
        index = list(rows)
        return replace(
            self,
            batch=self.batch.select(index),
            scores={name: x[index] for name, x in self.scores.items()},
            score=self.score[index],
            heard=self.heard[index],
        )

    @property
    def groups(self) -> Groups:
        """Which answers stand beside each other."""
        return Groups.of(self.batch.group)

    def teaching(self) -> Tensor:
        """[B]: rows of groups whose answers do not all score alike."""
        groups = self.groups
        values, heard = groups.spread(self.score, self.heard)
        teaches = has_signal(values, heard)[:, None]
        return groups.back(teaches.expand(groups.shape))


def rollout(
    config: RolloutKeys,
    actor: Actor,
    judge: Judge,
    prompts: Sequence[Prompt],
    *,
    place: int,
    step: int,
    sampling: Sampling,
    seed: int,
) -> Drawn:
    """The answers of a step, `place` prompts after the beginning; see the file's first lines."""
    found: list[Drawn] = []
    wanted, taken, teaching, groups = config.prompts_per_step, 0, 0, 0
    for refill in range(config.refills + 1):
        missing = wanted - teaching
        asked = prompts_at(len(prompts), place=place + taken, size=missing, seed=seed)
        key = np.random.SeedSequence((seed, 2, step, refill) if refill else (seed, 2, step))
        batch = actor.generate(
            [prompts[i] for i in asked],
            num_answers=config.answers_per_prompt,
            sampling=sampling,
            seed=int(key.generate_state(1)[0]),
        )
        drawn = scored(config, batch, judge, taken=missing)
        rows = drawn.teaching()
        num_teaching = int(rows.sum()) // config.answers_per_prompt
        taken, groups, teaching = taken + missing, groups + missing, teaching + num_teaching
        if config.refills:
            drawn = drawn.select(rows.nonzero()[:, 0].tolist()) if num_teaching else drawn
        if num_teaching or not config.refills or (refill == config.refills and not found):
            found.append(drawn)
        if teaching >= wanted or not config.refills:
            break
    whole = _joined(found)
    return replace(whole, taken=taken, signal=teaching / groups)


def scored(config: RolloutKeys, batch: Trajectories, judge: Judge, *, taken: int) -> Drawn:
    """Answers with the judges' scores, and less what they are fined for their length."""
    scores = judge(batch)
    score, heard = combined(scores, judge.weights)
    score = score - penalty(config, batch).to(score)
    return Drawn(batch, scores, score, heard, taken, 0.0)


def penalty(config: RolloutKeys, batch: Trajectories) -> Tensor:
    """What is taken from each row's score [B], float64, for its length alone."""
    fine = torch.zeros(len(batch), dtype=torch.float64, device=batch.token.device)
    if config.truncated == "penalty":
        fine += config.truncated_penalty * batch.truncated
    if config.overlong:
        free = batch.sampling.max_new_tokens - config.overlong
        over = (batch.chosen.sum(1).double() - free) / config.overlong
        fine += config.truncated_penalty * over.clamp(0.0, 1.0)
    return fine


def learned_rows(config: RolloutKeys, drawn: Drawn) -> list[int]:
    """The rows that the loss sees: judged ones that wrote something, cut ones only where wanted.

    Advantages are computed before, over all that was judged. Rows that are left out are in no
    denominator.
    """
    kept = drawn.heard & drawn.batch.chosen.any(1)
    if config.truncated == "mask":
        kept &= ~drawn.batch.truncated
    rows: list[int] = kept.nonzero()[:, 0].tolist()
    return rows


def best_and_worst(drawn: Drawn) -> Pairs:
    """A pair of each group whose answers do not all score alike: the first of its best answers, and
    the first of its worst."""
    groups = drawn.groups
    values, heard = groups.spread(drawn.score, drawn.heard)
    teaches = drawn.teaching()
    best, worst = (torch.where(heard, x, -torch.inf).argmax(1).tolist() for x in (values, -values))
    width, row_at = groups.shape[1], {p: row for row, p in enumerate(groups.place.tolist())}
    a = [row_at[g * width + i] for g, i in enumerate(best)]
    b = [row_at[g * width + i] for g, i in enumerate(worst)]
    kept = [g for g in range(len(a)) if bool(teaches[a[g]])]
    return Pairs(tuple(a[g] for g in kept), tuple(b[g] for g in kept), (1.0,) * len(kept))


def numbers(drawn: Drawn, judge: Judge) -> dict[str, float]:
    """What a rollout itself says, before any update; a measure of weight 0 as NAME/mean."""
    batch = drawn.batch
    said = {
        "groups/with_signal": drawn.signal,
        "objective/scores": _mean(drawn.score, drawn.heard),
        "answer/length": float(batch.chosen.sum() / len(batch)),
        "answer/finished": float(batch.terminated.float().mean()),
        "answer/judged": float(drawn.heard.double().mean()),
        "prompts/drawn": float(drawn.taken),
    }
    for name, weight in zip(judge.names, judge.weights, strict=True):
        score = drawn.scores[name]
        if weight == 0.0:
            said[f"{name}/mean"] = _mean(score, ~score.isnan())
        elif len(judge.names) > 1:
            said[f"reward/{name}"] = _mean(score, ~score.isnan())
    failures: dict[str, int] = getattr(
        judge, "taken_failures", dict
    )()  # a judge of functions counts them
    said |= {f"reward/{name}/failed": float(n) for name, n in failures.items() if n}
    return said


def _mean(x: Tensor, mask: Tensor) -> float:
    """Mean of what counts; NaN where nothing does."""
    return float(x[mask].double().mean())


def _joined(parts: Sequence[Drawn]) -> Drawn:
    """All rows; a prompt that was drawn again is a group of its own, as it is in one draw."""
    if len(parts) == 1:
        return parts[0]
    batches = [part.batch for part in parts]
    first = [0, *itertools.accumulate(len(batch.prompts) for batch in batches)]
    group = torch.cat([b.group + n for b, n in zip(batches, first, strict=False)])
    prompts = tuple(prompt for batch in batches for prompt in batch.prompts)
    return replace(
        parts[0],
        batch=replace(join(batches), prompts=prompts, group=group),
        scores={n: torch.cat([part.scores[n] for part in parts]) for n in parts[0].scores},
        score=torch.cat([part.score for part in parts]),
        heard=torch.cat([part.heard for part in parts]),
    )
