"""Observations and rewards on a common scale, by running statistics that are saved with the agent.

An observation is moved by the running mean and divided by the running deviation of every
observation that a step led to (and of the first ones), then cut to within ±10. A reward is divided
by the running deviation of the discounted return so far in its episode. Rows off the mask do not
count. Returns of episodes stay in the world's own units. In evaluation the statistics are copied
and frozen, and rewards are left alone. Choices and masks of actions are no numbers on a scale: they
stay as they are.

Departure from Engstrom et al. 2020 (section 2) and common practice: until two values have been
seen, nothing is divided, as their deviation is nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plaudit.envs.stack import inner
from plaudit.envs.statistics import CLIP, EPSILON, Statistics, compiled
from plaudit.envs.worlds import Array, Transition, Worlds
from plaudit.records.errors import UserError
from plaudit.records.spaces import ObsSpec
from plaudit.records.state import Saved


class ReturnScale:
    """Divides rewards by the running deviation of the discounted return of B copies."""

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self.statistics = Statistics(1)
        self.ret = np.zeros(num_envs)

    def __call__(self, moved: Transition) -> NDArray[np.float64]:
        """R ← γR + r; clip(r / sqrt(var(R) + 1e-8), ±10); R ← 0 after a boundary."""
        _add_rewards(moved.reward, moved.mask, self.gamma, self.ret)
        self.statistics.update(self.ret[:, None], moved.mask)
        own, scaled = self.statistics, np.empty_like(moved.reward)
        _divide(moved.reward, moved.mask, moved.boundary, own.var, own.count, self.ret, scaled)
        return scaled


class Normalised:
    """Worlds whose observations, rewards or both are scaled; `frozen` statistics do not change.

    `statistics` are those of the observations, None where these stay as they are. Frozen, they are
    no part of the state: they belong to whoever learns.
    """

    def __init__(
        self,
        worlds: Worlds,
        *,
        statistics: Statistics | None,
        return_scale: ReturnScale | None,
        frozen: bool = False,
    ) -> None:
        if statistics is not None and not worlds.obs_spec.is_vector:
            raise UserError(
                "normalise_obs = true, but observations hold images, which the net scales itself"
            )
        if statistics is not None and statistics.kept is not None and statistics.kept.all():
            raise UserError(
                "normalise_obs = true, but observations are choices, which have no scale; leave it out"
            )
        self.worlds, self.frozen = worlds, frozen
        self.statistics, self.return_scale = statistics, return_scale
        self.num_envs, self.gives_state = worlds.num_envs, worlds.gives_state
        self.obs_spec, self.action_spec = worlds.obs_spec, worlds.action_spec
        self._all = np.ones(worlds.num_envs, np.bool_)

    def reset(self) -> Array:
        """Begins an episode in every copy; first observations count."""
        obs = self.worlds.reset()
        if self.statistics is None:
            return obs
        if not self.frozen:
            self.statistics.update(obs, self._all)
        return self.statistics.apply(obs)

    def step(self, actions: Array) -> Transition:
        """Acts; what the step led to counts, then all is scaled."""
        moved = self.worlds.step(actions)
        obs, next_obs, reward = moved.obs, moved.next_obs, moved.reward
        if self.statistics is not None:
            if not self.frozen:
                self.statistics.update(moved.next_obs, moved.mask)
            next_obs = self.statistics.apply(moved.next_obs)
            obs = next_obs if moved.obs is moved.next_obs else self.statistics.apply(moved.obs)
        if self.return_scale is not None:
            reward = self.return_scale(moved)
        return Transition(
            obs, next_obs, reward, moved.terminated, moved.truncated, moved.mask, moved.episodes
        )

    def state(self) -> Saved:
        """The worlds' and the statistics."""
        arrays, facts = self.worlds.state()
        kept = {f"worlds.{name}": array for name, array in arrays.items()}
        if self.statistics is not None and not self.frozen:
            kept |= _named("obs", self.statistics)
        if self.return_scale is not None:
            kept |= _named("return", self.return_scale.statistics)
            kept["return.now"] = self.return_scale.ret.copy()
        return kept, {"worlds": facts}

    def restore(self, saved: Saved) -> Array:
        """Goes on from there."""
        arrays, _ = saved
        obs = self.worlds.restore(inner(saved))
        if self.return_scale is not None:
            self.return_scale.statistics.restore(_of("return", arrays))
            now = arrays["return.now"] if self.gives_state else np.zeros(self.num_envs)
            self.return_scale.ret = np.array(now)
        if self.statistics is None:
            return obs
        if not self.frozen:
            self.statistics.restore(_of("obs", arrays))
        return self.statistics.apply(obs)

    def close(self) -> None:
        """Ends the copies."""
        self.worlds.close()


def kept_columns(spec: ObsSpec) -> NDArray[np.bool_] | None:
    """Which numbers of an observation are choices or a mask; none where there are no such."""
    parts = [np.full(piece.size, piece.kind in ("choice", "mask")) for piece in spec.pieces]
    kept = np.concatenate(parts)
    return kept if kept.any() else None


def _named(name: str, statistics: Statistics) -> dict[str, Array]:
    return {f"{name}.{key}": array for key, array in statistics.state()[0].items()}


def _of(name: str, arrays: dict[str, Array]) -> Saved:
    return {key: arrays[f"{name}.{key}"] for key in ("mean", "var", "count")}, {}


@compiled
def _add_rewards(reward: Array, mask: Array, gamma: float, ret: Array) -> None:
    for row in range(len(mask)):
        if mask[row]:
            ret[row] = gamma * ret[row] + reward[row]


@compiled
def _divide(
    reward: Array, mask: Array, boundary: Array, var: Array, count: Array, ret: Array, out: Array
) -> None:
    scale = 1.0 if count[0] < 2 else 1.0 / np.sqrt(var[0] + EPSILON)
    for row in range(len(mask)):
        out[row] = min(max(reward[row] * scale, -CLIP), CLIP) if mask[row] else 0.0
        if boundary[row]:
            ret[row] = 0.0
