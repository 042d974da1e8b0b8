"""Judges of answers in RL: functions of texts, reward models, or several of them with weights.

    def polite(prompts, completions, **columns) -> list[float | None]      all answers at once
    def polite(prompt, completion, **columns) -> float | None              one at a time

Either may be `async def`; of the second kind all answers of a batch are asked at once. None is an
abstention: the answer leaves that measure's statistics and, where nobody else speaks, the loss. An
answer whose own call fails or takes longer than it may abstains too and is counted: a failure is no
score, and least of all 0.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.ops import outcome_reward
from plaudit.ops.rewards import combined
from plaudit.records.errors import UserError
from plaudit.records.imports import said
from plaudit.records.roles import Judge, Reward
from plaudit.records.rows import Rows
from plaudit.records.types import Trajectories
from plaudit.rewards.functions import (
    LoadedReward,
    check_columns,
    checked_score,
    checked_scores,
    load_reward_function,
)

ONE_AT_A_TIME = ("prompt", "completion")
"""Arguments by which a function that judges single answers is known."""

SENTIMENT = "sentiment"
"""The name of the built-in measure, the rule behind the simulated annotators."""


class Measure:
    """One function of texts: scores, with NaN where it abstains, and what failed."""

    def __init__(self, function: LoadedReward, name: str, *, timeout: float | None = None) -> None:
        self.function, self.name, self.timeout = function, name, timeout
        self.failed = 0
        self.first_failure = ""
        parameters = inspect.signature(function).parameters
        self.is_single = ONE_AT_A_TIME[1] in parameters and "completions" not in parameters
        self._takes = set(parameters)
        kinds = {p.kind for p in parameters.values()}
        self._takes_all = inspect.Parameter.VAR_KEYWORD in kinds
        is_async = inspect.iscoroutinefunction(inspect.unwrap(function.function))
        if timeout is not None and not (self.is_single and is_async):
            raise UserError(
                f"reward_timeout is of rewards that judge one answer at a time and wait for "
                f"something: write async def {name}(prompt, completion, **columns), or leave it out"
            )

    def check(self, rows: Rows) -> None:
        """UserError unless the columns of `rows` fit the function's arguments."""
        if not self.is_single:
            check_columns(self.function, rows[0], rows.source, name=self.name)
            return
        known = {*rows[0], *ONE_AT_A_TIME}
        for parameter in inspect.signature(self.function).parameters.values():
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            needed = parameter.default is parameter.empty and not variadic
            if needed and parameter.name not in known:
                have = ", ".join(name for name in rows[0] if name != "prompt") or "none besides"
                raise UserError(
                    f"{self.name} wants {parameter.name!r}, which no column of {rows.source} "
                    f"provides: there is {have}"
                )

    def __call__(self, batch: Trajectories) -> list[float]:
        """One number an answer; NaN where the function abstains or fails."""
        prompts = [batch.prompts[g].text for g in batch.group.tolist()]
        columns = batch.columns()
        self.failed, self.first_failure = 0, ""
        if not self.is_single:
            return checked_scores(
                self.function, prompts, batch.texts, columns, name=self.name, may_abstain=True
            )
        calls = [
            {
                "prompt": prompts[row],
                "completion": batch.texts[row],
                **{name: values[row] for name, values in columns.items()},
            }
            for row in range(len(batch))
        ]
        answers = self.function.each([self._kept(call) for call in calls], timeout=self.timeout)
        return [self._score(row, answer, batch.texts[row]) for row, answer in enumerate(answers)]

    def _kept(self, call: dict[str, Any]) -> dict[str, Any]:
        return call if self._takes_all else {n: x for n, x in call.items() if n in self._takes}

    def _score(self, row: int, answer: Any, text: str) -> float:
        if isinstance(answer, BaseException):
            self.failed += 1
            what = "took too long" if isinstance(answer, TimeoutError) else f"raised {said(answer)}"
            self.first_failure = self.first_failure or (
                f"{self.name} {what} for completion {row} ({text[:60]!r})"
                f"{self.function.place_of(answer)}"
            )
            return math.nan
        if answer is None:
            return math.nan
        return checked_score(answer, self.name, f"completion {row} ({text[:60]!r})")


