"""Supervised fine-tuning: raise the probability of given answers, and of nothing else.

    L = − Σ_t mask_t · log π(y_t | x, y_<t) / Σ mask          over completion tokens only

Prompt tokens carry no loss; the token that ends the turn does. The denominator counts the tokens of
the whole batch, so the split into micro-batches changes nothing.
Source: Ouyang et al. 2022 (2203.02155), section 3.5. Left out: packing of unrelated examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plaudit.ops import aggregate
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Evaluation, Event, Step
from plaudit.records.roles import Actor
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


class SFTConfig(Config):
    """Settings of supervised fine-tuning."""

    num_epochs: int = Field(2, ge=1, description="Passes over the examples.")
    batch_size: int = Field(16, ge=1, description="Examples in one optimiser step.")
    lr: float = Field(1e-4, gt=0, description="First learning rate; falls linearly to 0.")
    save_every: int = Field(20, ge=1, description="Steps between checkpoints.")


def demonstrations(
    examples: Sequence[tuple[Prompt, tuple[int, ...]]], *, pad_id: int
) -> Trajectories:
    """Prompts with their wanted token ids: given, not drawn, so under the model's own softmax."""
    longest = max(len(ids) for _, ids in examples)
    answer = torch.full((len(examples), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), longest), dtype=torch.bool)
    for row, (_, ids) in enumerate(examples):
        answer[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        mask[row, : len(ids)] = True
    return Trajectories(
        prompts=tuple(prompt for prompt, _ in examples),
        group=torch.arange(len(examples)),
        answer=answer,
        mask=mask,
        logp=torch.zeros(mask.shape),
        terminated=torch.ones(len(examples), dtype=torch.bool),
        texts=("",) * len(examples),
        sampling=Sampling(max_new_tokens=max(longest, 1)),
    )


def sft(
    config: SFTConfig,
    *,
    actor: Actor,
    data: Trajectories,
    held_out: Trajectories | None = None,
    seed: int,
    saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Iterator[Event]:
    """Train `actor` on `data`; `saved` is a checkpoint's state to continue from."""
    size = len(data)
    per_epoch = math.ceil(size / config.batch_size)
    total, start = per_epoch * config.num_epochs, 0
    if saved is not None:
        arrays, facts = saved
        own = {k.removeprefix("actor."): v for k, v in arrays.items()}
        actor.restore(own, facts["actor"])
        start = int(facts["step"])
    for step in range(start, total):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(size)
        rows = order[place * config.batch_size : (place + 1) * config.batch_size].tolist()
        batch = data.select(rows)
        denominator = batch.mask.sum()
        losses: list[float] = []

        def loss(
            index: list[int],
            logp: Tensor,
            entropy: Tensor,
            batch: Trajectories = batch,
            denominator: Tensor = denominator,
            losses: list[float] = losses,
        ) -> Tensor:
            del entropy
            value = aggregate(-logp, batch.mask[index], denominator)
            losses.append(float(value.detach()))
            return value

        lr = config.lr * (1.0 - step / total)
        update = actor.update(batch, loss, lr=lr)
        metrics = {"loss": math.fsum(losses), "lr": lr, "grad_norm": update["grad_norm"]}
        yield Step(step + 1, total, {**metrics, "num_tokens": float(denominator)})
        if step + 1 == total and held_out is not None:
            yield Evaluation(step + 1, held_out_loss(actor, held_out))
        due = (step + 1) % config.save_every == 0 or step + 1 == total
        yield _checkpoint(step + 1, due, actor)
    yield Done(total)


def held_out_loss(actor: Actor, data: Trajectories) -> dict[str, float]:
    """Mean negative log-probability per completion token at temperature 1, and its exponential."""
    given = data.as_given()
    loss = float(-actor.logprobs(given)[given.mask].double().mean())
    return {"eval/loss": loss, "eval/perplexity": math.exp(loss)}


def _checkpoint(step: int, due: bool, actor: Actor) -> Checkpoint:
    def state() -> tuple[dict[str, Any], dict[str, Any]]:
        arrays, facts = actor.state()
        return {f"actor.{k}": v for k, v in arrays.items()}, {"step": step, "actor": facts}

    return Checkpoint(step, state, due)
