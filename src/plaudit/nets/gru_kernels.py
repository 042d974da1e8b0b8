"""The elementwise part of a GRU's steps as machine code; matrix products stay with NumPy.

Gates lie side by side: of [B, 3H] the first H are the reset gate's, then the update gate's, then the
new state's. tanh is NumPy's, which is vectorised; σ(x) = ½ + ½ tanh(½x).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plaudit.nets.mlp_kernels import F32, compiled

Bools = NDArray[np.bool_]


@compiled
def gates_in(of_x: F32, of_h: F32, bias_h: F32, gates: F32) -> None:
    """½(of_x + of_h + bias) of both gates, in `gates` [B, 2H]; of_x and of_h are [B, 3H]."""
    half = np.float32(0.5)
    for i in range(gates.shape[0]):
        for j in range(gates.shape[1]):
            gates[i, j] = half * (of_x[i, j] + (of_h[i, j] + bias_h[j]))


@compiled
def new_in(of_x: F32, of_h: F32, bias_h: F32, gates: F32, recalled: F32, new: F32) -> None:
    """Makes gates of their tanh, in place; `recalled` = U_n h + b, `new` = W_n x + r·recalled."""
    half, num = np.float32(0.5), new.shape[1]
    for i in range(gates.shape[0]):
        for j in range(gates.shape[1]):
            gates[i, j] = half + half * gates[i, j]
        for j in range(num):
            recalled[i, j] = of_h[i, 2 * num + j] + bias_h[2 * num + j]
            new[i, j] = of_x[i, 2 * num + j] + gates[i, j] * recalled[i, j]


@compiled
def state_out(h: F32, gates: F32, new: F32, out: F32) -> None:
    """out = new + z·(h − new): all [B, H], gates [B, 2H]."""
    num = new.shape[1]
    for i in range(new.shape[0]):
        for j in range(num):
            out[i, j] = new[i, j] + gates[i, num + j] * (h[i, j] - new[i, j])


@compiled
def begun(state: F32, starts: Bools, out: F32) -> None:
    """The state [B, H], and 0 in rows that begin an episode."""
    for i in range(state.shape[0]):
        for j in range(state.shape[1]):
            out[i, j] = np.float32(0.0) if starts[i] else state[i, j]


@compiled
def step_back(
    grad_out: F32,
    carried: F32,
    h: F32,
    gates: F32,
    recalled: F32,
    new: F32,
    grad_x: F32,
    grad_h: F32,
    passed: F32,
) -> None:
    """One step backwards from the gradient of its new state, grad_out + carried [B, H].

    Writes those of W x [B, 3H], of U h + b [B, 3H], and what passes straight to h [B, H].
    """
    num, one = new.shape[1], np.float32(1.0)
    for i in range(new.shape[0]):
        for j in range(num):
            grad = grad_out[i, j] + carried[i, j]
            r, z, n = gates[i, j], gates[i, num + j], new[i, j]
            of_new = grad * (one - z) * (one - n * n)
            of_update = grad * (h[i, j] - n) * z * (one - z)
            of_reset = of_new * recalled[i, j] * r * (one - r)
            grad_x[i, j] = of_reset
            grad_x[i, num + j] = of_update
            grad_x[i, 2 * num + j] = of_new
            grad_h[i, j] = of_reset
            grad_h[i, num + j] = of_update
            grad_h[i, 2 * num + j] = of_new * r
            passed[i, j] = grad * z


@compiled
def carry_back(passed: F32, through: F32, starts: Bools, out: F32) -> None:
    """passed + through, and 0 in rows whose episode began here: all [B, H]."""
    for i in range(passed.shape[0]):
        for j in range(passed.shape[1]):
            out[i, j] = np.float32(0.0) if starts[i] else passed[i, j] + through[i, j]
