"""Closed worlds with masks of actions, and what is optimal in them.

By path they are `tests/control/masked_worlds.py:ID`.

    Mirage-v0    what an action pays elsewhere makes it look good where it is not allowed
    Maze-v0      random rewards, moves and masks, for value iteration
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from control.closed_worlds import Floats, Step, TableWorld


class MaskedWorld(TableWorld):
    """A `TableWorld` whose state says which actions are allowed; it raises at any other."""

    allowed: np.ndarray

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        obs, _ = super().reset(seed=seed, options=options)
        return obs, {"action_mask": self.allowed[self.at].astype(np.int8)}

    def step(self, action: Any) -> Step:
        if not self.allowed[self.at, action]:
            raise RuntimeError(f"{action} is barred in {self.at}")
        *answer, _ = super().step(action)
        return *answer, {"action_mask": self.allowed[self.at].astype(np.int8)}


class Mirage(MaskedWorld):
    """Two states, A and B; in A action 2 pays 10 and ends, 0 pays 0 and ends. In B action 1 pays 1
    and ends, 0 waits; 2 is barred. V* = (10, 1), Q*(B, wait) = γ.

    A net that shares anything between A and B (a bias) values 2 in B, which nothing corrects. Who
    lets a target hold it takes waiting for worth several points and waits for ever.
    """

    def __init__(self) -> None:
        to_end, stay = [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]
        transition = [[to_end, stay, to_end], [to_end, to_end, to_end], [to_end, to_end, to_end]]
        reward = [[0.0, 0.0, 10.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
        super().__init__(transition, reward, [0.5, 0.5, 0.0], ends=(2,))
        self.allowed = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0]], bool)


class Maze(MaskedWorld):
    """Five states and an end, four actions, all drawn; what is barred would pay 50."""

    def __init__(self) -> None:
        rng = np.random.default_rng(12)
        transition = rng.dirichlet(np.full(6, 0.4), (4, 6))
        transition[:, 5] = np.eye(6)[5]
        self.allowed = rng.random((6, 4)) < 0.6
        self.allowed[:5, 0] |= ~self.allowed[:5].any(1)
        self.allowed[5] = False
        reward = np.where(self.allowed, rng.uniform(-1, 1, (6, 4)), 50.0)
        reward[5] = 0.0
        super().__init__(transition, reward, [0.2] * 5 + [0.0], ends=(5,))


def optimal_values(world: MaskedWorld, gamma: float) -> Floats:
    """Q* [S, A] by value iteration over allowed actions, in float64; −inf where barred."""
    q = np.zeros_like(world.reward)
    for _ in range(2000):
        best = np.where(world.allowed, q, -np.inf).max(1)
        best[list(world.ends)] = 0.0
        q = world.reward + gamma * np.einsum("asn,n->sa", world.transition, best)
    return np.where(world.allowed, q, -np.inf)


if "Mirage-v0" not in gym.registry:
    gym.register(id="Mirage-v0", entry_point=Mirage, max_episode_steps=8)
    gym.register(id="Maze-v0", entry_point=Maze, max_episode_steps=20)
