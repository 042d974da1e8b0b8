"""`plaudit ls`: the recipes that come with Plaudit, and the runs under runs/."""

from __future__ import annotations

import argparse

from plaudit.records.recipes import find_recipe, load_recipe, shipped_recipes


def main(argv: list[str]) -> int:
    """Prints one line for each recipe and each run."""
    parser = argparse.ArgumentParser("plaudit ls", description=__doc__)
    parser.parse_args(argv)
    print("recipes")
    for name in shipped_recipes():
        print(f"  {name:24}{load_recipe(name).pipeline:12}{first_comment(name)}")
    from plaudit.records.runs import RunFolder, run_names

    names = run_names()
    if names:
        print("runs")
    for name in names:
        run = RunFolder.open(name)
        print(f"  {name:36}{run.state()}")
    return 0


def first_comment(name: str) -> str:
    """The sentence in the first line of a recipe, if it begins with one."""
    first = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
