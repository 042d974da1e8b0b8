"""Text of others made harmless to show: what would steer a terminal or turn lines round is written out.

A model's answer, a prompt or a file's name may hold escape sequences, which a terminal obeys, and
marks that change the direction in which whatever follows is read. They are shown as \\x1b or \\u202e.
"""

from __future__ import annotations

import re

TURNING = "\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates: their effect lasts until it is ended. Unicode's UAX 9, 2.1-2.5."""

MARKS = "\u061c\u200e\u200f"
"""Marks that stand for one letter of a direction: in an isolated place they reach nothing else."""

CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029"
"""Control characters but tab and line feed, and Unicode's own ends of line and of paragraph."""

_IN_TEXT = re.compile(f"[{CONTROLS}{TURNING}]")
_IN_LINE = re.compile(f"[{CONTROLS}\t\n{TURNING}{MARKS}]")


def visible(text: str) -> str:
    """`text` with its lines, safe to print: nothing in it can drive a terminal or turn it round."""
    return _IN_TEXT.sub(_written, text)


def visible_line(text: str) -> str:
    """`text` as one line, beside which others may stand on the same line."""
    return _IN_LINE.sub(_written, text)


def steers(text: str) -> str | None:
    """The first character that a name should not hold, written out; None where there is none."""
    found = _IN_LINE.search(text)
    return _written(found) if found else None


def _written(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1] if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}"
