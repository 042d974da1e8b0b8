"""Linear maps for decoding, in the layout that the processor multiplies fastest.

On a CPU in float32 the weights are copied into oneDNN's blocked layout: at 16 to 64 rows that is
2.1 to 2.8 times the rate of torch.nn.functional.linear where MKL has no AVX-512 path (AMD), and
spares re-packing at every step elsewhere. Anywhere else the weights are used as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plaudit.ops.products import product

# The number of rows that oneDNN is told to expect; the layout serves other numbers too.
_ROWS = 64


def can_pack(weight: Tensor) -> bool:
    """Whether `Packed` can hold this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class Linear:
    """x Wᵀ + b with the weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.num_out = weight.shape[0]
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x Wᵀ + b + other."""
        return self(x).add_(other)


class AsItIs(Linear):
    """x Wᵀ + b by the faster library, without a copy: for the head, the largest map of all."""

    def __call__(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class Packed(Linear):
    """x Wᵀ + b with a copy of the weight in oneDNN's layout; x is [rows, in], float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        ops: Any = torch.ops.mkldnn
        super().__init__(weight, bias)
        self.weight = ops._reorder_linear_weight(weight.contiguous(), _ROWS)
        self.product = ops._linear_pointwise.default
        self.product_plus = ops._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self.product(x, self.weight, self.bias, "none", [], "")
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.product_plus(x, other, self.weight, self.bias, "add")
        return out


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest map at hand for this weight."""
    return Packed(weight, bias) if can_pack(weight) else Linear(weight, bias)


def flat(x: Tensor) -> Any:
    """The floats of a contiguous tensor as a flat NumPy array, not copied."""
    return x.detach().view(-1).numpy()
