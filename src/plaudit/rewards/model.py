"""A reward model learned from comparisons: Bradley–Terry on the last chosen token.

    P(a over b) = σ(s_a − s_b),   s = w · h(last chosen token)
    L = mean over comparisons of −q log σ(s_a − s_b) − (1−q) log σ(s_b − s_a) + c (s_a + s_b)²

q is the share of votes for a, a tie counting half. All comparisons among the answers to one prompt
stay in one batch, and every answer is computed once however many comparisons it is in. Where the
model's shape allows it, learning starts from a linear probe on the mean token (`rewards/probe.py`,
`models/probe_start.py`); otherwise from a zero head.
Sources: Bradley & Terry 1952; Ouyang et al. 2022 (2203.02155), section 3.5, for the batching;
Eisenstein et al. 2023 (2312.09244) for the centring term c. The start is ours.
Left out: margins of graded preferences (`ops.bradley_terry` has them), as shares carry none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.ops import aggregate, bradley_terry_soft, reward_centring
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Step
from plaudit.records.losses import Numbers, Part
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Learning
from plaudit.records.state import Parts, Saved, StepCounter
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch
from plaudit.rewards.probe import fit_probe


class RewardModelConfig(Config):
    """Settings of learning a reward model."""

    num_epochs: int = Field(1, ge=1, description="Passes over the comparisons.")
    prompts_per_step: int = Field(
        2, ge=1, description="Prompts in one optimiser step, with all their comparisons."
    )
    lr: float = Field(2e-4, gt=0, description="First learning rate; falls linearly to 0.")
    centring_coef: float = Field(
        0.01, ge=0, description="Weight of (s_a + s_b)², which keeps scores near 0 (2312.09244)."
    )
    start_from_probe: bool = Field(
        True, description="Start from a linear probe on the mean token where the model allows it."
    )
    save_every: int = Field(20, ge=1, description="Steps between checkpoints.")


@dataclass(frozen=True)
class BradleyTerry:
    """L of the comparisons in the batch's field `pairs`."""

    needs: ClassVar[tuple[str, ...]] = ("score",)
    together: ClassVar[bool] = True

    centring_coef: float

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss; of the numbers, `loss` is its share without the centring term, and `agreed`
        and `decided` count comparisons."""
        scores, pairs = part["score"], part["pairs"]
        a, b = scores[list(pairs.a)], scores[list(pairs.b)]
        share = torch.tensor(pairs.share, dtype=scores.dtype, device=scores.device)
        each = bradley_terry_soft(a, b, share)
        decided = share != 0.5
        agreed = (((a - b) * (share - 0.5)) > 0)[decided]
        numbers = {
            "loss": each.detach().sum().double() / part.denominator,
            "agreed": agreed.double().sum(),
            "decided": decided.double().sum(),
        }
        each = each + self.centring_coef * reward_centring(a, b)
        every = torch.ones_like(share, dtype=torch.bool)
        return aggregate(each, every, part.denominator), numbers


class ScoreLearner(Learning, Protocol):
    """The role that this file teaches: scores whole answers and takes gradient steps."""

    def scores(self, batch: Trajectories) -> Tensor:
        """One score for each row, [B]."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the model in a form that loads anywhere."""
        ...

    def mean_tokens(self, batch: Trajectories) -> Tensor | None:
        """What a linear probe sees of each answer, [B, H]; None where no probe can be written."""
        ...

    def start_from_probe(self, weight: Tensor, batch: Trajectories) -> None:
        """Begin as the probe `weight` [H] on `mean_tokens(batch)`."""
        ...


def fit_reward_model(
    config: RewardModelConfig,
    *,
    model: ScoreLearner,
    batch: Trajectories,
    pairs: Pairs,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Teach `model` the comparisons; `saved` is a checkpoint's state to continue from."""
    watch = Watch() if watch is None else watch
    group = batch.group.tolist()
    with_pairs = sorted({group[row] for row in pairs.a})
    per_epoch = math.ceil(len(with_pairs) / config.prompts_per_step)
    total, done = per_epoch * config.num_epochs, StepCounter()
    parts = Parts(model=model, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        if config.start_from_probe:
            yield from _start(model, batch, pairs)
        yield from watch.look(0)
    while done.step < total and not watch.reached:
        step = done.step
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(with_pairs))
        dealt = order[place * config.prompts_per_step : (place + 1) * config.prompts_per_step]
        chosen = {with_pairs[i] for i in dealt}
        rows = [row for row, g in enumerate(group) if g in chosen]
        mine = pairs.among(rows)
        lr = config.lr * (1.0 - step / total)
        told = model.update(
            batch.select(rows),
            BradleyTerry(config.centring_coef),
            fields={"pairs": mine},
            denominator=len(mine),
            lr=lr,
        )
        metrics = {
            "loss": told["loss"],
            "accuracy": told["agreed"] / max(told["decided"], 1.0),
            "grad_norm": told["grad_norm"],
            "lr": lr,
        }
        done.step = step + 1
        yield Step(step + 1, total, metrics)
        yield from watch.look(step + 1, last=step + 1 == total)
        due = (step + 1) % config.save_every == 0 or step + 1 == total or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def _start(model: ScoreLearner, batch: Trajectories, pairs: Pairs) -> Iterator[Event]:
    """Write the probe, and say how good it is alone."""
    features = model.mean_tokens(batch)
    if features is None:
        return
    probe = fit_probe(features, pairs, batch.group.tolist())
    model.start_from_probe(probe.weight / probe.std, batch)
    yield Evaluation(0, {"probe/accuracy": probe.accuracy, "probe/ridge": probe.ridge})


def pair_metrics(scores: Tensor, pairs: Pairs) -> dict[str, float]:
    """Held-out loss, and the share of decided comparisons that the scores order as voted."""
    a, b = scores[list(pairs.a)], scores[list(pairs.b)]
    share = torch.tensor(pairs.share, dtype=scores.dtype)
    decided = share != 0.5
    agreed = ((a - b) * (share - 0.5) > 0)[decided].double()
    return {
        "eval/loss": float(bradley_terry_soft(a, b, share).double().mean()),
        "eval/accuracy": float(agreed.mean()) if len(agreed) else float("nan"),
    }
