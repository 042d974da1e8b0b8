"""Raters by rule, and annotators who disagree as the people behind VADER's lexicon did."""

from __future__ import annotations

import datetime
import random
import statistics
import sys
from itertools import pairwise

import pytest

from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.raters import (
    RuleRater,
    SimulatedAnnotator,
    gold_score,
    gold_spread,
    preference_of,
    raw_ratings,
    simulated_annotators,
)
from plaudit.records.errors import UserError


def count_words(prompts, completions, **columns):
    return [len(text.split()) for text in completions]


def item(*answers, prompt="p", **columns):
    """An item that shows these answers."""
    return Item("key", prompt, tuple(Segment(answer) for answer in answers), columns)


def test_a_rule_prefers_what_its_reward_prefers():
    rater = RuleRater("length", count_words, threshold=1)
    assert rater.compare(item("one two three", "one")) == "a"
    assert rater.compare(item("one", "one two three")) == "b"
    assert rater.compare(item("one", "one two")) == "tie"
    assert rater.score(item([{"role": "assistant", "content": "one two"}]), 0) == 2.0


def test_a_rule_sees_the_columns_of_each_item_though_prompts_are_equal():
    """Any text may be the name of a column, also those that the job has used itself."""

    def count(prompts, completions, answer, split, rows):
        assert (split, rows) == (["mine"] * len(prompts), [7] * len(prompts))
        return [text.count(wanted) for text, wanted in zip(completions, answer, strict=True)]

    rater = RuleRater("count", count)
    asked = [item("aaa", "zzz", answer=x, split="mine", rows=7) for x in ("a", "zzz", "b")]
    assert rater.compare_all(asked) == ["a", "b", "tie"]
    assert [rater.score(one, 1) for one in asked] == [0, 1, 0]


def test_each_different_answer_is_judged_once_in_calls_of_bounded_size():
    calls = []

    def random_reward(prompts, completions, topic):
        calls.append(list(zip(prompts, completions, topic, strict=True)))
        return [random.random() for _ in completions]

    texts = [f"answer {i}" for i in range(200)]
    asked = [item(*texts[i : i + 2], topic=t) for t in ("tea", "rain") for i in range(199)]
    rater = RuleRater("random", random_reward)
    first = rater.compare_all(asked)
    assert [len(call) for call in calls] == [256, 144]  # 400 different ones in 796 places
    assert len({one for call in calls for one in call}) == 400
    assert rater.compare_all(asked) == first
    assert [rater.compare(one) for one in asked] == first
    scores = [(rater.score(one, 0), rater.score(one, 1)) for one in asked]
    assert [preference_of(*pair) for pair in scores] == first
    assert len(calls) == 2


def test_columns_that_json_lacks_and_columns_of_other_items_are_told_apart():
    calls = []

    def same(prompts, completions, **columns):
        calls.append(columns)
        return [1.0 for _ in completions]

    rater = RuleRater("same", same)
    days = [datetime.date(2024, 5, day) for day in (1, 2)]
    rater.compare_all([item("x", "y", day=day) for day in days])
    rater.compare_all([item("x", "y"), item("x", "y", day="1"), item("x", "y", day=1)])
    assert calls == [
        {"day": [days[0], days[0], days[1], days[1]]},
        {},
        {"day": ["1", "1", 1, 1]},
    ]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda prompts, completions: [1.0], "gave 1 numbers for 2 completions"),
        (lambda prompts, completions: [1.0, float("nan")], "gave nan"),
    ],
)
def test_a_rule_with_a_broken_reward(reward, message):
    with pytest.raises(UserError, match=message):
        RuleRater("broken", reward).compare(item("a", "b"))


def test_every_token_has_ten_human_ratings_whose_mean_is_vaders_lexicon():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    ratings = raw_ratings()
    assert ratings.keys() == lexicon.keys()
    assert {len(raw) for raw in ratings.values()} == {10}
    # one line of the published file, "lmfao", says 2.5 where its ratings give 2.4
    off = [t for t, raw in ratings.items() if abs(statistics.fmean(raw) - lexicon[t]) > 0.051]
    assert off == ["lmfao"]


def test_an_annotator_holds_one_of_the_ten_ratings_of_each_token():
    ratings = raw_ratings()
    annotator = SimulatedAnnotator(0, seed=0)
    assert annotator.lexicon.keys() == ratings.keys()
    assert all(annotator.lexicon[token] in raw for token, raw in ratings.items())
    # over all tokens the draw is even: the mean difference from the lexicon's mean is near 0
    off = [annotator.lexicon[token] - statistics.fmean(raw) for token, raw in ratings.items()]
    assert abs(statistics.fmean(off)) < 4 * statistics.stdev(off) / len(off) ** 0.5


