"""Safetensors files read into memory of our own, and written one tensor at a time.

    header length: u64 | header: JSON of name → {dtype, shape, data_offsets} | data

The usual reader maps the file: its tensors change when somebody writes over the file, and a copy of
them costs the model twice. Here every tensor is read once into fresh memory, already in the wanted
precision. Source: the format's own description. Left out: 8-bit floats and smaller.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.records.errors import UserError

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


def read_tensors(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of the file, the floating ones as `dtype`; UserError for a damaged file."""
    size = path.stat().st_size
    tensors = {}
    with path.open("rb", buffering=0) as file:
        header, base = _header(path, size, file.read(8), file)
        for name, entry in header.items():
            kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if kind not in _DTYPES:
                raise UserError(f"{path}: tensor {name!r} is stored as {kind}, which is not read")
            tensor = torch.empty(shape, dtype=_DTYPES[kind])
            if end - start != tensor.nbytes or base + end > size:
                raise UserError(f"{path} is damaged or cut short: tensor {name!r} is not whole")
            if tensor.nbytes:
                bytes_ = tensor.view(-1).view(torch.uint8).numpy()
                file.seek(base + start)
                _fill(path, file, bytes_.data)
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return tensors


def write_float32(
    path: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[NDArray[np.float32]]
) -> None:
    """Write float32 tensors of the given names and shapes, drawn from `arrays` in that order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape, array in zip(shapes.values(), arrays, strict=True):
            assert array.shape == shape
            file.write(np.ascontiguousarray(array, dtype="<f4").data)


def _header(path: Path, size: int, length: bytes, file: Any) -> tuple[dict[str, Any], int]:
    """The description of each tensor, and where the data begins."""
    num_bytes = struct.unpack("<Q", length)[0] if len(length) == 8 else size
    if num_bytes + 8 > size:
        raise UserError(f"{path} is damaged or cut short: its header is not whole")
    try:
        header: dict[str, Any] = json.loads(file.read(num_bytes))
        header.pop("__metadata__", None)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its header is not JSON") from error
    return header, 8 + num_bytes


def _fill(path: Path, file: Any, into: memoryview) -> None:
    """Reads until `into` is full; one call to the system moves at most 2 GiB."""
    done = 0
    while done < len(into):
        got = file.readinto(into[done:])
        if not got:
            raise UserError(f"{path} is cut short: it ended while it was read")
        done += got
