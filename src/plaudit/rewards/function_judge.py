"""Functions of texts as a judge for reinforcement learning: called, timed, and counted where they fail.

A function abstains by None. One that is called for each answer also abstains where it raises or is
late, which is counted: a fault is never a score of 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plaudit.records.errors import UserError
from plaudit.records.types import Trajectories
from plaudit.rewards.functions import (
    LoadedReward,
    check_columns,
    checked_scores,
    loaded,
    rows_for,
    scores_of,
)
from plaudit.rewards.user_code import Failed
from plaudit.rewards.workers import Source, Workers


class FunctionJudge:
    """The users' functions, each a measure.

    A function of a whole batch is called in this process. One of a single answer is called for all
    answers at once where it is `async def`, else in `workers` processes, or with `workers=0` here.
    `timeout` is how many seconds one answer may take.

    `failures` counts, by measure, the answers that raised or were late since `taken_failures`;
    `first_failure` is the first that a measure ever had, in words.
    """

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]],
        names: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        *,
        timeout: float | None = None,
        workers: int = 0,
    ) -> None:
        """Names default to the functions' own, weights to 1; UserError for what cannot be kept."""
        self._functions = [loaded(function) for function in functions]
        called = [function.called for function in self._functions]
        self.names = different(called) if names is None else tuple(names)
        self.weights = checked_weights(weights, self.names)
        self._timeout = timeout
        _check_calls(self._functions, self.names, timeout=timeout, workers=workers)
        self._workers = Workers(workers, timeout=timeout)
        self._sources = [
            Source.of(function.function, function.name, called=f"the reward {name}")
            if workers and function.takes_one and not function.is_async
            else None
            for name, function in zip(self.names, self._functions, strict=True)
        ]
        self.failures: dict[str, int] = dict.fromkeys(self.names, 0)
        self.first_failure: dict[str, str] = {}

    def check_columns(self, columns: Iterable[str], source: str) -> None:
        """UserError unless each function's arguments fit the columns of a file."""
        columns = list(columns)
        for name, function in zip(self.names, self._functions, strict=True):
            check_columns(function, columns, source, name=f"the reward {name}")

    def __call__(self, batch: Trajectories) -> dict[str, Tensor]:
        """See `records.roles.Judge`; UserError where a function of one answer failed on all."""
        prompts = [batch.prompts[g].text for g in batch.group.tolist()]
        columns = batch.columns()
        scores = {}
        for place, (name, function) in enumerate(zip(self.names, self._functions, strict=True)):
            if function.takes_one:
                rows = rows_for(function, prompts, batch.texts, columns)
                found = self._one_by_one(place, rows, batch.texts)
            else:
                found = checked_scores(
                    *(function, prompts, batch.texts, columns),
                    name=f"the reward {name}",
                    may_abstain=True,
                )
            scores[name] = torch.tensor(found, dtype=torch.float64, device=batch.token.device)
        return scores

    def _one_by_one(
        self, place: int, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]
    ) -> list[float]:
        name, function, source = self.names[place], self._functions[place], self._sources[place]
        if source is None:
            outcomes = function.outcomes(rows, timeout=self._timeout)
        else:
            outcomes = self._workers.outcomes(source, rows)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        if failed:
            self.failures[name] += len(failed)
            self.first_failure.setdefault(name, str(failed[0]))
        if rows and len(failed) == len(rows):
            raise UserError(
                f"the reward {name} failed on all {len(rows)} answers of a batch; on the first: "
                f"{failed[0]}"
            )
        spoken = [None if isinstance(outcome, Failed) else outcome for outcome in outcomes]
        return scores_of(spoken, texts, name=f"the reward {name}", may_abstain=True)

    def taken_failures(self) -> dict[str, int]:
        """How many answers each measure failed on since this was last asked."""
        taken, self.failures = self.failures, dict.fromkeys(self.names, 0)
        return taken

    def close(self) -> None:
        """End the worker processes; another call begins new ones."""
        self._workers.close()


def _check_calls(
    functions: Sequence[LoadedReward],
    names: Sequence[str],
    *,
    timeout: float | None,
    workers: int,
) -> None:
    """UserError for a time that nothing could keep, and for numbers that make no sense."""
    if workers < 0:
        raise UserError(f"workers is {workers}: give 0 or more processes for rewards")
    if timeout is None:
        return
    if not 0 < timeout < math.inf:
        raise UserError(f"timeout is {timeout}: give a positive number of seconds, or none")
    single = [function for function in functions if function.takes_one]
    if not single:
        raise UserError(
            "timeout is the time of one answer, but no reward is called for one answer: write "
            "def reward(prompt, completion, **columns), or give no timeout"
        )
    for name, function in zip(names, functions, strict=True):
        if function.takes_one and not function.is_async and not workers:
            raise UserError(
                f"a timeout cannot be kept for the reward {name} in this process: give workers=1 "
                "or more, make it async def, or give no timeout"
            )


def checked_weights(weights: Sequence[float] | None, names: Sequence[str]) -> tuple[float, ...]:
    """One weight for each measure, 1 by default; UserError for names or weights of no use."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"two rewards are called {twice!r}: give each a name of its own")
    if weights is None:
        return (1.0,) * len(names)
    if len(weights) != len(names):
        raise UserError(
            f"there are {len(weights)} weights for {len(names)} rewards ({', '.join(names)}): "
            "give one for each"
        )
    if not all(math.isfinite(weight) for weight in weights) or (names and not any(weights)):
        raise UserError(f"the weights of rewards are {list(weights)}: give finite ones, not all 0")
    return tuple(float(weight) for weight in weights)


def different(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number behind each that stood before: polite, polite_2."""
    found: list[str] = []
    for name in names:
        number, made = 2, name
        while made in found or (made != name and made in names):
            number, made = number + 1, f"{name}_{number}"
        found.append(made)
    return tuple(found)
