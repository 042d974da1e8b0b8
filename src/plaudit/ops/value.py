"""Value losses, per element and to be minimised: what the critic is taught."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape


def clipped_value_loss(
    value: Float[Tensor, "*shape"],
    value_old: Float[Tensor, "*shape"],
    ret: Float[Tensor, "*shape"],
    *,
    clip: float,
) -> Float[Tensor, "*shape"]:
    """½·max((V − R)², (clip(V, V_old ± clip) − R)²): steps beyond the range win nothing.

    `value_old` and `ret` are held constant. Raises ValueError unless clip > 0.
    Source: Huang et al. 2024 (2403.17031), value clipping; first in the code of Schulman et al.
    2017, which their paper does not mention.
    Check: with V inside the range this is half the squared error.
    """
    check_same_shape(value=value, value_old=value_old, ret=ret)
    if not clip > 0.0:
        raise ValueError(f"clip must be positive, found {clip!r}.")
    old, target = value_old.detach(), ret.detach()
    clipped = torch.maximum(torch.minimum(value, old + clip), old - clip)
    return 0.5 * torch.maximum((value - target) ** 2, (clipped - target) ** 2)


def explained_variance(value: Float[Tensor, " N"], ret: Float[Tensor, " N"]) -> float:
    """1 − Var(R − V) / Var(R): the share of the returns' variance that the values foresaw.

    0 where all returns are equal.
    """
    check_same_shape(value=value, ret=ret)
    spread = ret.var(correction=0)
    if spread == 0:
        return 0.0
    return float(1 - (ret - value).var(correction=0) / spread)
