"""Matrix products by whichever of torch's two CPU libraries is the faster on this processor.

torch multiplies float32 matrices with MKL, which runs its AVX2 code on processors that are not
Intel's; oneDNN, which torch carries too, uses what the processor has. On one thread of an AMD EPYC
(Zen 5) MKL reaches 100 GFLOP/s at the shapes of training and oneDNN 180 to 240, transposed
arguments included. The choice depends on the processor's vendor and never on a timing, so that a
run and its resumption multiply with the same library and give the same bits.
Left out: double, half and other devices, which go to torch's own product.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@functools.cache
def onednn_is_faster() -> bool:
    """Whether float32 products should go to oneDNN here: an x86 processor that is not Intel's,
    where torch would use MKL, and a torch that has the operator."""
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and platform.machine() in ("x86_64", "AMD64")
        and _vendor() not in ("GenuineIntel", "")
    )


def _vendor() -> str:
    """The processor's vendor as it names itself; empty where that cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((s.split(":")[1].strip() for s in lines if s.startswith("vendor_id")), "")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] times weight [M, K] transposed, plus bias [M]: [..., M].

    Check: equals torch.nn.functional.linear up to rounding. Differentiable only where it is
    torch's own: call it without gradients, or see `linear`.
    """
    tensors = (x, weight) if bias is None else (x, weight, bias)
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    empty = x.numel() == 0 or weight.numel() == 0  # oneDNN refuses these
    if empty or not (plain and onednn_is_faster()) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` with its gradients.

    grad_x = g · weight, grad_weight = gᵀ · x, grad_bias = Σ g, over all places of x.
    Check: values and gradients equal those of torch.nn.functional.linear up to rounding.
    """
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    elsewhere = x.dtype != torch.float32 or x.device.type != "cpu" or not onednn_is_faster()
    if elsewhere or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    # Two axes inside, as oneDNN gives more of them as a view, which no model may change in place.
    rows: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*x.shape[:-1], weight.shape[0])


class _Linear(torch.autograd.Function):
    """Saves what F.linear saves: the input and the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(grad, weight.T) if of_x else None,
            product(grad.T, x.T) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )
