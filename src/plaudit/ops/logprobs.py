"""Log-probability and entropy of drawn tokens, in chunks over a language model's head.

The logits of N tokens over V words are the largest array of language-model training. They are made
chunk by chunk and thrown away: at most two chunk × V arrays (logits and probabilities) exist in
the forward or the backward pass; top-k and top-p need a few more of that size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from plaudit.ops.filtering import check_temperature, filtered_logits, keep_mask
from plaudit.ops.masks import wide
from plaudit.ops.products import product

# Logits made at once: 24 MB of float32 stay below the size at which glibc's allocator asks the
# system for fresh pages each time, which doubles the cost of a softmax over a large vocabulary.
_CHUNK_LOGITS = 6 * 2**20


def chunk_rows(vocabulary: int) -> int:
    """Tokens whose logits over so many words are made at once."""
    return max(16, _CHUNK_LOGITS // vocabulary)


class _Head(NamedTuple):
    """How hidden states become the logits of the sampling distribution."""

    temperature: float
    top_k: int
    top_p: float
    chunk_size: int


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    token: Int[Tensor, " N"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    chunk_size: int | None = None,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log π(token) and the entropy of π, per token, where π is the sampling distribution.

    logp = z[token] − logsumexp z and entropy = −Σ π log π, with
    z = (hidden · weightᵀ + bias) / temperature on the kept set (`keep_mask`) and −inf elsewhere;
    the drawn token always counts as kept, so that logp stays finite once the policy has moved.
    Results are float32, or float64 if the input is. Gradients reach hidden, weight and bias; the
    kept set is held constant. The entropy's gradient costs nothing unless it is used.
    Raises ValueError for a token outside the vocabulary or a temperature that is not positive.
    Check: equals log_softmax of the full logits, for every chunk size, gradients included.
    """
    check_temperature(temperature)
    if chunk_size is None:
        chunk_size = chunk_rows(weight.shape[0])
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, found {chunk_size!r}.")
    if hidden.shape[0] != token.shape[0]:
        raise ValueError(f"{hidden.shape[0]} hidden states were given for {token.shape[0]} tokens.")
    if token.numel() and not 0 <= int(token.min()) <= int(token.max()) < weight.shape[0]:
        raise ValueError(
            f"token ids must lie in [0, {weight.shape[0]}), "
            f"found {int(token.min())} to {int(token.max())}."
        )
    head = _Head(temperature, top_k, top_p, chunk_size)
    wanted = [x for x in (hidden, weight, bias) if x is not None and x.requires_grad]
    if not (torch.is_grad_enabled() and wanted):
        logp, entropy, _ = _forward(hidden, weight, bias, token, head, with_slope=False)
        return logp, entropy
    logp, entropy = _TokenLogprobs.apply(hidden, weight, bias, token, head)  # type: ignore[no-untyped-call]
    return logp, entropy


