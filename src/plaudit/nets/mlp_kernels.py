"""Inner loops of small nets as machine code: activations with their bias, and optimiser steps.

Arithmetic is float32 in the order written (no fast-math), so NaN stays NaN and a run repeats bit for
bit. Arrays are C-contiguous; what is named `out` or marked "in place" is written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])
F32 = NDArray[np.float32]


def compiled(function: F) -> F:
    """A function of arrays and numbers as machine code, kept on disk."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
    return cast(F, njit(**options)(function))


@compiled
def bias_relu(z: F32, bias: F32) -> None:
    """z = max(z + bias, 0), in place: [B, H] and [H]; NaN stays NaN."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + bias[j]
            z[i, j] = np.float32(0.0) if v < np.float32(0.0) else v


@compiled
def tanh_back(grad: F32, h: F32, grad_bias: F32) -> None:
    """grad = grad·(1 − h²) in place, and its sum over rows: [B, H], [B, H], [H]."""
    grad_bias[:] = np.float32(0.0)
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            g = grad[i, j] * (np.float32(1.0) - h[i, j] * h[i, j])
            grad[i, j] = g
            grad_bias[j] += g


@compiled
def relu_back(grad: F32, h: F32, grad_bias: F32) -> None:
    """grad = 0 where h ≤ 0, in place, and its sum over rows: [B, H], [B, H], [H]."""
    grad_bias[:] = np.float32(0.0)
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            g = np.float32(0.0) if h[i, j] <= np.float32(0.0) else grad[i, j]
            grad[i, j] = g
            grad_bias[j] += g


@compiled
def column_sums(grad: F32, out: F32) -> None:
    """Sum over rows: [B, H] to [H]."""
    out[:] = np.float32(0.0)
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            out[j] += grad[i, j]


@compiled
def adam_step(
    p: F32,
    grad: F32,
    m: F32,
    v: F32,
    step_size: np.float32,
    rest1: np.float32,
    beta2: np.float32,
    rest2: np.float32,
    root_correction2: np.float32,
    eps: np.float32,
) -> None:
    """One step of Adam on flat arrays, in place: p, m and v [n].

    m += rest1·(g − m); v = β₂v + rest2·g²; p −= step_size·m / (√v / root_correction2 + eps), with
    rest1 = 1 − β₁ and rest2 = 1 − β₂, which float32 would round if they were formed here.
    """
    for i in range(p.shape[0]):
        g = grad[i]
        m_i = m[i] + rest1 * (g - m[i])
        v_i = beta2 * v[i] + rest2 * (g * g)
        m[i] = m_i
        v[i] = v_i
        p[i] -= step_size * (m_i / (np.sqrt(v_i) / root_correction2 + eps))


@compiled
def rmsprop_step(
    p: F32,
    grad: F32,
    v: F32,
    lr: np.float32,
    alpha: np.float32,
    rest: np.float32,
    eps: np.float32,
) -> None:
    """v = αv + rest·g²; p −= lr·g / √(v + eps), in place, with rest = 1 − α: p and v [n]."""
    for i in range(p.shape[0]):
        g = grad[i]
        v_i = alpha * v[i] + rest * (g * g)
        v[i] = v_i
        p[i] -= lr * (g / np.sqrt(v_i + eps))
