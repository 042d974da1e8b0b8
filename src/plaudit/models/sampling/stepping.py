"""What the sampling loop asks of a model: read prompts once, then one token a row at a time.

Two implementations: `fused.FusedDecoder` for Llama-shaped models, and `hosted.HostedDecoder` for
any other causal model of transformers. A hidden state here is the input of decoder layer `split`,
the output of the trunk layers[:split].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor


class Prefix(Protocol):
    """P prompts that have been read, and what the next token of each depends on."""

    logits: Tensor
    """Of the first answer token, [P, V]."""
    hidden: Tensor | None
    """Trunk output [P, L, H], right-padded with zeros; None without a split."""


class Answers(Protocol):
    """Rows being answered, each the continuation of one prompt."""

    idle_steps: float
    """Finished rows are dropped once they have cost so many steps of the whole batch: where
    dropping copies every key and value it takes about as long as half a step."""

    def step(self, token: Tensor) -> tuple[Tensor, Tensor | None]:
        """Feed one token [R] a row; the next token's logits [R, V], and hidden states [R, H]."""
        ...

    def trunk(self, token: Tensor) -> Tensor:
        """Feed the rows' last tokens [R] through the trunk alone: hidden states [R, H]."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this (increasing) order."""
        ...

    def as_prefix(self, rows: Tensor, counts: Sequence[int]) -> Any:
        """What these rows have read, as a prefix of its own: each row's prompt and the first
        `counts` of the tokens that were fed. It has no logits yet. None where the decoder's cache
        cannot be parted so."""
        ...


P = TypeVar("P", bound=Prefix)


class SteppingDecoder(Protocol[P]):
    """A causal language model as the loop uses it."""

    @property
    def refills(self) -> bool:
        """Whether rows can be dropped and added for nothing; known after `refresh`."""
        ...

    def refresh(self) -> None:
        """Take up the model's weights as they are now."""
        ...

    def release(self) -> None:
        """Give up copies of weights; the next `refresh` makes them again."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]]) -> P:
        """Read each prompt once."""
        ...

    def extend(self, prefix: P, tokens: Sequence[Sequence[int]]) -> P:
        """Read further tokens, at least one, behind each row of a prefix; it takes its place."""
        ...

    def start(self, prefix: P, group: Sequence[int], num_steps: int) -> Answers:
        """Begin rows; row r answers prompt group[r] (increasing) with up to `num_steps` tokens."""
        ...
