"""Jobs that learn from a file: sft, reward, dpo and its kin, kto.

    read and check → (the reference's log-probabilities, once) → learn → judge what is held out

Files are read and refused before any weight is loaded. The reference's log-probabilities are a
stage of their own: kept in the run folder, and never computed again; a run that goes on is refused
where model, data or template have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.engine.local import LocalActor, LocalRewardModel
from plaudit.lm.dpo import dpo, held_out_pairs
from plaudit.lm.kto import held_out_labels, kto, mismatched
from plaudit.lm.sft import held_out_loss, sft
from plaudit.models.classifier import check_answered, check_classifier, check_kind
from plaudit.ops import PAIR_LOSSES
from plaudit.pipelines.drive import Progress
from plaudit.pipelines.lm import given
from plaudit.pipelines.lm.conclusion import conclude, save_policy, weights
from plaudit.pipelines.lm.config import (
    DataKeys,
    DPOJob,
    KTOJob,
    ORPOJob,
    RewardJob,
    SFTJob,
    SimPOJob,
)
from plaudit.pipelines.lm.figures import label_figures, pair_figures, text_figures
from plaudit.pipelines.lm.parts import (
    longest_of,
    make_parts,
    model_fingerprint,
    read_model,
)
from plaudit.pipelines.rlhf.evaluation import reward_model_figures
from plaudit.pipelines.rlhf.opinions import Opinions
from plaudit.pipelines.stages import Stages
from plaudit.pipelines.threads import free_threads
from plaudit.records.events import Checkpoint, Done, Event, Step
from plaudit.records.fingerprints import check_sources, of_file, of_rows
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder
from plaudit.records.state import Saved
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch
from plaudit.rewards.model import fit_reward_model, pair_metrics

ROWS = 64
"""Rows of given data whose reference is computed between two saves."""


def run_sft(
    config: SFTJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Fine-tune or go on in `run`; returns the summary."""
    with free_threads(run, progress.note):
        stages = Stages(run, progress, interrupt)
        files = _files(config, given.TEXTS, stages)
        folder = read_model(config)
        learn, judge = given.texts(config, files, folder.codec, progress.note)
        parts = make_parts(config, folder, longest=longest_of(_both(learn, judge)))
        actor = parts.actor
        parts.remember("data", *_both(learn, judge))
        watch = _watch(config, judge, lambda held: held_out_loss(actor, held), "-eval/loss")
        done = stages.take(
            "sft",
            lambda saved: sft(
                config, actor=actor, data=learn, watch=watch, seed=config.seed, saved=saved
            ),
            keep=_of_actor,
            headline=["loss", "eval/loss", "lr"],
        )
        save_policy(stages, "sft", actor, done)
        found = {} if judge is None else text_figures(judge, actor.logprobs(judge))
        return conclude(run, "sft", {**_counts(learn), **found})


