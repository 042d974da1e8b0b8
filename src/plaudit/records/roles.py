"""The roles of a language-model algorithm: the seam between its file and many machines.

An algorithm is written once against these protocols. In one process they are plain objects around
a model (`engine/local.py`); on a cluster the same methods are served by groups of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

if TYPE_CHECKING:
    from torch import Tensor

    PolicyLoss = Callable[[list[int], Tensor, Tensor], Tensor]
    """loss(rows, logp [b, T], entropy [b, T]) -> scalar, where `rows` index the batch."""
    ValueLoss = Callable[[list[int], Tensor], Tensor]
    """loss(rows, value [b, T]) -> scalar, where `rows` index the batch."""


class Stateful(Protocol):
    """What a checkpoint needs of a role: tensors by name, and JSON-able facts."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]: ...

    def restore(self, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None: ...


class Actor(Stateful, Protocol):
    """The policy being taught."""

    version: int
    """How many updates the weights have had; trajectories carry it."""

    def generate(
        self, prompts: Sequence[Prompt], *, num_answers: int, sampling: Sampling, seed: int
    ) -> Trajectories:
        """`num_answers` answers to each prompt, grouped by prompt, drawn under `sampling`."""
        ...

    def logprobs(self, batch: Trajectories) -> Tensor:
        """Log-probabilities [B, T] of the answers' tokens under the batch's own `sampling`."""
        ...

    def update(self, batch: Trajectories, loss: PolicyLoss, *, lr: float) -> Mapping[str, float]:
        """One optimiser step on the sum of `loss` over micro-batches of `batch`.

        The loss divides by a denominator that is global to the batch, so that the split into
        micro-batches changes nothing. Returns `grad_norm` (before clipping).
        """
        ...


class Critic(Stateful, Protocol):
    """Estimates the return that follows each token."""

    def values(self, batch: Trajectories) -> Tensor:
        """V(state before token t), [B, T]."""
        ...

    def update(self, batch: Trajectories, loss: ValueLoss, *, lr: float) -> Mapping[str, float]:
        """One optimiser step; as `Actor.update`."""
        ...


class Reference(Protocol):
    """The frozen policy that the actor must stay near."""

    def logprobs(self, batch: Trajectories) -> Tensor:
        """Log-probabilities [B, T] of the answers' tokens under the batch's own `sampling`."""
        ...


class Reward(Protocol):
    """Judges whole answers: a reward model or a function of texts."""

    def __call__(self, batch: Trajectories) -> Tensor:
        """One finite score for each answer, [B]."""
        ...
