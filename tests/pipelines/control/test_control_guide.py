"""The guide's own code, executed; and its commands, recipes, metrics, known to the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import gymnasium
import pytest

from plaudit.cli.eval import parser
from plaudit.cli.main import VERBS
from plaudit.cli.sweep import take_apart
from plaudit.pipelines.control.job import ALGORITHMS
from plaudit.pipelines.glossary import GLOSSARY
from plaudit.records.recipes import shipped_recipes

GUIDE = Path(__file__).parents[3] / "docs" / "control.md"
TEXT = GUIDE.read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line) for line in re.findall(r"^    plaudit ([a-z].*)$", TEXT, re.MULTILINE)
]


def test_the_guides_code_does_what_it_says(tmp_path, monkeypatch):
    """All Python blocks in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    other = gymnasium.registry.pop("Corridor-v0", None)  # another test's world of that name
    try:
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)
    finally:
        gymnasium.registry.pop("Corridor-v0", None)
        gymnasium.registry.pop("Countdown-v0", None)
        if other is not None:
            gymnasium.registry["Corridor-v0"] = other


def test_the_guides_commands_are_the_programs():
    verbs = {words[0] for words in COMMANDS}
    assert verbs == {"run", "eval", "show", "sweep"}
    assert verbs <= set(VERBS)
    for words in COMMANDS:
        if words[0] == "eval":
            parser().parse_args(words[1:])
        if words[0] == "sweep":
            assert set(take_apart(words[1:]).options) == {"seeds", "jobs", "reach"}


@pytest.mark.parametrize("recipe", sorted(set(re.findall(r"(?<!images/)control/[\w/.-]+\w", TEXT))))
def test_the_guides_recipes_exist(recipe):
    assert recipe in shipped_recipes()


def test_the_guide_names_every_algorithm():
    table = TEXT.split("## Which algorithm")[1].split("## ")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(ALGORITHMS)


def test_the_guides_metrics_are_in_the_glossary():
    table = TEXT.split("## What is logged")[1].split("The events")[0]
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)?)`", table)) - {"metrics"}
    assert named <= set(GLOSSARY)


@pytest.mark.parametrize(
    "page", [GUIDE, GUIDE.parent / "algorithms" / "README.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_names_every_algorithm():
    text = (GUIDE.parent / "algorithms" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Control")[2].partition("## Language models")[0]
    assert set(re.findall(r"^\| \[?`(\w+)`", table, re.MULTILINE)) == set(ALGORITHMS)
