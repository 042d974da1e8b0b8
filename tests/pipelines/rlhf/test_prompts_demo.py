"""The shipped demo prompts: neutral, short, distinct, and the same mix of forms in both parts."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

NUM_TRAIN = 48
ROWS = [
    json.loads(line)
    for line in files("plaudit")
    .joinpath("recipes/prompts_demo.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


def test_there_are_48_and_16_distinct_short_prompts():
    prompts = [row["prompt"] for row in ROWS]
    assert len(prompts) == len({p.lower() for p in prompts}) == 64
    assert all(set(row) == {"prompt", "topic"} and row["topic"] for row in ROWS)
    assert max(len(p.split()) for p in prompts) <= 16


def test_no_prompt_carries_sentiment_of_its_own():
    """VADER's lexicon rates the word "sentence" itself 0.3, so that word alone is left out."""
    judge = SentimentIntensityAnalyzer()
    scores = {
        row["prompt"]: judge.polarity_scores(row["prompt"].replace("sentence", ""))["compound"]
        for row in ROWS
    }
    assert {p: s for p, s in scores.items() if s != 0} == {}
    assert max(judge.polarity_scores(row["prompt"])["compound"] for row in ROWS) < 0.08


def test_both_parts_hold_the_same_forms():
    """Requests ("Write", "Describe", "In one") and questions, each within a tenth of its share."""

    def shares(rows):
        first = [row["prompt"].split()[0] for row in rows]
        forms = Counter(w if w in ("Write", "Describe", "In") else "question" for w in first)
        return {form: n / len(rows) for form, n in forms.items()}

    train, held_out = shares(ROWS[:NUM_TRAIN]), shares(ROWS[NUM_TRAIN:])
    assert set(train) == set(held_out) == {"Write", "Describe", "In", "question"}
    assert all(abs(train[form] - held_out[form]) < 0.1 for form in train)
