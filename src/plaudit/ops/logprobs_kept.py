"""Softmax over the words that filters keep, in chunks of whole rows, and its gradients.

Which words top-k, min-p and top-p keep is known only from a whole row of logits, so that a few arrays of chunk × V
exist at once. The kept set is held constant; the drawn token always counts as kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plaudit.ops.filtering import keep_mask
from plaudit.ops.logprobs_tiles import slices
from plaudit.ops.masks import wide
from plaudit.ops.products import product


def softmax_of_kept(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    *,
    filters: Mapping[str, Any],
    chunk_size: int,
    with_mean_weight: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(logp [N], entropy [N], Σ π(v) weight[v] [N, H] or None); `filters` are `keep_mask`'s."""
    num, dtype = hidden.shape[0], wide(hidden.dtype)
    logp = torch.empty(num, dtype=dtype, device=hidden.device)
    entropy = torch.empty_like(logp)
    mean_weight = torch.empty_like(hidden, dtype=dtype) if with_mean_weight else None
    for rows in slices(num, chunk_size):
        z, prob, log_norm = _chunk(hidden[rows], weight, bias, token[rows], filters)
        logp[rows] = z.gather(-1, token[rows, None]).squeeze(-1) - log_norm
        entropy[rows] = log_norm - torch.linalg.vecdot(prob, z)
        if mean_weight is not None:
            mean_weight[rows] = product(prob.to(weight.dtype), weight.T).to(dtype)
    return logp, entropy, mean_weight


def gradients_of_kept(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    *,
    filters: Mapping[str, Any],
    chunk_size: int,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias where `needs` says so, from logits made again."""
    dtype = wide(hidden.dtype)
    grad_hidden = torch.empty_like(hidden) if needs[0] else None
    grad_weight = torch.zeros_like(weight, dtype=dtype) if needs[1] else None
    grad_bias = torch.zeros_like(bias, dtype=dtype) if bias is not None and needs[2] else None
    for rows in slices(hidden.shape[0], chunk_size):
        z, grad_z, log_norm = _chunk(hidden[rows], weight, bias, token[rows], filters)
        # d logp / dz = onehot − π;   d entropy / dz = −π (log π + entropy)
        if grad_entropy is None:
            assert grad_logp is not None
            grad_z.mul_(-grad_logp[rows, None])
        else:
            entropy = log_norm - torch.linalg.vecdot(grad_z, z)
            z.sub_((log_norm - entropy).unsqueeze(-1)).mul_(-grad_entropy[rows, None])
            if grad_logp is not None:
                z.sub_(grad_logp[rows, None])
            grad_z.mul_(z)
        if grad_logp is not None:
            grad_z.scatter_add_(-1, token[rows, None], grad_logp[rows, None])
        if grad_bias is not None:
            grad_bias += grad_z.sum(0)
        narrow = grad_z.to(weight.dtype)
        if grad_hidden is not None:
            grad_hidden[rows] = product(narrow, weight.T)
        if grad_weight is not None:
            grad_weight += product(narrow.T, hidden[rows].T)
    return (
        grad_hidden,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )


def _chunk(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    filters: Mapping[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """(logits z [n, V], probabilities [n, V], logsumexp of z [n]) of one chunk.

    Tokens that are not kept have z = 0 and probability 0, so that products with z stay finite.
    """
    z = product(hidden, weight, bias).to(wide(hidden.dtype))
    drop = keep_mask(z, **filters).logical_not_()
    drop.scatter_(-1, token[:, None], False)
    z.masked_fill_(drop, -torch.inf)
    largest, where = z.max(-1)
    prob = z.softmax(-1)
    # The largest probability is at least 1/V: its logarithm is exact where the token's may not be.
    log_norm = largest - prob.gather(-1, where[:, None]).squeeze(-1).log()
    z.masked_fill_(drop, 0.0)
    return z, prob, log_norm
