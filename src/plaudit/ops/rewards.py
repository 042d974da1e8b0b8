"""Several rewards of the same answers as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def combined(
    scores: Mapping[str, Float[Tensor, " B"]], weights: Sequence[float]
) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """(Σ w·score over the measures that spoke, whether any did): NaN is a measure that abstains.

    A row from which all abstain has the sum 0 and is not heard: whoever uses the sum must leave it
    out, or it counts as an answer worth 0 (trl#5902). Raises ValueError for another number of
    weights than of scores.
    Check: with one measure that always speaks the sum is its weighted score.
    """
    if len(weights) != len(scores):
        raise ValueError(f"there are {len(scores)} scores but {len(weights)} weights.")
    total: Tensor | None = None
    heard: Tensor | None = None
    for weight, score in zip(weights, scores.values(), strict=True):
        spoke = ~score.isnan()
        mine = torch.where(spoke, weight * score, 0.0)
        total = mine if total is None else total + mine
        heard = spoke if heard is None else heard | spoke
    if total is None or heard is None:
        raise ValueError("there are no scores to combine.")
    return total, heard
