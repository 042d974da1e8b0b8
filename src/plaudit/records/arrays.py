"""Tensors or NumPy arrays written to a safetensors file one at a time, so that a checkpoint needs no second copy.

    header length: u64 | header: JSON of name → {dtype, shape, data_offsets} | data

The format's own writer first gathers all bytes in memory, which for the optimiser states of a small
model is half a gigabyte. Any reader of the format reads the result.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Array = Tensor | NDArray[Any]

_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
    "float64": "F64",
    "float32": "F32",
    "int64": "I64",
    "int32": "I32",
    "uint64": "U64",
    "uint32": "U32",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNMENT = 8  # bytes, as the format's own writer aligns the data


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays in the order given, and flush them to the disk.

    Raises `OSError` with its number on a full disk, `TypeError` for a dtype not listed above.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        kind = _DTYPES.get(str(array.dtype))
        if kind is None:
            raise TypeError(f"{name!r} is {array.dtype}, which checkpoints do not hold")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(_bytes(array))
        file.flush()
        os.fsync(file.fileno())


def _bytes(array: Array) -> memoryview:
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    import torch

    flat = array.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
