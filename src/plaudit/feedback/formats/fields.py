"""Fields of a row, each refused in a sentence where it is missing or of another type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plaudit.feedback.formats.base import CannotSay
from plaudit.records.columns import parse_number
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import brief, listed_names
from plaudit.records.turns import canonical_messages
from plaudit.records.types import Message, Text

Fields = Mapping[str, Any]


def need(row: Fields, name: str, where: str = "") -> Any:
    """What a field holds; UserError where there is none, with the nearest name."""
    if name not in row:
        inside = f" in {where}" if where else ""
        hint = nearest(name, row) or f" (it has {listed_names(row)})"
        raise UserError(f"no field {name!r}{inside}{hint}")
    return row[name]


def text_of(row: Fields, name: str, where: str = "") -> str:
    """A field that is a text."""
    value = need(row, name, where)
    if not isinstance(value, str):
        raise UserError(f"{_named(name, where)} is {brief(value)}, expected a text")
    return value


def name_of(row: Fields, name: str) -> str:
    """A field that names somebody or something: a text or a number; "" where it is empty."""
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return ""
    if not isinstance(value, str | int):
        raise UserError(f"{name!r} is {brief(value)}, expected a name")
    return str(value).strip()


def list_of(row: Fields, name: str, where: str = "") -> list[Any]:
    """A field that is a list, or a list that is written as JSON."""
    value = need(row, name, where)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(
                f"{_named(name, where)} is {brief(value)}, expected a JSON list"
            ) from None
    if not isinstance(value, list):
        raise UserError(f"{_named(name, where)} is {brief(value)}, expected a list")
    return value


def object_of(row: Fields, name: str, where: str = "") -> Fields:
    """A field that is an object."""
    value = need(row, name, where)
    if not isinstance(value, Mapping):
        raise UserError(f"{_named(name, where)} is {brief(value)}, expected an object")
    return value


def number_of(value: Any, name: str) -> float:
    """A number, or a text that is one."""
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise UserError(f"{name!r} is {brief(value)}, expected a number")
    return number


def one_of(value: Any, allowed: Iterable[str], name: str) -> str:
    """A value that must be one of some texts."""
    known = tuple(allowed)
    if value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise UserError(f"{name!r} is {brief(value)}, expected one of {', '.join(known)}{hint}")
    return str(value)


def _named(name: str, where: str) -> str:
    return f"{name!r} of {where}" if where else repr(name)


# --- texts -------------------------------------------------------------------------------------


def plainest(messages: Sequence[Message], role: str) -> Text:
    """One message of `role` as its text alone, others as they are."""
    if len(messages) == 1 and dict(messages[0]).keys() == {"role", "content"}:
        [only] = messages
        if only["role"] == role:
            return only["content"]
    return list(messages)


def asked(prompt: Text) -> list[Message]:
    """The messages of a prompt."""
    return [dict(message) for message in canonical_messages(prompt)]


def answered(text: Text) -> list[Message]:
    """The messages of an answer."""
    if isinstance(text, str):
        return [{"role": "assistant", "content": text}]
    return asked(text)


def one_text(text: Text, what: str) -> str:
    """A text that is, or can be said as, one text of its role; else CannotSay."""
    if isinstance(text, str):
        return text
    if len(text) == 1 and text[0]["role"] in ("user", "assistant"):
        return text[0]["content"]
    raise CannotSay(f"{what} of several turns")
