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
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from plaudit.feedback.entries import Item, Preference, plain_text
from plaudit.records.errors import UserError
from plaudit.records.types import RewardFunction, Text

_CACHED_TEXTS = 4096  # an answer is compared several times; one score costs 0.25 ms

JUDGED_AT_ONCE = 256
"""Answers given to a reward function in one call, at most."""


class Rater(Protocol):
    """Whoever can score the answers of items and compare the first two of each.

    A rater sees the whole item: its prompt, its segments, and the columns of the prompt's row.
    """

    @property
    def name(self) -> str: ...

    def score(self, item: Item, segment: int) -> float: ...

    def compare(self, item: Item) -> Preference: ...

    def compare_all(self, items: Sequence[Item]) -> list[Preference]:
        """What `compare` says of each; a rater that is asked for many at once may be quicker."""
        ...


def preference_of(score_a: float, score_b: float, *, threshold: float = 0.0) -> Preference:
    """The higher score wins; a gap of at most `threshold` is a tie."""
    if abs(score_a - score_b) <= threshold:
        return "tie"
    return "a" if score_a > score_b else "b"


@dataclass(frozen=True)
class RuleRater:
    """Judges by a reward function: any `reward(prompts, completions, **columns) -> list[float]`.

    It asks for each different answer once, however many items show it, and for up to
    `JUDGED_AT_ONCE` answers in one call; an item's columns are the reward's.
    """

    name: str
    reward: RewardFunction
    threshold: float = 0.0
    _known: dict[Hashable, tuple[Item, float]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def score(self, item: Item, segment: int) -> float:
        """The reward of one answer; UserError unless it is one finite number."""
        return self._scores([(item, segment)])[0]

    def compare(self, item: Item) -> Preference:
        """The answer with the higher reward."""
        return self.compare_all([item])[0]

    def compare_all(self, items: Sequence[Item]) -> list[Preference]:
        """Of each item the answer with the higher reward, all judged together."""
        scores = self._scores([(item, segment) for item in items for segment in (0, 1)])
        pairs = zip(scores[::2], scores[1::2], strict=True)
        return [preference_of(a, b, threshold=self.threshold) for a, b in pairs]

    def _scores(self, asked: Sequence[tuple[Item, int]]) -> list[float]:
        keys = [_question(item, segment) for item, segment in asked]
        new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self._known}
        for batch in _batches(new):
            scores = self._judged([new[key] for key in batch])
            for key, score in zip(batch, scores, strict=True):
                self._known[key] = (new[key][0], score)  # the item keeps the key's id its own
        return [self._known[key][1] for key in keys]

    def _judged(self, asked: Sequence[tuple[Item, int]]) -> list[float]:
        items = [item for item, _ in asked]
        prompts = [plain_text(item.prompt) for item in items]
        answers = [plain_text(item.segments[segment].text) for item, segment in asked]
        columns = {name: [item.columns[name] for item in items] for name in items[0].columns}
        scores = list(self.reward(prompts, answers, **columns))
        if len(scores) != len(answers):
            raise UserError(
                f"reward of rater {self.name!r} gave {len(scores)} numbers for {len(answers)} "
                "completions; expected one for each"
            )
        for score in scores:
            if not math.isfinite(score):
                raise UserError(f"reward of rater {self.name!r} gave {score}; expected a number")
        return [float(score) for score in scores]


def _question(item: Item, segment: int) -> Hashable:
    """Equal for answers of which a reward would be asked the same."""
    answer = plain_text(item.segments[segment].text)
    try:
        return json.dumps([item.prompt, dict(item.columns)], sort_keys=True), answer
    except (TypeError, ValueError):  # values that JSON lacks: whether they are equal, who knows
        return plain_text(item.prompt), id(item.columns), answer


def _batches(asked: Mapping[Hashable, tuple[Item, int]]) -> Iterator[list[Hashable]]:
    """Keys in order, in groups that are not too large and whose items have the same columns."""
    batch: list[Hashable] = []
    for key, (item, _) in asked.items():
        full = len(batch) == JUDGED_AT_ONCE
        if batch and (full or item.columns.keys() != asked[batch[0]][0].columns.keys()):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


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

    def compound(self, text: Text) -> float:
        """VADER's compound score (-1 to 1) of a text."""
        return self._compound(plain_text(text))

    def score(self, item: Item, segment: int) -> float:
        """The compound score of the answer; the prompt and its columns play no part."""
        return self.compound(item.segments[segment].text)

    def compare(self, item: Item) -> Preference:
        """The more positive answer."""
        return preference_of(self.score(item, 0), self.score(item, 1), threshold=self.threshold)

    def compare_all(self, items: Sequence[Item]) -> list[Preference]:
        """The more positive answer of each item."""
        return [self.compare(item) for item in items]


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
    return statistics.stdev(annotator.compound(text) for annotator in annotators)


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
