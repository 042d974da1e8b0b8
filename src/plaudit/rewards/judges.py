"""Judges for reinforcement learning on text: functions, reward models, and several of them together.

    judge(batch) -> {name: scores [B]}, NaN where that measure abstains from an answer

Functions are called in `function_judge`, saved reward models in `model_judge`; here is what becomes
of the names that a user gives, and what makes a judge of a reward role and the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plaudit.ops import combined, outcome_reward
from plaudit.records.errors import UserError, nearest
from plaudit.records.roles import Judge, Reward
from plaudit.records.types import Trajectories
from plaudit.rewards.function_judge import FunctionJudge, checked_weights, different
from plaudit.rewards.functions import LoadedReward, load_reward_function
from plaudit.rewards.model_judge import ModelJudge, require_finite

SENTIMENT = "sentiment"
"""The name of the built-in judge, the noiseless rule behind the simulated annotators."""


class RewardJudge:
    """A reward role as a judge of one measure, the sum of each answer's rewards; others are watched,
    at weight 0."""

    def __init__(
        self, reward: Reward, name: str = "reward", *, watched: Mapping[str, Reward] | None = None
    ) -> None:
        self._rewards = {name: reward, **(watched or {})}
        self.names = tuple(self._rewards)
        self.weights = (1.0, *(0.0 for _ in self.names[1:]))

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """See `records.roles.Judge`; UserError for a reward that is not finite."""
        return {
            name: require_finite(reward(batch).double().sum(1), name)
            for name, reward in self._rewards.items()
        }


class ScoredReward:
    """A judge as a reward role: each answer's weighted sum of scores, on its last chosen token.

    It departs from `records.roles.Reward` in one thing: where nobody judged an answer that reward is
    NaN, and a loop that takes this reward leaves such rows out.
    """

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def __call__(self, batch: Trajectories) -> Tensor:
        """Rewards [B, T]."""
        total, heard = combined(self.judge(batch), self.judge.weights)
        score = total.masked_fill(~heard, math.nan).to(batch.logp.dtype)
        return outcome_reward(score, batch.chosen)


class LoadedJudge:
    """What `load_judge` found: functions and reward models, as one judge of several measures."""

    def __init__(
        self,
        functions: FunctionJudge,
        models: Sequence[ModelJudge],
        names: Sequence[str],
        weights: Sequence[float] | None,
    ) -> None:
        self.functions, self.models = functions, tuple(models)
        self.names, self.weights = tuple(names), checked_weights(weights, names)

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """See `records.roles.Judge`."""
        found = self.functions(batch)
        for model in self.models:
            found |= model(batch)
        return {name: found[name] for name in self.names}

    def check(self, columns: Iterable[str], source: str, tokenizer: Any = None) -> None:
        """UserError unless functions fit the columns of a file, and models the policy's tokenizer."""
        self.functions.check_columns(columns, source)
        for model in self.models if tokenizer is not None else ():
            model.check_tokenizer(tokenizer)

    @property
    def first_failure(self) -> Mapping[str, str]:
        """By measure the first failure it ever had, in words."""
        return self.functions.first_failure

    def taken_failures(self) -> dict[str, int]:
        """How many answers each function failed on since this was last asked."""
        return self.functions.taken_failures()

    def close(self) -> None:
        """End the worker processes; another call begins new ones."""
        self.functions.close()


def load_judge(
    names: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    timeout: float | None = None,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> LoadedJudge:
    """The judge that a user names: each of `names` is one measure.

    "module:function" or "path/to/file.py:function" is a function, a folder a saved reward model (on
    `device`), "sentiment" the built-in rule. Weights are 1 where none are given.
    Raises `UserError` for what cannot be found or used.
    """
    if not names:
        raise UserError("no reward is named: give module:function, file.py:function or a folder")
    parts = [_named(name, device) for name in names]
    called = different(
        [part.called if isinstance(part, LoadedReward) else part.names[0] for part in parts]
    )
    functions: dict[str, LoadedReward] = {}
    models = []
    for name, part in zip(called, parts, strict=True):
        if isinstance(part, LoadedReward):
            functions[name] = part
        else:
            models.append(part.renamed(name))
    judge = FunctionJudge(
        list(functions.values()), list(functions), timeout=timeout, workers=workers
    )
    return LoadedJudge(judge, models, called, weights)


def _named(name: str, device: torch.device | str) -> LoadedReward | ModelJudge:
    if name == SENTIMENT:
        from plaudit.feedback.raters import gold_score

        gold_score("")  # refuses here where its words are not installed

        def sentiment(completions: Sequence[str]) -> list[float]:
            return [gold_score(text) for text in completions]

        return LoadedReward(sentiment)
    if Path(name).expanduser().is_dir():
        return ModelJudge(Path(name).expanduser(), device)
    if ":" not in name:
        raise UserError(
            f"reward {name!r} is neither a function (module:function, file.py:function) nor the "
            f"folder of a reward model nor {SENTIMENT}{nearest(name, [SENTIMENT])}"
        )
    return load_reward_function(name)


__all__ = [
    "FunctionJudge",
    "LoadedJudge",
    "ModelJudge",
    "RewardJudge",
    "ScoredReward",
    "load_judge",
]
