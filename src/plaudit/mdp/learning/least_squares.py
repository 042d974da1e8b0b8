"""LSTD: the fixed point of linear TD solved from sums over the samples, with no step size."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import compiled
from plaudit.mdp.learning.episodes import Acting, acting_in, check_fraction, check_positive
from plaudit.mdp.learning.features import add, value_of
from plaudit.mdp.learning.learned import Floats, LeastSquares
from plaudit.mdp.learning.linear_run import LinearRun, keep, linear_run
from plaudit.mdp.learning.sampling import drawn_action, first_state, step
from plaudit.mdp.model import MDP, MRP


def lstd(
    mdp: MDP | MRP,
    policy: ArrayLike | None,
    features: ArrayLike | sparse.sparray,
    *,
    num_episodes: int,
    lam: float = 0.0,
    ridge: float = 1e-6,
    seed: int = 0,
    start: LeastSquares | None = None,
    max_steps: int | None = None,
) -> LeastSquares:
    """The linear value at TD's fixed point, by least squares.

    A = Σ_t z_t (x(S_t) - γ x(S_{t+1}))ᵀ, b = Σ_t z_t R_{t+1}, z_t = γλ z_{t-1} + x(S_t);
    w = (A + ridge·I)^-1 b. The ridge answers for features that were not met, whose weight is 0.
    policy: none for a chain; features [S, d]; start: an earlier result to go on from, sums and all.
    Source: Bradtke & Barto 1996; Boyan 2002 (for λ); Sutton & Barto 2018, section 9.8.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    lam, ridge = check_fraction(lam, "lam"), check_positive(ridge, "ridge")
    run = linear_run(acting, features, num_episodes, seed, start, None)
    d = run.weights.size
    matrix = np.zeros((d, d)) if start is None else start.matrix.copy()
    vector = np.zeros(d) if start is None else start.vector.copy()
    num_steps = _sums(acting, lam, matrix, vector, run)
    weights = np.asarray(np.linalg.solve(matrix + ridge * np.eye(d), vector), dtype=np.float64)
    return LeastSquares(
        weights,
        value_of(run.features, weights),
        run.counts,
        run.done + run.num_episodes,
        num_steps + (0 if start is None else start.num_steps),
        run.second,
        run.rng,
        run.trace,
        matrix,
        vector,
    )


@compiled
def _sums(acting: Acting, lam: float, matrix: Floats, vector: Floats, run: LinearRun) -> int:
    table, x, num_steps = acting.table, run.features, 0
    z = np.zeros(vector.size)
    for number in range(run.num_episodes):
        state, t = first_state(table, run.rng), 0
        z[:] = 0.0
        while not table.terminal[state] and t < acting.max_steps:
            after, reward = step(table, run.rng, state, drawn_action(acting.policy, run.rng, state))
            z *= acting.gamma * lam
            add(x, state, 1.0, z)
            for i in np.flatnonzero(z):
                add(x, state, z[i], matrix[i])
                add(x, after, -acting.gamma * z[i], matrix[i])
                vector[i] += reward * z[i]
            run.counts[state] += 1
            state = after
            t += 1
        num_steps += t
        keep(run, number)
    return num_steps
