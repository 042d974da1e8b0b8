"""A reward model learned from comparisons: Bradley–Terry on the last real token.

    P(a over b) = σ(s_a − s_b),   s = w · h(last real token)
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
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.ops import aggregate, bradley_terry_soft, reward_centring
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Step
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Stateful
from plaudit.records.types import Trajectories
from plaudit.rewards.probe import fit_probe

if TYPE_CHECKING:
    from plaudit.records.roles import ValueLoss


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


class ScoreLearner(Stateful, Protocol):
    """The role that this file teaches: scores whole answers and takes gradient steps."""

    def __call__(self, batch: Trajectories) -> Tensor: ...

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        """One step on `loss(rows, scores [b])`."""
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
    held_out: tuple[Trajectories, Pairs] | None = None,
    seed: int,
    saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Iterator[Event]:
    """Teach `model` the comparisons; `saved` is a checkpoint's state to continue from."""
    group = batch.group.tolist()
    with_pairs = sorted({group[row] for row in pairs.a})
    per_epoch = math.ceil(len(with_pairs) / config.prompts_per_step)
    total, start = per_epoch * config.num_epochs, 0
    if saved is not None:
        arrays, facts = saved
        model.restore({k.removeprefix("model."): v for k, v in arrays.items()}, facts["model"])
        start = int(facts["step"])
    elif config.start_from_probe:
        yield from _start(model, batch, pairs, held_out)
    for step in range(start, total):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(with_pairs))
        dealt = order[place * config.prompts_per_step : (place + 1) * config.prompts_per_step]
        chosen = {with_pairs[i] for i in dealt}
        rows = [row for row, g in enumerate(group) if g in chosen]
        lr = config.lr * (1.0 - step / total)
        metrics = _step(config, model, batch.select(rows), pairs.among(rows), lr)
        yield Step(step + 1, total, {**metrics, "lr": lr})
        if held_out is not None and (place + 1 == per_epoch):
            scores = model(held_out[0])
            yield Evaluation(step + 1, pair_metrics(scores, held_out[1]))
        due = (step + 1) % config.save_every == 0 or step + 1 == total
        yield _checkpoint(step + 1, due, model)
    yield Done(total)


def _start(
    model: ScoreLearner,
    batch: Trajectories,
    pairs: Pairs,
    held_out: tuple[Trajectories, Pairs] | None,
) -> Iterator[Event]:
    """Write the probe, and say how good it is alone."""
    features = model.mean_tokens(batch)
    if features is None:
        return
    probe = fit_probe(features, pairs, batch.group.tolist())
    model.start_from_probe(probe.weight / probe.std, batch)
    metrics = {"probe/accuracy": probe.accuracy, "probe/ridge": probe.ridge}
    if held_out is not None:
        metrics |= pair_metrics(model(held_out[0]), held_out[1])
    yield Evaluation(0, metrics)


def _step(
    config: RewardModelConfig, model: ScoreLearner, batch: Trajectories, pairs: Pairs, lr: float
) -> dict[str, float]:
    denominator = float(len(pairs))
    totals = {"loss": 0.0, "agreed": 0.0, "decided": 0.0}

    def loss(index: list[int], scores: Tensor) -> Tensor:
        mine = pairs.among(index)
        a, b = scores[list(mine.a)], scores[list(mine.b)]
        share = torch.tensor(mine.share, dtype=scores.dtype, device=scores.device)
        each = bradley_terry_soft(a, b, share)
        decided = share != 0.5
        totals["agreed"] += float((((a - b) * (share - 0.5)) > 0)[decided].sum())
        totals["decided"] += float(decided.sum())
        totals["loss"] += float(each.detach().sum()) / denominator
        each = each + config.centring_coef * reward_centring(a, b)
        return aggregate(each, torch.ones_like(share, dtype=torch.bool), denominator)

    update = model.update(batch, loss, lr=lr)
    return {
        "loss": totals["loss"],
        "accuracy": totals["agreed"] / max(totals["decided"], 1.0),
        "grad_norm": update["grad_norm"],
    }


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


def _checkpoint(step: int, due: bool, model: ScoreLearner) -> Checkpoint:
    def state() -> tuple[dict[str, Any], dict[str, Any]]:
        arrays, facts = model.state()
        return {f"model.{k}": v for k, v in arrays.items()}, {"step": step, "model": facts}

    return Checkpoint(step, state, due)
