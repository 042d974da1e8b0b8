"""Rewards that are functions of texts: any callable a user names, checked at every call.

reward(prompts, completions, **columns) -> one finite number for each completion
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
from typing import Any, cast

import torch
from torch import Tensor

from plaudit.ops import outcome_reward
from plaudit.records.errors import UserError, nearest
from plaudit.records.imports import beside, load_module, place_of, said
from plaudit.records.types import RewardFunction, Trajectories
from plaudit.rewards.apart import Apart
from plaudit.rewards.awaiting import EventLoop

GIVEN = ("prompts", "completions")
"""What every reward is given besides columns."""


class LoadedReward:
    """A user's function, run with its own settings of the process and the files beside it in reach.

    The call gives a list where the function gives one, yields it, or promises it (`async def`).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        module: ModuleType | None = None,
        apart: Apart | None = None,
    ) -> None:
        self.function = function
        self._module = sys.modules.get(_home(function)) if module is None else module
        self._apart = Apart() if apart is None else apart
        self._loop = EventLoop()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with beside(self._module), self._apart.entered():
            return self._loop.settled(self.function(*args, **kwargs))

    def each(self, calls: Sequence[Mapping[str, Any]], *, timeout: float | None) -> list[Any]:
        """What each call of a function of single answers gives, in order: its value, or what it
        raised. Promises are waited for together, each at most `timeout` seconds."""
        found: list[Any] = []
        with beside(self._module), self._apart.entered():
            for call in calls:
                try:
                    found.append(self.function(**call))
                except (Exception, SystemExit) as error:  # a user's code may raise anything
                    found.append(error)
            return self._loop.outcomes(found, timeout=timeout)

    def place_of(self, error: BaseException) -> str:
        """Where it failed: the last line of the user's own files that was running."""
        file = getattr(self._module, "__file__", None)
        place = place_of(error, None if file is None else Path(file).parent)
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        if not place and code is not None:  # the call itself did not fit
            return f" ({code.co_filename}, line {code.co_firstlineno})"
        return place


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
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise UserError(
            f"reward {name!r} does not name a function: write module:function or file.py:function"
        )
    apart = Apart()
    with apart.entered():
        module = load_module(where, "reward")
    found = getattr(module, function, None)
    if found is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"{where} has no function {function!r}{nearest(function, public)}")
    if not callable(found):
        raise UserError(f"{function!r} in {where} is a {type(found).__name__}, not a function")
    return LoadedReward(found, module, apart)


def _home(function: object) -> str:
    """The name of the module that a callable is from, or that its class is from."""
    bare = inspect.unwrap(cast(Callable[..., Any], function))
    while isinstance(bare, functools.partial):
        bare = inspect.unwrap(bare.func)
    return str(getattr(bare, "__module__", None) or type(bare).__module__)


def check_columns(
    function: RewardFunction, columns: Iterable[str], source: str, *, name: str = "the reward"
) -> None:
    """UserError unless the columns of `source` and a reward's arguments fit each other.

    `columns` are the names of a row; the prompt itself is given as `prompts`.
    """
    extra = [column for column in columns if column != "prompt"]
    for column in GIVEN:
        if column in extra:
            what = "the answers" if column == "completions" else "the prompts"
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
        variadic = kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if needed and not variadic and parameter.name not in (*GIVEN, *extra):
            raise UserError(_unfilled(name, parameter.name, extra, source))
    if "completions" not in parameters and not _takes_all(parameters):
        raise UserError(
            f"{name} takes no argument 'completions', so it cannot see the answers: write "
            "def reward(prompts, completions, **columns)"
        )


def _unfilled(name: str, argument: str, columns: Sequence[str], source: str) -> str:
    hint = nearest(argument, (*GIVEN, *columns))
    if hint:
        close = hint.split("'")[1]
        rename = f"; rename with --columns {argument}={close}" if close in columns else ""
        return f"{name} wants {argument!r}, which no column of {source} provides{hint}{rename}"
    have = f"there are {', '.join(columns)}" if columns else "there is none besides the prompt"
    return f"{name} wants {argument!r}, which no column of {source} provides: {have}"


def _parameters(function: RewardFunction) -> Mapping[str, inspect.Parameter] | None:
    """A callable's parameters by name, or None where it does not tell them (some built in C)."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def checked_scores(
    function: RewardFunction,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, list[Any]],
    *,
    name: str = "the reward",
    may_abstain: bool = False,
) -> list[float]:
    """The function's numbers, one for each completion, each finite; NaN for None where it may abstain.

    What the function does not take is left out of the call, unless it takes `**columns`.
    Raises `UserError` naming the count, the first completion whose value is not a finite number, or
    the file and line where the function itself raised or would have left the program.
    """
    reward = function if isinstance(function, LoadedReward) else LoadedReward(function)
    given = {**columns, "prompts": list(prompts), "completions": list(completions)}
    parameters = _parameters(function)
    if parameters is not None and not _takes_all(parameters):
        given = {name: value for name, value in given.items() if name in parameters}
    try:
        values = reward(**given)
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
    return [
        math.nan
        if value is None and may_abstain
        else checked_score(value, name, f"completion {i} ({completions[i][:60]!r})")
        for i, value in enumerate(values)
    ]


def checked_score(value: Any, name: str, which: str) -> float:
    """A function's number for one completion; UserError unless it is a finite one."""
    try:
        score = math.nan if getattr(value, "ndim", 0) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        score = math.nan
    if not math.isfinite(score):
        raise UserError(f"{name} returned {value!r} for {which}: it must return a finite number")
    return score


class FunctionReward:
    """The reward role around a function of texts: its scores, on the last chosen tokens."""

    def __init__(self, function: RewardFunction, *, name: str = "the reward") -> None:
        self.function = LoadedReward(function)
        self.name = name

    def __call__(self, batch: Trajectories) -> Tensor:
        prompts = [batch.prompts[g].text for g in batch.group.tolist()]
        scores = checked_scores(
            self.function, prompts, batch.texts, batch.columns(), name=self.name
        )
        score = torch.tensor(scores, dtype=torch.float32, device=batch.token.device)
        return outcome_reward(score, batch.chosen)
