"""`plaudit.tune`: one algorithm on a language model, from Python, to its end.

    result = plaudit.tune("dpo", model="smollm2", data=rows)
    result.model            the folder, as transformers loads it
    result["accuracy"]      a figure of the run

`data` and `prompts` may be a path, a list of dicts or a `datasets.Dataset`; `reward` a function, or
several. A run is made of them that can be gone on with, shown and repeated like any other: rows are
kept under runs/data/, by what is in them, and a function by the file that it stands in.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.pipelines.jobs import run_job
from plaudit.pipelines.registry import OFFLINE, ONLINE
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import read_rows, write_jsonl

KEPT = Path("runs") / "data"
"""Where rows that were given as objects are kept."""

ROWS = ("data", "held_out", "prompts")
"""Keys that may be rows."""


@dataclass(frozen=True)
class Tuned:
    """A finished run: its folder and its figures."""

    path: Path
    figures: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The folder of the model that came out; of a job of a reward model, that one's."""
        made = self.path / "model"
        return made if made.exists() else self.path / "reward_model"

    def __getitem__(self, name: str) -> Any:
        if name not in self.figures:
            raise UserError(f"the run has no figure {name!r}{nearest(name, self.figures)}")
        return self.figures[name]


def tune(algorithm: str, /, *, name: str | None = None, **keys: Any) -> Tuned:
    """Runs a language-model job to its end: sft, reward, dpo, kto, grpo, rloo and their kin.

    `keys` are those of its recipe (`plaudit run dpo --help`), what has keys inside as a dict.
    Raises UserError for what the job refuses, and where it was stopped: `plaudit.resume` goes on.
    """
    known = (*OFFLINE, *ONLINE)
    if algorithm not in known:
        raise UserError(f"no algorithm {algorithm!r}{nearest(algorithm, known)}")
    for key in ROWS:
        if key in keys and not isinstance(keys[key], str | os.PathLike):
            keys[key] = str(_kept(keys[key]))
        elif isinstance(keys.get(key), os.PathLike):
            keys[key] = str(keys[key])
    if "reward" in keys:
        keys["reward"] = _named(keys["reward"])
    if isinstance(keys.get("model"), os.PathLike):
        keys["model"] = str(keys["model"])
    running = run_job(algorithm, name=name, **keys)
    return Tuned(running.path, running.result())


def _kept(rows: Any) -> Path:
    """A file of these rows, whose name tells what is in it."""
    found = read_rows(rows)
    KEPT.mkdir(parents=True, exist_ok=True)
    temporary = KEPT / f".{os.getpid()}.jsonl"
    write_jsonl(temporary, found)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()[:16]
    path = KEPT / f"{digest}.jsonl"
    temporary.replace(path)
    return path


def _named(reward: Any) -> list[str]:
    """Rewards by names that a run can find again."""
    several = isinstance(reward, Sequence) and not isinstance(reward, str)
    each = list(reward) if several else [reward]
    return [_place(one) if callable(one) else str(one) for one in each]


def _place(function: Callable[..., Any]) -> str:
    """file.py:function of a function that stands by its name in a file."""
    name = getattr(function, "__name__", "")
    try:
        file = inspect.getsourcefile(function)
    except TypeError:
        file = None
    nested = getattr(function, "__qualname__", "") != name or name == "<lambda>"
    if file is None or nested or not Path(file).is_file():
        raise UserError(
            f"the reward {name or function!r} stands in no file by its name, so a run could not "
            "find it again: write it as a function of a .py file"
        )
    return f"{file}:{name}"
