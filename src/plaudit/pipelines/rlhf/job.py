"""The main job: take a chat model and people's opinions of its answers, and make it better.

    (SFT) → answers → feedback → reward model → PPO → answers again → what changed

Each stage is one call below; what is done is kept in the run folder and never repeated. One frozen
trunk serves the actor, the reference, the critic and the reward model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plaudit.engine.local import LocalReference
from plaudit.pipelines.drive import Heard, Progress
from plaudit.pipelines.rlhf.collecting import collect_opinions, opinions_of_file
from plaudit.pipelines.rlhf.config import RLHFConfig
from plaudit.pipelines.rlhf.evaluation import Side, answer_rows, compare_sides, gold_scores
from plaudit.pipelines.rlhf.inputs import read_inputs
from plaudit.pipelines.rlhf.parts import make_parts
from plaudit.pipelines.rlhf.refusals import check_store, fingerprints, seen_prompts
from plaudit.pipelines.rlhf.steps import (
    IMPROVERS,
    draw,
    fine_tune,
    learn_reward,
    save_models,
    standardised,
)
from plaudit.pipelines.stages import Stages
from plaudit.pipelines.threads import free_threads, spare_threads
from plaudit.records.collecting import collecting_later
from plaudit.records.fingerprints import check_sources
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

STANDARDISED_BY = 256
"""Answers, of all training prompts alike, whose scores say what one unit of reward is: by so many
the standard deviation is known to about 4 %."""


def run_rlhf(
    config: RLHFConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Run or continue the job in `run`; returns the summary."""
    with free_threads(run, progress.note):
        return _run(config, Stages(run, progress, interrupt))


def _run(config: RLHFConfig, stages: Stages) -> dict[str, Any]:
    run, note = stages.run, stages.progress.note
    inputs = read_inputs(config, run, note)
    check_sources(run, fingerprints(config, inputs.sources), note)
    parts = make_parts(inputs, note)
    from plaudit.feedback.store import FeedbackStore  # SQLAlchemy, once nothing is refused

    store = FeedbackStore(config.feedback.store or run.path / "feedback.sqlite")
    given = opinions_of_file(inputs, store, parts.codec) if inputs.source == "file" else None
    fine_tune(parts, stages)
    reference = LocalReference(parts.backbone)
    first = draw(parts, stages, "answers_train", parts.train)
    before = draw(parts, stages, "answers_held_out", parts.held_out)
    learn, judge = given or collect_opinions(
        inputs, stages, store, parts.codec, train=first, held_out=before
    )
    reward_model, figures, scores = learn_reward(parts, stages, learn, judge)
    if judge.batch is not before:  # the opinions are of other answers
        scores = reward_model.scores(before)
    some = first.select(range(0, len(first), max(1, len(first) // STANDARDISED_BY)))
    reward = standardised(reward_model, reward_model.scores(some))
    parts.backbone.states.drop("answers_train", "learn", "judge")  # 0.2 GB in the demo
    del first, learn, judge, given
    IMPROVERS[config.improve](parts, stages, reward, reference)
    save_models(parts, stages, reward_model)
    after = draw(parts, stages, "answers_after", parts.held_out)
    gold = inputs.gold
    # The starting model is the reference: what it drew by is what the reference gives it, unless
    # it drew in another precision.
    rounded = parts.backbone.draws_rounded
    first_side = Side(
        before,
        scores,
        reference.logprobs(before) if rounded else before.logp,
        reference.logprobs(before.as_given()),
        gold_scores(gold, before),
    )
    last_side = Side(
        after,
        reward_model.scores(after),
        reference.logprobs(after),
        reference.logprobs(after.as_given()),
        gold_scores(gold, after),
    )
    sides = (first_side, last_side)
    from plaudit.feedback.stats import feedback_stats

    seen = seen_prompts(inputs.prompts, config.num_held_out, inputs.given())
    summary = {**figures, **compare_sides(*sides), "feedback": asdict(feedback_stats(store))}
    return _conclude(run, {**summary, "held_out_seen": len(seen)}, sides)


def check_rlhf(config: RLHFConfig, place: Path) -> Iterator[str]:
    """Refuse what the job would refuse, and say what it would do; nothing is left behind."""
    from plaudit.pipelines.rlhf.check import told, works

    heard = Heard()
    with spare_threads(), collecting_later():
        check_store(config.feedback.store)
        inputs = read_inputs(config, RunFolder(place), heard.note)
        parts = make_parts(inputs, heard.note)
        given = inputs.sources.get("feedback")
        stages = works(
            config,
            parts.train,
            parts.held_out,
            source=inputs.source,
            given=None if given is None else given.rows,
            demonstrated=[len(prompt.ids) + len(ids) for prompt, ids in parts.examples],
        )
        lines = [*told(config, parts.backbone, parts.actor, parts.train, parts.held_out, stages)]
    yield from (*heard.notes, *lines)


def _conclude(run: RunFolder, summary: dict[str, Any], sides: Sequence[Side]) -> dict[str, Any]:
    """Write answers, report and results; the summary with the time that it took."""
    from plaudit.pipelines.pages.report import write_report  # matplotlib takes its time

    names = dict.fromkeys(str(row["stage"]) for row in run.read_jsonl("events.jsonl"))
    done = {name: run.stage_results(name) or {} for name in names}
    times: dict[str, Any] = {}
    for kind in ("seconds", "cpu_seconds"):
        each = {name: told.get(kind, 0.0) for name, told in done.items()}
        times |= {kind: sum(each.values()), f"stage_{kind}": each}
    summary = {**times, **summary}
    rows = answer_rows(*sides)
    run.write_json("answers.json", {"answers": rows})
    write_report(run.path, summary, rows)
    run.finish(json.loads(json.dumps(summary)))
    return summary
