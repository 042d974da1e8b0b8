"""`plaudit cp`: copies a recipe, with every key and its sentence, so that it can be changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from plaudit.records.errors import UserError
from plaudit.records.files import write_text
from plaudit.records.recipes import find_recipe


def main(argv: list[str]) -> int:
    """Copies RECIPE to FILE; an existing file is refused."""
    parser = argparse.ArgumentParser("plaudit cp", description=__doc__)
    parser.add_argument("recipe", help="name of a shipped recipe, or a file")
    parser.add_argument("file", type=Path, help="where to put the copy, such as my.yaml")
    words = parser.parse_args(argv)
    source, file = find_recipe(words.recipe), words.file
    if file.is_dir():
        file = file / source.name
    if file.exists():
        raise UserError(f"{file} exists; choose another name")
    if not file.parent.is_dir():
        raise UserError(f"no folder {file.parent} to put {file.name} in")
    write_text(file, source.read_text(encoding="utf-8"))
    print(f"{file}: change it, then 'plaudit run {file}'")
    return 0
