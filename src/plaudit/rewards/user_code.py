"""A user's function by its name, where it failed, and what it gave.

    Outcome = a number, None (it abstains), Failed (it raised, or gave nothing in time), Unfit (it
    gave something else)

Nothing here loads torch: worker processes begin with this file.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from plaudit.records.errors import UserError, nearest
from plaudit.records.imports import load_module, place_of, said


@dataclass(frozen=True)
class Failed:
    """An answer that a function gave nothing for: what was raised, and where."""

    what: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.what}{self.place}"


@dataclass(frozen=True)
class Unfit:
    """What a function gave in place of a finite number, as Python writes it."""

    value: str


Outcome = float | Failed | Unfit | None


def named_function(name: str) -> tuple[Callable[..., Any], ModuleType]:
    """The callable named by "module:function" or "path/to/file.py:function", and its module.

    Raises `UserError` when the file, the module or the function cannot be found or is not callable.
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise UserError(
            f"reward {name!r} does not name a function: write module:function or file.py:function"
        )
    module = load_module(where, "reward")
    found = getattr(module, function, None)
    if found is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"{where} has no function {function!r}{nearest(function, public)}")
    if not callable(found):
        raise UserError(f"{function!r} in {where} is a {type(found).__name__}, not a function")
    return found, module


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    """What decorators and partial applications were put around."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function


def home_of(function: Callable[..., Any]) -> str:
    """The name of the module that a callable is from, or that its class is from."""
    inner = bare(function)
    return str(getattr(inner, "__module__", None) or type(inner).__module__)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a callable is `async def`, or an object whose call is."""
    inner = bare(function)
    call = type(inner).__call__
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


def name_of(function: Callable[..., Any]) -> str:
    """What a callable is called: its own name, or module and kind where it has none."""
    inner = bare(function)
    name = str(getattr(inner, "__name__", type(inner).__name__))
    return name if name.isidentifier() and inspect.isroutine(inner) else f"{home_of(inner)}:{name}"


def place_in(error: BaseException, function: Callable[..., Any], module: object) -> str:
    """Where it failed: the last line of the user's own files that was running."""
    file = getattr(module, "__file__", None)
    place = place_of(error, None if file is None else Path(file).parent)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if not place and code is not None:  # the call itself did not fit
        return f" ({code.co_filename}, line {code.co_firstlineno})"
    return place


def failed(error: BaseException, function: Callable[..., Any], module: object) -> Failed:
    """What was raised, as it is told."""
    return Failed(said(error), place_in(error, function, module))


def late(timeout: float) -> Failed:
    """What did not come in time."""
    return Failed(f"TimeoutError: no answer within {timeout:g} s")


def number_of(value: object) -> float | Unfit | None:
    """A finite number as a float, None as it is, and anything else as what is to be refused."""
    if value is None:
        return None
    try:
        score = math.nan if getattr(value, "ndim", 0) else float(cast(Any, value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        score = math.nan
    return score if math.isfinite(score) else Unfit(repr(value))
