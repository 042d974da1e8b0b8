"""Replay: transitions kept in a ring of arrays, drawn again in batches with n-step returns.

Each copy of the world has a stream of its own, so copies whose steps are masked at different times
never mix: row t·B + b is slot t of copy b. Returns are made when drawn: from step t of a copy over
k ≤ n of its steps,

    ret = r_t + γ·r_{t+1} + … + γ^(k−1)·r_{t+k−1},   bootstrap = γ^k · Q(next_obs_{t+k−1})

where the chain stops at the first end of an episode (inclusive) and at the newest step of the copy,
which counts as cut off. No bootstrap follows a termination; a truncation has one, from the
episode's true last observation, for `next_obs` is stored beside `obs` and never shifted out of it.

Source: Mnih et al. 2015 (replay); Sutton & Barto 2018, section 7.1 (n-step returns).
Left out: sharing the frames of stacked images and of `obs` with `next_obs`, which would save half
of the memory of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from plaudit.envs.replay_memory import check_fits
from plaudit.envs.worlds import Transition
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

STORED = ("obs", "action", "reward", "next_obs", "terminated", "truncated")


@dataclass(slots=True)
class Batch:
    """B transitions drawn from replay, or chains of up to n of them.

    The target of a value is reward + discount · Q(next_obs, …).
    """

    obs: Array
    """[B, ...]"""
    action: Array
    """[B], [B, k] or [B, d]"""
    reward: Floats
    """[B] discounted rewards of the chain, summed."""
    next_obs: Array
    """[B, ...] where the chain's last action led."""
    discount: Floats
    """[B] γ to the chain's length; 0 where it ended by termination."""
    rows: Ints
    """[B] where the chains begin in the replay."""
    weight: Floats | None = None
    """[B] importance weights, where draws are not uniform."""


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def n_step(
    rows: Ints,
    reward: Floats,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    newest: Ints,
    gamma: float,
    n: int,
) -> tuple[Floats, Floats, Ints]:
    """Return, discount of the bootstrap and last row of the chain from each of `rows`.

    rows [N]: t·B + b; reward, terminated, truncated [T·B]; newest [B]: the newest slot of each copy.
    """
    num_envs = newest.size
    num_rows = reward.size
    ret = np.empty(rows.size, np.float32)
    discount = np.empty(rows.size, np.float32)
    last = np.empty(rows.size, np.int64)
    for i in range(rows.size):
        row = rows[i]
        end = newest[row % num_envs] * num_envs + row % num_envs
        total, power = 0.0, 1.0
        for k in range(n):
            total += power * reward[row]
            power *= gamma
            if terminated[row]:
                power = 0.0
                break
            if truncated[row] or row == end or k == n - 1:
                break
            row += num_envs
            if row >= num_rows:
                row -= num_rows
        ret[i], discount[i], last[i] = total, power, row
    return ret, discount, last


