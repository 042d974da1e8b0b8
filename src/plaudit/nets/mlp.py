"""A small net whose weights are one flat vector, as fast as NumPy can make it on a CPU.

An update of a 64×64 net is a hundred microseconds of arithmetic, and torch's dispatch of some thirty
operations costs several times that. So forward and backward are written by hand over views of the
vector, and autograd sees one operation. On another device or in another dtype the same weights run
through torch's own layers.

    h₀ = x;   h_{l+1} = φ(h_l W_lᵀ + b_l);   out = h_L W_Lᵀ + b_L

Left out: second derivatives on the fast path (asking for them raises an error).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from plaudit.nets.mlp_kernels import F32, bias_relu, column_sums, relu_back, tanh_back
from plaudit.records.errors import UserError, nearest

Activation = Literal["tanh", "relu"]
Init = Literal["orthogonal", "uniform"]
ACTIVATIONS: tuple[Activation, ...] = ("tanh", "relu")


class Trace(NamedTuple):
    """What the backward pass needs of a forward pass: the input of every layer."""

    inputs: list[F32]


class MLP(nn.Module):
    """Layers of `sizes` = (inputs, hidden..., outputs) with `copies` independent sets of weights.

    `flat` holds, copy after copy, each layer's weight [out, in] and bias [out]. The forward pass
    maps float32 [B, in] to [B, out]; with copies = N > 1 it maps [B, in] (the same for all) or
    [N, B, in] to [N, B, out].

    init "orthogonal": weights orthogonal times √2, the last layer's times `gain_out`, biases 0
    (Saxe et al. 2014; the PPO of Schulman et al. 2017 in its authors' code). "uniform": weights and
    biases in ±1/√in, as torch.nn.Linear begins.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Activation = "tanh",
        rng: np.random.Generator,
        init: Init = "orthogonal",
        gain_out: float = 1.0,
        copies: int = 1,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, found {activation!r}"
                f"{nearest(activation, ACTIVATIONS)}."
            )
        if len(sizes) < 2 or min(sizes) < 1 or copies < 1:
            raise UserError(
                f"an MLP needs at least an input and an output size and one copy, "
                f"found sizes {tuple(sizes)} and copies {copies}."
            )
        self.sizes, self.activation, self.copies = tuple(sizes), activation, copies
        nets = [initial(self.sizes, rng, init=init, gain_out=gain_out) for _ in range(copies)]
        self.flat = nn.Parameter(torch.from_numpy(np.concatenate(nets)))
        self._pointer = 0
        self._fast = False
        self._held: tuple[F32, list[tuple[F32, F32]]] | None = None
        self._weights: list[F32] = []
        self._turned: list[F32] = []
        self._biases: list[F32] = []

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, out], or [N, B, out] with copies; differentiable in x and `flat`."""
        self._check_input(x.shape)
        if self.flat.data_ptr() != self._pointer:
            self._bind()
        if not self._fast or x.dtype != torch.float32 or x.device.type != "cpu":
            return self._by_torch(x)
        if torch.is_grad_enabled() and (self.flat.requires_grad or x.requires_grad):
            out: Tensor = _Forward.apply(x, self.flat, self)  # type: ignore[no-untyped-call]
            return out
        return torch.from_numpy(self.infer(x.detach().numpy()))

    def infer(self, x: NDArray[Any]) -> F32:
        """The same without autograd, NumPy to NumPy; always the current weights."""
        if self.flat.data_ptr() != self._pointer:
            self._bind()
        if not self._fast:
            with torch.no_grad():
                of_device = torch.from_numpy(np.asarray(x)).to(self.flat)
                return np.asarray(self._by_torch(of_device).cpu().numpy(), np.float32)
        h: F32 = np.asarray(x, np.float32)
        last = len(self._biases) - 1
        for layer, (weight, bias) in enumerate(zip(self._turned, self._biases, strict=True)):
            h = h @ weight
            if layer < last:
                self._activate(h, bias)
            else:
                h += bias
        return h

    def on_cpu(self) -> bool:
        """Whether the weights are float32 on the CPU, where `trace` and `backprop` work."""
        if self.flat.data_ptr() != self._pointer:
            self._bind()
        return self._fast

    def trace(self, x: F32) -> tuple[F32, Trace]:
        """The outputs, and what `backprop` needs; `x` must not change in between."""
        if self.flat.data_ptr() != self._pointer:
            self._bind()
        inputs = [x]
        for weight, bias in zip(self._turned[:-1], self._biases[:-1], strict=True):
            h = inputs[-1] @ weight
            self._activate(h, bias)
            inputs.append(h)
        out = inputs[-1] @ self._turned[-1]
        out += self._biases[-1]
        return out, Trace(inputs)

    def backprop(
        self, trace: Trace, grad_out: F32, *, weights: bool, inputs: bool, again: bool = False
    ) -> tuple[F32 | None, F32 | None]:
        """Gradients of `flat` and of the inputs, each where asked for, from that of the outputs.

        With `again` the former is written where the last such one was, which saves a tenth of an
        update of a 64×64 net.
        """
        into, places = (None, None) if not weights else self._room(again)
        grad = np.ascontiguousarray(grad_out)
        back = tanh_back if self.activation == "tanh" else relu_back
        for layer in range(len(self._weights) - 1, -1, -1):
            h = trace.inputs[layer]
            last = layer == len(self._weights) - 1
            bias = places[layer][1] if places is not None else np.empty_like(self._biases[layer])
            if not last:
                self._each(back, grad, trace.inputs[layer + 1], bias)
            elif places is not None:
                self._each(column_sums, grad, bias)
            if places is not None:
                np.matmul(grad.swapaxes(-1, -2), h, out=places[layer][0])
            if layer or inputs:
                weight = self._weights[layer]
                # BLAS is slow at outer products: one output is multiplied out
                grad = grad * weight if weight.shape[-2] == 1 else grad @ weight
        if not inputs:
            return into, None
        shared = self.copies > 1 and trace.inputs[0].ndim == 2
        return into, grad.sum(0) if shared else grad

    def _room(self, again: bool) -> tuple[F32, list[tuple[F32, F32]]]:
        """Memory for a gradient of `flat`, and its views by layer."""
        if again and self._held is not None:
            return self._held
        into = np.empty(self.flat.numel(), np.float32)
        made = into, layers(into, self.sizes, self.copies)
        if again:
            self._held = made
        return made

    def _each(self, kernel: Callable[..., None], *arrays: F32) -> None:
        """Calls a kernel of matrices and, last, a row, for every copy."""
        if arrays[0].ndim == 2:
            kernel(*arrays)
            return
        for copy in range(self.copies):
            kernel(*(array[copy] for array in arrays[:-1]), arrays[-1][copy, 0])

    def _activate(self, z: F32, bias: F32) -> None:
        if self.activation == "tanh":
            z += bias
            np.tanh(z, out=z)
        else:
            self._each(bias_relu, z, bias)

    def _by_torch(self, x: Tensor) -> Tensor:
        """The same layers by torch's operations: any device and dtype, any order of derivative."""
        act = torch.tanh if self.activation == "tanh" else torch.relu
        places = _tensor_layers(self.flat, self.sizes, self.copies)
        for layer, (weight, bias) in enumerate(places):
            if self.copies == 1:
                x = functional.linear(x, weight[0], bias[0])
            else:
                x = x @ weight.transpose(-1, -2) + bias[:, None]
            if layer < len(places) - 1:
                x = act(x)
        return x

    def _check_input(self, shape: torch.Size) -> None:
        good = len(shape) == 2 or (len(shape) == 3 and shape[0] == self.copies > 1)
        if not good or shape[-1] != self.sizes[0]:
            also = f" or [{self.copies}, B, {self.sizes[0]}]" if self.copies > 1 else ""
            raise UserError(f"the net takes [B, {self.sizes[0]}]{also}, found shape {list(shape)}.")

    def _bind(self) -> None:
        """Makes the NumPy views of `flat`, again whenever its memory has moved."""
        flat = self.flat.detach()
        self._pointer = flat.data_ptr()
        self._fast = flat.device.type == "cpu" and flat.dtype == torch.float32
        if not self._fast:
            return
        places = layers(flat.numpy(), self.sizes, self.copies)
        self._weights = [weight for weight, _ in places]
        self._biases = [bias for _, bias in places]
        self._turned = [weight.swapaxes(-1, -2) for weight in self._weights]

    def __getstate__(self) -> dict[str, Any]:
        """Without the views, which belong to this object's memory."""
        views: dict[str, Any] = {"_weights": [], "_turned": [], "_biases": [], "_held": None}
        return {**self.__dict__, "_pointer": 0, **views}


