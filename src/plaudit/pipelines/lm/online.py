"""Jobs that learn from what a reward says of the model's own answers: ppo, grpo and their kin.

    read and check → answers to held-out prompts → learn → answers again → what changed

The reward is any function of texts, a reward model's folder, or several of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.engine.local import ROLLOUT, LocalCritic, LocalReference
from plaudit.lm.best_of_n import best_of_n, kl_bound
from plaudit.lm.grpo import grpo
from plaudit.lm.online_dpo import online_dpo
from plaudit.lm.ppo import ppo
from plaudit.lm.reinforce_pp import reinforce_pp
from plaudit.lm.rloo import rloo
from plaudit.ops.rewards import combined
from plaudit.pipelines.drive import Progress
from plaudit.pipelines.lm.conclusion import save_policy, times
from plaudit.pipelines.lm.config import (
    DEMO_PROMPTS,
    BestOfNJob,
    GRPOJob,
    OnlineDPOJob,
    PPOJob,
    PromptKeys,
    ReinforcePPJob,
    RLOOJob,
)
from plaudit.pipelines.lm.parts import Parts, make_parts, model_fingerprint, read_model
from plaudit.pipelines.pieces import with_pieces
from plaudit.pipelines.rlhf.answers import answers_from, draw_answers
from plaudit.pipelines.rlhf.evaluation import Side, answer_rows, compare_sides
from plaudit.pipelines.rlhf.sources import prompts_of, read_sources
from plaudit.pipelines.stages import Stages
from plaudit.pipelines.threads import free_threads
from plaudit.records.errors import UserError
from plaudit.records.events import Event
from plaudit.records.fingerprints import check_sources, of_code, of_file, of_rows
from plaudit.records.interrupt import Interrupt
from plaudit.records.roles import Judge
from plaudit.records.rows import Rows
from plaudit.records.runs import RunFolder
from plaudit.records.state import Saved
from plaudit.records.types import Prompt, Trajectories
from plaudit.records.watch import Watch
from plaudit.rewards.functions import reward_file
from plaudit.rewards.judges import LoadedJudge, ScoredReward, load_judge


@dataclass(frozen=True)
class World:
    """What the loop of any of these jobs is given."""

    parts: Parts
    judge: LoadedJudge
    reference: LocalReference
    train: list[Prompt]
    held_out: list[Prompt]
    watch: Watch

    def given(self, config: PromptKeys, saved: Saved | None) -> dict[str, Any]:
        """The arguments that all loops take."""
        return {
            "actor": self.parts.actor,
            "prompts": self.train,
            "sampling": config.sampling,
            "watch": self.watch,
            "seed": config.seed,
            "saved": saved,
        }


Loop = Callable[[Any, World, Saved | None], Iterator[Event]]


def run_ppo(
    config: PPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Improve by PPO or go on in `run`; returns the summary."""

    def loop(config: PPOJob, world: World, saved: Saved | None) -> Iterator[Event]:
        critic = LocalCritic(world.parts.backbone, adam=config.adam)
        reward = ScoredReward(world.judge)
        given = world.given(config, saved)
        return ppo(config, critic=critic, reference=world.reference, reward=reward, **given)

    return _improve("ppo", loop, config, Stages(run, progress, interrupt))


