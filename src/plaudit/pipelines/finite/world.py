"""Which world a job means: a name, a file, or a Gymnasium id; and what its folder keeps of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.build import from_gymnasium, from_table
from plaudit.mdp.model import MDP
from plaudit.mdp.partial import POMDP, read_pomdp
from plaudit.mdp.worlds import WORLDS, world
from plaudit.records.errors import UserError, command, nearest
from plaudit.records.fingerprints import check_sources, of_file
from plaudit.records.runs import RunFolder

if TYPE_CHECKING:
    from plaudit.pipelines.drive import Progress

GYMNASIUM = "gymnasium:"
"""What stands before an environment's id."""

DESCRIBED_STATES = 2000
"""Up to so many states the names and the map are kept beside the arrays."""

JOB_OF = {
    "MDP": "mdp/solve",
    "POMDP": "mdp/pomdp",
    "MatrixGame": "mdp/game",
    "MarkovGame": "mdp/game",
}
"""The recipe that takes each kind of world."""


def find_world(name: str, options: Mapping[str, str], gamma: float | None) -> Any:
    """The MDP, POMDP or game that `name` means, with the discount `gamma` if one is given.

    name: one of `plaudit ls worlds`; a table (.csv, .jsonl), which needs gamma; Cassandra's .pomdp;
    or gymnasium:ID (gamma 1 if none is given). Errors: no such world, file or id, with the nearest.
    """
    if name in WORLDS or not _is_elsewhere(name):
        found = _named(name, options)
        return found if gamma is None else _discounted(name, found, options, gamma)
    path = Path(name)
    if path.suffix == ".pomdp":
        if options or gamma is not None:
            raise UserError(
                f"{name}: a .pomdp file says all; it takes no world_options and no gamma"
            )
        if not path.is_file():
            raise UserError(f"no file {path}{_near_file(path)}")
        return read_pomdp(path)
    if name.startswith(GYMNASIUM):  # whose returns are plain sums
        whole = 1.0 if gamma is None else gamma
        return from_gymnasium(name.removeprefix(GYMNASIUM), whole, **_values(options))
    if gamma is None:
        raise UserError(f"{name} does not say its discount; give one, as in --gamma 0.99")
    if options:
        raise UserError(f"{name} is a table, which takes no world_options")
    return from_table(path, gamma)


def check_world(run: RunFolder, name: str, progress: Progress) -> None:
    """A run that goes on must find the world's file as it was; UserError where it has changed."""
    is_file = name not in WORLDS and Path(name).suffix in (".csv", ".jsonl", ".pomdp")
    found = {"world": of_file(name)} if is_file else {}
    check_sources(run, found, progress.note)


def find_mdp(name: str, options: Mapping[str, str], gamma: float | None) -> MDP:
    """As `find_world`, where only a Markov decision process will do."""
    found = find_world(name, options, gamma)
    if not isinstance(found, MDP):
        raise UserError(other_job(name, found, "a Markov decision process"))
    return found


def find_pomdp(name: str, options: Mapping[str, str], gamma: float | None) -> POMDP:
    """As `find_world`, where only a world that is partly seen will do."""
    found = find_world(name, options, gamma)
    if not isinstance(found, POMDP):
        raise UserError(other_job(name, found, "a POMDP"))
    return found


def other_job(name: str, found: Any, wanted: str) -> str:
    """The sentence about a world of another kind than the job takes."""
    kind = type(found).__name__
    article = "an" if kind == "MDP" else "a"
    again = command("run", JOB_OF[kind], "--world", name)
    return f"{name} is {article} {kind}, not {wanted}; solve it by: {again}"


def _is_elsewhere(name: str) -> bool:
    return name.startswith(GYMNASIUM) or Path(name).suffix in (".csv", ".jsonl", ".pomdp")


def _named(name: str, options: Mapping[str, str]) -> Any:
    if name not in WORLDS:
        raise UserError(
            f"no world {name!r}{nearest(name, WORLDS)}; 'plaudit ls worlds' lists those that have a "
            f"name, and a file (.csv, .jsonl, .pomdp) or {GYMNASIUM}ID will do too"
        )
    return world(name, **_values(options))


def _discounted(name: str, found: Any, options: Mapping[str, str], gamma: float) -> Any:
    if isinstance(found, MDP):
        return found.with_gamma(gamma)
    if not hasattr(found, "gamma"):
        raise UserError(f"{name} is one choice and has no discount; leave gamma out")
    return world(name, **{**_values(options), "gamma": gamma})


def _values(options: Mapping[str, str]) -> dict[str, Any]:
    """Options as numbers and truth values where they read as such."""
    values: dict[str, Any] = {}
    for name, text in options.items():
        try:
            values[name] = json.loads(text.lower() if text in ("True", "False") else text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def _near_file(path: Path) -> str:
    near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
    return nearest(path.name, near)


def keep_world(run: RunFolder, mdp: MDP) -> None:
    """Writes arrays/world.json: names, map and ends, for pictures and for reading; small worlds."""
    if mdp.num_states > DESCRIBED_STATES:
        return
    run.write_json(
        "arrays/world.json",
        {
            "states": mdp.states,
            "actions": mdp.actions,
            "grid": None if mdp.grid is None else mdp.grid.tolist(),
            "terminal": np.flatnonzero(mdp.terminal).tolist(),
        },
    )


def keep_arrays(run: RunFolder, **arrays: ArrayLike) -> None:
    """Writes each array as arrays/NAME.npy, whole or not at all."""
    folder = run.path / "arrays"
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        temporary = folder / f".{name}.npy.tmp"
        with temporary.open("wb") as file:
            np.save(file, np.asarray(array), allow_pickle=False)
        temporary.replace(folder / f"{name}.npy")
