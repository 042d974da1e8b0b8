"""One weight at a time from the bytes of a GGUF block, in exact double arithmetic.

Written from the format's description of where weight i lies, not from the vectorised reader. Each
value is exact before the single rounding to float32 at the end.
"""

from __future__ import annotations

import struct


def half(block: bytes, at: int) -> float:
    return struct.unpack_from("<e", block, at)[0]


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def nibble(packed: bytes, i: int) -> int:
    """Weight i of 32: byte i's low half, or for the second sixteen byte i−16's high half."""
    return packed[i] % 16 if i < 16 else packed[i - 16] // 16


def f32(block: bytes, i: int) -> float:
    return struct.unpack_from("<f", block, 4 * i)[0]


def f16(block: bytes, i: int) -> float:
    return half(block, 2 * i)


def bf16(block: bytes, i: int) -> float:
    return struct.unpack("<f", b"\0\0" + block[2 * i : 2 * i + 2])[0]


def q8_0(block: bytes, i: int) -> float:
    return half(block, 0) * signed(block[2 + i])


def q4_0(block: bytes, i: int) -> float:
    return half(block, 0) * (nibble(block[2:], i) - 8)


def q4_1(block: bytes, i: int) -> float:
    return half(block, 0) * nibble(block[4:], i) + half(block, 2)


def q4_k(block: bytes, i: int) -> float:
    j = i // 32  # the group
    s = block[4:16]
    if j < 4:
        scale, minimum = s[j] % 64, s[j + 4] % 64
    else:
        scale = s[j + 4] % 16 + s[j - 4] // 64 * 16
        minimum = s[j + 4] // 16 + s[j] // 64 * 16
    byte = block[16 + 32 * (i // 64) + i % 32]
    value = byte // 16 if i % 64 >= 32 else byte % 16
    return half(block, 0) * scale * value - half(block, 2) * minimum


def q6_k(block: bytes, i: int) -> float:
    part, l = i // 128, i % 128  # a half of the block, and the place in it
    low = block[64 * part + l % 64]
    low = low // 16 if l >= 64 else low % 16
    high = block[128 + 32 * part + l % 32] // 4 ** (l // 32) % 4
    return half(block, 208) * signed(block[192 + i // 16]) * (low + 16 * high - 32)


WEIGHT = {
    0: f32, 1: f16, 2: q4_0, 3: q4_1, 8: q8_0, 12: q4_k, 14: q6_k, 30: bf16,
}  # fmt: skip
SHAPE = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 12: (256, 144), 14: (256, 210),
    30: (1, 2),
}  # fmt: skip
"""Weights and bytes of a block of each type."""


def weights(data: bytes, kind: int) -> list[float]:
    per, size = SHAPE[kind]
    return [
        WEIGHT[kind](data[at : at + size], i)
        for at in range(0, len(data), size)
        for i in range(per)
    ]


def half_places(kind: int) -> tuple[int, ...]:
    """Where a block keeps its half-precision numbers, to put finite ones there."""
    return {2: (0,), 3: (0, 2), 8: (0,), 12: (0, 2), 14: (208,)}.get(kind, ())
