"""From what a Gymnasium environment shows and takes to arrays of `ObsSpec` and `ActionSpec`.

Numbers become float32, a choice among n its number from 0, Dict and Tuple their pieces one after
another; a uint8 image alone stays uint8 with its channels first. A space that shows nothing is the
number 1. Nothing is scaled, clipped or filled: what does not fit its space raises `Unfit`, to which
the caller adds where it happened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import prod
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from plaudit.envs.worlds import Array
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec, Piece

MOST_CHOICES = 2**24
"""Up to here a float32 holds every whole number."""


class Unfit(ValueError):
    """An observation that its space does not allow; the message says found and expected."""

    row: int | None = None
    """Whose it was, where it is known to be one of several."""


class Leaf(Protocol):
    """One piece of an observation."""

    piece: Piece

    def fill(self, obs: Any, flat: Array) -> None:
        """Writes a piece into its numbers [size] of a row."""
        ...


class Numbers:
    """A Box: its numbers in order; a scalar, a vector, a matrix or more."""

    def __init__(self, name: str, space: spaces.Box) -> None:
        self.shape = space.shape
        self.dtype = space.dtype
        self.piece = Piece(name, "vector", (prod(space.shape),))

    def checked(self, obs: Any) -> Array:
        """The observation as an array of its space's shape, of a kind that its dtype can hold."""
        found = as_array(obs)
        if found.shape != self.shape:
            raise Unfit(f"an observation{_of(self)} of shape {found.shape}, not {self.shape}")
        if not np.can_cast(found.dtype, self.dtype, "same_kind"):
            raise Unfit(f"an observation{_of(self)} of dtype {found.dtype}, not {self.dtype}")
        return found

    def fill(self, obs: Any, flat: Array) -> None:
        flat[:] = self.checked(obs).reshape(-1)


class Image:
    """A Box of uint8 with three axes; channels go first, where they are not yet."""

    def __init__(self, name: str, space: spaces.Box) -> None:
        self.shape = space.shape
        height, width, channels = space.shape
        self.last = channels <= height  # the channels' axis is the shorter of first and last
        if self.last:
            self.piece = Piece(name, "image", (channels, height, width))
        else:
            self.piece = Piece(name, "image", space.shape)

    def checked(self, obs: Any) -> Array:
        """[channels, height, width], a view where it can be."""
        found = as_array(obs)
        if found.shape != self.shape:
            raise Unfit(f"an image{_of(self)} of shape {found.shape}, not {self.shape}")
        if found.dtype != np.uint8:
            raise Unfit(f"an image{_of(self)} of dtype {found.dtype}, not uint8")
        return found.transpose(2, 0, 1) if self.last else found

    def fill(self, obs: Any, flat: Array) -> None:
        flat.reshape(self.piece.shape)[...] = self.checked(obs)


