"""The distribution that a token is drawn from: temperature, then top-k, then min-p, then top-p.

The sampler and the trainer both call `keep_mask`, so that what was drawn is what is scored.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from plaudit.ops.masks import wide

# Most nuclei hold far fewer tokens than a vocabulary: look among this many before sorting all.
_NUCLEUS_GUESS = 1024


def keep_mask(
    logits: Float[Tensor, "*batch V"], *, top_k: int, top_p: float, min_p: float = 0.0
) -> Bool[Tensor, "*batch V"]:
    """True on the tokens that may be drawn, given logits already divided by the temperature.

    top-k keeps the k largest logits; min-p keeps of those the tokens with π ≥ min_p · max π; top-p
    then keeps the smallest set of most likely tokens whose mass, after renormalising over the set
    so far, is at least `top_p`, the token that crosses it included. Ties: every token as likely as
    the least likely one kept is kept too, so that the set does not depend on the order of token
    ids. `top_k=0`, `min_p=0` and `top_p=1` switch the filters off.
    Source: Fan et al. 2018, section 5.1 (top-k); Nguyen et al. 2024 (2407.01082), section 3
    (min-p); Holtzman et al. 2020, section 3.1 (top-p).
    Check: the most likely token is always kept.
    """
    check_filter(top_k, top_p, min_p)
    keep = torch.ones_like(logits, dtype=torch.bool)
    vocabulary = logits.shape[-1]
    if 0 < top_k < vocabulary:
        keep = logits >= logits.topk(top_k, dim=-1).values[..., -1:]
    if min_p > 0.0:  # π / max π = exp(z − max z)
        exact = logits.to(wide(logits.dtype))
        keep = keep & (exact >= exact.amax(-1, keepdim=True) + math.log(min_p))
    if top_p < 1.0:
        kept = logits.masked_fill(~keep, -torch.inf)
        keep = keep & (logits >= _nucleus_threshold(kept, top_p))
    return keep


def filtered_logits(
    logits: Float[Tensor, "*batch V"],
    token: Int[Tensor, "*batch"] | None = None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Float[Tensor, "*batch V"]:
    """Logits of the sampling distribution: logits / temperature, −inf where not kept.

    `token`, when given, is kept in any case: a drawn token may leave the set once the policy has
    moved, and its log-probability must stay finite.
    """
    check_temperature(temperature)
    tempered = logits / temperature
    keep = keep_mask(tempered.detach(), top_k=top_k, top_p=top_p, min_p=min_p)
    if token is not None:
        keep.scatter_(-1, token.unsqueeze(-1), True)
    return tempered.masked_fill(~keep, -torch.inf)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that does not divide (0 means greedy, which has no log-probability)."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature must be a positive finite number, found {temperature!r}.")


def check_filter(top_k: int, top_p: float, min_p: float) -> None:
    """Refuse filters that keep no token, or of which there is no sense."""
    if top_k < 0:
        raise ValueError(f"top_k must be 0 (off) or a positive count, found {top_k!r}.")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p must lie in (0, 1], found {top_p!r}.")
    if not 0.0 <= min_p <= 1.0:
        raise ValueError(f"min_p must lie in [0, 1], found {min_p!r}.")


def _nucleus_threshold(logits: Tensor, top_p: float) -> Tensor:
    """The smallest logit [..., 1] of the nucleus; sums run in float32 or wider."""
    exact = logits.to(wide(logits.dtype))
    log_mass = exact.logsumexp(-1, keepdim=True)
    vocabulary = logits.shape[-1]
    for size in sorted({min(_NUCLEUS_GUESS, vocabulary), vocabulary}):
        largest = exact.topk(size, dim=-1).values
        mass = (largest - log_mass).exp().cumsum(-1)
        if size == vocabulary or bool((mass[..., -1] >= top_p).all()):
            break
    # A token belongs when the mass of those before it is still short of top_p.
    last = (mass < top_p).sum(-1, keepdim=True).clamp(max=size - 1)
    return largest.gather(-1, last).to(logits.dtype)
