"""The loss of pairs, as offline and online algorithms minimise it, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from plaudit.lm.loop import RunningMoments
from plaudit.ops import PAIR_LOSSES, aggregate, masked_sum
from plaudit.ops.pair_losses import Answer, PairKeys
from plaudit.records.losses import Numbers, Part
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Actor
from plaudit.records.types import Trajectories


@dataclass(frozen=True)
class PairLoss:
    """L of the pairs in the batch's field `pairs`; its field `ref` [B] is Σ log π_ref of each row.

    `nll_scale` is nll_coef times pairs over chosen answers' tokens, of the whole batch, as the sum
    is divided by the number of pairs.
    """

    needs: ClassVar[tuple[str, ...]] = ("logp",)
    together: ClassVar[bool] = True

    loss: str
    keys: PairKeys
    nll_scale: float = 0.0

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, and sums over pairs: its parts, margins, who leads, both log-probabilities."""
        pairs: Pairs = part["pairs"]
        logp = masked_sum(part["logp"], part.chosen, dim=1)
        length = part.chosen.sum(1).to(logp.dtype)
        ref = part["ref"].to(logp.dtype)
        a, b = (_answer(logp, ref, length, side) for side in (pairs.a, pairs.b))
        share = torch.tensor(pairs.share, dtype=logp.dtype, device=logp.device)
        margin = torch.tensor(pairs.margins, dtype=logp.dtype, device=logp.device)
        kind = PAIR_LOSSES[self.loss]
        function = kind.function
        each = share * function(a, b, self.keys, margin)
        if bool((share < 1.0).any()):
            each = each + (1.0 - share) * function(b, a, self.keys, -margin)
        lead = self.keys.beta * (kind.reward(a) - kind.reward(b)).detach()
        lead = lead * (share * 2 - 1).sign()
        nll = share * -a.logp + (1.0 - share) * -b.logp
        decided, led = share != 0.5, share >= 0.5
        numbers = {
            "loss": each.detach().sum(),
            "margin": lead.sum(),
            "agreed": (0.5 + 0.5 * lead[decided].sign()).sum(),
            "decided": decided.to(logp.dtype).sum(),
            "logp/chosen": torch.where(led, a.logp, b.logp).detach().sum(),
            "logp/rejected": torch.where(led, b.logp, a.logp).detach().sum(),
            "logp/chosen_change": torch.where(led, a.log_ratio, b.log_ratio).detach().sum(),
        }
        every = torch.ones_like(decided)
        whole = each + self.nll_scale * nll if self.nll_scale else each
        return aggregate(whole, every, part.denominator), numbers


def _answer(logp: Tensor, ref: Tensor, length: Tensor, rows: tuple[int, ...]) -> Answer:
    index = list(rows)
    return Answer(logp[index], ref[index], length[index])


def pair_loss(
    loss: str,
    keys: PairKeys,
    actor: Actor,
    batch: Trajectories,
    pairs: Pairs,
    ref: Tensor,
    centre: RunningMoments,
    *,
    nll_coef: float = 0.0,
) -> PairLoss:
    """The loss of one optimiser's batch: what belongs to all of it is settled here, so that no cut
    into micro-batches changes it. `ref` [B] is Σ log π_ref; `centre` takes in the rewards where
    the loss reads their mean."""
    if PAIR_LOSSES[loss].centre:
        logp = (actor.logprobs(batch) * batch.chosen).sum(1)
        centre.add(_rewards(keys, logp, ref, pairs).tolist())
        keys = replace(keys, delta=centre.mean)
    scale = 0.0
    if nll_coef:
        length = batch.chosen.sum(1).double()
        share = torch.tensor(pairs.share, dtype=torch.float64)
        tokens = share * length[[*pairs.a]] + (1.0 - share) * length[[*pairs.b]]
        scale = nll_coef * len(pairs) / max(float(tokens.sum()), 1.0)
    return PairLoss(loss, keys, scale)


def pair_numbers(
    loss: str, keys: PairKeys, data: Trajectories, pairs: Pairs, *, logp: Tensor, ref: Tensor
) -> dict[str, float]:
    """Means over pairs without learning; `logp` [B, T] are the policy's, `ref` [B] is Σ log π_ref."""
    if PAIR_LOSSES[loss].centre:
        summed = (logp * data.chosen).sum(1)
        keys = replace(keys, delta=float(_rewards(keys, summed, ref, pairs).mean()))
    part = Part(
        chosen=data.chosen,
        logp_old=data.logp,
        denominator=float(len(pairs)),
        statistics={"logp": logp},
        fields={"pairs": pairs, "ref": ref},
    )
    _, numbers = PairLoss(loss, keys)(part)
    return pair_means({name: float(x) for name, x in numbers.items()}, len(pairs))


def pair_means(told: Mapping[str, float], num_pairs: int) -> dict[str, float]:
    """What a step logs: means over its pairs, the accuracy over decided ones."""
    whole = ("grad_norm",)
    counted = ("agreed", "decided")
    means = {n: x / num_pairs for n, x in told.items() if n not in (*whole, *counted)}
    accuracy = told["agreed"] / max(told["decided"], 1.0)
    return {**means, "accuracy": accuracy, **{n: told[n] for n in whole if n in told}}


def _rewards(keys: PairKeys, logp: Tensor, ref: Tensor, pairs: Pairs) -> Tensor:
    """β (log π − log π_ref) of both sides of every pair."""
    return keys.beta * (logp - ref.to(logp))[[*pairs.a, *pairs.b]]
