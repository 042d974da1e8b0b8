"""A partially observed world as the compiled kernels read it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.mdp.partial.model import POMDP, Floats

Ints: TypeAlias = NDArray[np.int64]


class Table(NamedTuple):
    """Row s·A + a of (t_ptr, t_idx, t_p) is T(·|s, a); row s'·A + a of (o_…) is O(·|a, s')."""

    t_ptr: Ints
    t_idx: Ints
    t_p: Floats
    o_ptr: Ints
    o_idx: Ints
    o_p: Floats
    reward: Floats
    gamma: float
    num_observations: int


def table_of(pomdp: POMDP) -> Table:
    """The arrays of a world, copied so that all have one type and kernels are compiled once."""
    t, o = pomdp.transition, pomdp.observation
    return Table(
        np.array(t.indptr, np.int64),
        np.array(t.indices, np.int64),
        np.array(t.data),
        np.array(o.indptr, np.int64),
        np.array(o.indices, np.int64),
        np.array(o.data),
        np.array(pomdp.reward, order="C"),
        pomdp.gamma,
        pomdp.num_observations,
    )
