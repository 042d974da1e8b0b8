"""Collecting votes: who is asked what, how often, and what a stage that was killed goes on from."""

from __future__ import annotations

import itertools
import random

import pytest

from plaudit.feedback.collect import collect_votes
from plaudit.feedback.entries import Item, Segment, score_vote
from plaudit.feedback.raters import RuleRater
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint

ITEMS = [  # seven pairs of six answers to each of five prompts
    Item(f"{n}-{a}-{b}", f"Say {n}", (Segment(f"answer {n} {a}"), Segment(f"answer {n} {b}")))
    for n in range(5)
    for a, b in list(itertools.combinations(range(6), 2))[::2][:7]
]


def collect(folder, items, raters, **more):
    """(what the store then holds, the events)."""
    with FeedbackStore(folder / "feedback.sqlite") as store:
        events = list(collect_votes(store, items, raters, votes_per_pair=1, seed=3, **more))
        said = [(v.key, v.rater, v.item_key, dict(v.value), v.shown) for v in store.votes()]
    return said, events


class Judge:
    """A random rule that keeps what it was asked."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.asked = []

    def __call__(self, prompts, completions, **columns):
        self.asked.append(list(zip(prompts, completions, strict=True)))
        return [self.draw.random() for _ in completions]


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_a_random_judge_is_asked_once_about_each_answer_and_never_again_after_a_kill(
    tmp_path, killed_after
):
    first = Judge(1)
    with FeedbackStore(tmp_path / "feedback.sqlite") as store:
        events = collect_votes(store, ITEMS, [RuleRater("j", first)], votes_per_pair=1, seed=3)
        saved = None
        for _, event in zip(range(killed_after), events, strict=False):
            if isinstance(event, Checkpoint):
                saved = event.state()
        events.close()
        before = {vote.key: vote.value for vote in store.votes()}
    second = Judge(2)
    said, events = collect(tmp_path, ITEMS, [RuleRater("j", second)], saved=saved)
    assert {key: value for key, *_, value, _ in said if key in before} == before
    assert [key for key, *_ in said] == [f"{item.key}-j" for item in ITEMS]
    assert events[-1].metrics["votes"] == 35.0
    ties = sum(value["preference"] == "tie" for *_, value, _ in said)
    assert events[-1].metrics["ties"] == ties / 35
    for judge in (first, second):
        asked = [one for call in judge.asked for one in call]
        assert len(asked) == len(set(asked))
    left = {(i.prompt, s.text) for i in ITEMS if f"{i.key}-j" not in before for s in i.segments}
    assert {one for call in second.asked for one in call} == left


def test_another_judge_of_the_same_name_does_not_inherit_votes_unseen(tmp_path):
    collect(tmp_path, ITEMS, [RuleRater("j", Judge(1))])
    with pytest.raises(UserError, match="is already there with other content"):
        collect(tmp_path, ITEMS, [RuleRater("j", Judge(2))])


def test_a_stage_that_goes_on_does_not_take_a_score_for_a_comparison(tmp_path):
    """A key of ours that somebody used for another kind of vote is refused, not read as ours."""
    first = ITEMS[0]
    with FeedbackStore(tmp_path / "feedback.sqlite") as store:
        store.add_items([first])
        store.add_votes([score_vote(first.key, "j", 0.5, key=f"{first.key}-j")])
    saved = {}, {"step": 0, "votes": 0, "ties": 0}
    with pytest.raises(UserError, match="is already there with other content"):
        collect(tmp_path, ITEMS, [RuleRater("j", Judge(1))], saved=saved)
