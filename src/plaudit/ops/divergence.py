"""Distance between policies, and entropy.

k1, k2 and k3 estimate KL(π‖π_ref) from an action drawn from π (`logp`, `logp_ref` are its
log-probabilities). As values k1 and k3 are unbiased and k2 is not. As losses, differentiated through
`logp`, the expected gradient of k1 is 0, of k2 that of KL(π‖π_ref), of k3 that of KL(π_ref‖π):
k1 belongs in a reward, k2 in a loss.

Source: Schulman 2020, "Approximating KL divergence"; gradients: 2510.01555.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape


def kl_k1(
    logp: Float[Tensor, "*shape"], logp_ref: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """log π − log π_ref: unbiased, of either sign; as a loss it does nothing on average."""
    check_same_shape(logp=logp, logp_ref=logp_ref)
    return logp - logp_ref


def kl_k2(
    logp: Float[Tensor, "*shape"], logp_ref: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """½ (log π − log π_ref)²: biased as a value, right as a loss for KL(π‖π_ref)."""
    check_same_shape(logp=logp, logp_ref=logp_ref)
    return 0.5 * (logp - logp_ref) ** 2


def kl_k3(
    logp: Float[Tensor, "*shape"], logp_ref: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """r − 1 − log r with r = π_ref/π: unbiased and never negative.

    expm1 keeps the digits that r − 1 loses while the policies are close.
    """
    check_same_shape(logp=logp, logp_ref=logp_ref)
    log_r = logp_ref - logp
    return log_r.expm1() - log_r


def kl_exact(
    logits: Float[Tensor, "*batch A"], logits_ref: Float[Tensor, "*batch A"]
) -> Float[Tensor, "*batch"]:
    """KL(π‖π_ref) = Σ_a π(a) (log π(a) − log π_ref(a)), over the last axis.

    A logit of −inf is an action of probability 0: it adds nothing under π; if only π_ref excludes
    it the divergence is infinite.
    """
    check_same_shape(logits=logits, logits_ref=logits_ref)
    logp, logp_ref = logits.log_softmax(-1), logits_ref.log_softmax(-1)
    # The inner where keeps −inf − (−inf) out of the gradient, too.
    gap = torch.where(logp.isneginf(), 0.0, logp - logp_ref)
    return (logp.exp() * gap).sum(-1)


def entropy(logits: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch"]:
    """−Σ_a π(a) log π(a), over the last axis; a logit of −inf is an action of probability 0.

    Check: log A for equal logits.
    """
    logp = logits.log_softmax(-1)
    return -(logp.exp() * torch.where(logp.isneginf(), 0.0, logp)).sum(-1)