class Choices:
    """Discrete or MultiDiscrete: the numbers of its choices, each counted from 0."""

    def __init__(self, name: str, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        self.shape = space.shape
        if isinstance(space, spaces.Discrete):
            self.sizes = np.array([space.n], np.int64)
        else:
            self.sizes = space.nvec.reshape(-1).astype(np.int64)
        if self.sizes.max(initial=0) > MOST_CHOICES:
            raise UserError(f"the observation space {space} has more than {MOST_CHOICES} values")
        self.start = np.broadcast_to(space.start, self.shape).reshape(-1).astype(np.int64)
        sizes = tuple(self.sizes.tolist())
        self.piece = Piece(name, "choice", (len(sizes),), sizes)

    def fill(self, obs: Any, flat: Array) -> None:
        choice = _integers(obs, self).reshape(-1) - self.start
        if ((choice < 0) | (choice >= self.sizes)).any():
            first, last = self.start, self.start + self.sizes - 1
            if not self.shape:
                first, last = first[0], last[0]
            raise Unfit(f"the observation {obs}{_of(self)}, not between {first} and {last}")
        flat[:] = choice


class Bits:
    """MultiBinary: a number 0 or 1 each."""

    def __init__(self, name: str, space: spaces.MultiBinary) -> None:
        self.shape = space.shape
        self.piece = Piece(name, "vector", (prod(space.shape),))

    def fill(self, obs: Any, flat: Array) -> None:
        bits = _integers(obs, self).reshape(-1)
        if ((bits != 0) & (bits != 1)).any():
            raise Unfit(f"the observation {obs}{_of(self)}, not zeros and ones")
        flat[:] = bits


class ObsCodec(ABC):
    """Writes what one environment shows into rows of a batch [B, *spec.shape] of `spec.dtype`."""

    spec: ObsSpec
    space: Any

    @abstractmethod
    def write(self, obs: Any, out: Array, row: int) -> None:
        """The observation as row `row` of `out`; raises `Unfit`."""

    def encode(self, obs: Any) -> Array:
        """The observation as an array of its own."""
        out: Array = np.empty((1, *self.spec.shape), self.spec.dtype)
        self.write(obs, out, 0)
        one: Array = out[0]
        return one

    def encode_batch(self, obs: Any, num_envs: int) -> Array:
        """What a vector environment shows, [B, *spec.shape], newly made."""
        out = np.empty((num_envs, *self.spec.shape), self.spec.dtype)
        for row, one in enumerate(_rows(self.space, obs, num_envs)):
            self.write(one, out, row)
        return out


class _OneLeaf(ObsCodec):
    def __init__(self, space: Any, leaf: Leaf) -> None:
        self.space, self.leaf = space, leaf
        self.spec = ObsSpec(leaf.piece.shape, "float32", (leaf.piece,))

    def write(self, obs: Any, out: Array, row: int) -> None:
        self.leaf.fill(obs, out[row])


class _Choice(_OneLeaf):
    """Discrete alone: an integer in range is looked at no further."""

    def __init__(self, space: spaces.Discrete) -> None:
        super().__init__(space, Choices("obs", space))
        self.n, self.start = int(space.n), int(space.start)

    def write(self, obs: Any, out: Array, row: int) -> None:
        if isinstance(obs, int | np.integer) and 0 <= obs - self.start < self.n:
            out[row, 0] = obs - self.start
        else:
            super().write(obs, out, row)


class _Vector(ObsCodec):
    """Numbers alone: an array of the right shape and dtype is copied without another look."""

    def __init__(self, space: spaces.Box) -> None:
        self.space, self.numbers = space, Numbers("obs", space)
        self.spec = ObsSpec(self.numbers.piece.shape, "float32", (self.numbers.piece,))
        self.shape, self.dtype = space.shape, space.dtype

    def write(self, obs: Any, out: Array, row: int) -> None:
        fits = type(obs) is np.ndarray and obs.shape == self.shape and obs.dtype is self.dtype
        if not fits:
            obs = self.numbers.checked(obs)
        out[row] = obs if obs.ndim == 1 else obs.reshape(-1)

    def encode_batch(self, obs: Any, num_envs: int) -> Array:
        found = as_array(obs)
        if found.shape != (num_envs, *self.shape):
            expected = (num_envs, *self.shape)
            raise Unfit(f"observations of shape {found.shape}, not {expected}")
        if not np.can_cast(found.dtype, self.dtype, "same_kind"):
            raise Unfit(f"observations of dtype {found.dtype}, not {self.dtype}")
        return np.array(found.reshape(num_envs, -1), np.float32)


class _Picture(ObsCodec):
    """One image alone, kept as uint8."""

    def __init__(self, space: spaces.Box) -> None:
        self.space, self.image = space, Image("obs", space)
        self.spec = ObsSpec(self.image.piece.shape, "uint8", (self.image.piece,))

    def write(self, obs: Any, out: Array, row: int) -> None:
        out[row] = self.image.checked(obs)


class _Mixture(ObsCodec):
    """Dict and Tuple, nested as they may be: their pieces one after another."""

    def __init__(self, space: Any) -> None:
        self.space = space
        self.parts: list[tuple[tuple[Any, ...], Leaf, slice]] = []
        begin = 0
        for path, leaf in _leaves(space, ()):
            self.parts.append((path, leaf, slice(begin, begin + leaf.piece.size)))
            begin += leaf.piece.size
        self.spec = ObsSpec((begin,), "float32", tuple(leaf.piece for _, leaf, _ in self.parts))

    def write(self, obs: Any, out: Array, row: int) -> None:
        flat = out[row]
        for path, leaf, part in self.parts:
            leaf.fill(follow(obs, path), flat[part])


class _Nothing(ObsCodec):
    """A space that shows nothing, or choices among one, as a bandit's: always the number 1."""

    def __init__(self, space: Any, empty: ObsCodec) -> None:
        self.space, self.empty = space, empty
        self.spec = ObsSpec((1,), "float32", (Piece("nothing", "vector", (1,)),))

    def write(self, obs: Any, out: Array, row: int) -> None:
        self.empty.write(obs, np.empty((1, *self.empty.spec.shape), np.float32), 0)
        out[row] = 1


def obs_codec(space: Any) -> ObsCodec:
    """The codec of an observation space; raises UserError naming a space that has none."""
    codec = _codec(space)
    is_constant = all(piece.size == sum(piece.sizes) for piece in codec.spec.pieces)
    return _Nothing(space, codec) if is_constant else codec


def _codec(space: Any) -> ObsCodec:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _Mixture(space)
    leaf = _leaf("obs", space)
    if isinstance(leaf, Image):
        return _Picture(space)
    if isinstance(space, spaces.Discrete):
        return _Choice(space)
    return _Vector(space) if isinstance(leaf, Numbers) else _OneLeaf(space, leaf)


def _leaf(name: str, space: Any) -> Leaf:
    if isinstance(space, spaces.Box):
        is_image = space.dtype == np.uint8 and len(space.shape) == 3 and prod(space.shape) > 0
        return Image(name, space) if is_image else Numbers(name, space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return Choices(name, space)
    if isinstance(space, spaces.MultiBinary):
        return Bits(name, space)
    raise UserError(
        f"the observation space {space} cannot be learned from; Box, Discrete, MultiDiscrete,"
        " MultiBinary, and Dict and Tuple of these can"
    )


def _leaves(space: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Leaf]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for place, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, place))
    else:
        yield path, _leaf(".".join(map(str, path)), space)


