"""Losses of answers that were each called good or bad, one number an answer, to be minimised.

With u = β (log π − log π_ref), summed over the answer's tokens:
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from plaudit.ops.shapes import check_same_shape


def kto(
    log_ratio: Float[Tensor, " n"],
    is_good: Bool[Tensor, " n"],
    *,
    beta: float,
    level: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> Float[Tensor, " n"]:
    """λ_good (1 − σ(u − z)) of a good answer, λ_bad (1 − σ(z − u)) of a bad one.

    `level` is z, held constant: β times the mean log-ratio of answers to other prompts, at least 0.
    Source: Ethayarajh et al. 2024 (2402.01306), equation 8.
    Check: at u = z every answer costs half its weight.
    """
    check_same_shape(log_ratio=log_ratio, is_good=is_good)
    lead = (beta * log_ratio - level) * _sign(is_good, log_ratio)
    return (1.0 - lead.sigmoid()) * _weight(is_good, log_ratio, good_weight, bad_weight)


def binary_classifier(
    log_ratio: Float[Tensor, " n"],
    is_good: Bool[Tensor, " n"],
    *,
    beta: float,
    level: float,
    good_weight: float = 1.0,
    bad_weight: float = 1.0,
) -> Float[Tensor, " n"]:
    """−log σ(u − δ) of a good answer, −log σ(δ − u) of a bad one: BCO.

    `level` is δ, the running mean of the rewards u.
    Source: Jung et al. 2024 (2404.04656), equation 10.
    """
    check_same_shape(log_ratio=log_ratio, is_good=is_good)
    lead = (beta * log_ratio - level) * _sign(is_good, log_ratio)
    return -logsigmoid(lead) * _weight(is_good, log_ratio, good_weight, bad_weight)


LABEL_LOSSES = {"kto": kto, "bco": binary_classifier}
"""Every loss of labels by the value of the key `loss`."""


def _sign(is_good: Tensor, like: Tensor) -> Tensor:
    return is_good.to(like.dtype) * 2.0 - 1.0


def _weight(is_good: Tensor, like: Tensor, good: float, bad: float) -> Tensor:
    sign = is_good.to(like.dtype)
    return sign * good + (1.0 - sign) * bad
