"""Policy losses, per element and to be minimised: credit becomes a better policy.

`logp` is the policy's log-probability of the action taken and carries the gradient; `logp_old` and
`adv` are held constant, whatever they were computed from.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape


def score_function_loss(
    logp: Float[Tensor, "*shape"], adv: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """−log π · A, whose expected gradient under π is minus the policy gradient.

    Source: Williams 1992 (REINFORCE); Sutton and Barto 2018, section 13.3.
    """
    check_same_shape(logp=logp, adv=adv)
    return -logp * adv.detach()


def clipped_surrogate(
    logp: Float[Tensor, "*shape"],
    logp_old: Float[Tensor, "*shape"],
    adv: Float[Tensor, "*shape"],
    *,
    clip_low: float,
    clip_high: float,
) -> Float[Tensor, "*shape"]:
    """−min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high)·A) with ρ = π/π_old.

    Raises ValueError unless 0 ≤ clip_low ≤ 1 and clip_high ≥ 0.
    Source: Schulman et al. 2017 (1707.06347), equation 7; unequal sides: Yu et al. 2025
    (2503.14476), section 3.1.
    Check: at ρ = 1 the gradient is that of `score_function_loss`; where A pushes ρ further out of
    the range it is 0.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv)
    if not (0.0 <= clip_low <= 1.0 and 0.0 <= clip_high < float("inf")):
        raise ValueError(
            f"clip_low must lie in [0, 1] and clip_high must be at least 0, "
            f"found {clip_low!r} and {clip_high!r}."
        )
    gain = adv.detach()
    moved = logp - logp_old.detach()
    # Far above the range only A < 0 feels how far: held there, inf · 0 does not arise.
    far = math.log1p(clip_high) + 1.0
    ratio = torch.where(gain < 0.0, moved, moved.clamp(max=far)).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * gain, clipped * gain)


def truncated_importance(
    logp_old: Float[Tensor, "*shape"], logp_drawn: Float[Tensor, "*shape"], *, cap: float
) -> Float[Tensor, "*shape"]:
    """w = min(cap, π_old/π_drawn): what a sample of another distribution counts for in a mean.

    `logp_old` is of the policy that the mean is over, `logp_drawn` of the one that drew. The cap
    bounds the variance, at the price of a bias where it holds. Raises ValueError unless cap ≥ 1.
    Source: Ionides 2008, "Truncated importance sampling".
    Check: without a cap that holds, the weights' mean over draws is 1.
    """
    check_same_shape(logp_old=logp_old, logp_drawn=logp_drawn)
    if not cap >= 1.0:
        raise ValueError(f"cap must be at least 1, found {cap!r}.")
    return (logp_old - logp_drawn).detach().exp().clamp(max=cap)


def kl_penalised_surrogate(
    logp: Float[Tensor, "*shape"],
    logp_old: Float[Tensor, "*shape"],
    adv: Float[Tensor, "*shape"],
    kl: Float[Tensor, "*shape"],
    *,
    kl_coef: float,
) -> Float[Tensor, "*shape"]:
    """−ρA + kl_coef·kl, where `kl` is a divergence whose gradient pulls the policy back.

    Use `kl_exact`, or `kl_k2` of the drawn actions: the gradient of `kl_k1` is 0 on average.
    Raises ValueError if `kl` carries no gradient although `logp` does: it would do nothing.
    Source: Schulman et al. 2017 (1707.06347), equation 8.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv, kl=kl)
    if torch.is_grad_enabled() and logp.requires_grad and not kl.requires_grad:
        raise ValueError(
            "kl carries no gradient, so the penalty would do nothing: compute it from the "
            "policy's own outputs, outside no_grad."
        )
    ratio = (logp - logp_old.detach()).exp()
    return -ratio * adv.detach() + kl_coef * kl
