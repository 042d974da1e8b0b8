"""Configs: frozen models whose every field has a sentence, recipes in YAML, and how they merge.

Precedence for every key: default < recipe file < flag. An unknown key is refused wherever it is
nested, with its file, its line and the nearest valid name. The resolved config is saved with each
field's sentence as a comment, and is itself a recipe.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from plaudit.records.errors import UserError, nearest
from plaudit.records.field_names import Key, config_of, keys_called, why_refused
from plaudit.records.recipes import KINDS, Recipe, plain_scalar

C = TypeVar("C", bound="Config")


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # it has no public name


class _Speaking(ModelMetaclass):
    """Makes a config built by a Python call raise UserError, as one built from a recipe does."""

    def __call__(cls, *args: Any, **values: Any) -> Any:
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise UserError(_sentence(cls, error, _Given())) from None


class Config(BaseModel, metaclass=_Speaking):
    """A frozen set of choices; every field is described by `Field(description=...)` or a docstring.

    Values are coerced by the declared type (the text "1e-5" becomes a float) and checked; a key
    that is not declared raises UserError with the nearest declared name, or with what `called` and
    `refused` say of it.
    """

    called: ClassVar[Mapping[str, str]] = {}
    """What others call a key of this config -> the key, beside `field_names.FIELD_NAMES`."""

    refused: ClassVar[Mapping[str, str]] = {}
    """A key that will not be taken -> why, and what to do."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            if not (field.description or "").strip():
                raise TypeError(f"{cls.__name__}.{name} needs a description")


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One nested dictionary in which later layers win, key by key: merge(default, file, flag)."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                value = merge(old, value)
            merged[key] = value
    return merged


def resolve(
    kind: type[C],
    recipe: Recipe,
    flags: Mapping[str, Any] | None = None,
    *,
    words: Mapping[Key, Any] | None = None,
    own: Sequence[str] = (),
) -> C:
    """The config that a recipe and flags ask for: default < file < flag.

    `flags` are keyword arguments of a Python call, and told of as such; `own` are others that the
    call takes. `words` are flags of the command line, by their path of names: they replace, and
    messages tell of them as --a.b. Raises UserError naming key, file and line where a value cannot
    be used.
    """
    values = merge(_nested_defaults(kind), recipe.values, flags or {})
    for path, value in (words or {}).items():
        _put(values, path, value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        said = _Given(recipe, flags or {}, words or {}, own)
        raise UserError(_sentence(kind, error, said)) from None


def _put(values: dict[str, Any], path: Key, value: Any) -> None:
    for name in path[:-1]:
        inner = values.get(name)
        values[name] = dict(inner) if isinstance(inner, Mapping | Config) else {}
        values = values[name]
    values[path[-1]] = value


def _nested_defaults(kind: type[BaseModel]) -> dict[str, Any]:
    """Values of the fields whose default is a config, so that a recipe may set only some of them."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in kind.model_fields.items()
    }
    return {name: dict(value) for name, value in defaults.items() if isinstance(value, Config)}


def dump_yaml(config: Config, *, pipeline: str) -> str:
    """A recipe that resolves to an equal config, with each field's sentence as a comment."""
    lines = [f"pipeline: {plain_scalar(pipeline)}", "", *_lines(config, 0)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _lines(config: Config, depth: int) -> Iterator[str]:
    margin = "  " * depth
    for name, field in type(config).model_fields.items():
        sentence = " ".join((field.description or "").split())
        for line in textwrap.wrap(sentence, 96 - len(margin), break_on_hyphens=False):
            yield f"{margin}# {line}"
        value = getattr(config, name)
        if isinstance(value, Config) and type(value).model_fields:
            yield f"{margin}{name}:"
            yield from _lines(value, depth + 1)
        else:
            yield f"{margin}{name}: {_flow(value)}"
        if depth == 0:
            yield ""


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{plain_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return plain_scalar(str(value) if isinstance(value, Path) else value)


# --- sentences


@dataclasses.dataclass(frozen=True)
class _Given:
    """Where values came from: a recipe, keyword arguments (and others that the call takes), words
    of the command line."""

    recipe: Recipe | None = None
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    words: Mapping[Key, Any] = dataclasses.field(default_factory=dict)
    own: Sequence[str] = ()

    def by_flag(self, loc: Key) -> bool:
        """Whether a keyword argument gave the value at `loc`."""
        found: Any = self.flags
        for part in loc:
            if not isinstance(found, Mapping):
                return True
            if part not in found:
                return False
            found = found[part]
        return bool(loc)

    def place(self, loc: Key) -> str:
        """The keyword argument that gave a key; else where in the recipe it stands, or the nearest
        key above it that stands there."""
        if self.by_flag(loc):
            return f" (the keyword argument {loc[0]})"
        if self.recipe is None:
            return ""
        for end in range(len(loc), 0, -1):
            if loc[:end] in self.recipe.lines:
                return f" (file {self.recipe.file}, line {self.recipe.lines[loc[:end]]})"
        return f" (file {self.recipe.file})"


def _sentence(kind: type[Any], error: ValidationError, given: _Given) -> str:
    """The first fault in words; unknown keys come first, as they explain missing ones."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return _fault(kind, faults[0], given) + more


def _fault(kind: type[Any], fault: ErrorDetails, given: _Given) -> str:
    loc = tuple(str(part) for part in fault["loc"])
    by_flag, where = given.by_flag(loc), given.place(loc)
    owner, key = ".".join(loc[:-1]), loc[-1] if loc else ""
    within = f" in {owner}" if owner else f" in {kind.__name__}" if given.recipe is None else ""
    if fault["type"] == "extra_forbidden":
        valid = [*_valid_names(kind, loc[:-1]), *(given.own if by_flag and not owner else ())]
        hint = _why(kind, loc) or nearest(key, valid).removeprefix(" (").removesuffix(")")
        return f"unknown key {key!r}{within}{where}" + (f"; {hint}" if hint else "")
    if fault["type"] == "missing":
        return f"missing key {key!r}{within}{where}"
    said = fault["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    if fault["type"] in ("literal_error", "enum"):
        said += nearest(str(fault["input"]), re.findall("'(.*?)'", fault["ctx"]["expected"]))
    if fault["type"] == "model_type" and (names := _valid_names(kind, loc)):
        one = "a dict of its keys" if by_flag else "keys below it"
        said = f"expected {one}, such as {names[0]}"
    by_word = [path for path in given.words if loc[: len(path)] == path]
    if by_word:
        value = fault["input"]
        shown = shlex.quote(value) if isinstance(value, str) else str(value)
        return f"--{'.'.join(by_word[0])} {shown}: {said}"
    if not loc:
        return f"{kind.__name__}: {said}"
    name = ".".join(loc) + (within if given.recipe is None and not owner else "")
    return f"{name} = {fault['input']!r}{where}: {said}"


def _why(kind: type[Any], loc: Key) -> str | None:
    """What is known of an unknown key: why it is refused, or what it is called here."""
    *path, key = loc
    owner = tuple(path)
    if (said := why_refused(kind, owner, key)) is not None:
        return said
    names = [
        ".".join(one[len(owner) :] if one[:-1] == owner else one)
        for one in keys_called(kind, owner, key)
    ]
    return f"{key} is called {' or '.join(names)} here" if names else None


def _valid_names(kind: type[Any], path: Key) -> list[str]:
    """Names of the fields of the config found by following `path` from `kind`."""
    for part in path:
        field = kind.model_fields.get(part)
        inner = None if field is None else config_of(field.annotation)
        if inner is None:
            return []
        kind = inner
    top = KINDS if not path else ()
    return [*kind.model_fields, *top]
