"""Flags for every key of a config: --ppo.lr 1e-5, --ppo.num-steps=3, --no-whiten, --columns a=b.

What a word means is decided by the key's declared type; its value is checked where a recipe's is.
"""

from __future__ import annotations

import collections.abc
import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from plaudit.cli.words import page
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.field_names import Key, keys_called, why_refused
from plaudit.records.recipes import plain_scalar

MOST_MEANT = 3
"""Flags that a hint names at most."""


@dataclass(frozen=True)
class Flag:
    """A key of a config as a flag: its path of names, what it takes, and its sentence."""

    path: Key
    takes: Literal["one", "many", "pairs", "switch"]
    value: str
    sentence: str
    may_be_none: bool

    @property
    def name(self) -> str:
        return _flag(self.path)


def _flag(path: Key) -> str:
    return "--" + ".".join(path)


def flags_of(kind: type[BaseModel], path: Key = ()) -> Iterator[Flag]:
    """Every key of a config and of the configs inside it, in their order."""
    for name, field in kind.model_fields.items():
        options = [one for one in _options(field.annotation) if one is not type(None)]
        inner = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
        if inner:
            yield from flags_of(inner[0], (*path, name))
            continue
        sentence = " ".join((field.description or "").split())
        takes, value = _taken(options)
        none = type(None) in _options(field.annotation)
        yield Flag((*path, name), takes, value, sentence, none)


def read_flags(kind: type[BaseModel], words: Sequence[str], own: Sequence[str]) -> dict[Key, Any]:
    """The values that words give, by their key's path.

    Of a key that is given twice the last value counts; what it holds of many adds up.
    `own` are the verb's own options, for the hint where a flag is not known. Values are still texts.
    """
    flags = {flag.path: flag for flag in flags_of(kind)}
    values: dict[Key, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"{word!r} belongs to no key: keys are written --key value")
        name, equals, value = word.removeprefix("--").partition("=")
        path, positive = _path(name, flags)
        if path not in flags:
            raise UserError(_unknown(kind, name, flags, own))
        flag = flags[path]
        if flag.takes == "switch":
            values[path] = _switched(flag, positive, [value] if equals else rest)
            continue
        given = [value] if equals else []
        while not equals and rest and not _is_flag(rest[0]):
            given.append(rest.pop(0))
            if flag.takes == "one":
                break
        values[path] = _added(values.get(path), _value(flag, given))
    return values


