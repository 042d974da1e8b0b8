"""Losses of small batches as machine code: value and gradient in one pass over the rows.

A dozen torch operations on 256 rows cost some 200 µs of dispatch for 5 µs of arithmetic. Each kernel
here gives what `plaudit.ops` gives under autograd, ties and clip boundaries included; sums over rows
are float64. No fast-math: NaN stays NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from plaudit.nets.mlp_kernels import F32, compiled

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@compiled
def clipped_row(
    logp: np.float32,
    logp_old: np.float32,
    adv: np.float32,
    low: np.float32,
    high: np.float32,
    stats: F64,
) -> np.float32:
    """d(−min(ρA, clip(ρ)A))/d log π of one row; adds to stats: loss, –, approximate KL, clipped.

    Within the range both products are one and all of the gradient flows; outside it flows where ρA
    is the smaller, half of it where the products round to the same number, as torch.minimum has it.
    """
    log_ratio = logp - logp_old
    ratio = np.float32(math.exp(log_ratio))
    clipped = ratio
    if ratio < low:
        clipped = low
    elif ratio > high:
        clipped = high
    free, held = ratio * adv, clipped * adv
    share = np.float32(1.0)
    if ratio < low or ratio > high:
        if free > held:
            share = np.float32(0.0)
        elif free == held:
            share = np.float32(0.5)
        stats[3] += 1.0
    stats[0] -= held if held < free else free
    stats[2] += math.expm1(log_ratio) - log_ratio
    if share == np.float32(0.0):
        return np.float32(0.0)
    return -share * free


@compiled
def categorical_ppo(
    logits: F32,
    sizes: I64,
    action: I64,
    logp_old: F32,
    adv: F32,
    low: np.float32,
    high: np.float32,
    entropy_coef: np.float32,
    grad: F32,
) -> F64:
    """mean −min(ρA, clip(ρ)A) − entropy_coef·H: sums [loss, H, KL, clipped]; gradient in `grad`.

    logits and grad [B, Σ sizes], action [B, k], logp_old and adv [B]; ρ is clipped to [low, high].
    """
    stats = np.zeros(4)
    num_rows, num_choices = logits.shape[0], sizes.shape[0]
    scale = np.float32(1.0) / np.float32(num_rows)
    log_totals = np.empty(num_choices, np.float32)
    inverses, own = np.empty_like(log_totals), np.empty_like(log_totals)  # own: a choice's entropy
    for i in range(num_rows):
        logp, start = np.float32(0.0), 0
        for k in range(num_choices):
            end = start + sizes[k]
            best = logits[i, start]
            for j in range(start + 1, end):
                if logits[i, j] > best:
                    best = logits[i, j]
            total = np.float32(0.0)
            for j in range(start, end):
                grad[i, j] = np.float32(math.exp(logits[i, j] - best))  # p without its divisor
                total += grad[i, j]
            log_totals[k] = best + np.float32(math.log(total))
            inverses[k] = np.float32(1.0) / total
            own[k] = np.float32(0.0)
            for j in range(start, end):
                if logits[i, j] != -np.inf:
                    own[k] -= grad[i, j] * inverses[k] * (logits[i, j] - log_totals[k])
            logp += logits[i, start + action[i, k]] - log_totals[k]
            stats[1] += own[k]
            start = end
        slope = clipped_row(logp, logp_old[i], adv[i], low, high, stats) * scale
        start = 0
        for k in range(num_choices):
            end = start + sizes[k]
            for j in range(start, end):
                p = grad[i, j] * inverses[k]
                bonus = np.float32(0.0)
                if logits[i, j] != -np.inf:
                    bonus = entropy_coef * scale * p * (logits[i, j] - log_totals[k] + own[k])
                grad[i, j] = bonus - slope * p
            grad[i, start + action[i, k]] += slope
            start = end
    return stats


@compiled
def gaussian_ppo(
    mean: F32,
    log_std: F32,
    action: F32,
    logp_old: F32,
    adv: F32,
    low: np.float32,
    high: np.float32,
    entropy_coef: np.float32,
    grad: F32,
    grad_log_std: F32,
) -> F64:
    """As `categorical_ppo` for N(mean, exp(log_std)²): mean, action and grad [B, d], log_std [d]."""
    stats = np.zeros(4)
    num_rows, num_dims = mean.shape
    scale = np.float32(1.0) / np.float32(num_rows)
    inverse = np.exp(-log_std)
    constant, entropy = np.float32(0.0), np.float32(0.0)
    for j in range(num_dims):
        constant += log_std[j] + np.float32(0.9189385332046727)  # ½ log 2π
        entropy += log_std[j] + np.float32(1.4189385332046727)  # ½ log 2πe
        grad_log_std[j] = -entropy_coef
    for i in range(num_rows):
        square = np.float32(0.0)
        for j in range(num_dims):
            z = (action[i, j] - mean[i, j]) * inverse[j]
            square += np.float32(0.5) * z * z
        slope = clipped_row(-square - constant, logp_old[i], adv[i], low, high, stats) * scale
        for j in range(num_dims):
            z = (action[i, j] - mean[i, j]) * inverse[j]
            grad[i, j] = slope * z * inverse[j]
            grad_log_std[j] += slope * (z * z - np.float32(1.0))
        stats[1] += entropy
    return stats


@compiled
def squared_error(value: F32, ret: F32, coef: np.float32, grad: F32) -> float:
    """Mean of ½(V − R)²; in `grad` the gradient of coef times it: all [B]."""
    total, scale = 0.0, coef / np.float32(value.shape[0])
    for i in range(value.shape[0]):
        gap = value[i] - ret[i]
        total += np.float32(0.5) * gap * gap
        grad[i] = scale * gap
    mean: float = total / value.shape[0]
    return mean


@compiled
def clipped_squared_error(
    value: F32, value_old: F32, ret: F32, clip: np.float32, coef: np.float32, grad: F32
) -> float:
    """Mean of ½ max((V − R)², (clip(V, V_old ± clip) − R)²); in `grad` that of coef times it: [B].

    On a boundary, and where the squares are equal, the gradient is shared by halves as in torch.
    """
    total, scale = 0.0, coef / np.float32(value.shape[0])
    for i in range(value.shape[0]):
        low, high = value_old[i] - clip, value_old[i] + clip
        held, inner = value[i], np.float32(1.0)
        if held > high:
            held, inner = high, np.float32(0.0)
        elif held < low:
            held, inner = low, np.float32(0.0)
        elif held in (high, low):
            inner = np.float32(0.5)
        gap, held_gap = value[i] - ret[i], held - ret[i]
        free, other = gap * gap, held_gap * held_gap
        total += np.float32(0.5) * (other if other > free else free)
        if free == other:
            slope = np.float32(0.5) * (gap + inner * held_gap)
        elif free < other:
            slope = inner * held_gap
        else:
            slope = gap
        grad[i] = scale * slope
    mean: float = total / value.shape[0]
    return mean


@compiled
def standardised(x: F32, eps: float) -> F32:
    """(x − mean) / (sample deviation + eps): [B] to [B]; x itself where it has one element."""
    num = x.shape[0]
    out = x.copy()
    if num < 2:
        return out
    total = 0.0
    for i in range(num):
        total += x[i]
    mean = total / num
    square = 0.0
    for i in range(num):
        square += (x[i] - mean) ** 2
    scale = 1.0 / (math.sqrt(square / (num - 1)) + eps)
    for i in range(num):
        out[i] = (x[i] - mean) * scale
    return out
