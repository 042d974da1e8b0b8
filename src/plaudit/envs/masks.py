"""Which actions an environment allows, read beside its observation.

A mask lies in `info["action_mask"]` (Gymnasium) or in a Dict observation under that key
(PettingZoo): for Discrete(n) an array [n], for MultiDiscrete one array with all choices one after
another or a tuple with one each; true or 1 where allowed. It becomes the last columns of the encoded
observation, so that whatever keeps or compares observations keeps and compares the mask of the same
state. A terminated state needs no mask: where it has none, or one that allows nothing, all is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from plaudit.envs.copies import MASK
from plaudit.envs.spaces import ObsCodec, Unfit, as_array, follow, obs_codec
from plaudit.envs.worlds import Array
from plaudit.records.errors import UserError
from plaudit.records.spaces import ObsSpec, Piece

Place = Literal["none", "info", "obs"]
"""Where an environment's masks lie."""


class Seen(NamedTuple):
    """An observation, what was said beside it, and whether it was the last one of all."""

    obs: Any
    info: Any
    terminated: bool


class MaskedEnv:
    """An environment whose observations are `Seen`."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_env"], name)

    def reset(self, *, seed: int | None = None) -> Any:
        """(Seen, info), or what the environment answers that is no such pair."""
        answer = self._env.reset(seed=seed)
        return self.joined(answer) if type(answer) is tuple and len(answer) == 2 else answer

    @staticmethod
    def joined(answer: tuple[Any, Any]) -> tuple[Seen, Any]:
        """A reset's answer with its observation as `Seen`."""
        return Seen(answer[0], answer[1], False), answer[1]

    def step(self, action: Any) -> Any:
        """The step's answer with its observation as `Seen`."""
        answer = self._env.step(action)
        if type(answer) is not tuple or len(answer) != 5:
            return answer
        obs, reward, terminated, truncated, info = answer
        is_last = isinstance(terminated, bool | np.bool_) and bool(terminated)
        return Seen(obs, info, is_last), reward, terminated, truncated, info


