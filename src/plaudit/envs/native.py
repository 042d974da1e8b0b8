"""An environment's own vector form, in each of Gymnasium's three ways to begin a new episode.

NEXT_STEP: the step after an episode's end ignores its action and only resets; its row is off the
mask. SAME_STEP: the step that ends an episode begins the next one, and gives the last observation
as `final_obs`. DISABLED: we begin the next one by a reset with a mask. `metadata` must say which it
is: the three cannot be told apart from outside.

Episodes under way cannot be saved, as copies draw from one generator between them: after `restore`
all begin anew, with another seed than before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from plaudit.envs.copies import MASK
from plaudit.envs.guard import Clock, Hung, fault, in_one_line, is_finite
from plaudit.envs.masks import MaskedCodec, Seen, has_mask, info_of_row, place_by_spaces
from plaudit.envs.spaces import ObsCodec, Unfit, action_codec, obs_codec
from plaudit.envs.worlds import Array, Episode, Transition, check_kind
from plaudit.records.errors import UserError
from plaudit.records.state import Saved

Flags = NDArray[np.bool_]

UNTOLD = "which its first did not, or which its actions cannot have"


class Native:
    """Worlds that are one Gymnasium VectorEnv."""

    gives_state = False
    statistics = None

    def __init__(
        self, env: Any, *, name: str, seed: int, timeout: float, heeds_masks: bool = True
    ) -> None:
        self.env, self.num_envs = env, int(env.num_envs)
        self._name, self._seed = name, seed
        self._mode = _mode(env, name)
        self._actions = action_codec(env.single_action_space)
        self._clock = Clock(timeout)
        self._resets, self._steps = 0, 0
        self._none, self._all = np.zeros(self.num_envs, np.bool_), np.ones(self.num_envs, np.bool_)
        self._none.flags.writeable = self._all.flags.writeable = False
        self._first: Any = None
        self._heeds_masks = heeds_masks
        self._masks = self._masked_codec() if heeds_masks else None
        self._obs: ObsCodec = self._masks or obs_codec(env.single_observation_space)
        self.obs_spec, self.action_spec = self._obs.spec, self._actions.spec
        self._clear()

    def _masked_codec(self) -> MaskedCodec | None:
        """The codec of an environment that masks actions, by its spaces or by its first reset."""
        where = self.env.single_observation_space, self.env.single_action_space
        place = place_by_spaces(*where, self._name)
        if place is None:
            self._first = self._begun()
            place = "info" if has_mask(self._first[1]) else "none"
        return None if place == "none" else MaskedCodec(*where, place)

    def _clear(self) -> None:
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._ret = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)

    def reset(self) -> Array:
        """Begins an episode in every copy, with a seed that follows from how many resets were."""
        self._clear()
        obs, infos = self._first or self._begun()
        self._first = None
        self._resets += 1
        if self._masks is None and self._heeds_masks and has_mask(infos):
            raise self._fault(
                None, f"its reset gave an {MASK}, {UNTOLD}; action_mask false ignores it"
            )
        return self._encoded(obs, "its reset gave", infos, self._none)

    def _begun(self) -> Any:
        """What the environment's next reset answers."""
        sequence = np.random.SeedSequence((self._seed, self._resets))
        seed = int(sequence.generate_state(1)[0] >> 1)
        self._clock.start()
        return self._call("its reset", 2, self.env.reset, seed=seed)

    def step(self, actions: Array) -> Transition:
        """Acts in every copy."""
        self._steps += 1
        answer = self._call("its step", 5, self.env.step, self._actions.batch(actions))
        seen, reward, terminated, truncated, infos = answer
        # The last state of all needs no mask; with SAME_STEP it is not what is seen.
        shows_last = self._mode is not AutoresetMode.SAME_STEP and self._masks is not None
        last = self._flags("terminated", terminated) if shows_last else self._none
        obs = self._encoded(seen, "gave", infos, last)
        reward = self._rewards(reward)
        terminated = self._flags("terminated", terminated)
        truncated = self._flags("truncated", truncated)
        if self._mode is AutoresetMode.NEXT_STEP:
            return self._next_step(obs, reward, terminated, truncated)
        ended = terminated | truncated
        episodes = self._counted(reward, ended, self._all)
        next_obs = obs
        if episodes and self._mode is AutoresetMode.SAME_STEP:
            next_obs = self._with_final(obs, infos, ended, terminated)
        elif episodes:
            obs = self._with_first(obs, ended)
        return Transition(obs, next_obs, reward, terminated, truncated, self._all, episodes)

    def _next_step(
        self, obs: Array, reward: Array, terminated: Flags, truncated: Flags
    ) -> Transition:
        """Rows of copies that had ended are no transitions: they only show the new episode."""
        mask = ~self._ended
        terminated, truncated = terminated & mask, truncated & mask
        reward = np.where(mask, reward, 0.0)
        self._ended = terminated | truncated
        episodes = self._counted(reward, self._ended, mask)
        return Transition(obs, obs, reward, terminated, truncated, mask, episodes)

    def _with_final(self, obs: Array, infos: Any, ended: Flags, terminated: Flags) -> Array:
        """The observations that the steps led to, where episodes ended taken from `final_obs`."""
        final = infos.get("final_obs") if isinstance(infos, dict) else None
        said_last = infos.get("final_info") if isinstance(infos, dict) else None
        next_obs = obs.copy()
        for row in np.flatnonzero(ended).tolist():
            try:
                if final is None or final[row] is None:
                    raise Unfit("no final_obs with the end of an episode, as SAME_STEP needs")
                shown = final[row]
                if self._masks is not None:
                    shown = Seen(shown, info_of_row(said_last, row), bool(terminated[row]))
                self._obs.write(shown, next_obs, row)
            except Unfit as error:
                raise self._fault(row, f"gave {error}") from None
        return self._checked(next_obs, "gave a final_obs:")

    def _with_first(self, obs: Array, ended: Flags) -> Array:
        """The observations to act on next, where episodes ended of new ones."""
        options = {"reset_mask": ended}
        first, infos = self._call("its reset", 2, self.env.reset, options=options)
        begun = self._encoded(first, "its reset gave", infos, ~ended)
        begun[~ended] = obs[~ended]
        return begun

    def _counted(self, reward: Array, ended: Flags, mask: Flags) -> list[Episode]:
        self._ret += reward
        self._length += mask
        rows = np.flatnonzero(ended)
        if not len(rows):
            return []
        found = [Episode(int(i), float(self._ret[i]), int(self._length[i])) for i in rows]
        self._ret[rows], self._length[rows] = 0.0, 0
        return found

    # --- checks

    def _call(self, what: str, size: int, function: Any, *args: Any, **named: Any) -> Any:
        self._clock.count += 1
        self._clock.busy = True
        try:
            answer = function(*args, **named)
        except Hung:
            within = f"within {self._clock.timeout:g} s (step_timeout)"
            raise self._fault(None, f"{what} did not answer {within}") from None
        except Exception as error:
            raise self._fault(None, f"{what} raised {in_one_line(error)}") from error
        finally:
            self._clock.busy = False
        if not isinstance(answer, tuple) or len(answer) != size:
            raise self._fault(None, f"{what} gave no tuple of {size}")
        return answer

    def _encoded(self, obs: Any, how: str, infos: Any, needless: Flags) -> Array:
        """Rows that are `needless` may lack a mask, where there are masks."""
        try:
            if self._masks is not None:
                found = self._masks.encode_masked(obs, infos, self.num_envs, needless)
            else:
                found = self._obs.encode_batch(obs, self.num_envs)
        except Unfit as error:
            raise self._fault(error.row, f"{how} {error}") from None
        return self._checked(found, how)

    def _checked(self, obs: Array, how: str) -> Array:
        if not is_finite(obs):
            row, place = np.argwhere(~np.isfinite(obs.reshape(self.num_envs, -1)))[0]
            value = obs.reshape(self.num_envs, -1)[row, place]
            what = f"{how} an observation with {value} at place {place}"
            raise self._fault(int(row), f"{what}; finite numbers are expected")
        return obs

    def _rewards(self, reward: Any) -> Array:
        try:
            found = np.array(reward, np.float64)
        except (TypeError, ValueError):
            found = np.empty(0)
        if found.shape != (self.num_envs,):
            raise self._fault(None, f"gave no {self.num_envs} rewards that are numbers")
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found))[0])
            what = f"gave the reward {found[row]}; a finite number is expected"
            raise self._fault(row, what)
        return found

    def _flags(self, name: str, flags: Any) -> Flags:
        found = np.array(flags)
        if found.shape != (self.num_envs,) or found.dtype != np.bool_:
            expected = f"{self.num_envs} booleans are expected"
            raise self._fault(None, f"gave {name} of shape {found.shape}; {expected}")
        return found

    def _fault(self, env: int | None, what: str) -> UserError:
        which = what if env is not None else f"one of its {self.num_envs} environments: {what}"
        return fault(self._name, env, self._steps, which)

    # --- going on later

    def state(self) -> Saved:
        """How many resets and steps there were."""
        return {}, {"resets": self._resets, "steps": self._steps}

    def restore(self, saved: Saved) -> Array:
        """Begins other episodes than before."""
        check_kind(saved[1], "resets")
        self._first = None
        self._resets, self._steps = int(saved[1]["resets"]), int(saved[1]["steps"])
        return self.reset()

    def close(self) -> None:
        """Ends the copies."""
        self._clock.stop()
        self.env.close()


def _mode(env: Any, name: str) -> AutoresetMode:
    said_mode = (env.metadata or {}).get("autoreset_mode")
    if isinstance(said_mode, AutoresetMode):
        return said_mode
    known = ", ".join(mode.name for mode in AutoresetMode)
    raise UserError(
        f"{name}: the metadata of its vector form say autoreset_mode = {said_mode!r}, which is none"
        f" of {known}; vector = sync steps copies instead"
    )
