"""Fresh experience for on-policy learning: some steps of every copy, laid out copy by copy.

Only what the world said is kept: log-probabilities and values are computed afterwards for all steps
at once, which costs less than a forward of the critic at each step and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.worlds import Array, Episode, Worlds

Act: TypeAlias = Callable[[Array], Array]


@dataclass
class Experience:
    """T steps of B copies: arrays [B, T, ...], time second.

    `last_obs` [B, ...] is what to act on next. `final_at` holds the (copy, time) pairs [K, 2] of the
    boundaries inside, `final_obs` [K, ...] the observations that those steps led to.
    """

    obs: Array
    action: Array
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    boundary: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    last_obs: Array
    final_at: NDArray[np.int64]
    final_obs: Array
    episodes: list[Episode] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """Steps that count."""
        return int(np.count_nonzero(self.mask))

    def all_obs(self) -> Array:
        """Every observation that a critic must judge: [B·T + B + K, ...], for `values_of`."""
        rows = self.obs.reshape(-1, *self.obs.shape[2:])
        return np.concatenate((rows, self.last_obs, self.final_obs))

    def values_of(self, judged: NDArray[np.float32]) -> tuple[Array, Array]:
        """(value, next_value) [B, T] from the values [B·T + B + K] of `all_obs`.

        next_value_t is the value of what step t led to: the next observation, and at a boundary the
        last one of its own episode, never the first one of the next.
        """
        num_envs, num_steps = self.reward.shape
        value = judged[: num_envs * num_steps].reshape(num_envs, num_steps)
        last = judged[num_envs * num_steps :][:num_envs]
        next_value = np.empty_like(value)
        next_value[:, :-1] = value[:, 1:]
        next_value[:, -1] = last
        copy, time = self.final_at.T
        next_value[copy, time] = judged[num_envs * num_steps + num_envs :]
        return value, next_value


def as_drawn(action: Array) -> Array:
    """The action as the policy drew it, where every such action may be done."""
    return action


def collect(
    worlds: Worlds, act: Act, obs: Array, num_steps: int, *, to_env: Act = as_drawn
) -> Experience:
    """Acts `num_steps` times in every copy, beginning on `obs` [B, ...].

    Kept is the action as it was drawn; the world is given `to_env` of it (within its bounds).
    """
    num_envs, spec = worlds.num_envs, worlds.action_spec
    seen = np.empty((num_envs, num_steps, *obs.shape[1:]), obs.dtype)
    action = np.empty((num_envs, num_steps, *spec.shape), spec.dtype)
    reward = np.empty((num_envs, num_steps), np.float32)
    terminated, boundary, mask = (np.empty((num_envs, num_steps), np.bool_) for _ in range(3))
    final_at: list[tuple[int, int]] = []
    final_obs: list[Array] = []
    episodes: list[Episode] = []
    for t in range(num_steps):
        seen[:, t] = obs
        action[:, t] = chosen = act(obs)
        moved = worlds.step(to_env(chosen))
        reward[:, t] = moved.reward
        terminated[:, t] = moved.terminated
        boundary[:, t] = ends = moved.boundary
        mask[:, t] = moved.mask
        if moved.episodes or ends.any():
            episodes += moved.episodes
            for copy in np.flatnonzero(ends):
                final_at.append((int(copy), t))
                final_obs.append(moved.next_obs[copy])
        obs = moved.obs
    return Experience(
        seen,
        action,
        reward,
        terminated,
        boundary,
        mask,
        obs,
        np.array(final_at, np.int64).reshape(-1, 2),
        np.array(final_obs, obs.dtype).reshape(-1, *obs.shape[1:]),
        episodes,
    )
