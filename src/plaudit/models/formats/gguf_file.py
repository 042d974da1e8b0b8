"""A GGUF file: its facts and its tensors, memory-mapped, one tensor read at a time.

    "GGUF" version:u32 num_tensors:u64 num_facts:u64 | facts | tensor descriptions | padding | data

Versions 2 and 3, little-endian. Every length is checked against the file before it is used, so
that a damaged file ends in a sentence. Source: the GGUF specification in ggml's documentation.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.models.formats.gguf_blocks import BLOCK_TYPES, OTHER_TYPES
from plaudit.records.errors import UserError

_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MOST_DIMS = 4


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies: `shape` with the longest-stepping axis first, as in NumPy."""

    shape: tuple[int, ...]
    kind: int
    start: int
    num_bytes: int


class GgufFile:
    """The facts (`facts[key]`) and tensors (`places[name]`, `read(name)`) of one file.

    Raises UserError for anything that is not a whole little-endian GGUF file of version 2 or 3.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = path.stat().st_size
            if file.read(4) != b"GGUF":
                raise UserError(f"{path} is not a GGUF file: it does not begin with 'GGUF'")
            self._data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._at = 4
        version = self._number("<I")
        if version not in (2, 3):
            kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
            raise UserError(f"{path} is GGUF of {kind}: little-endian versions 2 and 3 are read")
        num_tensors, num_facts = self._number("<Q"), self._number("<Q")
        self.facts: dict[str, Any] = {}
        for _ in range(num_facts):
            key = self._string()
            self.facts[key] = self._value(self._number("<I"))
        described = [self._description() for _ in range(num_tensors)]
        alignment = self.facts.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise UserError(f"{path} is damaged: its alignment is {alignment!r}")
        data_start = -(-self._at // alignment) * alignment
        self.places = {
            name: self._place(name, dims, kind, data_start + offset)
            for name, dims, kind, offset in described
        }

    def close(self) -> None:
        self._data.close()

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor as float32, in memory of its own."""
        place = self.places[name]
        kind = BLOCK_TYPES[place.kind]
        count = place.num_bytes // kind.size
        raw = np.frombuffer(self._data, np.uint8, place.num_bytes, place.start)
        return kind.read(raw.reshape(count, kind.size)).reshape(place.shape)

    def _place(self, name: str, dims: list[int], kind: int, start: int) -> TensorPlace:
        known = BLOCK_TYPES.get(kind)
        if known is None:
            names = ", ".join(block.name for block in BLOCK_TYPES.values())
            raise UserError(
                f"{self.path}: tensor {name!r} is stored as "
                f"{OTHER_TYPES.get(kind, f'type {kind}')}, which is not read (read are {names})"
            )
        weights = int(np.prod(dims, dtype=object))
        if not dims or dims[0] % known.weights:
            raise UserError(
                f"{self.path}: tensor {name!r} of shape {dims} does not fill blocks of "
                f"{known.weights} weights"
            )
        num_bytes = weights // known.weights * known.size
        if start + num_bytes > len(self._data):
            raise UserError(
                f"{self.path} is cut short: tensor {name!r} ends at byte "
                f"{start + num_bytes:,}, but the file has {len(self._data):,}"
            )
        return TensorPlace(tuple(reversed(dims)), kind, start, num_bytes)

    def _description(self) -> tuple[str, list[int], int, int]:
        name, num_dims = self._string(), self._number("<I")
        if num_dims > _MOST_DIMS:
            raise UserError(f"{self.path} is damaged: tensor {name!r} has {num_dims} dimensions")
        dims = [self._number("<Q") for _ in range(num_dims)]
        return name, dims, self._number("<I"), self._number("<Q")

    def _value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise UserError(f"{self.path} is damaged: a fact has the unknown type {kind}")
        of, count = self._number("<I"), self._number("<Q")
        if of in _NUMBERS:
            layout = _NUMBERS[of]
            start = self._take(count * struct.calcsize(layout))
            return [v for (v,) in struct.iter_unpack(layout, self._data[start : self._at])]
        if of != _STRING:
            raise UserError(f"{self.path} is damaged: a list has the unknown type {of}")
        return [self._string() for _ in range(count)]

    def _number(self, layout: str) -> Any:
        start = self._take(struct.calcsize(layout))
        return struct.unpack_from(layout, self._data, start)[0]

    def _string(self) -> str:
        length = self._number("<Q")
        start = self._take(length)
        return self._data[start : self._at].decode("utf-8", errors="replace")

    def _take(self, num_bytes: int) -> int:
        """Moves past the next bytes and returns where they begin."""
        start, self._at = self._at, self._at + num_bytes
        if self._at > len(self._data):
            raise UserError(
                f"{self.path} is cut short or damaged: its description ends after byte "
                f"{len(self._data):,}, where the file ends"
            )
        return start
