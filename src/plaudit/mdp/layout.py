"""The forms in which people hold transitions and rewards, brought into one: rows state by state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from plaudit.records.errors import UserError

Transition: TypeAlias = ArrayLike | sparse.sparray | sparse.spmatrix | Sequence[Any]
Floats: TypeAlias = NDArray[np.float64]

FORMS = "expected [A, S, S], a list of A matrices [S, S], or one matrix [S·A, S]"


def state_major(transition: Transition, num_actions: int | None = None) -> sparse.csr_array:
    """Transitions as one CSR matrix [S·A, S] of float64, row s·A + a; shared where possible.

    `num_actions` is given where only one number is right. Raises UserError naming what was found.
    """
    if sparse.issparse(transition):
        rows = _as_csr(transition, "transition")
    elif isinstance(transition, list | tuple) and any(sparse.issparse(t) for t in transition):
        rows = _interleaved(
            [_as_csr(t, f"transition, action {a}") for a, t in enumerate(transition)]
        )
    else:
        rows = _from_dense(_numbers(transition, "transition"))
    num_rows, num_states = rows.shape
    if num_states == 0:
        raise UserError("transition: a world needs at least one state")
    if num_rows == 0 or num_rows % num_states:
        raise UserError(
            f"transition: {num_rows} rows of {num_states} states; expected a multiple of the states, "
            "one row for each state and action"
        )
    if num_actions is not None and num_rows != num_states * num_actions:
        raise UserError(
            f"transition: shape {rows.shape}; expected [{num_states}, {num_states}], "
            "as a Markov reward process has no actions"
        )
    return rows


def reward_in_rows(
    reward: Any, rows: sparse.csr_array, num_actions: int
) -> tuple[Floats, Floats | None]:
    """E[r | s, a] as [S, A], and r(s, a, s') beside each stored transition where it varies.

    Raises UserError naming the state where a reward is NaN or +inf, or naming the wrong shape.
    """
    num_states = rows.shape[1]
    if sparse.issparse(reward):
        return _from_rows(_as_csr(reward, "reward"), rows, num_actions)
    if isinstance(reward, list | tuple) and any(sparse.issparse(r) for r in reward):
        by_action = _interleaved([_as_csr(r, "reward") for r in reward])
        return _from_rows(by_action, rows, num_actions)
    given = _numbers(reward, "reward")
    if given.shape == (num_states,):
        return _checked(np.repeat(given[:, None], num_actions, axis=1)), None
    if given.shape == (num_states, num_actions):
        return _checked(given), None
    if num_actions == 1 and given.shape == (num_states, num_states):
        given = given[None]
    if given.shape != (num_actions, num_states, num_states):
        raise UserError(
            f"reward: shape {given.shape}; expected [{num_states}], "
            f"[{num_states}, {num_actions}] or [{num_actions}, {num_states}, {num_states}]"
        )
    state, action = np.divmod(_row_of(rows), num_actions)
    missing = np.isneginf(given).all(axis=2).T.ravel()
    return _expected(given[action, state, rows.indices], rows, num_actions, missing)


def paid_rows(
    rows: sparse.csr_array, paid: ArrayLike, missing: NDArray[np.bool_]
) -> sparse.csr_array:
    """r(s, a, s') beside each transition as a reward for `MDP`, -inf in the `missing` rows [S·A]."""
    absent = np.flatnonzero(missing)
    row = np.concatenate([_row_of(rows), absent])
    column = np.concatenate([rows.indices, np.zeros_like(absent)])
    data = np.concatenate([np.asarray(paid, dtype=np.float64), np.full(absent.size, -np.inf)])
    return sparse.csr_array((data, (row, column)), shape=rows.shape)


def _from_rows(
    given: sparse.csr_array, rows: sparse.csr_array, num_actions: int
) -> tuple[Floats, Floats | None]:
    """Rewards by next state from a matrix shaped as the transitions."""
    if given.shape != rows.shape:
        raise UserError(
            f"reward: shape {given.shape}; expected that of the transitions {rows.shape}"
        )
    missing = np.zeros(rows.shape[0], np.bool_)
    missing[_row_of(given)[np.isneginf(given.data)]] = True
    return _expected(_beside(given, rows), rows, num_actions, missing)


def _expected(
    per_next: Floats, rows: sparse.csr_array, num_actions: int, missing: NDArray[np.bool_]
) -> tuple[Floats, Floats | None]:
    row = _row_of(rows)
    counted = np.where((rows.data > 0) & ~missing[row], per_next, 0.0)
    wrong = np.flatnonzero(~np.isfinite(counted))
    if wrong.size:
        k = int(wrong[0])
        state, action = divmod(int(row[k]), num_actions)
        raise UserError(
            f"reward: state {state}, action {action}, next state {rows.indices[k]} has "
            f"{counted[k]}; expected a finite number"
        )
    shape = (rows.shape[1], num_actions)
    first = np.zeros(rows.shape[0])
    begin, counts = rows.indptr[:-1], np.diff(rows.indptr)
    first[counts > 0] = counted[begin[counts > 0]]
    same = np.abs(counted - first[row]) <= 4 * np.finfo(np.float64).eps * np.abs(counted)
    if same.all():  # depends on state and action alone, but for rounding
        return np.where(missing, -np.inf, first).reshape(shape), None
    weighted = sparse.csr_array((rows.data * counted, rows.indices, rows.indptr), shape=rows.shape)
    expected = np.where(missing, -np.inf, np.asarray(weighted.sum(axis=1)).ravel())
    return expected.reshape(shape), counted


def _checked(reward: Floats) -> Floats:
    wrong = np.argwhere(np.isnan(reward) | np.isposinf(reward))
    if wrong.size:
        s, a = wrong[0]
        raise UserError(
            f"reward: state {s}, action {a} has {reward[s, a]}; expected a finite number, or -inf "
            "for an action that does not exist there"
        )
    return reward


def _beside(given: sparse.csr_array, rows: sparse.csr_array) -> Floats:
    """The entries of `given` at the places where `rows` has entries (0 where it has none)."""
    given.sum_duplicates()
    keys = _row_of(given) * rows.shape[1] + given.indices
    wanted = _row_of(rows) * rows.shape[1] + rows.indices
    place = np.minimum(np.searchsorted(keys, wanted), max(keys.size - 1, 0))
    if not keys.size:
        return np.zeros(wanted.size)
    return np.where(keys[place] == wanted, given.data[place], 0.0)


def _row_of(rows: sparse.csr_array) -> NDArray[np.int64]:
    return np.repeat(np.arange(rows.shape[0], dtype=np.int64), np.diff(rows.indptr))


def _interleaved(by_action: list[sparse.csr_array]) -> sparse.csr_array:
    """A matrices [S, S] as one [S·A, S] with the actions of a state side by side."""
    shapes = {matrix.shape for matrix in by_action}
    shape = by_action[0].shape
    if len(shapes) > 1 or shape[0] != shape[1]:
        raise UserError(
            f"transition: matrices of shapes {sorted(shapes)}; expected one square shape [S, S] for "
            "every action"
        )
    num_actions, num_states = len(by_action), shape[0]
    stacked = sparse.csr_array(sparse.vstack(by_action, format="csr"))
    order = np.arange(num_actions * num_states).reshape(num_actions, num_states).T.ravel()
    return sparse.csr_array(stacked[order])


def _from_dense(given: Floats) -> sparse.csr_array:
    if given.ndim == 3:
        num_actions, num_states, num_next = given.shape
        if num_states != num_next:
            raise UserError(f"transition: shape {given.shape}; {FORMS}")
        given = given.transpose(1, 0, 2).reshape(num_states * num_actions, num_states)
    elif given.ndim != 2:
        raise UserError(f"transition: shape {given.shape}; {FORMS}")
    return sparse.csr_array(given)


def _numbers(given: Any, what: str) -> Floats:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: not an array of numbers ({error})") from None


def _as_csr(given: Any, what: str) -> sparse.csr_array:
    matrix = sparse.csr_array(given)
    if matrix.ndim != 2:
        raise UserError(f"{what}: {matrix.ndim} dimensions; {FORMS}")
    if np.iscomplexobj(matrix.data):
        raise UserError(f"{what}: complex numbers; expected real ones")
    return matrix if matrix.dtype == np.float64 else matrix.astype(np.float64)
