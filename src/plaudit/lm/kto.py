"""Learning from answers that were each called good or bad: KTO, and BCO by the key `loss`.

    u = β Σ_t (log π − log π_ref)
    L = mean over answers of λ (1 − σ(±(u − z)))     + for good ones, − for bad ones

z says what an answer is worth that has nothing to do with its prompt: β times the mean log-ratio of
the batch's answers, each behind the prompt of another, at least 0 and held constant. It is of the
optimiser's whole batch, by a pass of its own before the update, so no cut into micro-batches
changes it. Which prompt an answer stands behind is settled once for all epochs, so that the
reference reads these rows once too and is not needed any more. BCO's δ is the mean of all rewards seen so far.
Sources: Ethayarajh et al. 2024 (2402.01306); Jung et al. 2024 (2404.04656).
KTO has no optimum of the form π_ref exp(r/β): answers that are called good less than half the time
go to 0, and the others share the rest as (how often they are in the data)·(2q − 1) for small β, q how
often they are called good; π_ref hardly matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.lm.loop import RunningMoments
from plaudit.ops import LABEL_LOSSES, aggregate, masked_sum
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.losses import Numbers, Part
from plaudit.records.roles import Actor
from plaudit.records.state import Parts, Saved, StepCounter
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch


class KTOConfig(Config):
    """Settings of learning from answers that were called good or bad."""

    loss: Literal["kto", "bco"] = Field("kto", description="What an answer costs.")
    num_epochs: int = Field(1, ge=1, description="Passes over the answers.")
    batch_size: int = Field(
        32, ge=2, description="Answers in one optimiser step; z is estimated from them."
    )
    lr: float = Field(
        2e-5, gt=0, description="First learning rate; falls linearly to 0. 5e-7 for billions."
    )
    beta: float = Field(0.1, gt=0, description="Weight of the log-ratio (2402.01306: 0.1).")
    good_weight: float = Field(1.0, gt=0, description="λ of good answers.")
    bad_weight: float = Field(
        1.0,
        gt=0,
        description="λ of bad answers; number times λ of good ones should be 1 to 1.33 of theirs.",
    )
    save_every: int = Field(20, ge=1, description="Steps between checkpoints.")


@dataclass(frozen=True)
class LabelLoss:
    """L of the answers; the batch's fields are `is_good` [B] and `ref` [B], Σ log π_ref.

    `level` is z or δ, of the optimiser's batch.
    """

    needs: ClassVar[tuple[str, ...]] = ("logp",)
    together: ClassVar[bool] = False

    loss: str
    beta: float
    level: float
    good_weight: float
    bad_weight: float

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, and sums: of the loss, and of the rewards of good and of bad answers."""
        good, ref = part["is_good"], part["ref"]
        log_ratio = masked_sum(part["logp"], part.chosen, dim=1)
        log_ratio = log_ratio - ref.to(log_ratio.dtype)
        each = LABEL_LOSSES[self.loss](
            log_ratio,
            good,
            beta=self.beta,
            level=self.level,
            good_weight=self.good_weight,
            bad_weight=self.bad_weight,
        )
        reward = self.beta * log_ratio.detach()
        right = ((reward - self.level > 0) == good).to(reward.dtype)
        numbers = {
            "loss": each.detach().sum(),
            "reward/good": masked_sum(reward, good),
            "reward/bad": masked_sum(reward, ~good),
            "agreed": right.sum(),
        }
        return aggregate(each, torch.ones_like(good), part.denominator), numbers


