"""Drawing tokens: one uniform number for each step of each row, and the inverse of the CDF.

A row's numbers come from a counter-based generator keyed by (seed, row), so that a row draws the
same whatever shares its batch. Left out: methods that need no CDF (Gumbel), as they take V random
numbers a token where this takes one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plaudit.ops.filtering import keep_mask
from plaudit.records.sampling import Sampling

# Vocabulary entries summed as one block before looking inside: about the square root of 50k.
_BLOCK = 256


def uniforms(seed: int, rows: Sequence[int], num_steps: int) -> Tensor:
    """u [len(rows), num_steps] in [0, 1), float64: row r is the stream of Philox key (seed, r).

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    out = np.empty((len(rows), num_steps))
    for i, row in enumerate(rows):
        key = np.array([seed, row], dtype=np.uint64)
        out[i] = np.random.Generator(np.random.Philox(key=key)).random(num_steps)
    return torch.from_numpy(out)


def draw(logits: Tensor, u: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Tokens [B] and their log-probabilities [B] from logits [B, V] and uniforms u [B].

    p = softmax(logits / temperature) over the tokens that `keep_mask` keeps, renormalised; the
    token is the first whose cumulative p exceeds u. At temperature 0 it is the most likely token,
    the first of equals, with its log-probability at temperature 1.
    """
    z = logits if logits.dtype == torch.float64 else logits.float()
    if sampling.temperature not in (0.0, 1.0):
        z = z / sampling.temperature
    if sampling.filters:
        keep = keep_mask(z, top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p)
        z = z.masked_fill(~keep, -torch.inf)
    if sampling.temperature == 0.0:
        token = z.argmax(-1)
        return token, log_probability(z, token)
    assert u is not None, "drawing needs uniform numbers"
    p = z.softmax(-1)
    token = inverse_cdf(p, u)
    return token, p.gather(-1, token[:, None])[:, 0].log()


def log_probability(logits: Tensor, token: Tensor) -> Tensor:
    """log softmax(logits)[token]: [B] from [B, V] and [B]."""
    chosen = logits.gather(-1, token[:, None])[:, 0]
    return chosen - logits.logsumexp(-1)


def inverse_cdf(p: Tensor, u: Tensor) -> Tensor:
    """The first token [B] whose cumulative weight exceeds u · total, for weights p [B, V] ≥ 0.

    Two levels: sums of blocks, then the entries of the block that is met, both accumulated in
    float64. A token of weight zero is never returned: the first sum to exceed a threshold always
    ends on a positive weight, and where the two levels round apart at the end of a block, the
    block's last positive weight is taken.
    """
    num_rows, vocabulary = p.shape
    if vocabulary % _BLOCK:
        p = torch.nn.functional.pad(p, (0, -vocabulary % _BLOCK))
    blocks = p.view(num_rows, -1, _BLOCK)
    edges = blocks.sum(-1).double().cumsum(-1)
    threshold = u.to(edges.device)[:, None] * edges[:, -1:]
    block = _first_above(edges, threshold, blocks.amax(-1) > 0)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0]
    before = torch.where(block > 0, edges.gather(1, (block - 1).clamp(min=0)), 0.0)
    sums = before + within.double().cumsum(-1)
    return (block * _BLOCK + _first_above(sums, threshold, within > 0))[:, 0]


def _first_above(sums: Tensor, threshold: Tensor, positive: Tensor) -> Tensor:
    """Index [B, 1] of the first sum above the threshold, at most the last positive entry."""
    first = torch.searchsorted(sums, threshold, right=True)
    last = sums.shape[-1] - 1 - positive.flip(-1).to(torch.uint8).argmax(-1, keepdim=True)
    return torch.minimum(first, last)
