"""The losses of PPO on a CPU in one pass each: numbers to log, and the gradient in the net's outputs.

NumPy arrays in and out, for a loop that goes through its nets by `Net.traced`. The same formulas, to
be read and for any device and dtype, are in `plaudit.ops`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plaudit.nets.actions import Categorical, Gaussian, MultiCategorical
from plaudit.nets.loss_kernels import (
    categorical_ppo,
    clipped_squared_error,
    gaussian_ppo,
    squared_error,
)
from plaudit.nets.mlp_kernels import F32

ActorHead = Categorical | MultiCategorical | Gaussian


class PPONumbers(NamedTuple):
    """Means over a minibatch, to log: the clipped objective, H, the k3 estimate of KL(old‖π), and
    the share of rows whose ratio left the range."""

    policy: float
    entropy: float
    approxkl: float
    clipfrac: float


class PPOTerms(NamedTuple):
    """The numbers, and the gradient of `policy − entropy_coef·entropy`."""

    numbers: PPONumbers
    grad: F32
    """[B, num_params]: in the net's outputs."""
    grad_log_std: F32 | None
    """[d]: in a Gaussian's log σ."""


def ppo_terms(
    head: ActorHead,
    params: F32,
    action: NDArray[Any],
    logp_old: F32,
    adv: F32,
    *,
    clip_low: float,
    clip_high: float,
    entropy_coef: float,
) -> PPOTerms:
    """mean −min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high)·A) − entropy_coef·mean H.

    params [B, num_params], action as the head draws it, logp_old and adv [B], all C-contiguous.
    Source: Schulman et al. 2017 (1707.06347), equation 7.
    Check: equal to `clipped_surrogate` and the head's entropy under autograd.
    """
    f32 = np.float32
    low, high, bonus = f32(1.0 - clip_low), f32(1.0 + clip_high), f32(entropy_coef)
    grad, grad_log_std = np.empty_like(params), None
    if isinstance(head, Gaussian):
        log_std = head.log_std.detach().numpy()
        grad_log_std = np.empty_like(log_std)
        sums = gaussian_ppo(
            params, log_std, action, logp_old, adv, low, high, bonus, grad, grad_log_std
        )
    else:
        columns = action.reshape(len(params), -1)
        sums = categorical_ppo(
            params, head.size_array, columns, logp_old, adv, low, high, bonus, grad
        )
    return PPOTerms(PPONumbers(*(sums / len(params)).tolist()), grad, grad_log_std)


def value_terms(
    value: F32, ret: F32, *, value_old: F32 | None = None, clip: float | None = None
) -> tuple[float, F32]:
    """Mean of ½(V − R)², all [B], and its gradient in V; with `value_old` and `clip` as in
    `ops.clipped_value_loss`."""
    if (clip is None) != (value_old is None):
        raise ValueError("value_old and clip are given together or not at all.")
    value = np.ascontiguousarray(value)
    grad, one = np.empty_like(value), np.float32(1.0)
    if clip is not None and value_old is not None:
        loss = clipped_squared_error(value, value_old, ret, np.float32(clip), one, grad)
    else:
        loss = squared_error(value, ret, one, grad)
    return float(loss), grad
