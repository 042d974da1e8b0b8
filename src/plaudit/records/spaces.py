"""What an agent sees and what it may do, in words that nets and files understand.

An observation is one array, whatever the world calls it: numbers and one-hot codes are joined to one
float32 vector, a single image stays uint8 [channels, height, width], and a mixture is one vector
whose `pieces` say which part is which image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

PieceKind = Literal["vector", "image"]
ActionKind = Literal["discrete", "multi_discrete", "box"]


@dataclass(frozen=True)
class Piece:
    """A part of an observation: a vector [n], or an image [channels, height, width]."""

    name: str
    kind: PieceKind
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True)
class ObsSpec:
    """One encoded observation: its shape, its dtype, and the pieces it is made of, in order.

    A single image has `shape` (channels, height, width) and dtype uint8; all else is a float32
    vector, in which the pieces follow one another (images flattened, in 0 to 255).
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"]
    pieces: tuple[Piece, ...]

    @property
    def is_vector(self) -> bool:
        """True where no piece is an image."""
        return all(piece.kind == "vector" for piece in self.pieces)

    def facts(self) -> dict[str, Any]:
        """JSON that `from_facts` reads."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ObsSpec:
        """The spec that `facts` gave."""
        pieces = tuple(
            Piece(piece["name"], piece["kind"], tuple(piece["shape"])) for piece in facts["pieces"]
        )
        return cls(tuple(facts["shape"]), facts["dtype"], pieces)

    @classmethod
    def vector(cls, size: int) -> ObsSpec:
        """A plain vector of `size` numbers."""
        return cls((size,), "float32", (Piece("obs", "vector", (size,)),))


@dataclass(frozen=True)
class ActionSpec:
    """What may be done.

    discrete: `sizes` = (n,), an action is int64 []. multi_discrete: `sizes` are the numbers of
    choices, an action is int64 [k]. box: `sizes` = (dimensions,), an action is float32 [d] between
    `low` and `high`, in the world's own units.
    """

    kind: ActionKind
    sizes: tuple[int, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action: () for discrete, else (k,)."""
        if self.kind == "discrete":
            return ()
        return (len(self.sizes),) if self.kind == "multi_discrete" else (self.sizes[0],)

    @property
    def dtype(self) -> Literal["int64", "float32"]:
        """Of an action."""
        return "float32" if self.kind == "box" else "int64"

    @property
    def num_params(self) -> int:
        """Numbers that a net gives for it: logits, or means."""
        return sum(self.sizes)

    def facts(self) -> dict[str, Any]:
        """JSON that `from_facts` reads."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ActionSpec:
        """The spec that `facts` gave."""
        return cls(facts["kind"], tuple(facts["sizes"]), tuple(facts["low"]), tuple(facts["high"]))