class _Forward(torch.autograd.Function):
    """The net as one operation; saving x and `flat` lets torch notice if either was changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: MLP) -> Tensor:
        out, ctx.trace = net.trace(x.detach().numpy())
        ctx.net = net
        ctx.save_for_backward(x, flat)
        return torch.from_numpy(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        _ = ctx.saved_tensors
        need_x, need_flat, _ = ctx.needs_input_grad
        of_flat, of_x = ctx.net.backprop(
            ctx.trace, grad_out.numpy(), weights=need_flat, inputs=need_x
        )
        return (
            None if of_x is None else torch.from_numpy(of_x),
            None if of_flat is None else torch.from_numpy(of_flat),
            None,
        )


def layers(flat: F32, sizes: Sequence[int], copies: int) -> list[tuple[F32, F32]]:
    """Views (weight, bias) of each layer.

    [out, in] and [out] for one copy; [N, out, in] and [N, 1, out] for N.
    """
    nets = flat.reshape(copies, -1)
    places, start = [], 0
    for num_in, num_out in itertools.pairwise(sizes):
        middle, end = start + num_in * num_out, start + num_in * num_out + num_out
        weight = nets[:, start:middle].reshape(copies, num_out, num_in)
        bias = nets[:, middle:end].reshape(copies, 1, num_out)
        places.append((weight[0], bias[0, 0]) if copies == 1 else (weight, bias))
        start = end
    return places


def _tensor_layers(flat: Tensor, sizes: Sequence[int], copies: int) -> list[tuple[Tensor, Tensor]]:
    """Weight [N, out, in] and bias [N, out] of each layer, differentiable views of `flat`."""
    nets = flat.view(copies, -1)
    places, start = [], 0
    for num_in, num_out in itertools.pairwise(sizes):
        middle, end = start + num_in * num_out, start + num_in * num_out + num_out
        weight = nets[:, start:middle].reshape(copies, num_out, num_in)
        places.append((weight, nets[:, middle:end]))
        start = end
    return places


def initial(sizes: Sequence[int], rng: np.random.Generator, *, init: Init, gain_out: float) -> F32:
    """First weights of one net, flat."""
    parts: list[NDArray[Any]] = []
    last = len(sizes) - 2
    for layer, (num_in, num_out) in enumerate(itertools.pairwise(sizes)):
        if init == "orthogonal":
            gain = gain_out if layer == last else np.sqrt(2.0)
            parts += [gain * orthogonal(num_out, num_in, rng).ravel(), np.zeros(num_out)]
        elif init == "uniform":
            bound = 1.0 / np.sqrt(num_in)
            parts += [rng.uniform(-bound, bound, num_in * num_out)]
            parts += [rng.uniform(-bound, bound, num_out)]
        else:
            raise UserError(f"init must be orthogonal or uniform, found {init!r}.")
    return np.concatenate(parts).astype(np.float32)


def orthogonal(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A uniformly drawn matrix whose shorter side's vectors are orthonormal (Saxe et al. 2014)."""
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # makes the draw uniform: QR alone prefers some signs
    return q if rows >= columns else q.T


@contextlib.contextmanager
def frozen(*nets: nn.Module) -> Iterator[None]:
    """Within it, nets are differentiated in their inputs only: no gradient of weights is computed.

    For an actor's loss through critics. It is the forward pass that must lie inside.
    """
    held = [p for net in nets for p in net.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


@torch.no_grad()
def polyak_(target: nn.Module, source: nn.Module, tau: float) -> None:
    """target ← (1 − tau)·target + tau·source, for every parameter; tau = 1 copies."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, tau)
