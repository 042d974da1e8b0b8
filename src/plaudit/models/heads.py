"""What a causal language model does after its decoder: from hidden states to log-probabilities.

    logits = model's own code(hidden)            head, bias, logit scale, soft cap, whatever it has

Nearly every model ends in one linear map, and its log-probabilities are made in chunks without
keeping logits (`ops.token_logprobs`). Which model does is found by trying its own code on a few
hidden states, small and large: a scale, a cap or anything else there shows. Such a model is then
run through that code, chunk by chunk, and its gradients by autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from plaudit.models.rewired import with_modules
from plaudit.ops import token_logprobs, token_logprobs_of
from plaudit.ops.logprobs import chunk_rows
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from plaudit.records.sampling import Sampling

_LARGE_LOGIT = 50.0
"""Logits at which a head is tried: soft caps in use are 20 to 50, and bend what is near them."""


class LMHead:
    """Log-probabilities from the decoder's output; it shares the model's own weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        out: Any = model.get_output_embeddings()
        if out is None or not isinstance(getattr(out, "weight", None), Tensor):
            raise UserError(
                f"{type(model).__name__} has no output layer over its vocabulary, so its answers "
                "have no log-probabilities to train: use another model"
            )
        self.module: nn.Module = out
        self.weight: Tensor = out.weight
        self.bias: Tensor | None = getattr(out, "bias", None)
        self._tail = _tail_of(model)
        self.is_linear = self._tail is None or self._found_linear()

    @property
    def width(self) -> int:
        """Size of the hidden states that it reads."""
        return int(self.weight.shape[1])

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [n, V] of hidden states [n, H], by the model's own code."""
        if self._tail is None:
            return F.linear(hidden, self.weight, self.bias)
        out: Tensor = self._tail(inputs_embeds=hidden[None], use_cache=False).logits
        return out[0]

    def token_stats(
        self, hidden: Tensor, token: Tensor, sampling: Sampling
    ) -> tuple[Tensor, Tensor]:
        """Log-probability [n] of each token under `sampling`, and the distribution's entropy [n]."""
        how: dict[str, Any] = {
            "temperature": sampling.temperature or 1.0,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }
        if self.is_linear:
            return token_logprobs(hidden, self.weight, token, bias=self.bias, **how)
        return token_logprobs_of(self.logits, hidden, token, vocabulary=len(self.weight), **how)

    def each(self, hidden: Tensor, function: Callable[..., Tensor], *of_tokens: Tensor) -> Tensor:
        """function(logits [n, V], ...) -> [n], chunk by chunk over hidden states [N, H]: [N].

        `of_tokens` [N, ...] are cut as the logits are. Chunks are made again on the way back.
        """
        parts, size = [], chunk_rows(len(self.weight))
        for begin in range(0, len(hidden), size):
            here = slice(begin, begin + size)
            given = [x[here] for x in of_tokens]

            def of_chunk(h: Tensor, *given: Tensor) -> Tensor:
                return function(self.logits(h), *given)

            if torch.is_grad_enabled():
                parts.append(checkpoint(of_chunk, hidden[here], *given, use_reentrant=False))
            else:
                parts.append(of_chunk(hidden[here], *given))
        return torch.cat(parts) if parts else hidden.new_zeros(0)

    @torch.no_grad()
    def _found_linear(self) -> bool:
        """Whether the model's own code is the linear map alone, for small logits and for large."""
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(8, self.width, generator=generator, dtype=torch.float64)
        hidden = hidden.to(self.weight)
        size = float(F.linear(hidden, self.weight).abs().max())
        for scale in (1.0, _LARGE_LOGIT / max(size, 1e-30)):
            plain = F.linear(hidden * scale, self.weight, self.bias).double()
            own = self.logits(hidden * scale).double()
            close = 1e-4 if self.weight.dtype in (torch.float32, torch.float64) else 2e-2
            if own.shape != plain.shape or bool(
                (own - plain).abs().max() > close * plain.abs().max()
            ):
                return False
        return True


class _Given(nn.Module):
    """Stands where the decoder was, and gives back the hidden states that it is handed."""

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> _Output:
        del args, kwargs
        return _Output(inputs_embeds)


class _Output(tuple[Tensor]):
    """A decoder's output with hidden states and nothing else."""

    __slots__ = ()

    def __new__(cls, hidden: Tensor) -> _Output:
        return super().__new__(cls, (hidden,))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


def _tail_of(model: PreTrainedModel) -> Any:
    """The model without its decoder; None where its decoder cannot be taken out."""
    name = model.base_model_prefix
    if model._modules.get(name) is None:
        return None
    tail = with_modules(model, **{name: _Given()})
    try:
        with torch.no_grad():
            weight: Tensor = model.get_output_embeddings().weight
            tail(inputs_embeds=weight.new_zeros((1, 2, weight.shape[1])), use_cache=False)
    except Exception:  # its own code asks for more than hidden states: the check at load decides
        return None
    return tail
