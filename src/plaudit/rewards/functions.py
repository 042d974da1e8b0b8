"""Rewards that are functions of texts: any callable a user names, checked at every call.

reward(prompts, completions, **columns) -> one finite number for each completion
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from plaudit.records.errors import UserError, nearest
from plaudit.records.types import RewardFunction, Trajectories


def load_reward_function(name: str) -> RewardFunction:
    """The callable named by "module:function" or "path/to/file.py:function".

    Raises `UserError` when the file, the module or the function cannot be found or is not callable.
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise UserError(
            f"reward {name!r} does not name a function: write module:function or file.py:function"
        )
    module = _module_from_file(where) if where.endswith(".py") else _module_by_name(where)
    found = getattr(module, function, None)
    if found is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"{where} has no function {function!r}{nearest(function, public)}")
    if not callable(found):
        raise UserError(f"{function!r} in {where} is a {type(found).__name__}, not a function")
    return cast(RewardFunction, found)


def _module_from_file(where: str) -> Any:
    path = Path(where).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"reward file {where} does not exist{nearest(path.name, siblings)}")
    spec = importlib.util.spec_from_file_location(f"plaudit_reward_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"reward file {where} could not be read: {_said(error)}{_in_file(error, str(path))}"
        ) from error
    return module


def _module_by_name(where: str) -> Any:
    try:
        return importlib.import_module(where)
    except ImportError as error:
        raise UserError(f"reward module {where!r} could not be imported: {error}") from error


def checked_scores(
    function: RewardFunction,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: dict[str, list[Any]],
    *,
    name: str = "the reward",
) -> list[float]:
    """The function's numbers, one for each completion, each finite.

    Columns that the function does not take are left out of the call, unless it takes `**columns`.
    Raises `UserError` naming the count, the first completion whose value is not a finite number, or
    the file and line where the function itself raised.
    """
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = columns if takes_all else {k: v for k, v in columns.items() if k in parameters}
    try:
        values: object = function(prompts=list(prompts), completions=list(completions), **given)
        listed = list(values) if isinstance(values, Iterable) else None
    except UserError:
        raise
    except Exception as error:  # a user's code may raise anything; it must not look like our fault
        raise UserError(f"{name} raised {_said(error)}{_where(error, function)}") from error
    if listed is None:
        raise UserError(
            f"{name} returned {type(values).__name__} {values!r}, "
            f"not a list of {len(completions)} numbers"
        )
    if len(listed) != len(completions):
        raise UserError(
            f"{name} returned {len(listed)} values for {len(completions)} completions: "
            "it must return one for each"
        )
    scores = []
    for i, value in enumerate(listed):
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise UserError(
                f"{name} returned {value!r} for completion {i} ({completions[i][:60]!r}): "
                "it must return a finite number"
            )
        scores.append(score)
    return scores


def _said(error: BaseException) -> str:
    """An exception in one line: its class and the first line of its message."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _in_file(error: BaseException, file: str) -> str:
    """The last line of `file` that was running, or "" (a syntax error names its own)."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == Path(file).name
    ]
    return f" (line {lines[-1]})" if lines else ""


def _where(error: BaseException, function: object) -> str:
    """Where a reward failed: the last line of its own file that was running, else the last line."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not frame.filename.startswith("<frozen")
    ]
    code = getattr(function, "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    if not frames:  # the call itself did not fit
        return f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""
    last = (own or frames)[-1]
    return f" ({last.filename}, line {last.lineno}, in {last.name})"


class FunctionReward:
    """The reward role around a function of texts."""

    def __init__(self, function: RewardFunction, *, name: str = "the reward") -> None:
        self.function = function
        self.name = name

    def __call__(self, batch: Trajectories) -> Tensor:
        prompts = [batch.prompts[g].text for g in batch.group.tolist()]
        scores = checked_scores(
            self.function, prompts, batch.texts, batch.columns(), name=self.name
        )
        return torch.tensor(scores, dtype=torch.float32, device=batch.answer.device)
