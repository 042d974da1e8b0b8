"""The roles of a language-model algorithm: the seam between its file and many machines.

An algorithm is written once against these protocols. In one process they are plain objects around
a model (`engine/local.py`); on a cluster the same methods are served by groups of workers. What
crosses the seam are batches, numbers and losses as values (`records/losses.py`): no closure, and no
model's own object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from plaudit.records.losses import Loss
from plaudit.records.sampling import Sampling
from plaudit.records.state import Savable
from plaudit.records.types import Prompt, Replier, Trajectories

if TYPE_CHECKING:
    from torch import Tensor


class Role(Protocol):
    """What every role is: a model somewhere, that can be let go."""

    @property
    def device(self) -> Any:
        """Where its numbers are made."""
        ...

    @property
    def dtype(self) -> Any:
        """Precision of its weights."""
        ...

    def close(self) -> None:
        """Give back what it holds besides its weights; it may be used again."""
        ...


class Learning(Role, Savable, Protocol):
    """A role that is taught."""

    version: int
    """How many updates the weights have had."""

    def update(
        self,
        batch: Trajectories,
        loss: Loss,
        *,
        fields: Mapping[str, Any] | None = None,
        denominator: float,
        lr: float,
    ) -> Mapping[str, float]:
        """One optimiser step on the sum of `loss` over the parts of `batch`.

        `fields` go to the loss beside the batch, cut by rows as it is: tensors [B, ...], or things
        with `among(rows)`. Returns the sums of the numbers that the loss named, and `grad_norm`
        (before clipping). Raises ValueError for a loss that needs what this role does not give.
        """
        ...


class Actor(Learning, Protocol):
    """The policy being taught."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_answers: int,
        sampling: Sampling,
        seed: int,
        replier: Replier | None = None,
    ) -> Trajectories:
        """`num_answers` answers to each prompt, grouped by prompt, drawn under `sampling`; with a
        `replier` each goes on as a conversation."""
        ...

    def logprobs(self, batch: Trajectories) -> Tensor:
        """Log-probabilities [B, T] of the chosen tokens under the batch's own `sampling`."""
        ...

    def sync(self, version: int) -> None:
        """Draw with the weights of `version` from now on; ValueError for one that is not there."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the policy as `transformers` loads it."""
        ...


class Critic(Learning, Protocol):
    """Estimates the return that follows each token."""

    def values(self, batch: Trajectories) -> Tensor:
        """V(state before token t), [B, T]; 0 off the chosen tokens."""
        ...


class Reference(Role, Protocol):
    """The frozen policy that the actor must stay near."""

    def logprobs(self, batch: Trajectories) -> Tensor:
        """Log-probabilities [B, T] of the chosen tokens under the batch's own `sampling`."""
        ...


class Reward(Protocol):
    """Judges what the policy wrote: a reward model, a verifier or a function of texts."""

    def __call__(self, batch: Trajectories) -> Tensor:
        """Finite rewards [B, T] on chosen tokens, 0 elsewhere; the judgement of a whole answer is
        one of them, on its last chosen token (`ops.outcome_reward`). NaN there: no judgement."""
        ...


class Judge(Protocol):
    """Scores whole answers, by one measure or by several."""

    @property
    def names(self) -> Sequence[str]:
        """One for each measure."""
        ...

    @property
    def weights(self) -> Sequence[float]:
        """What each counts for; one of weight 0 is watched and not learned from."""
        ...

    def __call__(self, batch: Trajectories) -> Mapping[str, Tensor]:
        """Scores [B] by name, in the measures' order; finite, or NaN where one abstains from a row.

        They keep the precision that they were made in, so that rounding is known as rounding.
        """
        ...
