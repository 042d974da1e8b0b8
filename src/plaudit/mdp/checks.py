"""What makes a world well formed, each fault told in one sentence with its state and action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from plaudit.mdp.compiled import compiled
from plaudit.records.errors import UserError

SUM_TOLERANCE = 1e-8
"""How far a row of probabilities may be from one: rounding of a few thousand terms, no more."""

D = TypeVar("D", bound=np.generic)

_FINE, _NOT_FINITE, _NEGATIVE, _OUTSIDE, _SUM = range(5)


def frozen(array: NDArray[D]) -> NDArray[D]:
    """A view that cannot be written; nothing is copied."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def frozen_rows(rows: sparse.csr_array) -> sparse.csr_array:
    """The same matrix on arrays that cannot be written; nothing is copied."""
    parts = (frozen(rows.data), frozen(rows.indices), frozen(rows.indptr))
    return sparse.csr_array(parts, shape=rows.shape, copy=False)


def check_gamma(gamma: float) -> float:
    """The discount as a float in [0, 1]."""
    if isinstance(gamma, bool) or not isinstance(gamma, int | float | np.floating | np.integer):
        raise UserError(f"gamma: {gamma!r} is not a number; expected one from 0 to 1")
    if not 0 <= gamma <= 1:
        raise UserError(f"gamma: {gamma}; expected a number from 0 to 1")
    return float(gamma)


def check_rows(
    rows: sparse.csr_array,
    num_actions: int,
    states: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    missing: NDArray[np.bool_] | None = None,
) -> float:
    """Every row of [S·A, S] is a distribution; rows of `missing` actions [S, A] may be empty.

    Returns the greatest |sum - 1|, which certified bounds take into account. Raises UserError with
    the first faulty state, action and its sum or entry.
    """
    absent = np.zeros(rows.shape[0], np.bool_) if missing is None else missing.ravel()
    fault, row, amount = row_fault(
        rows.indptr, rows.indices, rows.data, absent, rows.shape[1], SUM_TOLERANCE
    )
    if fault == _FINE:
        return float(amount)
    state, action = divmod(int(row), num_actions)
    where = f"state {_named(state, states)}"
    if num_actions > 1 or actions:
        where += f", action {_named(action, actions)}"
    if fault == _SUM:
        raise UserError(f"transition: {where}: probabilities sum to {amount:.10g}, not 1")
    if fault == _OUTSIDE:
        raise UserError(
            f"transition: {where}: next state {amount:.0f}; expected 0 to {rows.shape[1] - 1}"
        )
    raise UserError(
        f"transition: {where}: a probability is {amount:.6g}; expected a number from 0 to 1"
    )


@compiled
def row_fault(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    data: NDArray[np.float64],
    missing: NDArray[np.bool_],
    num_states: int,
    tolerance: float,
) -> tuple[int, int, float]:
    """The first faulty row: (what is wrong, row, the number that is wrong).

    What is wrong is 0 if nothing is; the number is then the greatest |sum - 1|.
    """
    worst = 0.0
    for row in range(missing.size):
        total = 0.0
        for k in range(indptr[row], indptr[row + 1]):
            if not np.isfinite(data[k]):
                return 1, row, data[k]
            if data[k] < 0.0:
                return 2, row, data[k]
            if indices[k] < 0 or indices[k] >= num_states:
                return 3, row, float(indices[k])
            total += data[k]
        if not missing[row] and abs(total - 1.0) > tolerance:
            return 4, row, total
        if not missing[row]:
            worst = max(worst, abs(total - 1.0))
    return 0, 0, worst


@compiled
def terminal_states(
    indptr: NDArray[Any],
    indices: NDArray[Any],
    data: NDArray[np.float64],
    reward: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """[S]: every action there stays and pays nothing."""
    num_states, num_actions = reward.shape
    terminal = np.ones(num_states, np.bool_)
    for s in range(num_states):
        for a in range(num_actions):
            row = s * num_actions + a
            if reward[s, a] != 0.0 and reward[s, a] != -np.inf:
                terminal[s] = False
            for k in range(indptr[row], indptr[row + 1]):
                if indices[k] != s and data[k] > 0.0:
                    terminal[s] = False
            if not terminal[s]:
                break
    return terminal


def check_distribution(given: ArrayLike, count: int, what: str) -> NDArray[np.float64]:
    """A probability for each of `count`, summing to one."""
    try:
        p = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what}: not an array of numbers") from None
    if p.shape != (count,):
        raise UserError(f"{what}: shape {p.shape}; expected [{count}]")
    wrong = np.flatnonzero(~((p >= 0) & np.isfinite(p)))
    if wrong.size:
        raise UserError(f"{what}: entry {wrong[0]} is {p[wrong[0]]}; expected a probability")
    if abs(p.sum() - 1) > SUM_TOLERANCE:
        raise UserError(f"{what}: probabilities sum to {p.sum():.10g}, not 1")
    return p


def check_names(names: Sequence[str] | None, count: int, what: str) -> tuple[str, ...] | None:
    """As many different names as there are states or actions, or none."""
    if names is None:
        return None
    said = tuple(str(name) for name in names)
    if len(said) != count:
        raise UserError(f"{what}: {len(said)} names; expected {count}")
    if len(set(said)) < count:
        twice = next(name for i, name in enumerate(said) if name in said[:i])
        raise UserError(f"{what}: the name {twice!r} stands twice")
    return said


def _named(number: int, names: Sequence[str] | None) -> str:
    return (
        f"{number} ({names[number]})" if names is not None and number < len(names) else str(number)
    )
