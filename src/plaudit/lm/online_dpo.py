"""Online DPO: draw answers, let a judge say which is best and which worst, and learn that pair.

    y⁺, y⁻ = the best and the worst of a prompt's answers, drawn from π
    L      = mean over prompts of ℓ(h),   h = β [(log π − log π_ref)(y⁺) − (log π − log π_ref)(y⁻)]

ℓ is DPO's or one of its kin (`ops/pair_losses.py`). Answers that all score alike give no pair; a
judge that abstains from an answer keeps it out of them. Where judges prefer as Bradley–Terry says,
the optimum is π_ref exp(r/β), and a pair is always one that the policy could have written.
Sources: Guo et al. 2024 (2402.04792); best and worst of more than two: Dong et al. 2024
(2405.07863).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from plaudit.lm.learning import Position
from plaudit.lm.loop import RunningMoments, minibatches, samples
from plaudit.lm.pairs import pair_loss, pair_means
from plaudit.lm.rollout import Drawn, RolloutKeys, best_and_worst, numbers, rollout
from plaudit.ops.pair_losses import PairKeys
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.pairs import Pairs
from plaudit.records.roles import Actor, Judge, Reference
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved
from plaudit.records.types import Prompt
from plaudit.records.watch import Watch


class OnlineDPOConfig(RolloutKeys):
    """Settings of online DPO."""

    answers_per_prompt: int = Field(
        2, ge=2, description="Answers to each prompt, of which the best and the worst are a pair."
    )
    lr: float = Field(
        2e-5, gt=0, description="First learning rate; falls linearly to 0. 5e-7 for billions."
    )
    loss: Literal["dpo", "ipo", "hinge"] = Field("dpo", description="What a pair costs.")
    beta: float = Field(
        0.1, gt=0, description="Weight of the log-ratio: the larger, the nearer to the reference."
    )


def online_dpo(
    config: OnlineDPOConfig,
    *,
    actor: Actor,
    judge: Judge,
    reference: Reference,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Improve `actor` on `prompts` by what `judge` says; `saved` is a checkpoint's state to go on
    from.

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
        told, batch = numbers(drawn, judge), drawn.batch.as_given()
        logp_ref = reference.logprobs(batch)
        found = best_and_worst(drawn)
        lr = config.lr * (1.0 - step / config.num_steps)
        if len(found):
            told |= _learn(config, actor, drawn, found, logp_ref, lr=lr, key=(seed, 3, step))
        done.step, done.place = step + 1, place + drawn.taken
        yield Rollout(step + 1, samples(drawn.batch, score=drawn.score), {})
        yield Step(step + 1, config.num_steps, {**told, "lr": lr})
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)


def _learn(
    config: OnlineDPOConfig,
    actor: Actor,
    drawn: Drawn,
    pairs: Pairs,
    logp_ref: Tensor,
    *,
    lr: float,
    key: tuple[int, ...],
) -> dict[str, float]:
    """The gradient steps on one rollout's pairs; means over them."""
    keys, centre = PairKeys(config.beta), RunningMoments()
    data = drawn.batch.as_given()
    ref = (logp_ref * data.chosen).sum(1)
    steps = []
    for epoch in range(config.num_epochs):
        order = minibatches(range(len(pairs)), number=config.num_minibatches, key=(*key, epoch))
        for places in order:
            some = pairs.at(places)
            rows = sorted({*some.a, *some.b})
            batch, own, mine = data.select(rows), ref[rows], some.among(rows)
            loss = pair_loss(config.loss, keys, actor, batch, mine, own, centre)
            fields = {"pairs": mine, "ref": own}
            told = actor.update(batch, loss, fields=fields, denominator=len(mine), lr=lr)
            steps.append((pair_means(told, len(mine)), len(mine)))
    total = sum(n for _, n in steps)
    return {name: sum(m[name] * n for m, n in steps) / total for name in steps[0][0]}
