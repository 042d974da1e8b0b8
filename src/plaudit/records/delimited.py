"""Comma- and tab-separated text as records: RFC 4180, read strictly, with the line of each record.

A field in quotes may hold separators, line breaks and doubled quotes. Refused, with the line: a quote
that is never closed, one in the middle of an unquoted field (but not with tabs, where it is common
and means itself), text after a closing quote, more or fewer fields than the header has, and two
columns of one name. A column without a name is called by its place, "column 1".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from plaudit.records.errors import UserError

_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')
_PLAIN = {",": re.compile(r'[^,"\r\n]*'), "\t": re.compile(r"[^\t\r\n]*")}
_BREAK = re.compile(r"\r\n|\r|\n")
_NAMES = {",": "commas", "\t": "tabs"}


@dataclass(frozen=True)
class _Record:
    line: int
    fields: list[str]
    blank: bool


def parse_delimited(
    text: str, separator: str, where: str
) -> tuple[list[dict[str, str]], list[int]]:
    """(a dict for each record after the header, the line on which each begins)."""
    records = _records(text, separator, where)
    while records and records[-1].blank:
        records.pop()
    if not records:
        return [], []
    header = _header(records[0], separator, where)
    rows, lines = [], []
    for record in records[1:]:
        if record.blank and len(header) > 1:
            continue
        if len(record.fields) != len(header):
            hint = "; a text with a separator in it needs quotes around it"
            raise UserError(
                f"{where}, line {record.line} has {_counted(len(record.fields), 'field')}, but the "
                f"header has {len(header)}{hint if len(record.fields) > len(header) else ''}"
            )
        rows.append(dict(zip(header, record.fields, strict=True)))
        lines.append(record.line)
    return rows, lines


def _records(text: str, separator: str, where: str) -> list[_Record]:
    records, position, line = [], 0, 1
    while position < len(text):
        fields, first, begun = [], line, position
        while True:
            value, position, breaks = _field(text, position, separator, f"{where}, line {line}")
            fields.append(value)
            line += breaks
            if position == len(text) or text[position] != separator:
                break
            position += 1
        records.append(_Record(first, fields, blank=position == begun))
        ending = _BREAK.match(text, position)
        if ending is not None:
            position, line = ending.end(), line + 1
        elif position < len(text):
            raise UserError(_stray(text, position, f"{where}, line {line}"))
    return records


def _field(text: str, position: int, separator: str, where: str) -> tuple[str, int, int]:
    """(the field that begins at `position`, where it ends, line breaks in it)."""
    if not text.startswith('"', position):
        plain = _PLAIN[separator].match(text, position)
        assert plain is not None  # it may be empty
        return plain[0], plain.end(), 0
    quoted = _QUOTED.match(text, position)
    if quoted is None:
        raise UserError(f"{where}: the quote before {_next(text, position + 1)} is never closed")
    return quoted[1].replace('""', '"'), quoted.end(), len(_BREAK.findall(quoted[1]))


def _stray(text: str, position: int, where: str) -> str:
    if text[position] == '"':
        return (
            f"{where}: a quote stands inside a field without quotes, at {_next(text, position)}; "
            "put the whole field in quotes and double those inside"
        )
    return (
        f"{where}: {_next(text, position)} follows a closing quote; double the quotes inside a text"
    )


def _next(text: str, position: int) -> str:
    return repr(text[position : position + 20].partition("\n")[0])


def _header(record: _Record, separator: str, where: str) -> list[str]:
    names = [name or f"column {n}" for n, name in enumerate(record.fields, start=1)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{where}, line {record.line}: the header names {twice[0]!r} twice")
    others = [other for other in (";", "\t", ",") if other != separator and other in names[0]]
    if len(names) == 1 and others:
        raise UserError(
            f"{where}, line {record.line}: the header {names[0]!r} is one column; separate columns "
            f"by {_NAMES[separator]}, not by {others[0]!r}"
        )
    return names


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
