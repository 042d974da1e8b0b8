"""RLOO: REINFORCE for whole answers, whose baseline is what the prompt's other answers scored.

    R_i = r_i − kl_coef Σ_t (log π_old − log π_ref)_it
    A_i = R_i − mean over the others of the group
    L   = mean over answers of −min(sA, clip(s) A),   s = Π_t ρ_t

An answer is one action, so its tokens' log-probabilities are summed, never averaged: with the KL in
the score the optimum is π_ref exp(r/kl_coef), whatever the lengths and the size of the groups. On
the first update s = 1 and this is REINFORCE to the digit.
Sources: Ahmadian et al. 2024 (2402.14740); Kool et al. 2019 (the baseline).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from plaudit.lm.learning import Position, Surrogate, learn
from plaudit.lm.loop import samples
from plaudit.lm.rollout import RolloutKeys, learned_rows, numbers, rollout
from plaudit.lm.steps import corrected
from plaudit.ops import leave_one_out_advantage
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.losses import cut
from plaudit.records.roles import Actor, Judge, Reference
from plaudit.records.sampling import Sampling
from plaudit.records.state import Parts, Saved
from plaudit.records.types import Prompt
from plaudit.records.watch import Watch


class RLOOConfig(RolloutKeys):
    """Settings of RLOO."""

    answers_per_prompt: int = Field(
        4, ge=2, description="Answers to each prompt; 2 to 4 suffice (2402.14740)."
    )
    clip: float = Field(
        0.2, gt=0, description="Range of an answer's ratio; it matters from the second update on."
    )
    kl_coef: float = Field(
        0.05,
        ge=0,
        description="β: the score one nat of distance from the reference costs; 0: none.",
    )


def rloo(
    config: RLOOConfig,
    *,
    actor: Actor,
    judge: Judge,
    reference: Reference | None = None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    watch: Watch | None = None,
    seed: int,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Improve `actor` on `prompts` by what `judge` says; `saved` is a checkpoint's state to go on
    from. ValueError where kl_coef is above 0 and there is no reference.

    Yields, for each step, a `Rollout`, a `Step` and a `Checkpoint`; at the end `Done`.
    """
    if config.kl_coef and reference is None:
        raise ValueError("a KL needs a reference: give one, or set kl_coef to 0")
    watch, done = Watch() if watch is None else watch, Position()
    parts = Parts(actor=actor, loop=done, watch=watch)
    if saved is not None:
        parts.restore(saved)
    else:
        yield from watch.look(0)
    loss = Surrogate("sequence", SurrogateKeys(config.clip, config.clip))
    while done.step < config.num_steps and not watch.reached:
        step, place = done.step, done.place
        drawn = rollout(
            config, actor, judge, prompts, place=place, step=step, sampling=sampling, seed=seed
        )
        batch, fields = drawn.batch, {}
        told = numbers(drawn, judge)
        if config.importance_cap is not None:
            logp = actor.logprobs(batch)
            batch, fields["importance"], apart = corrected(batch, logp, cap=config.importance_cap)
            told |= apart
        score, logp_ref = drawn.score, None
        if config.kl_coef and reference is not None:
            logp_ref = reference.logprobs(batch)
            distance = ((batch.logp - logp_ref) * batch.chosen).sum(1)
            told["objective/kl"] = float(distance.mean())
            score = score - config.kl_coef * distance.to(score)
        values, heard = drawn.groups.spread(score, drawn.heard)
        adv = drawn.groups.back(leave_one_out_advantage(values, heard))
        fields["adv"] = adv.to(batch.logp)[:, None] * batch.chosen

        rows = learned_rows(config, drawn)
        lr = config.lr * (1.0 - step / config.num_steps)
        # Every token carries its answer's number: counted as shares of it, it counts once.
        update = learn(
            config,
            actor,
            batch.select(rows),
            loss,
            cut(fields, rows),
            counting="answer",
            lr=lr,
            key=(seed, 3, step),
        )
        done.step, done.place = step + 1, place + drawn.taken
        yield Rollout(step + 1, samples(batch, logp_ref=logp_ref, score=drawn.score), {})
        yield Step(step + 1, config.num_steps, {**told, **update, "lr": lr})
        is_last = step + 1 == config.num_steps
        yield from watch.look(step + 1, last=is_last)
        due = (step + 1) % config.save_every == 0 or is_last or watch.reached
        yield Checkpoint(step + 1, parts.state, due, best=watch.is_best)
    yield Done(done.step)
