"""What a recipe's `pipeline:` key may name, found without importing what is not asked for.

A job is a function `run(config, run_folder, *, progress, interrupt) -> results` whose first
parameter is annotated with its `Config`. Jobs of your own are named as `module:function` or
`file.py:function`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from plaudit.records.config import Config
from plaudit.records.errors import UserError, nearest

JOBS = {
    "rlhf": "plaudit.pipelines.rlhf:run_rlhf",
    "mdp/plan": "plaudit.pipelines.finite:run_plan",
    "mdp/learn": "plaudit.pipelines.finite:run_learn",
    "mdp/pomdp": "plaudit.pipelines.finite_pomdp:run_pomdp",
    "mdp/game": "plaudit.pipelines.finite_game:run_game",
}
"""Names of the jobs that come with Plaudit."""


@dataclass(frozen=True)
class Job:
    """A function to run and the config it takes."""

    name: str
    config: type[Config]
    run: Callable[..., dict[str, Any]]


def find_job(name: str) -> Job:
    """The job of a name in `JOBS`, or of `module:function` or `file.py:function`.

    Raises UserError where there is none, or where it takes no config.
    """
    if name.startswith("control/"):
        return _control_job(name)
    where, _, function = JOBS.get(name, name).rpartition(":")
    if not where:
        raise UserError(f"no pipeline {name!r}{nearest(name, JOBS)}; nor is it a module:function")
    module = _from_file(Path(where)) if where.endswith(".py") else _by_name(where)
    run = getattr(module, function, None)
    if not callable(run):
        raise UserError(f"{where} has no function {function!r}{nearest(function, vars(module))}")
    kinds = list(get_type_hints(run).values())
    if not kinds or not isinstance(kinds[0], type) or not issubclass(kinds[0], Config):
        raise UserError(f"the first parameter of {name} must be annotated with a plaudit Config")
    return Job(name, kinds[0], run)


def _control_job(name: str) -> Job:
    """control/<algorithm>: every algorithm's loop runs in the same job."""
    from plaudit.pipelines.control import algorithm, run_control

    short = name.removeprefix("control/")
    return Job(name, algorithm(short)[0], partial(run_control, short))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no file {path}, which the recipe's pipeline names")
    name = f"plaudit_job_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


def _by_name(where: str) -> ModuleType:
    if importlib.util.find_spec(where.partition(".")[0]) is None:
        raise UserError(f"no module {where!r}, which the recipe's pipeline names")
    return importlib.import_module(where)
