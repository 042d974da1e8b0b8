"""Recipes: YAML files that say what to run and with which values, read with their line numbers.

YAML is read by its version 1.2 rules, in which `1e-5` is a number and `on`, `no` and `12:30` are
texts; a key written twice is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plaudit.records.errors import UserError, nearest
from plaudit.records.files import read_text

SHIPPED = Path(__file__).parent.parent / "recipes"
"""Where the recipes that come with the package are."""

KINDS = ("pipeline", "algorithm")
"""Top keys of a recipe that say what to run."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says: the job's name, its values, and the line of every key."""

    file: str
    pipeline: str
    values: dict[str, Any]
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its folder and ending."""
        return Path(self.file).stem

    @property
    def called(self) -> str:
        """What it is run by: its name where it is shipped, such as control/ppo, else its file."""
        path = Path(self.file)
        if path.is_relative_to(SHIPPED):
            return str(path.relative_to(SHIPPED).with_suffix(""))
        return self.file


def load_recipe(target: str | Path) -> Recipe:
    """A recipe by the path of its file, or by the name of one that is shipped.

    Raises UserError where there is none, where it is not YAML, or where it does not say what to run.
    """
    path = find_recipe(target)
    values, lines = read_yaml(path)
    said = [kind for kind in KINDS if kind in values]
    if len(said) != 1 or not isinstance(values[said[0]], str):
        raise UserError(f"{path} must say what to run by one key such as 'pipeline: rlhf'")
    pipeline = values.pop(said[0])
    return Recipe(str(path), pipeline, values, lines)


def find_recipe(target: str | Path) -> Path:
    """The file that a path or a shipped name means."""
    path, shipped = Path(target), SHIPPED / f"{target}.yaml"
    if path.is_file():
        return path
    if path.suffix not in (".yaml", ".yml") and shipped.is_file():
        return shipped
    if path.suffix in (".yaml", ".yml") and len(path.parts) > 1:
        raise UserError(f"no recipe file {path}")
    hint = nearest(str(target), shipped_recipes())
    raise UserError(
        f"no recipe {str(target)!r}: neither a file nor the name of a shipped recipe{hint};"
        " 'plaudit ls' lists them"
    )


def tuned_recipe(name: str, env: str) -> str:
    """The shipped recipe for one environment, `name`/`env`, where there is one; else `name`."""
    own = f"{name}/{env}"
    return own if (SHIPPED / f"{own}.yaml").is_file() else name


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    found = SHIPPED.rglob("*.yaml")
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in found)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A YAML file's mapping, and the line of every key by its path of names."""
    try:
        loader = _Loader(read_text(path))
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {}
            if not isinstance(node, yaml.MappingNode):
                raise UserError(f"{path} must hold keys and values, such as 'pipeline: rlhf'")
            lines: dict[tuple[str, ...], int] = {}
            return _mapping(loader, node, (), lines, path), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML ({error.problem})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error})") from error


def plain_scalar(value: Any) -> str:
    """One line of YAML for a single value that reads back equal under these rules."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value, re.ASCII):
        if value.lower() not in _WORDS and _plain_kind(value) == "str":
            return value
        return f'"{value}"'
    style = '"' if isinstance(value, str) else None
    text: str = yaml.safe_dump(value, default_style=style, width=10**9, allow_unicode=True)
    if isinstance(value, float):
        text = yaml.safe_dump(value)
    return text.removesuffix("\n").removesuffix("\n...")


_WORDS = {"y", "yes", "n", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"}
"""Words that one YAML reader or another takes for something else than text."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_NUMBER = list("-+.0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), _NUMBER)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    _NUMBER,
)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def _plain_kind(text: str) -> str:
    resolvers = _Loader.yaml_implicit_resolvers.get(text[:1], [])
    for tag, pattern in resolvers:
        if pattern.match(text):
            return tag.rpartition(":")[2]
    return "str"


def _mapping(
    loader: _Loader,
    node: yaml.MappingNode,
    path: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    file: Path,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{file}, line {line}: a key must be a word")
        key = key_node.value
        if key in values:
            raise UserError(
                f"{file}, line {line}: the key {key!r} stands twice"
                f" (first in line {lines[(*path, key)]})"
            )
        lines[(*path, key)] = line
        values[key] = _value(loader, value_node, (*path, key), lines, file)
    return values


def _value(
    loader: _Loader,
    node: yaml.Node,
    path: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    file: Path,
) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, lines, file)
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, item, (*path, str(i)), lines, file) for i, item in enumerate(node.value)
        ]
    return loader.construct_object(node)
