"""Surrogates of critic-free policy gradients: a table, one short function each.

With ρ = π/π_old per token and A the advantage, a function gives one number a token [B, T], to be
minimised; what a token counts for and the denominator are the algorithm's. A surrogate of whole
answers gives all tokens of a row its number. At ρ = 1 and equal A the gradients of all of them are
equal up to what a token counts for, as each gate has value or slope one there: tests hold them to
that, and off policy each to its own formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.masks import masked_sum
from plaudit.ops.policy import clipped_surrogate
from plaudit.ops.shapes import check_same_shape

OfTokens = Float[Tensor, "B T"]


@dataclass(frozen=True)
class SurrogateKeys:
    """Coefficients: the ratio's range is [1 − clip_low, 1 + clip_high]; `cap` bounds it alone."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    cap: float = 5.0


SurrogateFunction = Callable[[Tensor, Tensor, Tensor, Tensor, SurrogateKeys], Tensor]
"""loss(logp, logp_old, adv, mask, keys), all [B, T] -> [B, T]."""


def clip(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−min(ρA, clip(ρ)·A): GRPO (2402.03300), Dr.GRPO (2503.20783), DAPO (2503.14476)."""
    return clipped_surrogate(logp, logp_old, adv, clip_low=k.clip_low, clip_high=k.clip_high)


def gspo(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−min(sA, clip(s)·A), s the geometric mean of the row's ρ.

    Source: Zheng et al. 2025 (2507.18071), equation 5; its range is 3e-4 below and 4e-4 above.
    """
    mean = _row_mean(logp - logp_old.detach(), mask)
    return clipped_surrogate(
        mean, torch.zeros_like(mean), adv, clip_low=k.clip_low, clip_high=k.clip_high
    )


def sequence(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−min(sA, clip(s)·A), s the product of the row's ρ: an answer is one action.

    Source: Ahmadian et al. 2024 (2402.14740), section 3.1, with PPO's range.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv, mask=mask)
    log_ratio = masked_sum(logp - logp_old.detach(), mask, dim=1)
    whole = log_ratio[:, None].expand_as(logp).to(logp.dtype)
    return clipped_surrogate(
        whole, torch.zeros_like(whole), adv, clip_low=k.clip_low, clip_high=k.clip_high
    )


def gmpo(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−sA, s the geometric mean of ρ, each first held on A's side to e^−clip_low … e^clip_high.

    Source: Zhao et al. 2025 (2507.20673), equation 4; its range is ±0.4.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv, mask=mask)
    log_ratio = logp - logp_old.detach()
    held = log_ratio.clamp(-k.clip_low, k.clip_high)
    gain = adv.detach()
    held = torch.where(gain > 0, torch.minimum(log_ratio, held), torch.maximum(log_ratio, held))
    return -_row_mean(held, mask).exp() * gain


def cispo(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−sg(min(ρ, cap))·A·log π: no token loses its gradient, and the cap is absolute.

    Source: MiniMax 2025 (2506.13585), equation 4; a cap near 5: Khatri et al. 2025 (2510.13786).
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv)
    ratio = (logp.detach() - logp_old.detach()).exp().clamp(max=k.cap)
    return -ratio * adv.detach() * logp


def sapo(
    logp: OfTokens, logp_old: OfTokens, adv: OfTokens, mask: Bool[Tensor, "B T"], k: SurrogateKeys
) -> OfTokens:
    """−(4/τ) σ(τ (ρ − 1))·A, τ = 1 where A > 0 and 1.05 elsewhere: a gate without a corner.

    Source: Gao et al. 2025 (2511.20347), equations 5 and 6.
    """
    check_same_shape(logp=logp, logp_old=logp_old, adv=adv)
    gain = adv.detach()
    tau = 1.0 + 0.05 * (gain <= 0).to(logp.dtype)  # where(…, 1.05) would be of single precision
    ratio = (logp - logp_old.detach()).exp()
    return -(4.0 / tau) * (tau * (ratio - 1.0)).sigmoid() * gain


SURROGATES: dict[str, SurrogateFunction] = {
    "clip": clip,
    "sequence": sequence,
    "gspo": gspo,
    "gmpo": gmpo,
    "cispo": cispo,
    "sapo": sapo,
}
"""Every surrogate by the value of the key `loss`."""

OF_ANSWERS = ("sequence", "gspo", "gmpo")
"""Those whose number belongs to a whole answer."""


def _row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over each row's tokens, at all of its places; 0 for a row without tokens."""
    count = mask.sum(1).clamp(min=1)
    return (masked_sum(x, mask, dim=1) / count)[:, None].expand_as(x).to(x.dtype)
