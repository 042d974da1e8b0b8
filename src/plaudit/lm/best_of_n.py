"""Best of n: draw n answers to each prompt, keep the one a judge likes best, and learn it.

    y* = argmax_i r(x, y_i),  y_1 … y_n from π           L = −mean over tokens of log π(y*)

Without learning this already is a policy, the usual yardstick: its KL to π is at most
log n − (n − 1)/n. With it, each round draws from the policy that the last one taught: rejection
sampling fine-tuning. Answers that nobody judged are never the best; a prompt whose answers all
score alike teaches nothing and is left out.
Sources: Stiennon et al. 2020 (2009.01325); Dong et al. 2023 (2304.06767), RAFT; the bound on the KL:
Beirami et al. 2024 (2401.01879).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import Field

from plaudit.lm.learning import Position
from plaudit.lm.loop import CrossEntropy, minibatches, samples
from plaudit.lm.rollout import RolloutKeys, best_and_worst, numbers, rollout
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.roles import Actor, Judge
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved
from plaudit.records.types import Prompt
from plaudit.records.watch import Watch


class BestOfNConfig(RolloutKeys):
    """Settings of learning from the best of n answers."""

    answers_per_prompt: int = Field(8, ge=2, description="n: answers to each prompt.")
    lr: float = Field(2e-5, gt=0, description="First learning rate; falls linearly to 0.")


def kl_bound(n: int) -> float:
    """log n − (n − 1)/n: the most that the best of n answers is away from the policy, in nats."""
    return math.log(n) - (n - 1) / n


def best_of_n(
    config: BestOfNConfig,
    *,
    actor: Actor,
    judge: Judge,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Teach `actor` the best of its own answers; `saved` is a checkpoint's state to go on from.

    Yields, for each step, a `Rollout`, a `Step` and a `Checkpoint`; at the end `Done`.
    """
    watch, done = Watch() if watch is None else watch, Position()
    parts = Parts(actor=actor, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    while done.step < config.num_steps and not watch.reached:
        step, place = done.step, done.place
        drawn = rollout(
            config, actor, judge, prompts, place=place, step=step, sampling=sampling, seed=seed
        )
        told = numbers(drawn, judge)
        best = [row for row in best_and_worst(drawn).a if drawn.batch.chosen[row].any()]
        lr = config.lr * (1.0 - step / config.num_steps)
        if best:
            told["objective/best"] = float(drawn.score[best].double().mean())
            chosen = drawn.batch.select(best).as_given()
            for epoch in range(config.num_epochs):
                key = (seed, 3, step, epoch)
                for rows in minibatches(range(len(best)), number=config.num_minibatches, key=key):
                    part = chosen.select(rows)
                    count = int(part.chosen.sum())
                    update = actor.update(part, CrossEntropy(), denominator=count, lr=lr)
                    told |= {"loss": update["loss"], "grad_norm": update["grad_norm"]}
        done.step, done.place = step + 1, place + drawn.taken
        yield Rollout(step + 1, samples(drawn.batch, score=drawn.score), {})
        yield Step(step + 1, config.num_steps, {**told, "lr": lr})
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)
