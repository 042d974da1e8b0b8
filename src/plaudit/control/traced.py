"""Forward passes that can be gone back through by hand, NumPy to NumPy.

Where a net is layers alone its own passes are used: autograd's work around them would be a twentieth
of an update of a 256×256 net, and half of one of a 64×64 net. Nets with convolutions use autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.models.control_nets import Net
from plaudit.models.mlp import MLP, Trace

F32: TypeAlias = NDArray[np.float32]
Back: TypeAlias = Callable[[F32], None]


def traced(net: Net, x: NDArray[Any]) -> tuple[F32, Back]:
    """The outputs, and a function that takes a loss's gradient in them to the weights' `grad`.

    It replaces the gradients that the weights had, and is called before they change.
    """
    if net.num_images:
        out = net(torch.from_numpy(x))
        return out.detach().numpy(), partial(_by_autograd, net, out)
    found, trace = net.mlp.trace(x)
    return found, partial(_by_hand, net.mlp, trace)


def _by_hand(mlp: MLP, trace: Trace, of_out: F32) -> None:
    of_weights, _ = mlp.backprop(trace, of_out, weights=True, inputs=False)
    assert of_weights is not None
    mlp.flat.grad = torch.from_numpy(of_weights)


def _by_autograd(net: Net, out: Tensor, of_out: F32) -> None:
    net.zero_grad(set_to_none=True)
    out.backward(torch.from_numpy(of_out))  # type: ignore[no-untyped-call]


__all__ = ["Back", "traced"]
