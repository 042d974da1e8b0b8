"""Rewards of several measures as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from plaudit.ops.shapes import check_same_shape


def combined(
    scores: Mapping[str, Float[Tensor, " B"]], weights: Sequence[float]
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The weighted sum of what the measures say of each row, and whether any of them says anything.

    total = Σ w·score over the measures that speak; NaN is a measure that abstains from the row. Of a
    row from which all abstain the total is 0 and `heard` is false: whoever takes the sum without the
    mask takes "nobody judged it" for a judgement of 0, as nansum does (trl#5902). A measure that
    counts for nothing (weight 0) is only watched: it does not make a row heard.
    Raises ValueError where there is not one weight for each measure, or there is no measure.
    Check: without NaN this is the matrix product of scores and weights.
    """
    if len(scores) != len(weights) or not scores:
        raise ValueError(f"{len(weights)} weights were given for {len(scores)} measures.")
    check_same_shape(**scores)
    each = torch.stack(list(scores.values()), -1)
    weight = each.new_tensor(list(weights))
    spoke = ~each.isnan()
    total = torch.where(spoke, weight * each, 0.0).sum(-1)
    return total, (spoke & (weight != 0)).any(-1)
