"""`plaudit ls`: the recipes that come with Plaudit, and the runs under runs/; or the finite worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plaudit.cli.words import Parser
from plaudit.records.recipes import find_recipe, load_recipe, shipped_recipes
from plaudit.records.visible import visible_line


def main(argv: list[str]) -> int:
    """Prints one line for each recipe and each run, or for each world."""
    parser = Parser("plaudit ls", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["recipes", "worlds"], help="worlds: finite worlds by name"
    )
    if parser.parse_args(argv).what == "worlds":
        _print_aligned("worlds", _worlds())
        return 0
    recipes = [(n, load_recipe(n).pipeline, first_comment(n)) for n in shipped_recipes()]
    _print_aligned("recipes", recipes)
    from plaudit.records.runs import RunFolder, run_names

    names = run_names()
    if names:
        _print_aligned("runs", [(name, RunFolder.open(name).state()) for name in names])
    return 0


def _print_aligned(title: str, rows: Sequence[Sequence[str]]) -> None:
    """The title, and below it the rows with all columns but the last filled up."""
    print(title)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print(visible_line("  " + "  ".join([*cells, row[-1]]).rstrip()))


def _worlds() -> list[tuple[str, str, str, str]]:
    """(name, kind, size, sentence) of every finite world that has a name."""
    from plaudit.mdp.worlds import WORLDS

    rows = []
    for name, entry in WORLDS.items():
        made = entry.make()
        rows.append((name, type(made).__name__, _size(made), entry.sentence))
    return rows


def _size(world: Any) -> str:
    """Such as 16 × 4: states and actions, and observations of what is partly seen."""
    actions = world.num_actions
    counts = [world.num_states] if hasattr(world, "num_states") else []
    counts += list(actions) if isinstance(actions, tuple) else [actions]
    if hasattr(world, "num_observations"):
        counts.append(world.num_observations)
    return " × ".join(str(count) for count in counts)


def first_comment(name: str) -> str:
    """The sentence in the first line of a recipe, if it begins with one."""
    first = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
