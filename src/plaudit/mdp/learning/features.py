"""What a linear value sees of a state: a row of features x(s), kept sparse.

One-hot rows give back the tables; groups of states, tiles and dense numbers are rows alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import inlined
from plaudit.mdp.learning.episodes import Flags
from plaudit.mdp.learning.learned import Floats, Ints
from plaudit.records.errors import UserError


class Features(NamedTuple):
    """x [S, d] row by row; rows of terminal states are empty, so that their value is 0."""

    indptr: Ints
    indices: Ints
    data: Floats
    num_features: int


def state_aggregation(group: ArrayLike) -> sparse.csr_array:
    """Features [S, G] that tell only which group a state is in.

    group [S]: numbers from 0, or -1 for a state in none (its features are 0).
    Source: Sutton & Barto 2018, section 9.3.
    """
    given = np.asarray(group)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise UserError(f"group: shape {given.shape} of {given.dtype}; expected [S] whole numbers")
    if given.size == 0 or given.min() < -1:
        raise UserError("group: expected one number of -1 or more for each state")
    inside = np.flatnonzero(given >= 0)
    shape = (given.size, max(int(given.max()) + 1, 1))
    return sparse.csr_array((np.ones(inside.size), (inside, given[inside])), shape=shape)


def features_of(given: ArrayLike | sparse.sparray, terminal: Flags) -> Features:
    """Features [S, d], dense or sparse, checked, as kernels read them."""
    if sparse.issparse(given):
        rows = sparse.csr_array(given, copy=True).astype(np.float64)
    else:
        dense = np.asarray(given, dtype=np.float64)
        if dense.ndim != 2:
            raise UserError(f"features: shape {dense.shape}; expected [{terminal.size}, d]")
        rows = sparse.csr_array(dense)
    if rows.shape[0] != terminal.size or rows.shape[1] == 0:
        raise UserError(f"features: shape {rows.shape}; expected [{terminal.size}, d]")
    if not np.isfinite(rows.data).all():
        k = int(np.flatnonzero(~np.isfinite(rows.data))[0])
        state = int(np.searchsorted(rows.indptr, k, side="right")) - 1
        raise UserError(f"features: state {state} has {rows.data[k]}; expected finite numbers")
    rows.data[np.repeat(terminal, np.diff(rows.indptr))] = 0.0
    rows.sum_duplicates()
    rows.eliminate_zeros()
    indptr, indices = rows.indptr.astype(np.int64), rows.indices.astype(np.int64)
    return Features(indptr, indices, rows.data, int(rows.shape[1]))


def value_of(features: Features, weights: Floats) -> Floats:
    """X w [S]."""
    shape = (features.indptr.size - 1, features.num_features)
    rows = sparse.csr_array((features.data, features.indices, features.indptr), shape=shape)
    return np.asarray(rows @ weights)


@inlined
def dot(features: Features, state: int, weights: Floats) -> float:
    """w·x(s)."""
    total = 0.0
    for k in range(features.indptr[state], features.indptr[state + 1]):
        total += weights[features.indices[k]] * features.data[k]
    return total


@inlined
def add(features: Features, state: int, amount: float, weights: Floats) -> None:
    """w ← w + amount · x(s)."""
    for k in range(features.indptr[state], features.indptr[state + 1]):
        weights[features.indices[k]] += amount * features.data[k]
