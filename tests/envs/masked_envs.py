"""An environment that masks its actions, and raises where one off the mask is taken.

Register by path: `masked_envs.py:Barred-v0` (info), `...:BarredDict-v0` (Dict observation).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NUM_STATES, NUM_ACTIONS = 7, 4
LAST = NUM_STATES
"""The state in which episodes terminate; there nothing is allowed."""

ALLOWED = np.array(
    [
        [1, 0, 0, 0],
        [0, 1, 1, 0],
        [1, 1, 1, 1],
        [0, 0, 0, 1],
        [1, 0, 0, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ],
    np.int8,
)
PAIR = (2, 3)
PAIR_ALLOWED = np.array(
    [
        [1, 0, 0, 0, 1],
        [0, 1, 1, 0, 0],
        [1, 1, 1, 1, 1],
        [0, 1, 0, 1, 1],
        [1, 0, 1, 0, 1],
        [0, 1, 1, 1, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    np.int8,
)
"""[states, 2 + 3] for a MultiDiscrete of 2 and 3."""


class Barred(gymnasium.Env):
    """A walk at random over seven states, one in ten steps its last, one in ten cut off.

    `place` info, obs, or parts (a Dict with two observations beside the mask); `form` one, pair or
    tuple; `last` says what a terminal state has for a mask: empty, missing or full. From its step
    number `since` on the mask is `wrong`.
    """

    def __init__(
        self,
        place: str = "info",
        form: str = "one",
        last: str = "empty",
        wrong: str = "no",
        since: int = 0,
        start: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.place, self.form, self.last = place, form, last
        self.wrong, self.since = wrong, since
        self.start, self.render_mode = start, render_mode
        self.table = ALLOWED if form == "one" else PAIR_ALLOWED
        state = spaces.Discrete(NUM_STATES + 1)
        mask = spaces.Box(0, 1, (self.table.shape[1],), np.int8)
        self.observation_space = {
            "info": state,
            "obs": spaces.Dict({"observation": state, "action_mask": mask}),
            "parts": spaces.Dict(
                {"action_mask": mask, "at": state, "clock": spaces.Box(0, 1, (1,))}
            ),
        }[place]
        one = spaces.Discrete(NUM_ACTIONS, start=start)
        self.action_space = one if form == "one" else spaces.MultiDiscrete(PAIR)
        self.at = self.time = 0

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(NUM_STATES))
        return self._seen(), self._info()

    def step(self, action):
        self._check(action)
        self.time += 1
        luck = self.np_random.random()
        terminated, truncated = bool(luck < 0.1), bool(0.1 <= luck < 0.2)
        self.at = LAST if terminated else int(self.np_random.integers(NUM_STATES))
        return self._seen(), float(np.sum(action)), terminated, truncated, self._info()

    def _check(self, action: Any) -> None:
        allowed = self.table[self.at]
        if self.form == "one":
            right = allowed[int(action) - self.start]
        else:
            right = allowed[int(action[0])] and allowed[2 + int(action[1])]
        if not right:
            raise RuntimeError(f"{action} is barred in {self.at}")

    def mask(self) -> Any:
        mask = self.table[self.at].copy()
        if self.at == LAST and self.last == "full":
            mask[:] = 1
        if self.wrong != "no" and self.time >= self.since:
            return {
                "shape": mask[:-1],
                "dtype": mask.astype(np.float64),
                "value": mask * 2,
                "empty": mask * 0,
                "text": "all",
                "ragged": [[1], [1, 2]],
                "missing": None,
            }[self.wrong]
        return (mask[:2], mask[2:]) if self.form == "tuple" else mask

    def _info(self) -> dict[str, Any]:
        if self.place != "info" or (self.at == LAST and self.last == "missing"):
            return {}
        mask = self.mask()
        return {} if mask is None else {"action_mask": mask}

    def _seen(self) -> Any:
        if self.place == "info":
            return self.at
        if self.place == "obs":
            return {"observation": self.at, "action_mask": self.mask()}
        clock = np.array([self.time / 1e6], np.float32)
        return {"action_mask": self.mask(), "at": self.at, "clock": clock}

    def render(self):
        return np.full((8, 8, 3), 20 * self.at, np.uint8)


if "Barred-v0" not in gymnasium.registry:
    gymnasium.register(id="Barred-v0", entry_point=Barred, max_episode_steps=25)
    gymnasium.register(
        id="BarredDict-v0", entry_point=Barred, kwargs={"place": "obs"}, max_episode_steps=25
    )