def help_page(
    kind: type[BaseModel], values: BaseModel, command: str, *, about: str, own: str
) -> str:
    """What `plaudit run RECIPE --help` says: every key, its sentence, and what it is now."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for flag in flags_of(kind):
        found: Any = values
        for name in flag.path:
            found = getattr(found, name, None)
        no = f"{flag.name} | --no-{flag.name[2:]}" if flag.takes == "switch" else ""
        form = no or f"{flag.name} {flag.value}"
        row = (form, f"{flag.sentence} (default: {_told(found)})")
        groups.setdefault(".".join(flag.path[:-1]), []).append(row)
    shown = [(_title(kind, name), rows) for name, rows in groups.items()]
    return page([f"{command} [--KEY VALUE ...]"], about, shown, own)


def _title(kind: type[BaseModel], group: str) -> str:
    """Such as "sampling: How answers are drawn."; nothing for the keys outside any group."""
    sentence = ""
    for name in group.split(".") if group else ():
        field = kind.model_fields[name]
        sentence = " ".join((field.description or "").split())
        kind = next(one for one in _options(field.annotation) if one is not type(None))
    return f"{group}: {sentence}" if group else ""


def _options(annotation: Any) -> tuple[Any, ...]:
    """The kinds that a value may have: (int, None) of `int | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _taken(options: Sequence[Any]) -> tuple[Literal["one", "many", "pairs", "switch"], str]:
    """How many words a value of these kinds takes, and how help writes it."""
    first = options[0] if options else str
    origin = get_origin(first) or first
    if first is bool:
        return "switch", ""
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return "pairs", "NAME=VALUE ..."
    if isinstance(origin, type) and issubclass(origin, list | tuple | set | frozenset):
        inner = [one for one in get_args(first) if one is not ...]
        return "many", f"{_named(inner[0]) if inner else 'VALUE'} ..."
    return "one", "|".join(dict.fromkeys(_named(one) for one in options))


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return {int: "INT", float: "NUMBER", str: "TEXT"}.get(kind, "VALUE")


def _path(name: str, flags: Mapping[Key, Flag]) -> tuple[Key, bool]:
    """The key that a flag's name means, and False where it says no to a switch."""
    path = tuple(name.replace("-", "_").split("."))
    if path in flags:
        return path, True
    without = (path[0].removeprefix("no_"), *path[1:]), (*path[:-1], path[-1].removeprefix("no_"))
    for positive in without:
        if positive != path and positive in flags and flags[positive].takes == "switch":
            return positive, False
    return path, True


def _unknown(
    kind: type[BaseModel], name: str, flags: Mapping[Key, Flag], own: Sequence[str]
) -> str:
    path = tuple(name.replace("-", "_").split("."))
    known = {".".join(key): flag.name for key, flag in flags.items()}
    known |= {one: f"--{one}" for one in own}
    within = [flag.name for key, flag in flags.items() if key[: len(path)] == path]
    if within:
        return f"--{name} is a group of keys: give one of them, such as {within[0]}"
    wanted, last = ".".join(path), path[-1]
    if (why := why_refused(kind, path[:-1], last)) is not None:
        return f"unknown key --{name}; {why}"
    if here := keys_called(kind, path[:-1], last):
        return f"unknown key --{name}; {last} is called {' or '.join(map(_flag, here[:MOST_MEANT]))} here"
    ends: dict[str, list[str]] = {}
    for key, flag in flags.items():
        ends.setdefault(key[-1], []).append(flag.name)
    meant = [known[one] for one in difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)]
    for cutoff in (1.0, 0.6):
        found = difflib.get_close_matches(last, ends, n=1, cutoff=cutoff)
        meant = meant or [one for end in found for one in ends[end]]
    meant = meant or [known[one] for one in difflib.get_close_matches(wanted, known, n=1)]
    hint = f" (did you mean {' or '.join(meant[:MOST_MEANT])}?)" if meant else ""
    return f"unknown key --{name}{hint}; --help lists them"


def _is_flag(word: str) -> bool:
    """True for --key; a value may begin with one dash, as -1 does."""
    return word.startswith("--") and len(word) > 2


def _switched(flag: Flag, positive: bool, words: list[str]) -> bool:
    """A switch, with true or false behind it where somebody writes that; takes it off `words`."""
    if words and (word := words[0].lower()) in ("true", "false"):
        words.pop(0)
        return (word == "true") == positive
    if words and words[0] and not words[0].startswith("-"):
        raise UserError(f"{flag.name} {words[0]}: expected true, false or nothing behind it")
    if words and not words[0]:
        raise UserError(f"{flag.name} needs true or false behind the equals sign")
    return positive


def _value(flag: Flag, given: list[str]) -> Any:
    """What the words behind a flag mean, as far as that is known without checking them."""
    if flag.may_be_none and given == ["None"]:
        return None
    if flag.takes == "pairs":
        pairs = {}
        for word in given:
            name, _, value = word.partition("=")
            if not name or not value:
                raise UserError(f"{flag.name} takes NAME=VALUE, not {word!r}")
            pairs[name] = value
        return pairs
    if flag.takes == "many":
        return given
    if not given:
        raise UserError(f"{flag.name} needs a value: {flag.value}")
    return given[0]


def _added(before: Any, value: Any) -> Any:
    """What a key holds once it is given again: `--reward a --reward b` is `--reward a b`."""
    if isinstance(before, list) and isinstance(value, list):
        return [*before, *value]
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **value}
    return value


def _told(value: Any) -> str:
    """A value as one would write it behind its flag."""
    if value is None:
        return "none"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Mapping):
        return " ".join(f"{name}={one}" for name, one in value.items()) or "nothing"
    if isinstance(value, list | tuple | set | frozenset):
        return " ".join(str(one) for one in value) or "nothing"
    if isinstance(value, bool | Config):
        return str(value).lower()
    return plain_scalar(value) if isinstance(value, int | float) else str(value) or "empty"
