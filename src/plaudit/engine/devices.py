"""Where a model goes and in what precision, by the run keys `device` and `dtype`."""

from __future__ import annotations

from typing import Literal

import torch

from plaudit.records.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["float32", "bfloat16"]


def device_of(name: DeviceName) -> torch.device:
    """The device of that name; auto is the first GPU where there is one, and else the CPU.

    Raises UserError for cuda where torch finds no GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise UserError(
            "device is cuda, but torch finds no CUDA device here: take device=cpu, or auto"
        )
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def dtype_of(name: DtypeName) -> torch.dtype:
    """The torch dtype of that name."""
    found: torch.dtype = getattr(torch, name)
    return found
