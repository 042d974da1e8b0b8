"""Raters that need no person: a rule, and annotators simulated with real human disagreement.

VADER's lexicon keeps, for every token, the ratings that ten people gave it. A simulated annotator
holds one of those ten for each token and then follows VADER's own rules, so annotators disagree
where people did. Left out: disagreement over negation, emphasis and idioms, on which all share
VADER's rules; and who gave which rating, which the lexicon does not keep, so the draws are
independent from token to token.
Source: Hutto and Gilbert, "VADER", ICWSM 2014.
"""

from __future__ import annotations

import copy
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from plaudit.feedback.entries import Preference, plain_text
from plaudit.records.errors import UserError
from plaudit.records.types import RewardFunction, Text

_CACHED_TEXTS = 4096  # an answer is compared several times; one score costs 0.25 ms


class Rater(Protocol):
    """Whoever can compare two answers and score one."""

    @property
    def name(self) -> str: ...

    def compare(self, prompt: Text, a: Text, b: Text) -> Preference: ...

    def score(self, prompt: Text, answer: Text) -> float: ...


def preference_of(score_a: float, score_b: float, *, threshold: float = 0.0) -> Preference:
    """The higher score wins; a gap of at most `threshold` is a tie."""
    if abs(score_a - score_b) <= threshold:
        return "tie"
    return "a" if score_a > score_b else "b"


@dataclass(frozen=True)
class RuleRater:
    """Judges by a reward function: any `reward(prompts, completions) -> list[float]`."""

    name: str
    reward: RewardFunction
    threshold: float = 0.0

    def score(self, prompt: Text, answer: Text) -> float:
        """The reward of one answer; UserError unless it is one finite number."""
        return self._scores(prompt, [answer])[0]

    def compare(self, prompt: Text, a: Text, b: Text) -> Preference:
        """The answer with the higher reward, both judged in one call."""
        score_a, score_b = self._scores(prompt, [a, b])
        return preference_of(score_a, score_b, threshold=self.threshold)

    def _scores(self, prompt: Text, answers: Sequence[Text]) -> list[float]:
        texts = [plain_text(answer) for answer in answers]
        scores = list(self.reward([plain_text(prompt)] * len(texts), texts))
        if len(scores) != len(texts):
            raise UserError(
                f"reward of rater {self.name!r} gave {len(scores)} numbers for {len(texts)} "
                "completions; expected one for each"
            )
        for score in scores:
            if not math.isfinite(score):
                raise UserError(f"reward of rater {self.name!r} gave {score}; expected a number")
        return [float(score) for score in scores]


class SimulatedAnnotator:
    """Prefers the answer that VADER, with this annotator's own lexicon, finds more positive.

    Its lexicon holds one of the ten human ratings of every token, drawn from (`seed`, `number`)
    alone: annotator 3 is the same among 5 as among 10. `threshold` is the gap in the compound
    score (-1 to 1) up to which it sees a tie.
    """

    def __init__(self, number: int, *, seed: int, threshold: float = 0.0) -> None:
        self.name = f"annotator-{number}"
        self.threshold = threshold
        draw = random.Random(f"plaudit annotator {seed} {number}")
        lexicon = {
            token: float(ratings[draw.randrange(len(ratings))])
            for token, ratings in raw_ratings().items()
        }
        analyzer = copy.copy(_analyzer())  # rules and emoji names are shared, the lexicon is not
        analyzer.lexicon = lexicon
        self.lexicon = lexicon
        self._compound = lru_cache(maxsize=_CACHED_TEXTS)(
            lambda text: float(analyzer.polarity_scores(text)["compound"])
        )

    def score(self, prompt: Text, answer: Text) -> float:
        """VADER's compound score (-1 to 1) of the answer; the prompt plays no part."""
        return self._compound(plain_text(answer))

    def compare(self, prompt: Text, a: Text, b: Text) -> Preference:
        """The more positive answer."""
        score_a, score_b = self.score(prompt, a), self.score(prompt, b)
        return preference_of(score_a, score_b, threshold=self.threshold)


def simulated_annotators(
    num_annotators: int, seed: int, *, threshold: float = 0.0
) -> list[SimulatedAnnotator]:
    """Annotators 0 to `num_annotators` - 1 of `seed`."""
    if num_annotators < 1:
        raise UserError(f"num_annotators is {num_annotators}, expected at least 1")
    return [
        SimulatedAnnotator(number, seed=seed, threshold=threshold)
        for number in range(num_annotators)
    ]


def gold_score(text: Text) -> float:
    """VADER's compound score (-1 to 1) with the mean of the ten ratings: the noiseless target."""
    return float(_analyzer().polarity_scores(plain_text(text))["compound"])


def gold_spread(text: Text, annotators: Sequence[SimulatedAnnotator]) -> float:
    """How far annotators differ on a text: the sample standard deviation of their scores."""
    if len(annotators) < 2:
        raise UserError(f"a spread needs at least 2 annotators, got {len(annotators)}")
    return statistics.stdev(annotator.score("", text) for annotator in annotators)


@lru_cache(maxsize=1)
def raw_ratings() -> dict[str, tuple[int, ...]]:
    """The ten human ratings (-4 to 4) of every token of VADER's lexicon.

    Tokens listed twice keep their last line, as in VADER's own dictionary.
    """
    ratings: dict[str, tuple[int, ...]] = {}
    for line in _lexicon_file().read_text(encoding="utf-8").split("\n"):
        if line.strip():
            token, _mean, _sd, raw = line.strip().split("\t")
            ratings[token] = tuple(json.loads(raw))
    return ratings


def _lexicon_file() -> Path:
    module = _vader()
    return Path(module.__file__).with_name("vader_lexicon.txt")


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    return _vader().SentimentIntensityAnalyzer()


def _vader() -> Any:
    try:
        from vaderSentiment import vaderSentiment
    except ModuleNotFoundError:
        raise UserError(
            "simulated annotators need the package vaderSentiment: pip install 'plaudit[demo]'"
        ) from None
    return vaderSentiment