def token_logprobs_of(
    logits_of: Callable[[Tensor], Tensor],
    hidden: Float[Tensor, "N H"],
    token: Int[Tensor, " N"],
    *,
    vocabulary: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """As `token_logprobs`, for a head of any kind: `logits_of(hidden [n, H])` gives [n, V].

    Chunks are made again in the backward pass, so that no more than one chunk's logits exist.
    The entropy carries no gradient.
    """
    size = chunk_rows(vocabulary)

    def stats(h: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(h)
        z = filtered_logits(
            logits.to(wide(logits.dtype)),
            chosen,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        each = z.log_softmax(-1)
        with torch.no_grad():
            entropy = -(each.exp() * each.masked_fill(each == -torch.inf, 0.0)).sum(-1)
        return each.gather(-1, chosen[:, None])[:, 0], entropy

    parts = []
    for rows in _chunks(hidden.shape[0], size):
        if torch.is_grad_enabled():
            parts.append(checkpoint(stats, hidden[rows], token[rows], use_reentrant=False))
        else:
            parts.append(stats(hidden[rows], token[rows]))
    if not parts:
        empty = hidden.new_zeros(0, dtype=wide(hidden.dtype))
        return empty, empty
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


class _TokenLogprobs(torch.autograd.Function):
    """The gradient of `token_logprobs`, without keeping any logits.

    When only `hidden` learns (a frozen or adapted head), d logp / d hidden is made in the forward
    pass while the probabilities are at hand, so the backward pass is a product of [N, H] arrays.
    Otherwise, or when the entropy is differentiated, the backward pass makes the logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token: Tensor,
        head: _Head,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        only_hidden = ctx.needs_input_grad[:3] == (True, False, False)
        logp, entropy, slope = _forward(hidden, weight, bias, token, head, with_slope=only_hidden)
        ctx.save_for_backward(hidden, weight, bias, token, slope)
        ctx.head = head
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, token, slope = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None
        if slope is not None and grad_entropy is None and grad_logp is not None:
            grad_hidden = (slope * grad_logp.unsqueeze(-1)).to(hidden.dtype)
            return grad_hidden, None, None, None, None
        grads = _backward(
            hidden, weight, bias, token, ctx.head, grad_logp, grad_entropy, ctx.needs_input_grad
        )
        return *grads, None, None


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    head: _Head,
    *,
    with_slope: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(logp [N], entropy [N], d logp / d hidden [N, H] or None)."""
    num, dtype = hidden.shape[0], wide(hidden.dtype)
    logp = torch.empty(num, dtype=dtype, device=hidden.device)
    entropy = torch.empty_like(logp)
    slope = torch.empty_like(hidden, dtype=dtype) if with_slope else None
    with torch.no_grad():
        for rows in _chunks(num, head.chunk_size):
            z, prob, log_norm = _chunk(hidden[rows], weight, bias, token[rows], head)
            logp[rows] = z.gather(-1, token[rows, None]).squeeze(-1) - log_norm
            entropy[rows] = log_norm - torch.linalg.vecdot(prob, z)
            if slope is not None:
                # d logp / d hidden = (weight[token] − Σ_v π(v) weight[v]) / temperature
                mean_weight = product(prob.to(weight.dtype), weight.T)
                slope[rows] = (weight[token[rows]] - mean_weight).to(dtype) / head.temperature
    return logp, entropy, slope


def _backward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    head: _Head,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, from logits made again chunk by chunk."""
    dtype = wide(hidden.dtype)
    grad_hidden = torch.empty_like(hidden) if needs[0] else None
    grad_weight = torch.zeros_like(weight, dtype=dtype) if needs[1] else None
    grad_bias = torch.zeros_like(bias, dtype=dtype) if bias is not None and needs[2] else None
    for rows in _chunks(hidden.shape[0], head.chunk_size):
        z, grad_z, log_norm = _chunk(hidden[rows], weight, bias, token[rows], head)
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
        grad_z.div_(head.temperature)
        if grad_bias is not None:
            grad_bias += grad_z.sum(0)
        narrow = grad_z.to(weight.dtype)
        if grad_hidden is not None:
            grad_hidden[rows] = product(narrow, weight.T)
        if grad_weight is not None:
            if grad_weight.dtype == weight.dtype:
                grad_weight.addmm_(narrow.T, hidden[rows])
            else:
                grad_weight += narrow.T @ hidden[rows]
    return (
        grad_hidden,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
    )


def _chunk(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, token: Tensor, head: _Head
) -> tuple[Tensor, Tensor, Tensor]:
    """(logits z [n, V], probabilities [n, V], logsumexp of z [n]) of one chunk.

    Tokens that are not kept have z = 0 and probability 0, so that products with z stay finite.
    The temperature divides the hidden states: a pass over [n, H] instead of [n, V].
    """
    scaled = hidden / head.temperature
    z = product(scaled, weight, None if bias is None else bias / head.temperature)
    z = z.to(wide(hidden.dtype))
    drop = None
    if head.top_k > 0 or head.top_p < 1.0:
        drop = keep_mask(z, top_k=head.top_k, top_p=head.top_p).logical_not_()
        drop.scatter_(-1, token[:, None], False)
        z.masked_fill_(drop, -torch.inf)
    largest, where = z.max(-1)
    prob = z.softmax(-1)
    # The largest probability is at least 1/V: its logarithm is exact where the token's may not be.
    log_norm = largest - prob.gather(-1, where[:, None]).squeeze(-1).log()
    if drop is not None:
        z.masked_fill_(drop, 0.0)
    return z, prob, log_norm


def _chunks(num: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