def run_grpo(
    config: GRPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Improve by GRPO or go on in `run`; returns the summary."""
    return _improve("grpo", _judged(grpo), config, Stages(run, progress, interrupt))


def run_rloo(
    config: RLOOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Improve by RLOO or go on in `run`; returns the summary."""
    return _improve("rloo", _judged(rloo), config, Stages(run, progress, interrupt))


def run_reinforce_pp(
    config: ReinforcePPJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Improve by REINFORCE++ or go on in `run`; returns the summary."""
    return _improve("reinforce_pp", _judged(reinforce_pp), config, Stages(run, progress, interrupt))


def run_online_dpo(
    config: OnlineDPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Improve by online DPO or go on in `run`; returns the summary."""
    return _improve("online_dpo", _judged(online_dpo), config, Stages(run, progress, interrupt))


def run_best_of_n(
    config: BestOfNJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Learn from the best of n answers or go on in `run`; returns the summary."""

    def loop(config: BestOfNJob, world: World, saved: Saved | None) -> Iterator[Event]:
        return best_of_n(config, judge=world.judge, **world.given(config, saved))

    more = {"kl_bound_of_n": kl_bound(config.answers_per_prompt)}
    return _improve("best_of_n", loop, config, Stages(run, progress, interrupt), more)


def _judged(algorithm: Callable[..., Iterator[Event]]) -> Loop:
    """The loop of an algorithm that takes a judge and a reference."""

    def loop(config: Any, world: World, saved: Saved | None) -> Iterator[Event]:
        given = world.given(config, saved)
        return algorithm(config, judge=world.judge, reference=world.reference, **given)

    return loop


def _improve(
    name: str,
    loop: Loop,
    config: PromptKeys,
    stages: Stages,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole job around one algorithm's loop."""
    with (
        free_threads(stages.run, stages.progress.note),
        contextlib.closing(the_judge(config)) as judge,
    ):
        world = make_world(config, stages, judge)
        actor = world.parts.actor
        before = _answers(config, stages, world, "answers_before")
        done = stages.take(
            name,
            lambda saved: with_pieces(loop(config, world, saved), world.parts.codec),
            keep=lambda array: array.startswith("actor/weight."),
            headline=["objective/scores", "groups/with_signal", "answer/length"],
        )
        save_policy(stages, name, actor, done)
        for said in world.judge.first_failure.values():
            stages.progress.note(f"Some answers were left out: {said}")
        after = _answers(config, stages, world, "answers_after")
        sides = [_side(world, batch) for batch in (before, after) if batch is not None]
        return _conclude(name, stages, sides, more or {})


def the_judge(config: PromptKeys) -> LoadedJudge:
    """Whoever the keys name; `close` ends its processes."""
    check_keys(config)
    return load_judge(
        config.reward,
        config.weights,
        timeout=config.reward_timeout,
        workers=config.reward_workers,
    )


def make_world(config: PromptKeys, stages: Stages, judge: LoadedJudge) -> World:
    """Reads and refuses, the cheap first; the weights last."""
    run, note = stages.run, stages.progress.note
    path = str(DEMO_PROMPTS) if config.prompts == "demo" else config.prompts
    rows = read_sources({"prompts": (path, "prompt")}, config.columns)["prompts"].rows
    for said in rows.notes:
        note(said)
    if len(rows) <= config.num_held_out:
        raise UserError(
            f"{rows.source} has {len(rows)} prompts, of which num_held_out={config.num_held_out} "
            "are held out, so none is left to train on: give more prompts or hold out fewer"
        )
    check_sources(run, fingerprints(config, rows), note)
    folder = read_model(config)
    judge.check(rows[0], rows.source, folder.codec.tokenizer)
    most = config.sampling.max_new_tokens
    prompts = prompts_of(rows, folder.codec, max_new_tokens=most)
    longest = max(len(prompt.ids) for prompt in prompts) + most
    parts = make_parts(config, folder, longest=longest, precision=config.sampler_precision)
    cut = len(prompts) - config.num_held_out
    train, held = prompts[:cut], prompts[cut:]
    reference = LocalReference(parts.backbone)
    watch = Watch()
    if held and (config.eval_every or config.stop_at):
        watch = Watch(
            lambda: held_out_figures(config, parts, judge, reference, held),
            every=config.eval_every,
            best_by="eval/reward",
            stop_at=config.stop_at,
        )
    return World(parts, judge, reference, train, held, watch)


def check_keys(config: PromptKeys) -> None:
    """Keys that exclude each other, whatever the files hold."""
    drawn = config.sampling
    if drawn.temperature == 0 or drawn.top_k == 1:
        key = "top_k=1" if drawn.temperature else "temperature=0"
        raise UserError(
            f"with sampling.{key} all answers to a prompt are equal, so there would be nothing to "
            "compare: draw from more than the most likely token"
        )
    minibatches, prompts = (getattr(config, n) for n in ("num_minibatches", "prompts_per_step"))
    if minibatches > prompts:
        raise UserError(
            f"num_minibatches is {minibatches}, but a step has only {prompts} prompts "
            "(prompts_per_step), which are not split"
        )
    if config.sampler_precision != "float32" and getattr(config, "importance_cap", None) is None:
        raise UserError(
            f"with sampler_precision={config.sampler_precision} answers are drawn from a rounded "
            "policy, which must be corrected for: give importance_cap (2 is usual)"
        )


def fingerprints(config: PromptKeys, rows: Rows) -> dict[str, Any]:
    """Of all that the job reads: prompts, the rewards' code, the template and the model."""
    found = {"prompts": of_rows(rows), "model": model_fingerprint(config)}
    for name in config.reward:
        file = reward_file(name) if ":" in name else None
        if file is not None:
            found[f"reward {name}"] = of_code(file)
    if config.template is not None and Path(config.template).is_file():
        found["template"] = of_file(config.template)
    return found


def held_out_figures(
    config: PromptKeys,
    parts: Parts,
    judge: Judge,
    reference: LocalReference,
    prompts: Sequence[Prompt],
) -> dict[str, float]:
    """Reward, distance and length of new answers to held-out prompts, the same draws every time."""
    batch = parts.actor.generate(
        prompts,
        num_answers=config.held_out_answers,
        sampling=config.sampling,
        seed=int(np.random.SeedSequence((config.seed, 8)).generate_state(1)[0]),
    )
    scores = judge(batch)
    total, heard = combined(scores, judge.weights)
    distance = ((batch.logp - reference.logprobs(batch)) * batch.chosen).sum(1)
    found = {
        "eval/reward": float(total[heard].double().mean()),
        "eval/kl": float(distance.mean()),
        "eval/length": float(batch.chosen.sum() / len(batch)),
        "eval/finished": float(batch.terminated.float().mean()),
    }
    if len(scores) > 1:
        named = {f"eval/reward/{n}": x[~x.isnan()].double().mean() for n, x in scores.items()}
        found |= {n: float(x) for n, x in named.items()}
    return found


def _answers(config: PromptKeys, stages: Stages, world: World, name: str) -> Trajectories | None:
    """Answers of the actor as it is now to the held-out prompts; None without any."""
    if not world.held_out:
        return None
    num, states = config.held_out_answers, world.parts.backbone.states
    kept = stages.take(
        name,
        lambda saved: draw_answers(
            world.parts.actor,
            world.held_out,
            num_answers=num,
            sampling=config.sampling,
            seed=config.seed,
            saved=saved,
        ),
        headline=["answer/length", "answer/finished", "policy/nll"],
    )
    states.drop(ROLLOUT)
    return answers_from(
        kept.arrays,
        world.held_out,
        num_answers=num,
        sampling=config.sampling,
        codec=world.parts.codec,
    )


def _side(world: World, batch: Trajectories) -> Side:
    """The answers with the judges' weighted sum, 0 where nobody spoke, and the start's view."""
    total, _ = combined(world.judge(batch), world.judge.weights)
    reference = world.reference
    given = reference.logprobs(batch.as_given())
    return Side(batch, total, reference.logprobs(batch), given, None)


def _conclude(
    name: str, stages: Stages, sides: Sequence[Side], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Write answers, page and results; the summary."""
    run = stages.run
    summary: dict[str, Any] = {**times(run), **more, "reward_is_given": True}
    if sides:
        from plaudit.pipelines.pages.report import write_report  # matplotlib takes its time

        summary |= compare_sides(sides[0], sides[1])
        rows = answer_rows(sides[0], sides[1])
        run.write_json("answers.json", {"answers": rows})
        write_report(run.path, summary, rows, improve=name)
    run.finish(json.loads(json.dumps(summary)))
    return summary
