"""Rewards that are functions of texts: any callable a user names, checked at every call.

    reward(prompts, completions, **columns) -> one finite number for each completion
    reward(prompt, completion, **columns)   -> one finite number

The names of the arguments say which of the two a function is. Where the caller allows it, None in
place of a number abstains.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from plaudit.ops import outcome_reward
from plaudit.records.errors import UserError, nearest
from plaudit.records.imports import beside, load_module, said
from plaudit.records.types import Trajectories
from plaudit.rewards.apart import Apart
from plaudit.rewards.awaiting import EventLoop, Late
from plaudit.rewards.user_code import (
    Outcome,
    Unfit,
    failed,
    home_of,
    is_async,
    late,
    name_of,
    named_function,
    number_of,
    place_in,
)

GIVEN = ("prompts", "completions")
"""What a function of a whole batch is given besides columns."""

GIVEN_ONE = ("prompt", "completion")
"""What a function of one answer is given besides columns."""


class LoadedReward:
    """A user's function, run with its own settings of the process and the files beside it in reach.

    The call gives a list where the function gives one, yields it, or promises it (`async def`).
    `name` is "module:function" or "/path/to/file.py:function", by which any process finds it, or
    None; `called` what it is called.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        module: ModuleType | None = None,
        apart: Apart | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self.function, self.name = function, name
        self._module = sys.modules.get(home_of(function)) if module is None else module
        self._apart = Apart() if apart is None else apart
        self._loop = EventLoop()
        functools.update_wrapper(self, function, updated=())
        self.called = name_of(function) if name is None else name.rpartition(":")[2]

    @property
    def takes_one(self) -> bool:
        """Whether it is given one answer a call, and not all answers of a batch."""
        parameters = _parameters(self.function) or {}
        one = parameters.get("completion")
        return one is not None and not _is_variadic(one) and "completions" not in parameters

    @property
    def is_async(self) -> bool:
        """Whether it is `async def`."""
        return is_async(self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with beside(self._module), self._apart.entered():
            return self._loop.settled(self.function(*args, **kwargs))

    def each(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """What it gives for each row's arguments; what it promises is awaited together."""
        with beside(self._module), self._apart.entered():
            return self._loop.settled([self.function(**row) for row in rows])

    def outcomes(
        self, rows: Sequence[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[Outcome]:
        """As `each`, where a row that fails or is promised and late does not hinder the others."""
        with beside(self._module), self._apart.entered():
            begun = [self._begun(row) for row in rows]
            promised = [i for i, (value, _) in enumerate(begun) if inspect.isawaitable(value)]
            try:
                told = self._loop.outcomes([begun[i][0] for i in promised], timeout)
            except (Exception, SystemExit, asyncio.CancelledError) as error:  # it ended the loop
                told = [(None, error)] * len(promised)
        for i, outcome in zip(promised, told, strict=True):
            begun[i] = outcome
        return [self._outcome(*one, timeout) for one in begun]

    def _begun(self, row: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
        try:
            return self.function(**row), None
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            return None, error

    def _outcome(self, value: Any, error: BaseException | None, timeout: float | None) -> Outcome:
        if error is None:
            return number_of(value)
        if isinstance(error, Late) and timeout is not None:
            return late(timeout)
        return failed(error, self.function, self._module)

    def place_of(self, error: BaseException) -> str:
        """Where it failed: the last line of the user's own files that was running."""
        return place_in(error, self.function, self._module)


def reward_file(name: str) -> Path | None:
    """The Python file behind the name of a reward; None where it has none."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return Path(where).expanduser()
    file = getattr(load_module(where, "reward"), "__file__", None)
    return None if file is None else Path(file)


def load_reward_function(name: str) -> LoadedReward:
    """The callable named by "module:function" or "path/to/file.py:function".

    Raises `UserError` when the file, the module or the function cannot be found or is not callable.
    """
    apart = Apart()
    with apart.entered():
        function, module = named_function(name)
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):  # the working folder of another process may be another
        where = str(Path(where).expanduser().resolve())
    return LoadedReward(function, module, apart, name=f"{where}:{attribute}")


def loaded(function: Callable[..., Any]) -> LoadedReward:
    """A callable as a `LoadedReward`; one that is so already stays."""
    return function if isinstance(function, LoadedReward) else LoadedReward(function)


def check_columns(
    function: Callable[..., Any], columns: Iterable[str], source: str, *, name: str = "the reward"
) -> None:
    """UserError unless the columns of `source` and a reward's arguments fit each other.

    `columns` are the names of a row; the prompt itself is given as `prompts`, or as `prompt` to a
    function of one answer.
    """
    extra = [column for column in columns if column != "prompt"]
    reward = loaded(function)
    given = GIVEN_ONE if reward.takes_one else GIVEN
    for column in given:
        if column in extra:
            what = ("the prompt", "the answer")[given.index(column)]
            what += "" if reward.takes_one else "s"
            raise UserError(
                f"{source} has a column {column!r}, and {name} is given {what} by that name: "
                f"rename the column with --columns other={column}"
            )
    parameters = _parameters(function)
    if parameters is None:
        return
    for parameter in parameters.values():
        kind, needed = parameter.kind, parameter.default is parameter.empty
        if kind is parameter.POSITIONAL_ONLY and needed:
            raise UserError(
                f"{name} takes {parameter.name!r} by its place alone, but arguments are given by "
                "name: leave out the / in its definition"
            )
        if needed and not _is_variadic(parameter) and parameter.name not in (*given, *extra):
            raise UserError(_unfilled(name, parameter.name, given, extra, source))
    if given[1] not in parameters and not _takes_all(parameters):
        raise UserError(
            f"{name} takes no argument 'completions', so it cannot see the answers: write "
            "def reward(prompts, completions, **columns), or for one answer a call "
            "def reward(prompt, completion, **columns)"
        )


def _unfilled(
    name: str, argument: str, given: Sequence[str], columns: Sequence[str], source: str
) -> str:
    hint = nearest(argument, (*given, *columns))
    if hint:
        close = hint.split("'")[1]
        rename = f"; rename with --columns {argument}={close}" if close in columns else ""
        return f"{name} wants {argument!r}, which no column of {source} provides{hint}{rename}"
    have = f"there are {', '.join(columns)}" if columns else "there is none besides the prompt"
    return f"{name} wants {argument!r}, which no column of {source} provides: {have}"


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """A callable's parameters by name, or None where it does not tell them (some built in C)."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _taken(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Of what is given, what a function takes: all, where it takes `**columns`."""
    parameters = _parameters(function)
    if parameters is None or _takes_all(parameters):
        return given
    return {name: value for name, value in given.items() if name in parameters}


def rows_for(
    reward: LoadedReward,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> list[dict[str, Any]]:
    """The arguments of each call of a function of one answer."""
    whole = _taken(reward, {**columns, "prompt": list(prompts), "completion": list(completions)})
    return [{name: values[i] for name, values in whole.items()} for i in range(len(completions))]


def checked_scores(
    function: Callable[..., Any],
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, list[Any]],
    *,
    name: str = "the reward",
    may_abstain: bool = False,
) -> list[float]:
    """The function's numbers, one for each completion, each finite.

    What the function does not take is left out of the call, unless it takes `**columns`. With
    `may_abstain` None is NaN here: there is no score. Raises `UserError` naming the count, the first
    completion whose value is not a finite number, or the file and line where the function itself
    raised or would have left the program.
    """
    reward = loaded(function)
    try:
        if reward.takes_one:
            values = reward.each(rows_for(reward, prompts, completions, columns))
        else:
            given = {**columns, "prompts": list(prompts), "completions": list(completions)}
            values = reward(**_taken(reward, given))
    except UserError:
        raise
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        # A user's code may raise anything; it must not look like our fault.
        raise UserError(f"{name} raised {said(error)}{reward.place_of(error)}") from error
    if not isinstance(values, list):
        raise UserError(
            f"{name} returned {type(values).__name__} {values!r}, "
            f"not a list of {len(completions)} numbers"
        )
    if len(values) != len(completions):
        raise UserError(
            f"{name} returned {len(values)} values for {len(completions)} completions: "
            "it must return one for each"
        )
    outcomes = map(number_of, values)
    return scores_of(outcomes, completions, name=name, may_abstain=may_abstain)


def scores_of(
    outcomes: Iterable[float | Unfit | None],
    completions: Sequence[str],
    *,
    name: str,
    may_abstain: bool,
) -> list[float]:
    """Outcomes as numbers, None as NaN; `UserError` naming the first completion that has none."""
    scores = []
    for i, outcome in enumerate(outcomes):
        which = f"completion {i} ({completions[i][:60]!r})"
        if isinstance(outcome, Unfit):
            more = " or None, which abstains" if may_abstain else ""
            raise UserError(
                f"{name} returned {outcome.value} for {which}: it must return a finite number{more}"
            )
        if outcome is None and not may_abstain:
            raise UserError(
                f"{name} returned None for {which}: it must return a finite number, since answers "
                "are compared by it and none may go without"
            )
        scores.append(math.nan if outcome is None else outcome)
    return scores


class FunctionReward:
    """The reward role around a function of texts: its scores, on the last chosen tokens."""

    def __init__(self, function: Callable[..., Any], *, name: str = "the reward") -> None:
        self.function = loaded(function)
        self.name = name

    def __call__(self, batch: Trajectories) -> Tensor:
        prompts = [batch.prompts[g].text for g in batch.group.tolist()]
        scores = checked_scores(
            self.function, prompts, batch.texts, batch.columns(), name=self.name
        )
        score = torch.tensor(scores, dtype=torch.float32, device=batch.token.device)
        return outcome_reward(score, batch.chosen)
