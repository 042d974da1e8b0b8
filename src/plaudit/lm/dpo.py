"""Direct preference optimisation: learn from pairs of answers, with no reward model and no draws.

    u = β (log π − log π_ref) summed over an answer's tokens,   h = u_chosen − u_rejected
    L = mean over pairs of ℓ(h)  +  nll_coef · mean over chosen tokens of −log π

ℓ is an entry of `ops/pair_losses.py`: DPO's −log σ(h), and its kin by the key `loss`. A pair that q
of the votes decided counts q ℓ(a over b) + (1 − q) ℓ(b over a), so a tie pulls both ways. The
reference's log-probabilities are computed once, before the loop, and given to it; SimPO, ORPO and
CPO have none. Chosen and rejected answers share their prompt's computation.
Sources: Rafailov et al. 2023 (2305.18290); of each loss, beside it.
Departures: δ of BCO is the mean of all rewards seen so far, of the batch before its update too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from plaudit.lm.loop import RunningMoments
from plaudit.lm.pairs import pair_loss, pair_means, pair_numbers
from plaudit.ops.pair_losses import PAIR_LOSSES, PairKeys
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Actor
from plaudit.records.state import Parts, Saved, StepCounter
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch

PairLossName = Literal[
    "dpo", "cdpo", "robust", "ipo", "ipo_mean", "dpo_mean", "hinge", "exo", "nca", "sppo",
    "apo_zero", "apo_down", "discopop", "bco", "simpo", "alpha_po", "orpo", "cpo",
]  # fmt: skip


class DPOConfig(Config):
    """Settings of learning from pairs directly."""

    loss: PairLossName = Field(
        "dpo", description="What a pair costs: an entry of docs/algorithms/dpo.md."
    )
    num_epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(16, ge=1, description="Pairs in one optimiser step.")
    lr: float = Field(
        2e-5, gt=0, description="First learning rate; falls linearly to 0. 5e-7 for billions."
    )
    beta: float = Field(
        0.1, gt=0, description="Weight of the log-ratio: the larger, the nearer to the reference."
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Share of labels taken to be wrong (cdpo, robust: 0.1; exo: 0.001).",
    )
    gamma: float = Field(
        0.0, ge=0, description="Lead that simpo and alpha_po ask for, in units of β·mean log π."
    )
    alpha: float = Field(
        1.0, gt=0, description="cpo: weight of the likelihood; alpha_po: its exponent (0.25)."
    )
    tau: float = Field(0.05, gt=0, description="Temperature of discopop's mixture (2406.08414).")
    nll_coef: float = Field(
        0.0,
        ge=0,
        description="Weight of the chosen answers' cross-entropy beside the loss (2404.19733: 1).",
    )
    save_every: int = Field(20, ge=1, description="Steps between checkpoints.")

    @model_validator(mode="after")
    def _needs_smoothing(self) -> DPOConfig:
        if self.loss in ("cdpo", "exo") and self.smoothing == 0.0:
            raise ValueError(f"loss {self.loss} needs smoothing above 0, such as 0.1")
        return self

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with a reference policy."""
        return PAIR_LOSSES[self.loss].has_reference

    @property
    def coefficients(self) -> PairKeys:
        """The coefficients, as the losses take them; δ is the loop's."""
        return PairKeys(self.beta, self.smoothing, self.gamma, self.alpha, self.tau)


def dpo(
    config: DPOConfig,
    *,
    actor: Actor,
    data: Trajectories,
    pairs: Pairs,
    logp_ref: Tensor | None = None,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Teach `actor` the `pairs` of rows of `data`; `saved` is a checkpoint's state to continue from.

    `logp_ref` [B, T] are the reference's log-probabilities of `data`: ValueError where the loss
    needs them and there are none.
    """
    if config.has_reference and logp_ref is None:
        raise ValueError(f"the loss {config.loss} needs the reference's log-probabilities")
    ref = torch.zeros(len(data)) if logp_ref is None else (logp_ref * data.chosen).sum(1)
    watch = Watch() if watch is None else watch
    per_epoch = math.ceil(len(pairs) / config.batch_size)
    total, done, centre = per_epoch * config.num_epochs, StepCounter(), RunningMoments()
    parts = Parts(actor=actor, loop=done, centre=centre, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < total and not watch.reached:
        epoch, place = divmod(done.step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(pairs))
        some = pairs.at(order[place * config.batch_size :][: config.batch_size].tolist())
        rows = sorted({*some.a, *some.b})
        batch, own, mine = data.select(rows), ref[rows], some.among(rows)
        lr = config.lr * (1.0 - done.step / total)
        loss = pair_loss(
            config.loss,
            config.coefficients,
            actor,
            batch,
            mine,
            own,
            centre,
            nll_coef=config.nll_coef,
        )
        told = actor.update(
            batch, loss, fields={"pairs": mine, "ref": own}, denominator=len(mine), lr=lr
        )
        done.step += 1
        yield Step(done.step, total, {**pair_means(told, len(mine)), "lr": lr})
        yield from watch.look(done.step, last=done.step == total)
        due = done.step % config.save_every == 0 or done.step == total or watch.reached
        yield Checkpoint(done.step, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def held_out_pairs(
    config: DPOConfig, actor: Actor, data: Trajectories, pairs: Pairs, logp_ref: Tensor | None
) -> dict[str, float]:
    """Loss, margin, accuracy and log-probabilities of pairs that are not learned from."""
    logp = actor.logprobs(data)
    ref = torch.zeros(len(data)) if logp_ref is None else (logp_ref * data.chosen).sum(1)
    told = pair_numbers(config.loss, config.coefficients, data, pairs, logp=logp, ref=ref)
    return {f"eval/{name}": value for name, value in told.items()}