def kto(
    config: KTOConfig,
    *,
    actor: Actor,
    data: Trajectories,
    is_good: Tensor,
    logp_ref: Tensor,
    logp_ref_other: Tensor | None = None,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Teach `actor` which rows of `data` are good; `saved` is a checkpoint's state to continue from.

    `is_good` [B]; `logp_ref` [B, T] are the reference's log-probabilities of `data`, and
    `logp_ref_other` those of `mismatched(data)`: ValueError where the loss needs them and there are
    none.
    """
    ref = (logp_ref * data.chosen).sum(1)
    other, ref_other = behind_others(config, data, logp_ref_other)
    watch = Watch() if watch is None else watch
    per_epoch = math.ceil(len(data) / config.batch_size)
    total, done, centre = per_epoch * config.num_epochs, StepCounter(), RunningMoments()
    parts = Parts(actor=actor, loop=done, centre=centre, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < total and not watch.reached:
        epoch, place = divmod(done.step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(data))
        rows = order[place * config.batch_size :][: config.batch_size].tolist()
        batch, good, own = data.select(rows), is_good[rows], ref[rows]
        if config.loss == "kto":
            level = mismatched_level(config.beta, actor, other, ref_other, rows)
        else:
            logp = (actor.logprobs(batch) * batch.chosen).sum(1)
            centre.add((config.beta * (logp - own.to(logp))).tolist())
            level = centre.mean
        lr = config.lr * (1.0 - done.step / total)
        told = actor.update(
            batch,
            label_loss(config, level),
            fields={"is_good": good, "ref": own},
            denominator=len(rows),
            lr=lr,
        )
        done.step += 1
        yield Step(done.step, total, {**_means(told, good), "level": level, "lr": lr})
        yield from watch.look(done.step, last=done.step == total)
        due = done.step % config.save_every == 0 or done.step == total or watch.reached
        yield Checkpoint(done.step, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def label_loss(config: KTOConfig, level: float) -> LabelLoss:
    """The loss of one optimiser's batch, around its level."""
    return LabelLoss(config.loss, config.beta, level, config.good_weight, config.bad_weight)


def behind_others(
    config: KTOConfig, data: Trajectories, logp_ref_other: Tensor | None
) -> tuple[Trajectories | None, Tensor]:
    """`mismatched(data)` and Σ log π_ref of its rows, where the loss asks for them."""
    other = mismatched(data) if config.loss == "kto" else None
    if other is None:
        return None, torch.zeros(len(data))
    if logp_ref_other is None:
        raise ValueError(
            "z needs the reference's log-probabilities of answers behind other prompts"
        )
    return other, (logp_ref_other * other.chosen).sum(1)


def mismatched_level(
    beta: float,
    actor: Actor,
    other: Trajectories | None,
    ref: Tensor,
    rows: Sequence[int] | None = None,
) -> float:
    """z = max(0, β · mean (log π − log π_ref)) of `rows` (all) of the answers behind other prompts.

    `ref` [B] is Σ log π_ref of each of `other`. 0 where all answer one prompt: there is no other.
    """
    if other is None:
        return 0.0
    if rows is not None:
        other, ref = other.select(rows), ref[list(rows)]
    logp = (actor.logprobs(other) * other.chosen).sum(1)
    return max(0.0, beta * float((logp - ref.to(logp)).double().mean()))


def mismatched(batch: Trajectories) -> Trajectories | None:
    """The answers, each behind the prompt of the next row that has another; None without one."""
    group = batch.group.tolist()
    if len(set(group)) < 2:
        return None
    num = len(group)
    moved = [
        next(group[(row + k) % num] for k in range(1, num) if group[(row + k) % num] != group[row])
        for row in range(num)
    ]
    return replace(batch, group=batch.group.new_tensor(moved))


def _means(told: Mapping[str, float], good: Tensor) -> dict[str, float]:
    """What a step logs; rewards are means over the answers of their kind."""
    num, num_good = len(good), int(good.sum())
    counts = {"reward/good": num_good, "reward/bad": num - num_good}
    means = {n: told[n] / c for n, c in counts.items() if c}
    if len(means) == 2:
        means["margin"] = means["reward/good"] - means["reward/bad"]
    loss, accuracy = told["loss"] / num, told["agreed"] / num
    return {"loss": loss, "accuracy": accuracy, **means, "grad_norm": told["grad_norm"]}


def held_out_labels(
    config: KTOConfig,
    actor: Actor,
    data: Trajectories,
    is_good: Tensor,
    logp_ref: Tensor,
    logp_ref_other: Tensor | None = None,
) -> dict[str, float]:
    """Loss, rewards and accuracy of answers that are not learned from."""
    logp, ref = actor.logprobs(data), (logp_ref * data.chosen).sum(1)
    if config.loss == "kto":
        level = mismatched_level(config.beta, actor, *behind_others(config, data, logp_ref_other))
    else:
        level = float((config.beta * ((logp * data.chosen).sum(1) - ref)).mean())
    part = Part(
        chosen=data.chosen,
        logp_old=data.logp,
        denominator=float(len(data)),
        statistics={"logp": logp},
        fields={"is_good": is_good, "ref": ref},
    )
    _, numbers = label_loss(config, level)(part)
    told = {**{name: float(x) for name, x in numbers.items()}, "grad_norm": 0.0}
    means = {name: x for name, x in _means(told, is_good).items() if name != "grad_norm"}
    return {f"eval/{name}": value for name, value in means.items()}
