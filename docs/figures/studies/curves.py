"""Means over runs with their standard errors, and errors against the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def averaged(run: Callable[[int], Floats], num_runs: int) -> tuple[Floats, Floats]:
    """Mean and standard error over `run(seed)` for seeds 0 to num_runs - 1."""
    outcomes = np.array([run(seed) for seed in range(num_runs)])
    with np.errstate(over="ignore", invalid="ignore"):  # a method that diverges says inf
        spread = (
            outcomes.std(axis=0, ddof=1) if num_runs > 1 else np.full(outcomes.shape[1:], np.nan)
        )
        return outcomes.mean(axis=0), spread / np.sqrt(num_runs)


def rms(estimate: Floats, truth: Floats) -> Floats:
    """Root mean square of the error over the last axis."""
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(np.mean((estimate - truth) ** 2, axis=-1)))