def follow(obs: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError):
            name = ".".join(map(str, path))
            raise Unfit(f"an observation without {name!r} ({_short(obs)})") from None
    return obs


def _rows(space: Any, obs: Any, num_envs: int) -> Iterator[Any]:
    """The rows of a batched observation, nested as the space is."""
    for row in range(num_envs):
        try:
            yield _row(space, obs, row)
        except (KeyError, IndexError, TypeError, ValueError):
            raise Unfit(f"observations that are not nested as {space} is") from None


def _row(space: Any, obs: Any, row: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _row(inner, obs[key], row) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_row(inner, part, row) for inner, part in zip(space.spaces, obs, strict=True))
    return obs[row]


def as_array(obs: Any) -> Array:
    """An array of numbers, or `Unfit`."""
    try:
        found = np.asarray(obs)
    except ValueError:
        raise Unfit(f"an observation that is no array of numbers ({_short(obs)})") from None
    if found.dtype.kind not in "biuf":
        raise Unfit(f"an observation that is no array of numbers ({_short(obs)})")
    return found


def _integers(obs: Any, leaf: Any) -> NDArray[np.int64]:
    found = as_array(obs)
    if found.shape != leaf.shape:
        raise Unfit(f"an observation{_of(leaf)} of shape {found.shape}, not {leaf.shape}")
    if found.dtype.kind not in "biu":
        raise Unfit(f"an observation{_of(leaf)} of dtype {found.dtype}, not of integers")
    return found.astype(np.int64)


def _of(leaf: Any) -> str:
    return "" if leaf.piece.name == "obs" else f" {leaf.piece.name!r}"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- actions


class ActionCodec:
    """Turns a batch of actions as `ActionSpec` has them into what each environment's step takes."""

    def __init__(self, space: Any) -> None:
        self.space = space
        self.spec = _action_spec(space)
        self.plain = isinstance(space, spaces.Discrete)
        self.start: Any = getattr(space, "start", 0) if self.spec.kind != "box" else 0
        if self.plain:
            self.start = int(self.start)

    def rows(self, actions: Array) -> list[Any]:
        """An action for each environment: an int, or an array of the space's shape and dtype."""
        if self.plain:
            found: list[Any] = (actions + self.start if self.start else actions).tolist()
            return found
        return self.each(self.batch(actions))

    @staticmethod
    def each(batch: Array) -> list[Any]:
        """The rows of `batch`, arrays even where they have no axis."""
        return list(batch) if batch.ndim > 1 else [batch[row, ...] for row in range(len(batch))]

    def batch(self, actions: Array) -> Array:
        """[B, *space.shape] in the space's dtype, newly made."""
        if self.spec.kind == "box":
            return np.array(actions, self.space.dtype).reshape(-1, *self.space.shape)
        found = np.array(actions, self.space.dtype).reshape(-1, *self.space.shape)
        return found + self.start if np.any(self.start) else found


def action_codec(space: Any) -> ActionCodec:
    """The codec of an action space; raises UserError where there is none for it."""
    return ActionCodec(space)


def _action_spec(space: Any) -> ActionSpec:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", tuple(map(int, space.nvec.reshape(-1))))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_discrete", (2,) * prod(space.shape))
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise UserError(
            f"the action space {space} cannot be acted in; Discrete, MultiDiscrete, MultiBinary"
            " and Box of floats can"
        )
    low = np.asarray(space.low, np.float64).reshape(-1)
    high = np.asarray(space.high, np.float64).reshape(-1)
    if not (low < high).all():
        raise UserError(f"the action space {space} needs every lower bound below its upper bound")
    return ActionSpec("box", (low.size,), tuple(low.tolist()), tuple(high.tolist()))
