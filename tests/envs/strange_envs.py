"""Environments for tests: one that counts, some that misbehave; `strange_envs.py:Counting-v0`."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

TERMINATE, TRUNCATE, BOTH = 1, 2, 3


class Counting(gymnasium.Env):
    """Shows [episode, step in it] and rewards 10·episode + step; actions say how it ends.

    Action 0 goes on, 1 terminates, 2 truncates, 3 does both at once. Episodes are counted over the
    life of the environment, so that an observation says to which one it belongs.
    """

    observation_space = spaces.Box(0, 1000, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self) -> None:
        self.episode = self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.time = 0
        return self._seen(), {}

    def step(self, action):
        self.time += 1
        ends = action in (TERMINATE, BOTH), action in (TRUNCATE, BOTH)
        return self._seen(), 10.0 * self.episode + self.time, *ends, {}

    def _seen(self):
        return np.array([self.episode, self.time], np.float32)


class Drawing(gymnasium.Env):
    """Every observation and reward is drawn; about one step in ten ends the episode."""

    def __init__(self, kind: str = "vector") -> None:
        shapes = {
            "vector": spaces.Box(-10, 10, (3,), np.float64),
            "image": spaces.Box(0, 255, (5, 4, 3), np.uint8),
            "mixture": spaces.Dict(
                {
                    "seen": spaces.Box(0, 255, (5, 4, 3), np.uint8),
                    "at": spaces.Discrete(4, start=2),
                }
            ),
        }
        self.observation_space = shapes[kind]
        self.action_space = spaces.Box(
            np.array([-1.0, 2.0], np.float32), np.array([1.0, 5.0], np.float32)
        )
        self.kind = kind
        self.total = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total = 0.0
        return self._seen(), {}

    def step(self, action):
        self.total += float(action.sum())
        action[:] = 0  # an environment may write into what it is given
        reward = self.np_random.normal() + self.total
        ends = self.np_random.random(2) < 0.05
        return self._seen(), reward, bool(ends[0]), bool(ends[1]), {}

    def _seen(self):
        image = self.np_random.integers(0, 256, (5, 4, 3), np.uint8)
        if self.kind == "image":
            return image
        if self.kind == "mixture":
            return {"seen": image, "at": self.np_random.integers(2, 6)}
        return self.np_random.normal(size=3)


class Misbehaving(gymnasium.Env):
    """Action 1 makes it misbehave as `how` says; otherwise it shows [step, step]."""

    observation_space = spaces.Box(-10000, 10000, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, how: str, sleep: float = 60.0) -> None:
        self.how, self.sleep = how, sleep
        self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        if self.how == "reset gives no tuple":
            return self._seen()
        if self.how == "reset raises":
            raise RuntimeError("no licence\nleft")
        if self.how == "reset gives nan":
            return np.array([0, np.nan], np.float32), {}
        return self._seen(), {}

    def _seen(self):
        return np.full(2, self.time, np.float32)

    def step(self, action):
        self.time += 1
        right = (self._seen(), 1.0, False, False, {})
        return self._wrong(right) if action == 1 else right

    def _wrong(self, right: Any) -> Any:
        obs, reward, _, _, info = right
        if self.how == "raises":
            raise ZeroDivisionError("the cart left\nthe track")
        if self.how == "hangs":
            time.sleep(self.sleep)
        if self.how == "spins":
            until = time.monotonic() + self.sleep
            while time.monotonic() < until:
                pass
        if self.how == "dies":
            os._exit(3)
        answers = {
            "nan reward": (obs, float("nan"), False, False, info),
            "inf reward": (obs, -np.inf, False, False, info),
            "text reward": (obs, "1.0", False, False, info),
            "no reward": (obs, None, False, False, info),
            "array reward": (obs, np.ones(1), False, False, info),
            "nan obs": (np.array([0, np.nan], np.float32), reward, False, False, info),
            "inf obs": (np.array([np.inf, 0], np.float32), reward, False, False, info),
            "wide obs": (np.zeros(3, np.float32), reward, False, False, info),
            "narrow obs": (np.zeros(1, np.float32), reward, False, False, info),
            "scalar obs": (0.0, reward, False, False, info),
            "text obs": (np.array(["a", "b"]), reward, False, False, info),
            "complex obs": (np.zeros(2, np.complex64), reward, False, False, info),
            "no obs": (None, reward, False, False, info),
            "four": (obs, reward, False, info),
            "none": None,
            "text flag": (obs, reward, "no", False, info),
            "no flag": (obs, reward, False, None, info),
        }
        return answers.get(self.how, right)


class Forgetful(Counting):
    """Takes no notice of its seed: a generator of its own draws the first step's number."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = time.perf_counter_ns() % 997
        return self._seen(), {}


class Moody(Counting):
    """Shows what its seed says, but rewards by the clock."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.episode = 1
        return obs * 0, info

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(time.perf_counter_ns() % 997), *rest


class Painted(Counting):
    """Counting with a picture of 7 × 9 pixels, whose brightness is the step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((7, 9, 3), 20 * self.time, np.uint8) if self.render_mode else None


class Blank(Painted):
    """Draws nothing, though it says it does."""

    def render(self):
        return None


ENVIRONMENTS = {
    "Blank-v0": Blank,
    "Counting-v0": Counting,
    "Drawing-v0": Drawing,
    "Misbehaving-v0": Misbehaving,
    "Forgetful-v0": Forgetful,
    "Moody-v0": Moody,
    "Painted-v0": Painted,
}
for name, entry_point in ENVIRONMENTS.items():
    if name not in gymnasium.registry:
        gymnasium.register(id=name, entry_point=entry_point)
if "Limited-v0" not in gymnasium.registry:
    gymnasium.register(id="Limited-v0", entry_point=Counting, max_episode_steps=3)
if "NeedsBox2D-v0" not in gymnasium.registry:

    def lacking(**options: Any) -> Any:
        """As Gymnasium's Box2D environments do without their library."""
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed, pip install it")

    gymnasium.register(id="NeedsBox2D-v0", entry_point=lacking)
if "OnlyNative-v0" not in gymnasium.registry:

    def many(num_envs: int, **options: Any) -> Any:
        """A vector form where there is no single one."""
        return gymnasium.vector.SyncVectorEnv([Counting] * num_envs)

    gymnasium.register(id="OnlyNative-v0", vector_entry_point=many)
