"""Sums and moments over the elements that count, and the one reduction of every loss.

`mask` is true where an element counts. What lies off the mask is never read, so NaN or inf in
padding reaches neither a result nor a gradient. Functions that return elements give 0 off the mask.
Half precisions are summed in float32; sums and moments are returned in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape

# Values are one constant, up to rounding, when their range is within this many units of the last
# place of the largest: a sum of a few terms taken in another order differs by no more.
_ROUNDING_ULPS = 8.0


def masked_sum(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, dim: int | None = None
) -> Float[Tensor, "..."]:
    """Σ x over the mask: of everything, or along `dim`; an empty sum is 0."""
    check_same_shape(x=x, mask=mask)
    kept = torch.where(mask, x, 0.0).to(wide(x.dtype))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, dim: int | None = None
) -> Float[Tensor, "..."]:
    """Mean over the mask: of everything, or along `dim`.

    Raises ValueError where the mask is empty.
    """
    return masked_sum(x, mask, dim=dim) / _count(mask, dim, least=1)


def masked_variance(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, dim: int | None = None
) -> Float[Tensor, "..."]:
    """Population variance over the mask: Σ (x − mean)² / n.

    Raises ValueError where the mask is empty.
    """
    check_same_shape(x=x, mask=mask)
    count = _count(mask, dim, least=1)
    return masked_sum(_deviation(x, mask, dim) ** 2, mask, dim=dim) / count


def masked_sample_variance(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, dim: int | None = None
) -> Float[Tensor, "..."]:
    """Unbiased sample variance over the mask: Σ (x − mean)² / (n − 1).

    Raises ValueError where fewer than two elements count.
    """
    check_same_shape(x=x, mask=mask)
    count = _count(mask, dim, least=2) - 1
    return masked_sum(_deviation(x, mask, dim) ** 2, mask, dim=dim) / count


def masked_whiten(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, eps: float = 1e-8
) -> Float[Tensor, "*shape"]:
    """(x − mean) / (population std + eps) over all elements that count, 0 off the mask.

    An input that is constant up to rounding gives exactly 0, never amplified noise.
    Raises ValueError where the mask is empty.
    Source: Huang et al. 2024 (2403.17031), advantage whitening.
    Check: the result has mean 0 and variance 1, and does not change under x → a·x + b, a > 0.
    """
    check_same_shape(x=x, mask=mask)
    std = masked_variance(x, mask).sqrt()
    white = _deviation(x, mask, None) / (std + eps)
    return torch.where(mask & ~near_constant(x, mask), white, 0.0).to(x.dtype)


def masked_scale(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, eps: float = 1e-8
) -> Float[Tensor, "*shape"]:
    """x / (population std + eps) without shifting the mean, 0 off the mask: reward whitening.

    An input that is constant up to rounding has no scale and is returned as it is.
    Raises ValueError where the mask is empty.
    Source: Huang et al. 2024 (2403.17031), reward whitening; shifting would change what is optimal.
    Check: signs are kept, and the result's variance is 1.
    """
    std = masked_variance(x, mask).sqrt()
    scaled = torch.where(near_constant(x, mask), x, x / (std + eps))
    return torch.where(mask, scaled, 0.0).to(x.dtype)


def aggregate(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], denominator: Tensor | float
) -> Float[Tensor, ""]:
    """Σ x over the mask / denominator: the one reduction of a loss, called once by the algorithm.

    The denominator is a positive scalar that belongs to the whole batch, not to this part of it.
    Raises ValueError if it is not.
    Check: the sum over any split into micro-batches equals the value of the whole.
    """
    if isinstance(denominator, Tensor) and denominator.numel() != 1:
        raise ValueError(
            f"denominator must be one number, found a tensor of shape {tuple(denominator.shape)}."
        )
    number = float(denominator)
    if not 0.0 < number < float("inf"):
        raise ValueError(f"denominator must be a positive finite number, found {number!r}.")
    return masked_sum(x, mask) / number


def near_constant(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, dim: int | None = None
) -> Bool[Tensor, "..."]:
    """True where the elements that count differ by no more than rounding at their magnitude.

    max − min ≤ 8 · ε · max |x|, with ε the resolution of x's dtype; over everything, or along
    `dim` (kept, of size 1). Scores that a caller widened carry the rounding of the narrow dtype:
    compare before widening.
    """
    check_same_shape(x=x, mask=mask)
    dims = tuple(range(x.ndim)) if dim is None else (dim,)
    keep = dim is not None
    high = torch.where(mask, x, -torch.inf).amax(dims, keepdim=keep)
    low = torch.where(mask, x, torch.inf).amin(dims, keepdim=keep)
    size = torch.maximum(high.abs(), low.abs())
    return high - low <= _ROUNDING_ULPS * torch.finfo(x.dtype).eps * size


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to add up in: float32, or the dtype itself if it is wider."""
    return torch.promote_types(dtype, torch.float32)


def _deviation(x: Tensor, mask: Tensor, dim: int | None) -> Tensor:
    """x − mean where the mask is true.

    Measured from one of the elements first: deviations of a constant are then exactly 0, and a
    large common offset costs no digits.
    """
    kept = torch.where(mask, x, 0.0).to(wide(x.dtype))
    if dim is None:
        pivot = kept.flatten()[mask.flatten().int().argmax()]
        shifted = kept - pivot.detach()
        return shifted - masked_mean(shifted, mask)
    pivot = kept.gather(dim, mask.int().argmax(dim, keepdim=True))
    shifted = kept - pivot.detach()
    return shifted - masked_mean(shifted, mask, dim=dim).unsqueeze(dim)


def _count(mask: Tensor, dim: int | None, *, least: int) -> Tensor:
    count = mask.sum() if dim is None else mask.sum(dim)
    if bool((count < least).any()):
        few = int(count.min())
        raise ValueError(f"the mask leaves {few} elements, but at least {least} must count.")
    return count
