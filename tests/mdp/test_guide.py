"""The guide's own code, executed; and its commands, known to the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plaudit.mdp.planning import METHODS
from plaudit.mdp.worlds import WORLDS
from plaudit.records.recipes import shipped_recipes

GUIDE = Path(__file__).parents[2] / "docs" / "finite-worlds.md"


def test_the_guides_code_does_what_it_says():
    """All Python blocks in one namespace, as a reader would type them."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)


@pytest.mark.parametrize("line", re.findall(r"plaudit run (mdp/.*)", GUIDE.read_text("utf-8")))
def test_the_guides_recipes_and_worlds_exist(line):
    recipe, *words = line.split()
    assert recipe in shipped_recipes()
    world = words[words.index("--world") + 1]
    assert world in WORLDS or world == "my.csv" or world.startswith("gymnasium:")


def test_the_guides_planners_are_all_planners():
    table = GUIDE.read_text(encoding="utf-8").split("## Which planner")[1].split("## ")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(METHODS) - {"auto"}
