"""From answers to items, votes on them and pairs: the same as before, with the user's columns."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch

from plaudit.feedback.collect import collect_votes
from plaudit.feedback.raters import RuleRater, simulated_annotators
from plaudit.feedback.store import FeedbackStore
from plaudit.models.answers import given_answers
from plaudit.pipelines.rlhf.evaluation import gold_scores
from plaudit.pipelines.rlhf.opinions import opinions_on, pair_items
from plaudit.records.types import Prompt

WORDS = ["good", "bad", "great", "awful", "sad", "happy", "nice", "ugly", "tea", "rain"]
TEXTS = [f"{WORDS[(7 * i + i // 4) % 10]} {WORDS[(3 * i + 1) % 10]}" for i in range(30)]


def answers(texts=TEXTS, columns=lambda i: {}):
    """Six answers to each prompt; `columns(i)` are those of the i-th."""
    prompts = [Prompt(f"Say {i}", (i,), columns(i)) for i in range(len(texts) // 6)]
    group = torch.arange(len(prompts)).repeat_interleave(6)
    whole = given_answers([(prompts[g], (1,)) for g in group], pad_id=0)
    return replace(whole, prompts=tuple(prompts), group=group, texts=tuple(texts))


def items_of(batch):
    return pair_items(batch, pairs_per_prompt=7, split="train", model="m", seed=3)


def collect(folder, items, raters):
    """(what the store then holds, the events)."""
    with FeedbackStore(folder / "feedback.sqlite") as store:
        votes = 2 if len(raters) > 1 else 1
        events = list(collect_votes(store, items, raters, votes_per_pair=votes, seed=3))
        said = [(v.key, v.rater, v.item_key, dict(v.value), v.shown) for v in store.votes()]
    return said, events


def test_the_simulated_annotators_votes_are_those_of_before(tmp_path):
    """Digests of the votes from when raters were asked pair by pair."""
    items = items_of(answers())
    said, events = collect(tmp_path, items, simulated_annotators(4, 3, threshold=0.1))
    shown = [[item.key, item.prompt, [s.text for s in item.segments]] for item in items]
    assert len(said) == 70
    assert events[-1].metrics == {"votes": 70.0, "ties": 12 / 70}
    digests = [hashlib.sha256(json.dumps(x).encode()).hexdigest()[:16] for x in (shown, said)]
    assert digests == ["d52c9e3266199f89", "ae6e805a5ace5a7d"]


def test_columns_are_the_users_alone_whatever_they_are_called(tmp_path):
    columns = {"rows": 7, "split": "theirs", "row": None}
    batch = answers(columns=lambda i: columns)
    items = items_of(batch)

    def longer(prompts, completions, rows, split, row):
        assert {*rows, *split, *row} == {7, "theirs", None}
        return [float(len(text)) for text in completions]

    collect(tmp_path, items, [RuleRater("longer", longer)])
    with FeedbackStore(tmp_path / "feedback.sqlite") as store:
        comparisons = store.comparisons()
    assert comparisons[0].columns == columns
    pairs = opinions_on(batch, comparisons, split="train").pairs
    assert len(pairs.a) == len(items)
    for a, b, share in zip(pairs.a, pairs.b, pairs.share, strict=True):
        x, y = (len(batch.texts[row]) for row in (a, b))
        assert share == (0.5 if x == y else float(x > y))
    assert opinions_on(batch, comparisons, split="theirs").pairs.a == ()


def test_gold_judges_equal_answers_to_a_prompt_once_and_all_prompts_by_their_columns():
    """Twelve answers of two texts to two prompts; then 600 different ones in calls of at most 256."""
    calls = []

    def gold(prompts, completions, columns):
        calls.append(len(completions))
        return [text.count(a) for text, a in zip(completions, columns["a"], strict=True)]

    batch = answers(["xxy", "y"] * 6, columns=lambda i: {"a": "xy"[i]})
    assert gold_scores(gold, batch) == [2, 0] * 3 + [1, 1] * 3
    twice = replace(batch, prompts=(batch.prompts[1], batch.prompts[1]))
    assert gold_scores(gold, twice) == [1] * 12
    assert calls == [4, 2]
    calls.clear()
    many = [f"{'x' * i}" for i in range(600)]
    assert gold_scores(gold, answers(many, columns=lambda i: {"a": "x"})) == list(range(600))
    assert calls == [256, 256, 88]
