"""One copy of an environment: its episodes, each from a seed of its own, checked at every step.

An episode is its seed and its actions. The seed of an episode follows from the run's seed, the
copy's index and the episode's number; so a copy can be brought back to the middle of an episode by
resetting a new environment with that seed and acting as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from plaudit.envs.guard import fault, in_one_line
from plaudit.envs.spaces import ActionCodec, ObsCodec, Unfit
from plaudit.envs.worlds import Array
from plaudit.records.errors import UserError
from plaudit.records.state import Saved

TERMINATED, TRUNCATED = 1, 2

MASK = "action_mask"
"""The key of a mask, in what `reset` and `step` say beside the observation, or in a Dict of it."""

_LARGEST = np.finfo(np.float64).max


BLOCK = 256
"""Seeds made at a time: a sequence costs 5 microseconds to set up, as much as an episode's step."""


def episode_seeds(seed: int, copy: int, block: int) -> list[int]:
    """The seeds of episodes BLOCK·block and on, below 2^31 as some environments' generators need."""
    found = np.random.SeedSequence((seed, copy, block)).generate_state(BLOCK) >> 1
    return cast("list[int]", found.tolist())


class Copy:
    """An environment of a vector; `limit` cuts episodes off after so many steps.

    `remake` makes another environment for each episode, where one of them would remember the last.
    A copy is either `masked` or knows no masks; one that heeds masks refuses those that it is shown
    without having been told.
    """

    __slots__ = (
        "_block",
        "_env_step",
        "_first",
        "_is_fresh",
        "_masks",
        "_remake",
        "_seeds",
        "_write",
        "actions",
        "env",
        "episode",
        "heeds_masks",
        "index",
        "length",
        "limit",
        "name",
        "obs",
        "ret",
        "seed",
        "steps",
    )

    def __init__(
        self,
        env: Any,
        obs: ObsCodec,
        *,
        name: str,
        index: int,
        seed: int,
        limit: int | None = None,
        remake: Callable[[], Any] | None = None,
        heeds_masks: bool = True,
    ) -> None:
        self.env, self.obs = env, obs
        self.name, self.index, self.seed = name, index, seed
        self.limit = limit or 0
        self.episode, self.steps = -1, 0
        self.length, self.ret = 0, 0.0
        self.actions: list[Any] = []
        self._block, self._seeds = -1, [0]
        self._remake, self._is_fresh = remake, True
        self._first: Any = None
        self._masks: Callable[[Any], Any] | None = None
        self.heeds_masks = heeds_masks
        self._env_step = env.step
        self._write = obs.write

    def begin(self, out: Array, row: int) -> None:
        """Begins the next episode; its first observation goes to a row of `out`."""
        self.episode += 1
        self._reset(out, row)

    def look(self) -> Any:
        """What the first reset says beside its observation; `begin` begins with that reset, or
        raises what it raised."""
        self.episode += 1
        try:
            self._first = self._answer()
        except UserError as error:
            self._first = error
            return None
        finally:
            self.episode -= 1
        return self._first[1]

    def masked(self, codec: ObsCodec, wrap: Callable[[Any], Any]) -> None:
        """From now on observations come with masks: `wrap` joins them, `codec` writes both."""
        self.obs, self._write, self._masks = codec, codec.write, wrap
        self.env = wrap(self.env)
        self._env_step = self.env.step
        if self._first is not None:
            self._first = self.env.joined(self._first)

    def _reset(self, out: Array, row: int) -> None:
        self.length, self.ret, self.actions = 0, 0.0, []
        answer = self._first or self._answer()
        self._first = None
        if isinstance(answer, UserError):
            raise answer
        if self._masks is None and self.heeds_masks:
            self._check_no_mask(answer[1], "its reset")
        try:
            self._write(answer[0], out, row)
        except Unfit as error:
            raise self.fault(f"its reset gave {error}") from None

    def _answer(self) -> Any:
        """A reset's (obs, info) with the episode's seed."""
        if self._remake is not None and not self._is_fresh:
            self.env.close()
            made = self._remake()
            self.env = made if self._masks is None else self._masks(made)
            self._env_step = self.env.step
        self._is_fresh = False
        try:
            answer = self.env.reset(seed=self._episode_seed())
        except Exception as error:
            raise self.fault(f"its reset raised {in_one_line(error)}") from error
        if type(answer) is not tuple or len(answer) != 2:
            raise self.fault(f"its reset gave {_kind(answer)}; (obs, info) is expected")
        return answer

    def _check_no_mask(self, info: Any, how: str) -> None:
        if type(info) is dict and MASK in info:
            raise self.fault(
                f"{how} gave an action_mask, but {self._why_unmasked()}; action_mask false ignores it"
            )

    def _why_unmasked(self) -> str:
        kind = type(self.env.action_space).__name__
        if kind not in ("Discrete", "MultiDiscrete"):
            return f"actions of a {kind} cannot be masked"
        return "its first reset gave none, and a policy needs one in every state"

    def _episode_seed(self) -> int:
        block, place = divmod(self.episode, BLOCK)
        if block != self._block:
            self._block, self._seeds = block, episode_seeds(self.seed, self.index, block)
        return self._seeds[place]

    def step(self, action: Any, out: Array, row: int) -> tuple[float, int]:
        """Acts; the observation goes to a row of `out`; the reward, and how the episode ended."""
        self.length += 1
        self.steps += 1
        # A copy of an array: an environment may write into what it is given.
        self.actions.append(action if type(action) is int else action.tobytes())
        try:
            answer = self._env_step(action)
        except Exception as error:
            raise self.fault(f"raised {in_one_line(error)}") from error
        if type(answer) is not tuple or len(answer) != 5:
            expected = "(obs, reward, terminated, truncated, info) is expected"
            raise self.fault(f"gave {_kind(answer)}; {expected}")
        obs, reward, terminated, truncated, info = answer
        if type(reward) is not float:
            reward = self._number(reward)
        if not -_LARGEST <= reward <= _LARGEST:
            raise self.fault(f"gave the reward {reward}; a finite number is expected")
        self.ret += reward
        try:
            self._write(obs, out, row)
        except Unfit as error:
            raise self.fault(f"gave {error}") from None
        if terminated is False and truncated is False:
            return reward, TRUNCATED if self.length == self.limit else 0
        if self._masks is None and self.heeds_masks:
            self._check_no_mask(info, "its step")
        return reward, self._end(terminated, truncated)

    def _end(self, terminated: Any, truncated: Any) -> int:
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool | np.bool_):
                raise self.fault(f"gave {name} = {value!r}; True or False is expected")
        end = (TERMINATED if terminated else 0) | (TRUNCATED if truncated else 0)
        return end | (TRUNCATED if self.length == self.limit else 0)

    def _number(self, reward: Any) -> float:
        if isinstance(reward, int | float | np.number | np.bool_) or (
            isinstance(reward, np.ndarray) and reward.shape == () and reward.dtype.kind in "biuf"
        ):
            return float(reward)
        raise self.fault(f"gave the reward {reward!r}; a finite number is expected")

    def fault(self, what: str) -> UserError:
        """The sentence about this copy."""
        return fault(self.name, self.index, self.steps, what, episode_step=self.length)

    # --- going on later

    def state(self, codec: ActionCodec) -> Saved:
        """The episode's number and its actions so far."""
        if codec.plain:
            actions = np.array(self.actions, np.int64)
        else:
            rows = np.frombuffer(b"".join(self.actions), codec.space.dtype)
            actions = rows.reshape(len(self.actions), *codec.space.shape).copy()
        facts = {"episode": self.episode, "steps": self.steps}
        return {"actions": actions, "return": np.array([self.ret])}, facts

    def restore(
        self, saved: Saved, codec: ActionCodec, out: Array, row: int, tick: Callable[[], None]
    ) -> None:
        """Begins that episode again and acts as then; the observation goes to a row of `out`.

        `tick` is called before each step, so that a clock knows one from the next.
        """
        arrays, facts = saved
        actions = arrays["actions"]
        self.episode = int(facts["episode"])
        self.steps = int(facts["steps"]) - len(actions)
        tick()
        self._first = None
        self._reset(out, row)
        end = 0
        for action in actions.tolist() if codec.plain else codec.each(actions.copy()):
            if end:
                raise self.unrepeated()
            tick()
            _, end = self.step(action, out, row)
        if end or self.ret != arrays["return"][0]:
            raise self.unrepeated()

    def unrepeated(self) -> UserError:
        """The sentence where the same seed and actions led elsewhere."""
        return self.fault(
            "led elsewhere than before with the same seed and actions, so that the run cannot go on"
            " exactly; reset(seed=...) must decide everything in an episode"
        )

    def render(self) -> Any:
        """A picture, or None."""
        return self.env.render()

    def close(self) -> None:
        """Ends the environment."""
        self.env.close()


def _kind(answer: Any) -> str:
    """What came in place of a tuple."""
    if isinstance(answer, tuple):
        return f"a tuple of {len(answer)}"
    return f"a {type(answer).__name__}" if answer is not None else "None"
