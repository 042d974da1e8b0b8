"""What a recipe's `pipeline:` key may name, found without importing what is not asked for.

A job is a function `run(config, run_folder, *, progress, interrupt) -> results` whose first
parameter is annotated with its `Config`. Jobs of your own are named as `module:function` or
`file.py:function`. Beside a job `run` or `run_NAME` its module may have `check` or `check_NAME`:
check(config, place) yields lines of text about what the run in the folder `place` would do, refuses
with UserError what the job would refuse, and leaves nothing behind; and `show` or `show_NAME`:
show(run) yields lines about a run in its folder that its metrics and results do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from plaudit.records.collecting import collecting_later
from plaudit.records.config import Config
from plaudit.records.errors import UserError, nearest
from plaudit.records.imports import beside, load_module
from plaudit.records.runs import RunFolder

OFFLINE = ("sft", "reward", "dpo", "kto", "simpo", "orpo")
"""Jobs that learn from a file."""

ONLINE = ("ppo", "grpo", "rloo", "reinforce_pp", "online_dpo", "best_of_n")
"""Jobs that learn from what a reward says of the model's own answers."""

JOBS = {
    "rlhf": "plaudit.pipelines.rlhf.job:run_rlhf",
    **{name: f"plaudit.pipelines.lm.offline:run_{name}" for name in OFFLINE},
    **{name: f"plaudit.pipelines.lm.online:run_{name}" for name in ONLINE},
    "mdp/plan": "plaudit.pipelines.finite.job:run_plan",
    "mdp/learn": "plaudit.pipelines.finite.job:run_learn",
    "mdp/pomdp": "plaudit.pipelines.finite.pomdp:run_pomdp",
    "mdp/game": "plaudit.pipelines.finite.game:run_game",
}
"""Names of the jobs that come with Plaudit."""

SHOWN = {name: "plaudit.pipelines.pages.finite_text:world_lines" for name in JOBS if "/" in name}
"""What says more of the runs of a shipped job than their metrics and results do."""


@dataclass(frozen=True)
class Job:
    """A function to run and the config it takes."""

    name: str
    config: type[Config]
    run: Callable[..., dict[str, Any]]
    check: Callable[[Any, Path], Iterable[str]] | None = None
    show: Callable[[RunFolder], Iterable[str]] | None = None


def find_job(name: str) -> Job:
    """The job of a name in `JOBS`, or of `module:function` or `file.py:function`.

    Raises UserError where there is none, or where it takes no config.
    """
    if name.startswith("control/"):
        return _control_job(name)
    where, _, function = JOBS.get(name, name).rpartition(":")
    if not where:
        raise UserError(f"no pipeline {name!r}{nearest(name, JOBS)}; nor is it a module:function")
    if name in JOBS:
        with collecting_later():
            module = import_module(where)
    else:
        module = load_module(where, "pipeline")
    run = getattr(module, function, None)
    if not callable(run):
        raise UserError(f"{where} has no function {function!r}{nearest(function, vars(module))}")
    kinds = list(get_type_hints(run).values())
    if not kinds or not isinstance(kinds[0], type) or not issubclass(kinds[0], Config):
        raise UserError(f"the first parameter of {name} must be annotated with a plaudit Config")
    check, show = (getattr(module, _beside(function, verb), None) for verb in ("check", "show"))
    return Job(
        name,
        kinds[0],
        _with_files_beside(module, run),
        None if check is None else _yielding_beside(module, check),
        None if show is None else _yielding_beside(module, show),
    )


def lines_of(pipeline: str, run: RunFolder) -> Iterator[str]:
    """What the job of a run has to say of it besides metrics and results.

    A shipped job is loaded for it only where it is known to say something, since to load one takes
    seconds.
    """
    if pipeline in JOBS and pipeline not in SHOWN:
        return
    if pipeline in SHOWN:
        where, _, function = SHOWN[pipeline].rpartition(":")
        yield from getattr(import_module(where), function)(run)
    elif not pipeline.startswith("control/"):
        show = find_job(pipeline).show
        yield from () if show is None else show(run)


def _beside(function: str, verb: str) -> str:
    """What the function of another verb is called, beside a job's own: run_rlhf, check_rlhf."""
    return f"{verb}{function.removeprefix('run')}" if function.startswith("run") else verb


def _control_job(name: str) -> Job:
    """control/<algorithm>: every algorithm's loop runs in the same job."""
    from plaudit.pipelines.control.job import algorithm, check_control, run_control

    short = name.removeprefix("control/")
    return Job(
        name, algorithm(short)[0], partial(run_control, short), partial(check_control, short)
    )


def _with_files_beside(module: ModuleType, run: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the files beside its own in reach, should it import any when it runs."""

    @wraps(run)
    def running(*args: Any, **kwargs: Any) -> Any:
        with beside(module):
            return run(*args, **kwargs)

    return running


def _yielding_beside(
    module: ModuleType, function: Callable[..., Iterable[str]]
) -> Callable[..., Iterator[str]]:
    """As `_with_files_beside`, while the lines are asked for."""

    def yielding(*args: Any) -> Iterator[str]:
        with beside(module):
            yield from function(*args)

    return yielding
