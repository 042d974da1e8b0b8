"""What every vector of worlds offers to a loop, however its copies are stepped.

A vector step is one `Transition`: where each action led (`next_obs`, the last observation of its
episode included) is kept apart from what to act on next (`obs`, the first of a new episode after a
boundary). `terminated` and `truncated` are never merged. A row off the `mask` is no transition: in
Gymnasium's next-step autoreset the step after an episode's end only resets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

if TYPE_CHECKING:
    from plaudit.envs.statistics import Statistics  # it loads numba

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that ended: in which copy, its undiscounted unscaled return, and its length."""

    env: int
    ret: float
    length: int
    given_ret: float | None = None
    """Its return by the reward that was given in place of the world's own, where one was."""


@dataclass(slots=True)
class Transition:
    """One step of B worlds. The arrays belong to the receiver: they are not written to again."""

    obs: Array
    """[B, ...] what to act on next; after a boundary the first observation of the next episode (with
    next-step autoreset still the last one, and the row after it is off the mask)."""
    next_obs: Array
    """[B, ...] where the action led; equal to `obs` except after a boundary."""
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    """[B] the episode has no future."""
    truncated: NDArray[np.bool_]
    """[B] the episode was cut off; where `terminated` holds too, there is no future."""
    mask: NDArray[np.bool_]
    """[B] false where the row is no transition."""
    episodes: list[Episode] = field(default_factory=list)

    @property
    def boundary(self) -> NDArray[np.bool_]:
        """[B] credit stops here: terminated or truncated."""
        return self.terminated | self.truncated


class Worlds(Protocol):
    """B copies of one world, stepped together."""

    num_envs: int
    obs_spec: ObsSpec
    action_spec: ActionSpec
    gives_state: bool
    """True where `restore` continues bit for bit; else episodes under way begin anew."""

    @property
    def statistics(self) -> Statistics | None:
        """What observations are scaled by; none where they are as the world gives them."""
        ...

    def reset(self) -> Array:
        """Begins an episode in every copy; observations [B, ...]."""
        ...

    def step(self, actions: Array) -> Transition:
        """Acts in every copy: [B] int64, [B, k] int64 or [B, d] float32 (within the bounds)."""
        ...

    def state(self) -> Saved:
        """Enough to go on exactly from here."""
        ...

    def restore(self, saved: Saved) -> Array:
        """Goes on from there; the observations [B, ...] to act on."""
        ...

    def close(self) -> None:
        """Ends the copies."""
        ...


def check_kind(facts: Mapping[str, Any], name: str) -> None:
    """Raises UserError where what was saved has no `name`, being of worlds of another make."""
    if name not in facts:
        raise UserError(
            "other worlds were saved than these: vector, frame_stack, normalise_obs,"
            " normalise_reward and whether a reward is given must be as they were"
        )
