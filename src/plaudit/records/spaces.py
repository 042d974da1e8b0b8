"""What an agent sees and what it may do, in words that nets and files understand.

An observation is one array, whatever the world calls it: numbers and choices are joined to one
float32 vector, a single image stays uint8 [channels, height, width], and a mixture is one vector
whose `pieces` say which part is which image. A choice among n is its number from 0, one column
whatever n is; nets take it for its one-hot code. Which actions are allowed, where a world says so,
are the last columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite, prod
from typing import Any, Literal

PieceKind = Literal["vector", "image", "choice", "mask"]
ActionKind = Literal["discrete", "multi_discrete", "box"]


@dataclass(frozen=True)
class Piece:
    """A part of an observation: a vector [n], an image [channels, height, width], choices [k] among
    `sizes` each, or a mask of actions [A], 1 where allowed."""

    name: str
    kind: PieceKind
    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @property
    def num_features(self) -> int:
        """Numbers that a net sees of it: one-hot codes of choices, nothing of a mask."""
        if self.kind == "mask":
            return 0
        return sum(self.sizes) if self.kind == "choice" else self.size


@dataclass(frozen=True)
class ObsSpec:
    """One encoded observation: its shape, its dtype, and the pieces it is made of, in order.

    A single image has `shape` (channels, height, width) and dtype uint8; all else is a float32
    vector, in which the pieces follow one another (images flattened, in 0 to 255). A mask of
    actions is the last piece; with a single image both are one uint8 vector.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"]
    pieces: tuple[Piece, ...]

    @property
    def is_vector(self) -> bool:
        """True where no piece is an image."""
        return all(piece.kind != "image" for piece in self.pieces)

    @property
    def num_features(self) -> int:
        """Numbers that a net sees, images flattened."""
        return sum(piece.num_features for piece in self.pieces)

    @property
    def num_barred(self) -> int:
        """Columns at the end that say which actions are allowed; 0 where all always are."""
        last = self.pieces[-1]
        return last.size if last.kind == "mask" else 0

    def facts(self) -> dict[str, Any]:
        """JSON that `from_facts` reads."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ObsSpec:
        """The spec that `facts` gave."""
        pieces = tuple(
            Piece(
                piece["name"], piece["kind"], tuple(piece["shape"]), tuple(piece.get("sizes", ()))
            )
            for piece in facts["pieces"]
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
    `low` and `high`, in the world's own units; a bound that is infinite is none.
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
        """JSON that `from_facts` reads; a bound that is none is null, as JSON has no infinity."""
        low, high = ([b if isfinite(b) else None for b in side] for side in (self.low, self.high))
        return {"kind": self.kind, "sizes": self.sizes, "low": low, "high": high}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> ActionSpec:
        """The spec that `facts` gave."""
        low = tuple(-inf if bound is None else bound for bound in facts["low"])
        high = tuple(inf if bound is None else bound for bound in facts["high"])
        return cls(facts["kind"], tuple(facts["sizes"]), low, high)
