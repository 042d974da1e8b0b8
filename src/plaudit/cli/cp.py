"""`plaudit cp`: copies a recipe, so that it can be changed; with --full, every key and sentence."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.words import Parser
from plaudit.records.errors import UserError, command
from plaudit.records.files import read_text, write_text
from plaudit.records.recipes import find_recipe, load_recipe
from plaudit.records.visible import visible


def main(argv: list[str]) -> int:
    """Copies RECIPE to FILE; an existing file is refused."""
    parser = Parser("plaudit cp", description=__doc__)
    parser.add_argument("recipe", help="name of a shipped recipe, or a file")
    parser.add_argument("file", type=Path, help="where to put the copy, such as my.yaml")
    parser.add_argument(
        "--full", action="store_true", help="write out every key with its sentence and its value"
    )
    words = parser.parse_args(argv)
    source, file = find_recipe(words.recipe), words.file
    if file.is_dir():
        file = file / source.name
    if file.exists():
        raise UserError(f"{file} exists; choose another name")
    if not file.parent.is_dir():
        raise UserError(f"no folder {file.parent} to put {file.name} in")
    write_text(file, _full(source) if words.full else read_text(source))
    print(visible(f"{file}: change it, then: {command('run', file)}"))
    return 0


def _full(source: Path) -> str:
    """The recipe with every key that it leaves to the defaults."""
    from plaudit.pipelines.registry import find_job
    from plaudit.records.config import dump_yaml, resolve

    recipe = load_recipe(source)
    job = find_job(recipe.pipeline)
    return dump_yaml(resolve(job.config, recipe), pipeline=recipe.pipeline)