@dataclass(frozen=True)
class FunctionJudge:
    """Functions of texts as a judge."""

    measures: Sequence[Callable[[Trajectories], Any]]
    names: tuple[str, ...]
    weights: tuple[float, ...]

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """Scores [B] by name. UserError where every answer's own call failed."""
        found = {}
        for name, measure in zip(self.names, self.measures, strict=True):
            scores = measure(batch)
            if isinstance(measure, Measure) and measure.failed == len(batch) > 0:
                raise UserError(
                    f"every answer's judgement failed; the first: {measure.first_failure}"
                )
            if not isinstance(scores, Tensor):
                scores = torch.tensor(scores, dtype=torch.float64, device=batch.token.device)
            found[name] = scores
        return found

    @property
    def failed(self) -> dict[str, int]:
        """Answers whose own call failed in the last batch, by name."""
        pairs = zip(self.names, self.measures, strict=True)
        return {name: getattr(measure, "failed", 0) for name, measure in pairs}


class ModelMeasure:
    """A saved reward model: scores of prompt and answer, read at the last token."""

    def __init__(self, folder: str | Path) -> None:
        from plaudit.models.classifier import load_classifier

        self._score = load_classifier(folder)

    def __call__(self, batch: Trajectories) -> Tensor:
        """Scores [B], longest conversations first, a few at a time."""
        texts = [
            (*batch.prompts[g].ids, *ids[there].tolist())
            for g, ids, there in zip(batch.group.tolist(), batch.token, batch.there, strict=True)
        ]
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        out = torch.zeros(len(texts))
        for begin in range(0, len(order), 16):
            rows = order[begin : begin + 16]
            out[rows] = self._score([texts[row] for row in rows]).float().cpu()
        return out.to(batch.token.device)


def _sentiment(batch: Trajectories) -> list[float]:
    """VADER's compound score of each answer, −1 to 1."""
    from plaudit.feedback.raters import gold_score

    return [gold_score(text) for text in batch.texts]


def load_judge(
    names: Sequence[str], weights: Sequence[float] | None = None, *, timeout: float | None = None
) -> FunctionJudge:
    """A judge of what is named: file.py:function, module:function, a reward model's folder, or
    sentiment. Weights are one each where none are given.

    Raises UserError for what cannot be found, and for another number of weights.
    """
    if weights is not None and len(weights) != len(names):
        raise UserError(
            f"there are {len(weights)} weights ({' '.join(map(str, weights))}) for {len(names)} "
            f"rewards ({' '.join(names)}): give one for each"
        )
    measures: list[Callable[[Trajectories], Any]] = []
    short: list[str] = []
    for name in names:
        if name == SENTIMENT:
            measures.append(_sentiment)
            label = SENTIMENT
        elif Path(name).expanduser().is_dir():
            measures.append(ModelMeasure(Path(name).expanduser()))
            label = Path(name).name
        elif ":" not in name:
            raise UserError(
                f"reward {name!r} is neither module:function, file.py:function, the folder of a "
                f"reward model, nor {SENTIMENT}"
            )
        else:
            label = name.rpartition(":")[2]
            measures.append(Measure(load_reward_function(name), label, timeout=timeout))
        count = sum(label == other.partition("#")[0] for other in short)
        short.append(label if not count else f"{label}#{count + 1}")
    return FunctionJudge(measures, tuple(short), tuple(weights or [1.0] * len(names)))


def check_judge(judge: FunctionJudge, rows: Rows) -> None:
    """UserError unless the columns of the prompts fit every function's arguments."""
    for measure in judge.measures:
        if isinstance(measure, Measure):
            measure.check(rows)


@dataclass(frozen=True)
class RewardJudge:
    """A reward in the place of a judge of one measure; further ones are watched at weight 0."""

    reward: Reward
    name: str
    watched: Mapping[str, Reward]

    @property
    def names(self) -> tuple[str, ...]:
        """The reward's name, then those that are watched."""
        return (self.name, *self.watched)

    @property
    def weights(self) -> tuple[float, ...]:
        """One, and zeros."""
        return (1.0, *(0.0 for _ in self.watched))

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """Row sums of the rewards."""
        rewards = {self.name: self.reward, **self.watched}
        return {name: reward(batch).sum(1) for name, reward in rewards.items()}


@dataclass(frozen=True)
class ScoredReward:
    """A judge in the place of a reward: the weighted sum on the last chosen token, NaN where nobody
    judged."""

    judge: Judge

    def __call__(self, batch: Trajectories) -> Tensor:
        """Rewards [B, T]."""
        total, heard = combined(self.judge(batch), self.judge.weights)
        return outcome_reward(torch.where(heard, total, torch.nan), batch.chosen)