class MaskedCodec(ObsCodec):
    """Writes `Seen`: the observation's columns as without a mask, then the mask's."""

    def __init__(self, space: Any, action_space: Any, place: Place) -> None:
        self.space, self.place = space, place
        self.sizes = mask_sizes(action_space)
        self.key: str | None = None
        if place == "obs":
            rest = [key for key in space.spaces if key != MASK]
            self.key = rest[0] if len(rest) == 1 else None
            inner = {key: space.spaces[key] for key in rest}
            space = inner[self.key] if self.key is not None else spaces.Dict(inner)
        self.codec = obs_codec(space)
        inner_spec = self.codec.spec
        self._num_columns = prod(inner_spec.shape)
        self._num_actions = sum(self.sizes)
        piece = Piece(MASK, "mask", (self._num_actions,))
        shape = (self._num_columns + self._num_actions,)
        self.spec = ObsSpec(shape, inner_spec.dtype, (*inner_spec.pieces, piece))

    def write(self, obs: Any, out: Array, row: int) -> None:
        seen: Seen = obs
        flat = out[row]
        shaped = flat[: self._num_columns].reshape(1, *self.codec.spec.shape)
        self.codec.write(self._rest(seen.obs), shaped, 0)
        self._write_mask(self._mask(seen), flat[self._num_columns :], seen.terminated)

    def encode_masked(
        self, obs: Any, infos: Any, num_envs: int, needless: NDArray[np.bool_]
    ) -> Array:
        """What a vector environment shows [B, ...]; rows that are `needless` may lack a mask."""
        out = np.empty((num_envs, *self.spec.shape), self.spec.dtype)
        inner = self.codec.encode_batch(self._rest(obs), num_envs)
        out[:, : self._num_columns] = inner.reshape(num_envs, -1)
        masks = self._mask(Seen(obs, infos, False))
        there = infos.get(f"_{MASK}") if self.place == "info" and isinstance(infos, dict) else None
        for row in range(num_envs):
            is_there = masks is not None and (there is None or there[row])
            try:
                mask = _of_row(masks, row) if is_there else None
                self._write_mask(mask, out[row, self._num_columns :], bool(needless[row]))
            except Unfit as error:
                error.row = row
                raise
            except (IndexError, KeyError, TypeError):
                raise Unfit(f"an {MASK} that has no row {row}") from None
        return out

    def _rest(self, obs: Any) -> Any:
        return obs if self.key is None else follow(obs, (self.key,))

    def _mask(self, seen: Seen) -> Any:
        where = seen.obs if self.place == "obs" else seen.info
        return where.get(MASK) if isinstance(where, Mapping) else None

    def _write_mask(self, mask: Any, flat: Array, is_needless: bool) -> None:
        if mask is None:
            if not is_needless:
                raise Unfit(f"no {MASK} in its {self._where}, where its first reset had one")
            flat[:] = 1
            return
        flat[:] = self._checked(mask)
        begin = 0
        for choice, size in enumerate(self.sizes):
            if not flat[begin : begin + size].any():
                if not is_needless:
                    which = "" if len(self.sizes) == 1 else f" of choice {choice}"
                    raise Unfit(
                        f"an {MASK} that allows none of {size} actions{which}; "
                        "at least one is expected where the episode goes on"
                    )
                flat[begin : begin + size] = 1
            begin += size

    @property
    def _where(self) -> str:
        return "info" if self.place == "info" else "observation"

    def _checked(self, mask: Any) -> Array:
        if isinstance(mask, tuple | list) and len(self.sizes) > 1 and len(mask) == len(self.sizes):
            parts = [self._of_size(part, size) for part, size in zip(mask, self.sizes, strict=True)]
            return np.concatenate(parts)
        return self._of_size(mask, self._num_actions)

    def _of_size(self, mask: Any, size: int) -> Array:
        try:
            found = as_array(mask)
        except Unfit:
            raise Unfit(f"an {MASK} that is no array of {size} booleans") from None
        if found.shape != (size,):
            raise Unfit(f"an {MASK} of shape {found.shape}, not {(size,)}")
        if found.dtype.kind not in "biu":
            raise Unfit(
                f"an {MASK} of dtype {found.dtype}; booleans, or integers 0 and 1, are expected"
            )
        if found.dtype.kind != "b" and ((found != 0) & (found != 1)).any():
            odd = found[(found != 0) & (found != 1)][0]
            raise Unfit(f"an {MASK} with {odd} in it; 0 and 1 are expected")
        return found


def _of_row(masks: Any, row: int) -> Any:
    """A row of batched masks; of a tuple of arrays, those of its choices."""
    if isinstance(masks, tuple):
        return tuple(part[row] for part in masks)
    return masks[row]


def mask_sizes(action_space: Any) -> tuple[int, ...]:
    """The numbers of actions that a mask speaks of, choice after choice; () where none can."""
    if isinstance(action_space, spaces.Discrete):
        return (int(action_space.n),)
    if isinstance(action_space, spaces.MultiDiscrete):
        return tuple(map(int, action_space.nvec.reshape(-1)))
    return ()


def place_by_spaces(space: Any, action_space: Any, name: str) -> Place | None:
    """Where masks lie as far as the spaces say it; none where only a reset can."""
    sizes = mask_sizes(action_space)
    if not sizes:
        return "none"
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return None
    found = space.spaces[MASK]
    if isinstance(found, spaces.Tuple):
        shapes: Any = tuple(part.shape for part in found.spaces)
        expected: Any = tuple((size,) for size in sizes)
    else:
        shapes, expected = found.shape, (sum(sizes),)
    if shapes != expected:
        raise UserError(
            f"{name}: the {MASK} of its observations has the shape {shapes}, but its actions need "
            f"{expected}; action_mask false takes it for an ordinary part of the observation"
        )
    return "obs"


def has_mask(info: Any) -> bool:
    """Whether what a reset said holds a mask."""
    return isinstance(info, Mapping) and MASK in info


def info_of_row(infos: Any, row: int) -> Any:
    """The mask in a vector environment's `final_info`, as one environment says it."""
    if isinstance(infos, Mapping):  # an array for each key, and which rows it speaks of
        there = infos.get(f"_{MASK}")
        if MASK not in infos or (there is not None and not there[row]):
            return {}
        return {MASK: _of_row(infos[MASK], row)}
    return infos[row] if infos is not None else {}
