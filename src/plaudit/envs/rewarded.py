"""Worlds that pay a reward of the caller's own, such as one that was learned from demonstrations.

What is learned from is that reward; episodes keep the world's own return, and beside it tell the
one by the reward given. Scaling of rewards acts on the reward given, which is told of observations
as they are before they are scaled (and as they are stacked): their scale moves while a run learns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.normalise import Normalised
from plaudit.envs.stack import inner
from plaudit.envs.worlds import Array, Transition, Worlds, check_kind
from plaudit.records.errors import UserError
from plaudit.records.state import Saved


class StepReward(Protocol):
    """The rewards [B] of one step of B copies."""

    def __call__(
        self, obs: Array, action: Array, next_obs: Array, terminated: NDArray[np.bool_], /
    ) -> NDArray[Any]:
        """`obs` and `next_obs` [B, ...], `action` as the world gets it, `terminated` [B]."""
        ...


class Rewarded:
    """Worlds whose rewards are those of `reward`; rows off the mask are paid nothing."""

    def __init__(self, worlds: Worlds, reward: StepReward) -> None:
        self.worlds, self.reward = worlds, reward
        self.num_envs, self.gives_state = worlds.num_envs, worlds.gives_state
        self.obs_spec, self.action_spec = worlds.obs_spec, worlds.action_spec
        self.statistics = worlds.statistics
        self._obs: Array = np.empty((0,))
        self._ret = np.zeros(worlds.num_envs)

    def reset(self) -> Array:
        """Begins an episode in every copy."""
        self._obs = self.worlds.reset()
        self._ret[:] = 0.0
        return self._obs

    def step(self, actions: Array) -> Transition:
        """Acts; the reward given takes the place of the world's own."""
        told = actions.copy()  # an environment may write into what it is given
        moved = self.worlds.step(actions)
        answer = self.reward(self._obs, told, moved.next_obs, moved.terminated)
        reward = self._checked(answer, moved.mask)
        self._obs = moved.obs
        self._ret += reward
        episodes = [
            replace(episode, given_ret=float(self._ret[episode.env])) for episode in moved.episodes
        ]
        self._ret[moved.boundary] = 0.0
        return Transition(
            moved.obs,
            moved.next_obs,
            reward,
            moved.terminated,
            moved.truncated,
            moved.mask,
            episodes,
        )

    def _checked(self, answer: Any, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        found = np.asarray(answer)
        if found.shape != mask.shape or found.dtype.kind not in "biuf":
            raise UserError(
                f"the reward given answered with an array of shape {found.shape} and type"
                f" {found.dtype}; one number for each copy, shape {mask.shape}, is expected"
            )
        reward = np.where(mask, found, 0.0).astype(np.float64, copy=False)
        if not np.isfinite(reward).all():
            row = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise UserError(
                f"the reward given is {reward[row]} in environment {row}; a finite number is expected"
            )
        return reward

    def state(self) -> Saved:
        """The worlds' and the returns so far; what the reward knows is its maker's to save."""
        arrays, facts = self.worlds.state()
        kept = {f"worlds.{name}": array for name, array in arrays.items()}
        return {"given_return": self._ret.copy(), **kept}, {"worlds": facts}

    def restore(self, saved: Saved) -> Array:
        """Goes on from there; returns of episodes that begin anew begin at nothing."""
        check_kind(saved[0], "given_return")
        self._obs = self.worlds.restore(inner(saved))
        self._ret[:] = saved[0]["given_return"] if self.gives_state else 0.0
        return self._obs

    def close(self) -> None:
        """Ends the copies."""
        self.worlds.close()


def rewarded(worlds: Worlds, reward: StepReward) -> Worlds:
    """The worlds with another reward, below what scales observations and rewards."""
    if isinstance(worlds, Normalised):
        return Normalised(
            rewarded(worlds.worlds, reward),
            statistics=worlds.statistics,
            return_scale=worlds.return_scale,
            frozen=worlds.frozen,
        )
    return Rewarded(worlds, reward)
