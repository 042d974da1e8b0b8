"""Softmax over a head's whole vocabulary in tiles, and its gradients: no row of logits ever exists.

A tile is some hundred tokens by some thousand words. Its products have the shape at which matrix
libraries are fast, the weights are read once for all its tokens, and its two arrays (logits and
their exponentials) stay in the processor's cache. Blocks of words are joined by rescaling to the
largest logit so far (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax").
Left out: top-k and top-p, which must see whole rows (`logprobs_kept`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from plaudit.ops.masks import wide
from plaudit.ops.products import product

# Over 151,936 words of width 896 a tile of 41 rows of whole logits multiplies at a third to two
# thirds of the rate of 512 rows by 4,096 words; 2 million logits are 8 MB of float32.
_ROWS = 512
_LOGITS = 2 * 2**20


class Softmax(NamedTuple):
    """N distributions π over z = hidden · weightᵀ + bias: all [N] but the last, which is [N, H]."""

    logit: Tensor
    """z of the drawn token."""
    largest: Tensor
    total: Tensor
    """Σ exp(z − largest), at least 1."""
    mean: Tensor
    """Σ π (z − largest), at most 0."""
    mean_weight: Tensor | None
    """Σ π(v) weight[v], if it was asked for."""

    @property
    def logp(self) -> Tensor:
        """Log π of the drawn token."""
        return (self.logit - self.largest) - self.total.log()

    @property
    def entropy(self) -> Tensor:
        """−Σ π log π."""
        return self.total.log() - self.mean


def softmax_in_tiles(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    *,
    most_logits: int | None,
    with_mean_weight: bool,
) -> Softmax:
    """The distributions of hidden [N, H] over weight [V, H], at most `most_logits` at once.

    Check: its `logp` and `entropy` are those of log_softmax over the whole logits.
    """
    dtype = wide(hidden.dtype)
    logit, total, mean = torch.zeros(3, len(hidden), dtype=dtype, device=hidden.device)
    # A finite number below all logits: its difference to −inf would not be a number.
    largest = torch.full_like(logit, torch.finfo(dtype).min)
    mean_weight = torch.zeros_like(hidden, dtype=dtype) if with_mean_weight else None
    for rows, blocks in _tiles(len(hidden), len(weight), most_logits):
        for words in blocks:
            z = _logits(hidden[rows], weight, bias, words)
            place, is_here = _place(token[rows], words)
            logit[rows] += z.gather(-1, place[:, None]).squeeze(-1).where(is_here, 0.0)
            higher = torch.maximum(largest[rows], z.amax(-1))
            lower = largest[rows] - higher
            fade = lower.exp()
            z.sub_(higher[:, None])
            each = z.exp()
            mean[rows] = (mean[rows] + total[rows] * lower) * fade + torch.linalg.vecdot(each, z)
            total[rows] = total[rows] * fade + each.sum(-1)
            largest[rows] = higher
            if mean_weight is not None:
                here = product(each.to(weight.dtype), weight[words].T)
                mean_weight[rows].mul_(fade[:, None]).add_(here)
    if mean_weight is not None:
        mean_weight /= total[:, None]
    return Softmax(logit, largest, total, mean / total, mean_weight)


def gradients_in_tiles(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    seen: Softmax,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    *,
    most_logits: int | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias where `needs` says so, from logits made again."""
    dtype = wide(hidden.dtype)
    grad_hidden = torch.zeros_like(hidden, dtype=dtype) if needs[0] else None
    # Written block by block, each as the sum over all rows: zeros would be one more pass over it.
    grad_weight = torch.empty_like(weight) if needs[1] else None
    if grad_weight is not None and not len(hidden):
        grad_weight.zero_()
    grad_bias = torch.zeros_like(bias, dtype=dtype) if bias is not None and needs[2] else None
    tiles = list(_tiles(len(hidden), len(weight), most_logits))
    for words in tiles[0][1] if tiles else ():
        of_weight: Tensor | None = None
        for rows, _ in tiles:
            z = _logits(hidden[rows], weight, bias, words)
            grad_z = _grad_logits(z, seen, rows, grad_logp, grad_entropy)
            if grad_bias is not None:
                grad_bias[words] += grad_z.sum(0)
            narrow = grad_z.to(weight.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] += product(narrow, weight[words].T)
            if grad_weight is not None:
                here = product(narrow.T, hidden[rows].T).to(dtype)
                of_weight = here if of_weight is None else of_weight.add_(here)
        if grad_weight is None or of_weight is None:
            continue
        if grad_logp is not None:
            place, is_here = _place(token, words)
            of_weight.index_add_(0, place, hidden * grad_logp.where(is_here, 0.0)[:, None])
        grad_weight[words] = of_weight.to(weight.dtype)
    if grad_logp is not None and grad_hidden is not None:
        grad_hidden += weight[token] * grad_logp[:, None]
    if grad_logp is not None and grad_bias is not None:
        grad_bias.index_add_(0, token, grad_logp)
    return (
        None if grad_hidden is None else grad_hidden.to(hidden.dtype),
        grad_weight,
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )


def _grad_logits(
    z: Tensor,
    seen: Softmax,
    rows: slice,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """Gradient of one tile's logits, which are overwritten; without that of the drawn token's own.

    d logp / dz = onehot − π;  d entropy / dz = −π (log π + entropy) = −π (z − largest − mean)
    The one-hot part goes past the products, in which it would be the one large term among many
    small ones: without it the gradient of hidden is some ten times nearer to the exact one.
    """
    z.sub_(seen.largest[rows, None])
    if grad_entropy is None:
        assert grad_logp is not None
        return z.exp_().mul_(-(grad_logp[rows] / seen.total[rows]).unsqueeze(-1))
    prob = z.exp().div_(seen.total[rows, None])
    z.sub_(seen.mean[rows, None]).mul_(-grad_entropy[rows, None])
    if grad_logp is not None:
        z.sub_(grad_logp[rows, None])
    return prob.mul_(z)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, words: slice) -> Tensor:
    z = product(hidden, weight[words], None if bias is None else bias[words])
    return z.to(wide(hidden.dtype))


def _place(token: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Where each token stands among these words (anywhere if it does not), and whether it does."""
    is_here = (token >= words.start) & (token < words.stop)
    return (token - words.start).where(is_here, 0), is_here


def _tiles(
    num_tokens: int, num_words: int, most_logits: int | None
) -> Iterator[tuple[slice, list[slice]]]:
    """Rows in nearly equal parts, each with the same blocks of words."""
    if most_logits is None:
        most_logits = _LOGITS
    size = -(-num_tokens // max(1, -(-num_tokens // min(_ROWS, most_logits))))
    blocks = slices(num_words, max(1, most_logits // max(1, size)))
    for rows in slices(num_tokens, max(1, size)):
        yield rows, blocks


def slices(num: int, size: int) -> list[slice]:
    """0 to num in parts of `size`, the last perhaps smaller."""
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