def test_an_annotator_is_its_number_and_seed_and_nothing_else():
    of_three, of_five = simulated_annotators(3, 7), simulated_annotators(5, 7)
    assert [a.lexicon for a in of_three] == [a.lexicon for a in of_five[:3]]
    assert of_five[0].lexicon != of_five[1].lexicon
    assert of_five[0].lexicon != SimulatedAnnotator(0, seed=8).lexicon
    assert [a.name for a in of_three] == ["annotator-0", "annotator-1", "annotator-2"]


def test_vaders_rules_with_a_private_lexicon_by_hand():
    """compound = x / sqrt(x² + 15), where x is 0.293 more for "very" and turned by -0.74 by "not"."""
    annotator = SimulatedAnnotator(0, seed=0)
    x = annotator.lexicon["good"]
    assert x > 0

    def compound(valence):
        return round(valence / (valence * valence + 15) ** 0.5, 4)

    assert annotator.score(item("it is good"), 0) == compound(x)
    assert annotator.score(item("it is very good"), 0) == compound(x + 0.293)
    assert annotator.score(item("it is not good"), 0) == compound(-0.74 * x)
    assert gold_score("it is good") == compound(1.9)  # the mean of good's ten ratings
    assert gold_score([{"role": "assistant", "content": "it is good"}]) == compound(1.9)


def test_annotators_do_not_change_the_gold_lexicon():
    before = gold_score("a horrible, wonderful day")
    simulated_annotators(4, 3)
    assert gold_score("a horrible, wonderful day") == before


def test_disagreement_is_where_people_disagreed():
    annotators = simulated_annotators(40, 0)
    ratings = raw_ratings()
    agreed = max(ratings, key=lambda t: (t.isalpha(), -statistics.stdev(ratings[t])))
    disputed = max(ratings, key=lambda t: (t.isalpha(), statistics.stdev(ratings[t])))
    assert gold_spread(agreed, annotators) < 0.05 < 0.25 < gold_spread(disputed, annotators)
    assert gold_spread("the table and the chair", annotators) == 0
    with pytest.raises(UserError, match="at least 2 annotators, got 1"):
        gold_spread("good", annotators[:1])


def test_annotators_mostly_agree_with_gold_and_sometimes_do_not():
    """Single words whose means differ by 1 or more: the share right is near what the raw ratings say.

    For words u and v the chance that a draw of u beats a draw of v is counted over all 100 pairs of
    ratings, leaving ties out; the annotators' share must be within 4 standard errors of it.
    """
    ratings = {t: raw for t, raw in raw_ratings().items() if t.isalpha() and t.islower()}
    words = sorted(ratings)[::7]
    pairs = [
        (u, v)
        for u, v in pairwise(words)
        if statistics.fmean(ratings[u]) - statistics.fmean(ratings[v]) >= 1
        and gold_score(u) > gold_score(v)
    ]
    chance = []
    for u, v in pairs:
        wins = sum(x > y for x in ratings[u] for y in ratings[v])
        losses = sum(x < y for x in ratings[u] for y in ratings[v])
        chance.append(wins / (wins + losses))
    said = [a.compare(item(u, v)) for a in simulated_annotators(20, 0) for u, v in pairs]
    decided = [preference for preference in said if preference != "tie"]
    right = decided.count("a") / len(decided)
    assert len(pairs) > 50
    assert 0.8 < right < 0.999
    assert right == pytest.approx(statistics.fmean(chance), abs=4 * (0.25 / len(decided)) ** 0.5)


def test_the_threshold_makes_ties():
    assert preference_of(0.5, 0.4) == "a"
    assert preference_of(0.5, 0.4, threshold=0.2) == "tie"
    assert preference_of(0.0, 0.0) == "tie"
    close = SimulatedAnnotator(0, seed=0, threshold=2.0)
    assert close.compare(item("wonderful", "horrible")) == "tie"
    with pytest.raises(UserError, match="num_annotators is 0"):
        simulated_annotators(0, 0)


def test_without_the_package_the_install_line_is_given(monkeypatch):
    raw_ratings.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    with pytest.raises(UserError, match=r"pip install 'plaudit\[demo\]'"):
        simulated_annotators(1, 0)
