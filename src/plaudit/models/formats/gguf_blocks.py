"""How GGUF stores numbers: blocks of small integers with their scales, read back as float32.

A block of type Q4_1, for instance, is 20 bytes for 32 weights:

    d: float16, m: float16, 16 bytes;  byte j holds weight j (low nibble) and weight j+16 (high)
    weight = nibble · d + m

Every product below is exact in float32 (11 bits of scale times at most 8 of scale's scale times 6
of weight, rounded once at the end), so the numbers are those of ggml bit for bit.
Source: ggml's `ggml-quants.c`, the definition of the format. Left out: the types not listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def _float16(blocks: Bytes, start: int) -> Floats:
    """The half-precision number at byte `start` of every block, [N, 1]."""
    return blocks[:, start : start + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Floats:
    """[N, 16] bytes as [N, 32] numbers: all low nibbles, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def float32(blocks: Bytes) -> Floats:
    return blocks.view(np.float32).copy()


def float16(blocks: Bytes) -> Floats:
    return blocks.view(np.float16).astype(np.float32)


def bfloat16(blocks: Bytes) -> Floats:
    """The upper half of a float32."""
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def q8_0(blocks: Bytes) -> Floats:
    """weight = d · q, q a signed byte; 32 weights in 34 bytes."""
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _float16(blocks, 0)


def q4_0(blocks: Bytes) -> Floats:
    """weight = d · (nibble − 8); 32 weights in 18 bytes."""
    return (_nibbles(blocks[:, 2:]) - np.float32(8)) * _float16(blocks, 0)


def q4_1(blocks: Bytes) -> Floats:
    """weight = d · nibble + m; 32 weights in 20 bytes."""
    return _nibbles(blocks[:, 4:]) * _float16(blocks, 0) + _float16(blocks, 2)


def q4_k(blocks: Bytes) -> Floats:
    """weight = (d · s_j) · nibble − (dmin · m_j); 8 groups j of 32 weights in 144 bytes.

    The 6-bit s_j, m_j are packed in bytes 4–15: for j < 4 the low 6 bits of bytes j and j+4;
    for j ≥ 4 nibbles of byte j+4, completed by the two high bits of bytes j−4 and j.
    """
    packed = blocks[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minimum = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    # Each 32 bytes hold two groups: the low nibbles, then the high ones.
    quarters = blocks[:, 16:].reshape(-1, 4, 32)
    groups = np.stack([quarters & 15, quarters >> 4], axis=2).reshape(-1, 8, 32)
    step = _float16(blocks, 0) * scale.astype(np.float32)
    offset = _float16(blocks, 2) * minimum.astype(np.float32)
    weights: Floats = groups.astype(np.float32) * step[:, :, None] - offset[:, :, None]
    return weights.reshape(-1, 256)


def q6_k(blocks: Bytes) -> Floats:
    """weight = (d · s_j) · (q − 32), q of 6 bits; 16 groups j of 16 weights in 210 bytes.

    Each half of the block: 64 bytes with the low 4 bits (weights 0–63 in low nibbles, 64–127 in
    high ones), 32 bytes with the high 2 bits of weights l, l+32, l+64, l+96.
    """
    low = blocks[:, :128].reshape(-1, 2, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    nibble = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    value = nibble | ((high >> shifts) & 3) << 4
    scale = blocks[:, 192:208].view(np.int8).astype(np.float32) * _float16(blocks, 208)
    groups = value.reshape(-1, 16, 16).astype(np.float32) - np.float32(32)
    weights: Floats = groups * scale[:, :, None]
    return weights.reshape(-1, 256)


@dataclass(frozen=True)
class BlockType:
    """`size` bytes hold `weights` numbers; `read` turns [N, size] bytes into [N, weights]."""

    name: str
    weights: int
    size: int
    read: Callable[[Bytes], Floats]


BLOCK_TYPES = {
    0: BlockType("F32", 1, 4, float32),
    1: BlockType("F16", 1, 2, float16),
    2: BlockType("Q4_0", 32, 18, q4_0),
    3: BlockType("Q4_1", 32, 20, q4_1),
    8: BlockType("Q8_0", 32, 34, q8_0),
    12: BlockType("Q4_K", 256, 144, q4_k),
    14: BlockType("Q6_K", 256, 210, q6_k),
    30: BlockType("BF16", 1, 2, bfloat16),
}
"""The types that are read, by their number in the file."""

OTHER_TYPES = {6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K"}
"""Names of common types that are not read, for the error message."""
