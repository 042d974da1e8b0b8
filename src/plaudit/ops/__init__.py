"""Pure functions on tensors: per element in, per element out; time is the last axis."""

from __future__ import annotations

from plaudit.ops.filtering import filtered_logits, keep_mask
from plaudit.ops.logprobs import token_logprobs

__all__ = ["filtered_logits", "keep_mask", "token_logprobs"]
