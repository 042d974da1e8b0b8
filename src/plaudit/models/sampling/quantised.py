"""Linear maps of 8 bits for decoding: a fourth of the bytes, and three times the rate.

    y = s_x s_w (q_x − 128) · (q_w − 128) / size + b

Each output has a scale s_w, and each row of the input one of its own, found when it comes; see
`byte_kernels` for what is rounded and how channels are mixed before. Sums of bytes are exact.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plaudit.models.sampling.packed import Linear, flat

_MOST_MIXED = 512
"""Channels that are mixed into one another at most."""


@functools.cache
def sums_exactly() -> bool:
    """Whether this processor's products of bytes are there and exact.

    Without instructions for them (VNNI) pairs of products are summed in 16 bits, which overflow.
    """
    if not hasattr(torch.ops.onednn, "qlinear_prepack"):
        return False
    try:
        weight = torch.ops.onednn.qlinear_prepack(torch.full((16, 64), 127, dtype=torch.int8), None)
        ones = torch.full((3, 64), 255, dtype=torch.uint8)
        found = _product(ones, weight, torch.ones(16), torch.zeros(16, dtype=torch.long))
    except RuntimeError:  # a build of torch without oneDNN
        return False
    return bool((found == 127 * 127 * 64).all())


class Quantised(Linear):
    """x Wᵀ + b with a copy of the weight in bytes; x is [rows, in], float32.

    `packed` holds oneDNN's layouts of bytes by their digest: making one takes several times as long as
    finding the bytes, and most weights are what they were.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        packed: Mapping[bytes, Tensor] | None = None,
    ) -> None:
        from plaudit.models.sampling import byte_kernels

        self.kernels: Any = byte_kernels
        self.num_in = weight.shape[1]
        # The largest power of 2 that divides the width.
        self.size = min(self.num_in & -self.num_in, _MOST_MIXED)
        byte, scale = self._bytes(weight.detach().contiguous())
        self.digest = hashlib.blake2b(flat(byte), digest_size=16, key=b"%d" % self.num_in).digest()
        known = None if packed is None else packed.get(self.digest)
        if known is None:
            signed = byte.bitwise_xor_(byte_kernels.MIDDLE).view(torch.int8)  # less 128
            known = torch.ops.onednn.qlinear_prepack(signed, None)
        super().__init__(known, bias)
        self.num_out = weight.shape[0]
        self.scale = scale / self.size
        self.zero = torch.zeros(self.num_out, dtype=torch.long)

    def __call__(self, x: Tensor) -> Tensor:
        y, scale = self._product(x)
        if self.bias is None:
            self.kernels.scaled(flat(y), scale.numpy())
        else:
            self.kernels.scaled_plus(flat(y), scale.numpy(), flat(self.bias))
        return y

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        y, scale = self._product(x)
        self.kernels.scaled_plus(flat(y), scale.numpy(), flat(other))
        return y if self.bias is None else y.add_(self.bias)

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product without the scales of its rows, and these."""
        byte, scale = self._bytes(x)
        return _product(byte, self.weight, self.scale, self.zero), scale

    def _bytes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [n, in], mixed, as bytes, and their scales [n]."""
        byte, scale = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x))
        self.kernels.quantised(flat(x), self.num_in, self.size, flat(byte), scale.numpy())
        return byte, scale


def _product(byte: Tensor, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """(byte − 128) · weight · scale, [rows, out] in float32."""
    multiply: Any = torch.ops.onednn.qlinear_pointwise.default
    of_weight, as_float = (weight, scale, zero), (1.0, 0, torch.float32)
    out: Tensor = multiply(byte, 1.0, 128, *of_weight, None, *as_float, "none", [], "")
    return out
