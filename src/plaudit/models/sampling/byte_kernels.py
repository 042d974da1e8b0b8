"""Rows of floats as rows of bytes, and the products of bytes as floats again.

    q = round(x H / s) + 128,   s = max |x H| / 127 of a row, a scale of its own
    y = s · y′ + other,         y′ the product of (q − 128)

H mixes the channels of a block by signs, and its transpose undoes it: (x H)(w H)ᵀ = size · x wᵀ.
A language model's activations have a few channels many times as large as the others, which would
leave these no more than a few steps of the scale; mixed, all are alike.
Sources: Dettmers et al. 2022 (2208.07339), the outliers; Ashkboos et al. 2024 (2404.00456), H.
Arrays are flat; shapes are told in brackets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plaudit.models.sampling.vectors import (
    LANES,
    Floats,
    add,
    compiled,
    fma,
    hadamard,
    lanes,
    larger,
    largest,
    load,
    mul,
    rounded,
    store,
    store_bytes,
    sub,
    total,
)

Bytes = NDArray[np.uint8]

BLOCK = LANES
"""What the width of a row must be a multiple of: the lanes of a vector."""

MIDDLE = 128
"""The byte that stands for 0."""

_ZERO, _MIDDLE, _MOST = np.float32(0), np.float32(MIDDLE), np.float32(127)

_LEAST = np.float32(1e-30)  # a row of less is 0: 127 over it may be no float32


@compiled
def _rotated(x: Floats, at: int, width: int, size: int, out: Floats) -> None:
    """out = x H of one row, H blocks of Sylvester's signs of `size` (not divided by its root)."""
    for d in range(0, width, BLOCK):
        store(out, d, hadamard(load(x, at + d)))
    half = BLOCK
    while half < size:
        for begin in range(0, width, 2 * half):
            for d in range(begin, begin + half, BLOCK):
                a, b = load(out, d), load(out, d + half)
                store(out, d, add(a, b))
                store(out, d + half, sub(a, b))
        half *= 2


@compiled
def quantised(x: Floats, width: int, size: int, out: Bytes, scale: Floats) -> None:
    """Bytes and scales [R] of rows [R, width] times H, whose blocks have `size` channels.

    `size` is a power of 2 from 16 on that divides the width. |x H − s (q − 128)| ≤ s / 2 up to
    rounding. A row that is not finite gets a scale that is not either, so that its products show it.
    """
    row = np.empty(width, np.float32)
    for r in range(len(scale)):
        _rotated(x, r * width, width, size, row)
        top, odd = lanes(_ZERO), lanes(_ZERO)
        for d in range(0, width, BLOCK):
            y = load(row, d)
            top = larger(larger(y, sub(lanes(_ZERO), y)), top)
            odd = fma(y, lanes(_ZERO), odd)  # NaN where y is NaN or infinite, else 0
        most = largest(top)
        scale[r] = most / _MOST + total(odd)
        by = lanes(_MOST / most if most > _LEAST else _ZERO)
        for d in range(0, width, BLOCK):
            y = rounded(mul(load(row, d), by))
            store_bytes(out, r * width + d, add(y, lanes(_MIDDLE)))


@compiled
def scaled(y: Floats, scale: Floats) -> None:
    """y = s y of rows [R, width] with their scales [R]."""
    width = len(y) // len(scale)
    whole = width - width % BLOCK
    for r in range(len(scale)):
        by = lanes(scale[r])
        for d in range(r * width, r * width + whole, BLOCK):
            store(y, d, mul(load(y, d), by))
        for d in range(r * width + whole, (r + 1) * width):
            y[d] *= scale[r]


@compiled
def scaled_plus(y: Floats, scale: Floats, other: Floats) -> None:
    """y = s y + other of rows [R, width]; `other` has as many, or is one row for all of them."""
    width = len(y) // len(scale)
    whole, step = width - width % BLOCK, 0 if len(other) == width else width
    for r in range(len(scale)):
        by, at = lanes(scale[r]), r * width
        for d in range(0, whole, BLOCK):
            store(y, at + d, fma(load(y, at + d), by, load(other, r * step + d)))
        for d in range(whole, width):
            y[at + d] = y[at + d] * scale[r] + other[r * step + d]
