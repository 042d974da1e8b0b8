"""Worlds by name: `world("frozenlake-8x8")` for those of the literature, with their known values.

A world is a function with keyword options; its docstring's first line is the sentence that
`plaudit ls worlds` shows, and what follows "Source:" is where the rules come from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plaudit.mdp.worlds.casino import CASINO_WORLDS
from plaudit.mdp.worlds.chains import CHAIN_WORLDS
from plaudit.mdp.worlds.games import GAME_WORLDS
from plaudit.mdp.worlds.generated import GENERATED_WORLDS
from plaudit.mdp.worlds.grids import GRID_WORLDS
from plaudit.mdp.worlds.partial import PARTIAL_WORLDS
from plaudit.mdp.worlds.rental import RENTAL_WORLDS
from plaudit.mdp.worlds.roads import ROAD_WORLDS
from plaudit.records.errors import UserError, nearest

__all__ = ["WORLDS", "WorldEntry", "world"]


@dataclass(frozen=True)
class WorldEntry:
    """How a world is made, what it is in one sentence, and where its rules come from ("": see it)."""

    make: Callable[..., Any]
    sentence: str
    source: str


def _entry(make: Callable[..., Any]) -> WorldEntry:
    said = inspect.getdoc(make) or ""
    sentence, _, rest = said.partition("\n\n")
    source = rest.partition("Source:")[2].split("\n\n")[0]
    return WorldEntry(make, " ".join(sentence.split()), " ".join(source.split()).rstrip("."))


WORLDS: dict[str, WorldEntry] = {
    name: _entry(make)
    for group in (
        GRID_WORLDS,
        CHAIN_WORLDS,
        CASINO_WORLDS,
        RENTAL_WORLDS,
        ROAD_WORLDS,
        GENERATED_WORLDS,
        PARTIAL_WORLDS,
        GAME_WORLDS,
    )
    for name, make in group.items()
}
"""Every world by its name."""


def world(name: str, **options: Any) -> Any:
    """The world of that name: an MDP, a POMDP or a game, as its entry in `WORLDS` says.

    Options are the keyword arguments of its function, such as gamma, slip, num_states or seed.
    Errors: an unknown world or option, with the nearest name.
    """
    if name not in WORLDS:
        raise UserError(
            f"no world named {name!r}{nearest(name, WORLDS)}; one of {', '.join(sorted(WORLDS))}"
        )
    make = WORLDS[name].make
    valid = inspect.signature(make).parameters
    for option in options:
        if option not in valid:
            takes = ", ".join(valid) or "no options"
            raise UserError(
                f"world {name}: no option {option!r}{nearest(option, valid)}; it takes {takes}"
            )
    return make(**options)