def run_reward(
    config: RewardJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Teach a reward model or go on in `run`; returns the summary."""
    with free_threads(run, progress.note):
        stages = Stages(run, progress, interrupt)
        files = _files(config, given.PAIRS, stages)
        folder = read_model(config)
        learn, judge = given.pairs(config, files, folder.codec, progress.note)
        check_answered(folder.codec)
        check_kind(folder.config)
        batches = _both(learn.batch, None if judge is None else judge.batch)
        parts = make_parts(config, folder, longest=longest_of(batches))
        check_classifier(parts.backbone.lm)
        parts.remember("data", *batches)
        model = LocalRewardModel(parts.backbone, adam=config.adam)

        def figures(held: Opinions) -> dict[str, float]:
            return pair_metrics(model.scores(held.batch), held.pairs)

        watch = _watch(config, judge, figures, "eval/accuracy")
        done = stages.take(
            "reward",
            lambda saved: fit_reward_model(
                config,
                model=model,
                batch=learn.batch,
                pairs=learn.pairs,
                watch=watch,
                seed=config.seed,
                saved=saved,
            ),
            keep=lambda name: name.startswith("model/weight."),
            headline=["loss", "accuracy", "eval/accuracy"],
        )
        model.restore(weights("model", done.arrays))
        model.freeze()
        model.save(run.path / "reward_model")
        found: dict[str, Any] = {"comparisons": len(learn.pairs)}
        if judge is not None:
            found |= reward_model_figures(model.scores(judge.batch), judge)
        return conclude(run, "reward", {**_counts(learn.batch), **found})


def run_dpo(
    config: DPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Learn from pairs directly or go on in `run`; returns the summary."""
    with free_threads(run, progress.note):
        stages = Stages(run, progress, interrupt)
        files = _files(config, given.PAIRS, stages)
        folder = read_model(config)
        learn, judge = given.pairs(config, files, folder.codec, progress.note)
        batches = _both(learn.batch, None if judge is None else judge.batch)
        parts = make_parts(config, folder, longest=longest_of(batches))
        actor = parts.actor
        parts.remember("data", *batches)
        refs = reference_of(stages, actor, *batches)
        logp_ref, logp_judge = refs[0], refs[-1]

        def figures(held: Opinions) -> dict[str, float]:
            return held_out_pairs(config, actor, held.batch, held.pairs, logp_judge)

        watch = _watch(config, judge, figures, "-eval/loss")
        done = stages.take(
            "dpo",
            lambda saved: _warned(
                dpo(
                    config,
                    actor=actor,
                    data=learn.batch,
                    pairs=learn.pairs,
                    logp_ref=logp_ref,
                    watch=watch,
                    seed=config.seed,
                    saved=saved,
                ),
                progress.note,
            ),
            keep=_of_actor,
            headline=["loss", "accuracy", "margin"],
        )
        save_policy(stages, "dpo", actor, done)
        found: dict[str, Any] = {"comparisons": len(learn.pairs)}
        if judge is not None:
            found |= pair_figures(
                judge.batch,
                judge.pairs,
                logp=actor.logprobs(judge.batch),
                ref=logp_judge,
                beta=config.beta,
                kind=PAIR_LOSSES[config.loss],
            )
        return conclude(run, "dpo", {**_counts(learn.batch), **found})


def run_simpo(
    config: SimPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """`run_dpo` with SimPO's loss."""
    return run_dpo(config, run, progress=progress, interrupt=interrupt)


def run_orpo(
    config: ORPOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """`run_dpo` with ORPO's loss."""
    return run_dpo(config, run, progress=progress, interrupt=interrupt)


def run_kto(
    config: KTOJob, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Learn from labelled answers or go on in `run`; returns the summary."""
    with free_threads(run, progress.note):
        stages = Stages(run, progress, interrupt)
        files = _files(config, given.LABELS, stages)
        folder = read_model(config)
        learn, judge = given.labels(config, files, folder.codec, progress.note)
        batches = _both(learn[0], None if judge is None else judge[0])
        parts = make_parts(config, folder, longest=longest_of(batches))
        actor = parts.actor
        parts.remember("data", *batches)
        others = [mismatched(batch) if config.loss == "kto" else None for batch in batches]
        refs = reference_of(stages, actor, *batches, *(x for x in others if x is not None))
        of_others = iter(refs[len(batches) :])
        behind = [None if x is None else next(of_others) for x in others]
        logp_ref, logp_judge = refs[0], refs[len(batches) - 1]

        def figures(held: tuple[Trajectories, Tensor]) -> dict[str, float]:
            return held_out_labels(config, actor, *held, logp_judge, behind[-1])

        watch = _watch(config, judge, figures, "-eval/loss")
        done = stages.take(
            "kto",
            lambda saved: kto(
                config,
                actor=actor,
                data=learn[0],
                is_good=learn[1],
                logp_ref=logp_ref,
                logp_ref_other=behind[0],
                watch=watch,
                seed=config.seed,
                saved=saved,
            ),
            keep=_of_actor,
            headline=["loss", "accuracy", "margin"],
        )
        save_policy(stages, "kto", actor, done)
        found: dict[str, Any] = {"share_good": float(learn[1].double().mean())}
        if judge is not None:
            logp = actor.logprobs(judge[0])
            found |= label_figures(config, *judge, logp=logp, ref=logp_judge)
        return conclude(run, "kto", {**_counts(learn[0]), **found})


def reference_of(stages: Stages, actor: LocalActor, *batches: Trajectories) -> list[Tensor]:
    """Log-probabilities [B, T] of each batch under the policy as it begins, from the run folder
    where they were computed before."""
    done = stages.take("reference", lambda saved: _scored(actor, batches, saved))
    found = []
    for i, batch in enumerate(batches):
        parts = [done.arrays[f"{i}/{begin}"] for begin in range(0, len(batch), ROWS)]
        found.append(torch.cat(parts))
    return found


def _scored(
    actor: LocalActor, batches: tuple[Trajectories, ...], saved: Saved | None
) -> Iterator[Event]:
    """The reference's stage: `ROWS` rows a step, each under the name "batch/first row"."""
    places = [(i, b) for i, batch in enumerate(batches) for b in range(0, len(batch), ROWS)]
    arrays: dict[str, Tensor] = {} if saved is None else dict(saved[0])
    for step in range(len(arrays), len(places)):
        i, begin = places[step]
        rows = range(begin, min(begin + ROWS, len(batches[i])))
        some = batches[i].select(rows)
        arrays[f"{i}/{begin}"] = actor.logprobs(some)
        nll = -float((arrays[f"{i}/{begin}"] * some.chosen).sum() / some.chosen.sum().clamp(min=1))
        yield Step(step + 1, len(places), {"policy/nll": nll})
        kept = dict(arrays)
        due = (step + 1) % 16 == 0 or step + 1 == len(places)
        yield Checkpoint(step + 1, lambda kept=kept: (kept, {}), due)  # type: ignore[misc]
    yield Done(len(places))


def _warned(events: Iterator[Event], note: Callable[[str], None]) -> Iterator[Event]:
    """The events, and a word once where the chosen answers themselves become less likely."""
    warned = False
    for event in events:
        if isinstance(event, Step) and not warned:
            fallen = event.metrics.get("logp/chosen_change", 0.0)
            if event.step > 0.2 * event.total and fallen < -5.0:
                note(
                    f"The chosen answers are {-fallen:.1f} nats less likely than at the start: "
                    "rejected ones fall faster, and the probability goes elsewhere. A larger beta, "
                    "a smaller lr or nll_coef 1 hold it."
                )
                warned = True
        yield event


def _files(config: DataKeys, kinds: tuple[str, ...], stages: Stages) -> given.Files:
    """The job's files, the same as when the run was begun."""
    files = given.read_files(config, kinds, stages.progress.note)
    prints = {use: of_rows(rows) for use, rows in files.rows.items()}
    if config.template is not None and Path(config.template).is_file():
        prints["template"] = of_file(config.template)
    check_sources(stages.run, {**prints, "model": model_fingerprint(config)}, stages.progress.note)
    return files


def _watch(
    config: DataKeys, judge: Any, figures: Callable[[Any], Mapping[str, float]], best_by: str
) -> Watch:
    """Looks at what is held out, where anything is."""
    if judge is None:
        return Watch()
    return Watch(
        lambda: figures(judge),
        every=config.eval_every,
        best_by=best_by,
        stop_at=config.stop_at,
    )


def _both(learn: Trajectories, judge: Trajectories | None) -> tuple[Trajectories, ...]:
    return (learn,) if judge is None else (learn, judge)


def _counts(learn: Trajectories) -> dict[str, Any]:
    """Of what was learned from."""
    return {
        "prompts": len(learn.prompts),
        "rows": len(learn),
        "tokens": int(learn.chosen.sum()),
    }


def _of_actor(name: str) -> bool:
    return name.startswith("actor/weight.")
