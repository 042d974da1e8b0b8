"""The losses of PPO on a CPU in one pass each: numbers to log, and the gradient in the net's outputs.

Two ways in. `ppo_terms` and the kernels of `loss_kernels` take and give NumPy arrays, for a loop that
goes through its nets by `Net.traced`. `ppo_loss` and `value_loss` are the same inside autograd, and
on another device or in another dtype they are the readable formulas of `plaudit.ops`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.models.actions import Categorical, Gaussian, MultiCategorical
from plaudit.models.loss_kernels import (
    categorical_ppo,
    clipped_squared_error,
    gaussian_ppo,
    squared_error,
)
from plaudit.models.mlp_kernels import F32
from plaudit.ops import clipped_surrogate, clipped_value_loss, kl_k3

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


def ppo_loss(
    head: ActorHead,
    params: Tensor,
    action: Tensor,
    logp_old: Tensor,
    adv: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    entropy_coef: float,
) -> tuple[Tensor, PPONumbers]:
    """As `ppo_terms`: the loss as one scalar of autograd, and the numbers."""
    options = {"clip_low": clip_low, "clip_high": clip_high, "entropy_coef": entropy_coef}
    if params.device.type != "cpu" or params.dtype != torch.float32:
        return _ppo_loss_by_ops(head, params, action, logp_old, adv, **options)
    terms = ppo_terms(
        head,
        np.ascontiguousarray(params.detach().numpy()),
        action.numpy(),
        logp_old.numpy(),
        adv.numpy(),
        **options,
    )
    loss = terms.numbers.policy - entropy_coef * terms.numbers.entropy
    inputs = [params, head.log_std] if isinstance(head, Gaussian) else [params]
    grads = [terms.grad] if terms.grad_log_std is None else [terms.grad, terms.grad_log_std]
    out: Tensor = _Known.apply(loss, grads, *inputs)  # type: ignore[no-untyped-call]
    return out, terms.numbers


def _ppo_loss_by_ops(
    head: ActorHead,
    params: Tensor,
    action: Tensor,
    logp_old: Tensor,
    adv: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    entropy_coef: float,
) -> tuple[Tensor, PPONumbers]:
    logp = head.logp(params, action)
    gain = clipped_surrogate(logp, logp_old, adv, clip_low=clip_low, clip_high=clip_high).mean()
    entropy = head.entropy(params).mean()
    with torch.no_grad():
        ratio = (logp - logp_old).exp()
        outside = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
        numbers = (gain, entropy, kl_k3(logp_old, logp).mean(), outside.double().mean())
    return gain - entropy_coef * entropy, PPONumbers(*(x.item() for x in numbers))


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


def value_loss(
    value: Tensor, ret: Tensor, *, value_old: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """Mean of ½(V − R)², all [B]; with `value_old` and `clip` that of `clipped_value_loss`."""
    if (clip is None) != (value_old is None):
        raise ValueError("value_old and clip are given together or not at all.")
    if value.device.type != "cpu" or value.dtype != torch.float32:
        if clip is not None and value_old is not None:
            return clipped_value_loss(value, value_old, ret, clip=clip).mean()
        return (0.5 * (value - ret.detach()) ** 2).mean()
    old = None if value_old is None else value_old.detach().numpy()
    loss, grad = value_terms(value.detach().numpy(), ret.detach().numpy(), value_old=old, clip=clip)
    out: Tensor = _Known.apply(loss, [grad], value)  # type: ignore[no-untyped-call]
    return out


class _Known(torch.autograd.Function):
    """A scalar whose gradients in the inputs are already known."""

    @staticmethod
    def forward(ctx: Any, loss: float, grads: list[F32], *inputs: Tensor) -> Tensor:
        ctx.grads = grads
        return inputs[0].new_tensor(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_out.item()
        grads = ctx.grads if scale == 1.0 else [np.float32(scale) * g for g in ctx.grads]
        return None, None, *(torch.from_numpy(g) for g in grads)
