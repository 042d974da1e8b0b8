"""Text of others on our pages: escaped, kept to its own place, and with what steers it written out.

A mark such as U+202E turns round whatever follows it. A page isolates each text (`dir="auto"` or
`<bdi>`), and here the marks that could end or outlast that are shown by their code points.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from plaudit.records.visible import CONTROLS, TURNING

_STEERS = re.compile(f"[{CONTROLS}{TURNING}]")


def seen(text: object) -> Markup:
    """HTML of a text in which every control or turning character stands as its code point."""
    parts: list[str] = []
    end = 0
    said = str(text).encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair becomes ?
    for found in _STEERS.finditer(said):
        parts.append(escape(said[end : found.start()]))
        parts.append(f'<span class="mark">U+{ord(found[0]):04X}</span>')
        end = found.end()
    return Markup("".join([*parts, escape(said[end:])]))


def apart(text: object) -> Markup:
    """`seen` within `<bdi>`, for a text that others follow in the same line."""
    return Markup("<bdi>{}</bdi>").format(seen(text))
