"""A Q table as text: a row for each action, a column for each state, the best of each marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.checks import check_names
from plaudit.records.errors import UserError

MARK = "*"
"""Stands behind the greatest q of a state, and behind each of equal ones."""

ABSENT = "-"
"""Stands where an action does not exist (q = -inf)."""


def q_table(
    q: ArrayLike,
    *,
    states: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    decimals: int = 1,
    width: int = 100,
) -> str:
    """Q(s, a) as plain text, actions down and states across; wide tables go on below.

    q [S, A]; states and actions: names, by default S1 … and a1 …; width: characters of a line, at
    least one state a block whatever it is. Raises UserError for a q that is not [S, A] numbers,
    and for names that are not as many.
    """
    values = _values(q)
    num_states, num_actions = values.shape
    columns = check_names(states, num_states, "states")
    rows = check_names(actions, num_actions, "actions")
    columns = columns or tuple(f"S{i + 1}" for i in range(num_states))
    rows = rows or tuple(f"a{i + 1}" for i in range(num_actions))
    if isinstance(decimals, bool) or decimals not in range(18):
        raise UserError(f"decimals: {decimals!r}; expected a whole number from 0 to 17")
    cells = [_cells(values[s], columns[s], decimals) for s in range(num_states)]
    left = [name.ljust(max(map(len, ("Q(s, a)", *rows)))) for name in ("Q(s, a)", *rows)]
    return "\n\n".join(_block(left, part) for part in _folded(left, cells, width))


def _values(q: ArrayLike) -> NDArray[np.float64]:
    try:
        values = np.asarray(q, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("q: not an array of numbers; expected shape [S, A]") from None
    if values.ndim != 2 or 0 in values.shape:
        raise UserError(f"q: shape {values.shape}; expected [S, A], a row for each state")
    if np.isnan(values).any():
        s, a = np.argwhere(np.isnan(values))[0]
        raise UserError(f"q: state {s}, action {a} has nan; expected a number")
    return values


def _cells(values: NDArray[np.float64], name: str, decimals: int) -> list[str]:
    """A state's column: its name over its values, all of one width."""
    texts = [name + " "]
    for value in values:
        mark = MARK if value == values.max() else " "
        texts.append((ABSENT if np.isneginf(value) else f"{value:.{decimals}f}") + mark)
    widest = max(map(len, texts))
    return [text.rjust(widest) for text in texts]


def _folded(left: list[str], cells: list[list[str]], width: int) -> list[list[list[str]]]:
    """The states' columns in blocks that fit the width."""
    blocks: list[list[list[str]]] = [[]]
    used = len(left[0])
    for column in cells:
        if blocks[-1] and used + 1 + len(column[0]) > width:
            blocks.append([])
            used = len(left[0])
        blocks[-1].append(column)
        used += 1 + len(column[0])
    return blocks


def _block(left: list[str], columns: list[list[str]]) -> str:
    lines = zip(left, *columns, strict=True)
    return "\n".join(" ".join(line).rstrip() for line in lines)
