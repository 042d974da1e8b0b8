"""How Plaudit says that input was wrong: one sentence, with the nearest valid name."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Input that cannot be used; the message is one sentence meant for the user.

    The command line prints the message alone and exits with code 2. The sentence says what was
    wrong, where (file, line, field), what was expected, and the nearest valid name if there is one.

    `new_run` is true where a run that was stopped by it cannot go on, since the cause lies in its
    keys, which are fixed, or in what it has already done.
    """

    def __init__(self, message: str, *, new_run: bool = False) -> None:
        super().__init__(message)
        self.new_run = new_run


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as " (did you mean 'lr'?)", or "" when nothing valid is close to `name`.

    Of names with parts (control/ppo) the last part alone may be what was meant.
    """

    def alike(one: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, one, name).ratio()
        parts = difflib.SequenceMatcher(None, _last(one), _last(name)).ratio()
        return max(whole, parts), whole

    found = max(valid, key=lambda one: (alike(one), one), default=None)
    return f" (did you mean {found!r}?)" if found is not None and alike(found)[0] >= 0.5 else ""


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def command(*words: str | Path) -> str:
    """The command `plaudit ...` as a shell takes it: words with spaces and the like are quoted."""
    return shlex.join(["plaudit", *map(str, words)])