class Replay:
    """The newest `capacity` transitions of B copies, drawn uniformly.

    `capacity` counts the transitions of all copies; each holds a B-th of it, rounded down.
    Raises UserError where the arrays would not fit in memory.
    """

    def __init__(
        self,
        capacity: int,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        num_envs: int,
        *,
        gamma: float,
        n: int = 1,
    ) -> None:
        if capacity < num_envs:
            raise UserError(
                f"a replay of {capacity} transitions cannot serve {num_envs} copies of a world: "
                "it needs at least one for each"
            )
        self.num_envs, self.num_slots = num_envs, capacity // num_envs
        self.gamma, self.n = float(gamma), int(n)
        check_fits(
            self.num_slots * num_envs,
            2 * prod(obs_spec.shape) * np.dtype(obs_spec.dtype).itemsize
            + prod(action_spec.shape) * np.dtype(action_spec.dtype).itemsize
            + np.dtype(np.float32).itemsize
            + 2,
        )
        slots = (self.num_slots, num_envs)
        self.obs: Array = np.empty((*slots, *obs_spec.shape), obs_spec.dtype)
        self.next_obs: Array = np.empty_like(self.obs)
        self.action: Array = np.empty((*slots, *action_spec.shape), action_spec.dtype)
        self.reward: Floats = np.empty(slots, np.float32)
        self.terminated: NDArray[np.bool_] = np.empty(slots, np.bool_)
        self.truncated: NDArray[np.bool_] = np.empty(slots, np.bool_)
        # The same memory seen as rows, which is what draws are made from.
        self._rows: dict[str, Array] = {
            name: array.reshape(-1, *array.shape[2:]) for name, array in self._arrays().items()
        }
        self._count: Ints = np.zeros(num_envs, np.int64)
        self._newest: Ints = np.full(num_envs, -1, np.int64)
        self._level: int | None = 0
        """Steps stored by every copy; none once they differ."""

    def __len__(self) -> int:
        """Transitions held."""
        if self._level is not None:
            return min(self._level, self.num_slots) * self.num_envs
        return int(np.minimum(self._count, self.num_slots).sum())

    def add(self, obs: Array, actions: Array, transition: Transition) -> None:
        """Stores one vector step from `obs` [B, ...]; rows off the mask are left out.

        Overwrites the oldest steps once full.
        """
        if self._level is not None and transition.mask.all():
            slot: Any = self._level % self.num_slots
            self._level += 1
            self._count += 1
            self._newest[:] = slot
            keep: Any = slice(None)
        else:
            self._level = None
            keep = np.flatnonzero(transition.mask)
            slot = (self._count[keep] % self.num_slots, keep)
            self._newest[keep] = slot[0]
            self._count[keep] += 1
        self.obs[slot] = obs[keep]
        self.next_obs[slot] = transition.next_obs[keep]
        self.action[slot] = actions[keep]
        self.reward[slot] = transition.reward[keep]
        self.terminated[slot] = transition.terminated[keep]
        self.truncated[slot] = transition.truncated[keep]

    def cut(self) -> None:
        """Marks the newest step of every copy as cut off, for worlds that begin anew after it."""
        held = np.flatnonzero(self._count)
        self.truncated[self._newest[held], held] = True

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """A batch drawn uniformly, with replacement, from all that is held."""
        assert len(self) > 0, "nothing is held yet"
        return self.batch(self._draw(batch_size, rng))

    def _draw(self, batch_size: int, rng: np.random.Generator) -> Ints:
        rows = rng.integers(0, len(self), batch_size)
        if self._level is not None:
            return rows
        # Copies hold different numbers of steps: which copy, then which of its slots.
        upto = np.minimum(self._count, self.num_slots).cumsum()
        env = np.searchsorted(upto, rows, side="right")
        slot = rows - np.concatenate([[0], upto])[env]
        return cast(Ints, slot * self.num_envs + env)

    def batch(self, rows: Ints) -> Batch:
        """The chains that begin at `rows` [B]."""
        held = self._rows
        reward, discount, last = n_step(
            rows,
            held["reward"],
            held["terminated"],
            held["truncated"],
            self._newest,
            self.gamma,
            self.n,
        )
        return Batch(
            held["obs"].take(rows, 0),
            held["action"].take(rows, 0),
            reward,
            held["next_obs"].take(last, 0),
            discount,
            rows,
        )

    def state(self) -> Saved:
        """All that is held, and where it was written last."""
        filled = int(min(self._count.max(), self.num_slots))
        arrays = {name: array[:filled].copy() for name, array in self._arrays().items()}
        facts = {"num_slots": self.num_slots, "level": self._level}
        return {**arrays, "count": self._count.copy()}, facts

    def restore(self, saved: Saved) -> None:
        """Holds what `saved` held. Raises UserError where this replay has another shape."""
        arrays, facts = saved
        for name, array in self._arrays().items():
            if array.shape != (facts["num_slots"], *arrays[name].shape[1:]):
                raise UserError(
                    f"the saved replay had {facts['num_slots']} slots of {name} "
                    f"{list(arrays[name].shape[1:])} and this one has {array.shape[0]} of "
                    f"{list(array.shape[1:])}: resume with the settings that it was saved with"
                )
            array[: len(arrays[name])] = arrays[name]
        self._count[:] = arrays["count"]
        self._newest[:] = (self._count - 1) % self.num_slots
        self._level = facts["level"]

    def _arrays(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in STORED}
