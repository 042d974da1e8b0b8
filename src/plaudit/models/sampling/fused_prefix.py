"""What `fused.FusedDecoder` keeps of prompts that it has read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from plaudit.models.sampling.cache import PromptKeyValues


@dataclass(frozen=True)
class FusedPrefix:
    """Prompts that have been read; see `stepping.Prefix`."""

    length: Tensor
    """Tokens in each prompt, [P]."""
    cache: PromptKeyValues
    bias: Tensor | None
    """0 on prompt tokens, −inf on padding, [P, L]; None when all prompts are equally long."""
    logits: Tensor
    hidden: Tensor | None

    @property
    def width(self) -> int:
        """Tokens in the longest prompt."""
        return int(self.length.max())

    def select(self, prompts: Tensor) -> FusedPrefix:
        """The given prompts alone, in tensors of their own, without what belonged to drawing."""
        length = self.length[prompts]
        width = int(length.max())
        bias = None
        if self.bias is not None and int(length.min()) < width:
            bias = self.bias[prompts, :width]
        cache = self.cache.select(prompts, width)
        return FusedPrefix(length, cache, bias, self.logits[:0], None)
