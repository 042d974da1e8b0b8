"""Supervised fine-tuning: raise the probability of given answers, and of nothing else.

    L = − Σ_t chosen_t · log π(y_t | x, y_<t) / Σ chosen      over the tokens to be learned only

Prompts and other people's turns carry no loss; the token that ends a turn does. The denominator counts the tokens of
the whole batch, so the split into micro-batches changes nothing.
Source: Ouyang et al. 2022 (2203.02155), section 3.5. Left out: packing of unrelated examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from plaudit.lm.loop import CrossEntropy
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.roles import Actor
from plaudit.records.state import Parts, Saved, StepCounter
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch


class SFTConfig(Config):
    """Settings of supervised fine-tuning."""

    num_epochs: int = Field(2, ge=1, description="Passes over the examples.")
    batch_size: int = Field(16, ge=1, description="Examples in one optimiser step.")
    lr: float = Field(1e-4, gt=0, description="First learning rate; falls linearly to 0.")
    save_every: int = Field(20, ge=1, description="Steps between checkpoints.")


def sft(
    config: SFTConfig,
    *,
    actor: Actor,
    data: Trajectories,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Train `actor` on `data`; `saved` is a checkpoint's state to continue from."""
    size, done = len(data), StepCounter()
    watch = Watch() if watch is None else watch
    per_epoch = math.ceil(size / config.batch_size)
    total = per_epoch * config.num_epochs
    parts = Parts(actor=actor, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < total and not watch.reached:
        step = done.step
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(size)
        rows = order[place * config.batch_size : (place + 1) * config.batch_size].tolist()
        batch = data.select(rows)
        count = int(batch.chosen.sum())
        lr = config.lr * (1.0 - step / total)
        update = actor.update(batch, CrossEntropy(), denominator=count, lr=lr)
        metrics = {"loss": update["loss"], "lr": lr, "grad_norm": update["grad_norm"]}
        done.step = step + 1
        yield Step(step + 1, total, {**metrics, "num_tokens": float(count)})
        yield from watch.look(step + 1, last=step + 1 == total)
        due = (step + 1) % config.save_every == 0 or step + 1 == total or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def held_out_loss(actor: Actor, data: Trajectories) -> dict[str, float]:
    """Mean negative log-probability per chosen token at temperature 1, and its exponential."""
    given = data.as_given()
    loss = float(-actor.logprobs(given)[given.chosen].double().mean())
    return {"eval/loss": loss, "eval/perplexity": math.exp(loss)}
