"""Log-probability and entropy of drawn tokens, in pieces over a language model's head.

The logits of N tokens over V words are the largest array of language-model training. They are made
piece by piece and thrown away, in the forward pass and in the backward pass: a softmax over all
words in tiles of some hundred tokens and some thousand words (`logprobs_tiles`), one over the words
that top-k, min-p and top-p keep in chunks of whole rows (`logprobs_kept`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from plaudit.ops.filtering import check_filter, check_temperature, filtered_logits
from plaudit.ops.logprobs_kept import gradients_of_kept, softmax_of_kept
from plaudit.ops.logprobs_tiles import Softmax, gradients_in_tiles, slices, softmax_in_tiles
from plaudit.ops.masks import wide

# Logits made at once: 24 MB of float32 stay below the size at which glibc's allocator asks the
# system for fresh pages each time, which doubles the cost of a softmax over a large vocabulary.
_CHUNK_LOGITS = 6 * 2**20


def chunk_rows(vocabulary: int) -> int:
    """Tokens whose logits over so many words are made at once."""
    return max(16, _CHUNK_LOGITS // vocabulary)


class _Head(NamedTuple):
    """How hidden states become the logits of the sampling distribution.

    The temperature divides hidden states and biases: a pass over [n, H] instead of [n, V].
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    chunk_size: int | None

    @property
    def keeps_all(self) -> bool:
        return not (self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0)

    def most_logits(self, vocabulary: int) -> int | None:
        """How many logits a tile may have."""
        return None if self.chunk_size is None else self.chunk_size * vocabulary

    def kept(self, vocabulary: int) -> dict[str, Any]:
        """Arguments of `logprobs_kept`."""
        size = self.chunk_size or chunk_rows(vocabulary)
        filters = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {"filters": filters, "chunk_size": size}


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    token: Int[Tensor, " N"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    chunk_size: int | None = None,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log π(token) and the entropy of π, per token, where π is the sampling distribution.

    logp = z[token] − logsumexp z and entropy = −Σ π log π, with
    z = (hidden · weightᵀ + bias) / temperature on the kept set (`keep_mask`) and −inf elsewhere;
    the drawn token always counts as kept, so that logp stays finite once the policy has moved.
    Results are float32, or float64 if the input is. Gradients reach hidden, weight and bias; the
    kept set is held constant. The entropy's gradient costs nothing unless it is used.
    At most chunk_size × V logits exist at once; by default a size that is fast.
    Raises ValueError for a token outside the vocabulary, a temperature that is not positive, or a
    filter out of its range.
    Check: equals log_softmax of the full logits, for every chunk size, gradients included.
    """
    check_temperature(temperature)
    check_filter(top_k, top_p, min_p)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, found {chunk_size!r}.")
    if hidden.shape[0] != token.shape[0]:
        raise ValueError(f"{hidden.shape[0]} hidden states were given for {token.shape[0]} tokens.")
    if token.numel() and not 0 <= int(token.min()) <= int(token.max()) < weight.shape[0]:
        raise ValueError(
            f"token ids must lie in [0, {weight.shape[0]}), "
            f"found {int(token.min())} to {int(token.max())}."
        )
    head = _Head(temperature, top_k, top_p, min_p, chunk_size)
    wanted = [x for x in (hidden, weight, bias) if x is not None and x.requires_grad]
    if not (torch.is_grad_enabled() and wanted):
        found = _forward(hidden, weight, bias, token, head, with_slope=False)
        return found.logp, found.entropy
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
    min_p: float = 0.0,
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
            min_p=min_p,
        )
        each = z.log_softmax(-1)
        with torch.no_grad():
            entropy = -(each.exp() * each.masked_fill(each == -torch.inf, 0.0)).sum(-1)
        return each.gather(-1, chosen[:, None])[:, 0], entropy

    parts = []
    for rows in slices(hidden.shape[0], size):
        if torch.is_grad_enabled():
            parts.append(checkpoint(stats, hidden[rows], token[rows], use_reentrant=False))
        else:
            parts.append(stats(hidden[rows], token[rows]))
    if not parts:
        empty = hidden.new_zeros(0, dtype=wide(hidden.dtype))
        return empty, empty
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


class _Found(NamedTuple):
    """What the forward pass gives, and what the backward pass needs of it."""

    logp: Tensor
    entropy: Tensor
    slope: Tensor | None
    """d logp / d hidden [N, H]."""
    softmax: Softmax | None


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
        found = _forward(hidden, weight, bias, token, head, with_slope=only_hidden)
        softmax = () if found.softmax is None else found.softmax
        ctx.save_for_backward(hidden, weight, bias, token, found.slope, *softmax)
        ctx.head = head
        return found.logp, found.entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, token, slope, *softmax = ctx.saved_tensors
        if grad_logp is None and grad_entropy is None:
            return None, None, None, None, None
        if slope is not None and grad_entropy is None and grad_logp is not None:
            grad_hidden = (slope * grad_logp.unsqueeze(-1)).to(hidden.dtype)
            return grad_hidden, None, None, None, None
        grads = _backward(
            *(hidden, weight, bias, token, ctx.head),
            Softmax(*softmax) if softmax else None,
            *(grad_logp, grad_entropy, ctx.needs_input_grad),
        )
        return *grads, None, None


@torch.no_grad()
def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    head: _Head,
    *,
    with_slope: bool,
) -> _Found:
    scaled, shift = _scaled(hidden, bias, head)
    if head.keeps_all:
        most = head.most_logits(len(weight))
        softmax = softmax_in_tiles(
            scaled, weight, shift, token, most_logits=most, with_mean_weight=with_slope
        )
        logp, entropy, mean_weight = softmax.logp, softmax.entropy, softmax.mean_weight
        softmax = softmax._replace(mean_weight=None)
    else:
        softmax = None
        logp, entropy, mean_weight = softmax_of_kept(
            scaled, weight, shift, token, with_mean_weight=with_slope, **head.kept(len(weight))
        )
    if mean_weight is None:
        return _Found(logp, entropy, None, softmax)
    # d logp / d hidden = (weight[token] − Σ_v π(v) weight[v]) / temperature
    slope = mean_weight.neg_().add_(weight[token]).div_(head.temperature)
    return _Found(logp, entropy, slope, softmax)


def _backward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token: Tensor,
    head: _Head,
    softmax: Softmax | None,
    grad_logp: Tensor | None,
    grad_entropy: Tensor | None,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias, from logits made again piece by piece."""
    scaled, shift = _scaled(hidden, bias, head)
    of = (scaled, weight, shift, token)
    if softmax is None:
        how = head.kept(len(weight))
        grads = gradients_of_kept(*of, grad_logp, grad_entropy, needs=needs, **how)
    else:
        most = head.most_logits(len(weight))
        grads = gradients_in_tiles(
            *of, softmax, grad_logp, grad_entropy, needs=needs, most_logits=most
        )
    of_hidden, of_weight, of_bias = grads
    return (
        None if of_hidden is None else of_hidden.div_(head.temperature),
        of_weight,
        None if of_bias is None else of_bias.div_(head.temperature),
    )


def _scaled(hidden: Tensor, bias: Tensor | None, head: _Head) -> tuple[Tensor, Tensor | None]:
    return hidden / head.temperature, None if bias is None else bias / head.temperature
