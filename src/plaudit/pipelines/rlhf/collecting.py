"""Opinions of answers, from whatever the job's source of feedback is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plaudit.feedback.collect import collect_votes
from plaudit.feedback.entries import Comparison, Item
from plaudit.feedback.raters import Rater, RuleRater, simulated_annotators
from plaudit.models.text import TextCodec
from plaudit.pipelines.rlhf.inputs import Inputs
from plaudit.pipelines.rlhf.opinions import (
    Opinions,
    opinions_of_texts,
    opinions_on,
    pair_items,
    split_of,
    split_opinions,
)
from plaudit.pipelines.rlhf.refusals import JUDGING_SHARE, require_decided
from plaudit.pipelines.rlhf.waiting import comparisons_as_of, wait_for_votes
from plaudit.pipelines.stages import Stages
from plaudit.records.errors import UserError, command
from plaudit.records.types import Trajectories

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore


def collect_opinions(
    inputs: Inputs,
    stages: Stages,
    store: FeedbackStore,
    codec: TextCodec,
    *,
    train: Trajectories,
    held_out: Trajectories,
) -> tuple[Opinions, Opinions]:
    """(to learn from, to judge the reward model by): pairs of these answers, and what is said of
    them.

    Raises Interrupted where people's votes were waited for and a stop was asked for.
    """
    config, feedback = inputs.config, inputs.config.feedback
    items = [
        item
        for split, batch in (("train", train), ("held_out", held_out))
        for item in pair_items(
            batch,
            pairs_per_prompt=feedback.pairs_per_prompt,
            split=split,
            model=config.model,
            seed=config.seed,
        )
    ]
    if not items:
        raise UserError(
            "all answers to each prompt are equal, so there is nothing to compare: "
            "raise the sampling temperature in a new run",
            new_run=True,
        )
    if inputs.source == "people":
        comparisons = _of_people(inputs, stages, store, items)
    else:
        stages.take(
            "feedback",
            lambda saved: collect_votes(
                store,
                items,
                _raters(inputs),
                votes_per_pair=feedback.votes_per_pair,
                seed=config.seed,
                saved=saved,
            ),
            headline=["feedback/votes", "feedback/ties"],
        )
        comparisons = store.comparisons()
    if any(split_of(c) is None for c in comparisons):
        return _split_texts(inputs, comparisons, codec)
    learn = opinions_on(train, comparisons, split="train")
    judge = opinions_on(held_out, comparisons, split="held_out")
    return _decided(inputs, learn, judge)


def opinions_of_file(
    inputs: Inputs, store: FeedbackStore, codec: TextCodec
) -> tuple[Opinions, Opinions]:
    """The same from a file of comparisons, which the store takes in."""
    from plaudit.feedback.exchange import import_comparisons

    file, renames = inputs.config.feedback.file, inputs.sources["feedback"].renames
    assert file is not None
    import_comparisons(store, file, columns=renames)
    return _split_texts(inputs, store.comparisons(), codec)


def _of_people(
    inputs: Inputs, stages: Stages, store: FeedbackStore, items: Sequence[Item]
) -> list[Comparison]:
    """What people said of the items, once they have said enough: always the same votes of a run."""
    feedback = inputs.config.feedback
    page = command("studio", "--run", stages.run.path)
    if feedback.store is not None:
        page = command("studio", "--store", feedback.store)
    done = stages.take(
        "feedback",
        lambda saved: wait_for_votes(
            store,
            items,
            wanted=feedback.votes_wanted,
            patience=feedback.wait_seconds,
            interrupt=stages.interrupt,
            say=stages.progress.note,
            page=page,
            saved=saved,
        ),
        headline=["feedback/votes", "feedback/wanted", "feedback/ties"],
    )
    return comparisons_as_of(store, int(done.results["last_vote"]))


def _split_texts(
    inputs: Inputs, comparisons: Sequence[Comparison], codec: TextCodec
) -> tuple[Opinions, Opinions]:
    opinions = opinions_of_texts(comparisons, codec)
    seed = inputs.config.seed
    return _decided(inputs, *split_opinions(opinions, share=JUDGING_SHARE, seed=seed))


def _decided(inputs: Inputs, learn: Opinions, judge: Opinions) -> tuple[Opinions, Opinions]:
    """Both, where they are enough to teach a reward model and to judge it."""
    require_decided(learn, "training", inputs.source)
    require_decided(judge, "held-out", inputs.source, at_least=1)
    return learn, judge


def _raters(inputs: Inputs) -> Sequence[Rater]:
    config = inputs.config
    if inputs.source == "annotators":
        feedback = config.feedback
        return simulated_annotators(
            feedback.num_annotators, config.seed, threshold=feedback.tie_threshold
        )
    name, gold = config.reward, inputs.gold
    assert name is not None
    assert gold is not None

    def judged(prompts: list[str], completions: list[str], **columns: list[Any]) -> Sequence[float]:
        return gold(prompts, completions, columns)

    return [RuleRater(name, judged)]
