"""Optimisers of flat parameters, one pass of machine code each; and clipping by the norm.

The arithmetic is that of torch.optim.Adam, and of RMSprop as A2C's authors had it. Parameters that
are not contiguous float32 on the CPU take the same steps by torch's operations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.nets.mlp_kernels import adam_step, rmsprop_step
from plaudit.records.errors import UserError
from plaudit.records.state import Saved


def clip_grad_norm_(params: Iterable[Tensor], max_norm: float) -> float:
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)); the norm before that.

    The norm is over all numbers together. One that is not finite is returned as it is, and the
    gradients become NaN, as in torch.nn.utils: the caller decides.
    """
    grads = [p.grad for p in params if p.grad is not None]
    norm = math.sqrt(sum(_square_sum(grad) for grad in grads))
    coef = max_norm / (norm + 1e-6)
    if not coef >= 1.0:
        for grad in grads:
            grad.mul_(coef)
    return norm


def _square_sum(x: Tensor) -> float:
    if x.device.type == "cpu" and x.is_contiguous() and x.dtype == torch.float32:
        flat = x.view(-1)
        total = float(torch.dot(flat, flat))
        if math.isfinite(total):
            return total
    return float(x.double().square().sum())


class _Flat(ABC):
    """Parameters with slots of the same shape, and the count of steps."""

    slots: tuple[str, ...]

    def __init__(self, params: Iterable[Tensor], *, lr: float) -> None:
        self.params = list(params)
        if not self.params:
            raise UserError("an optimiser needs at least one parameter, found none.")
        if not lr >= 0.0:
            raise UserError(f"lr must be at least 0, found {lr!r}.")
        self.lr = lr
        self.num_steps = 0
        self._slots = [[self._first(name, p) for name in self.slots] for p in self.params]
        self._views: list[list[NDArray[Any]] | None] = [None] * len(self.params)
        self._pointers = [0] * len(self.params)

    def _first(self, name: str, p: Tensor) -> Tensor:
        return torch.zeros_like(p, memory_format=torch.contiguous_format, requires_grad=False)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """One step for every parameter that has a gradient."""
        self.num_steps += 1
        for i, p in enumerate(self.params):
            grad = p.grad
            if grad is None:
                continue
            views = self._views[i] if p.data_ptr() == self._pointers[i] else self._bind(i)
            if views is None:
                with torch.no_grad():
                    self._by_torch(p, grad, self._slots[i])
            else:
                self._by_kernel(grad.numpy().reshape(-1), views)
                torch.autograd.graph.increment_version(p)  # lets autograd notice the change

    def _bind(self, i: int) -> list[NDArray[Any]] | None:
        p = self.params[i]
        self._pointers[i] = p.data_ptr()
        self._slots[i] = [slot.to(p) for slot in self._slots[i]]
        fast = p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous()
        views = [x.detach().numpy().reshape(-1) for x in (p, *self._slots[i])] if fast else None
        self._views[i] = views
        return views

    @abstractmethod
    def _by_kernel(self, grad: NDArray[Any], views: list[NDArray[Any]]) -> None:
        """One step in one pass of machine code."""

    @abstractmethod
    def _by_torch(self, p: Tensor, grad: Tensor, slots: Sequence[Tensor]) -> None:
        """One step by torch operations."""

    def state(self) -> Saved:
        """The slots as arrays and the count of steps with the learning rate, copied."""
        arrays = {
            f"{name}.{i}": slot.detach().cpu().numpy().copy()
            for i, slots in enumerate(self._slots)
            for name, slot in zip(self.slots, slots, strict=True)
        }
        return arrays, {"num_steps": self.num_steps, "lr": self.lr}

    @torch.no_grad()
    def restore(self, saved: tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]) -> None:
        """Goes on from what `state` gave."""
        arrays, facts = saved
        for i, slots in enumerate(self._slots):
            for name, slot in zip(self.slots, slots, strict=True):
                found = arrays.get(f"{name}.{i}")
                if found is None or found.shape != tuple(slot.shape):
                    shape = "nothing" if found is None else f"shape {found.shape}"
                    raise UserError(
                        f"the saved optimiser has {shape} for {name}.{i}, "
                        f"expected shape {tuple(slot.shape)}."
                    )
                slot.copy_(torch.from_numpy(found))
        self.num_steps, self.lr = int(facts["num_steps"]), float(facts["lr"])


class FlatAdam(_Flat):
    """Adam: m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − lr·m̂ / (√v̂ + eps).

    m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), t the count of steps; `lr` may be set between steps.
    Source: Kingma and Ba 2015, algorithm 1, with torch.optim.Adam's order of operations.
    """

    slots = ("m", "v")

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr)
        self.betas, self.eps = betas, eps

    def _scales(self) -> tuple[float, float]:
        """lr / (1 − β₁ᵗ) and √(1 − β₂ᵗ)."""
        beta1, beta2 = self.betas
        correction1 = 1.0 - beta1**self.num_steps
        return self.lr / correction1, math.sqrt(1.0 - beta2**self.num_steps)

    def _by_kernel(self, grad: NDArray[Any], views: list[NDArray[Any]]) -> None:
        p, m, v = views
        step_size, root = self._scales()
        f32 = np.float32
        beta1, beta2 = self.betas
        adam_step(
            p, grad, m, v, f32(step_size), f32(1 - beta1), f32(beta2), f32(1 - beta2),
            f32(root), f32(self.eps),
        )  # fmt: skip

    def _by_torch(self, p: Tensor, grad: Tensor, slots: Sequence[Tensor]) -> None:
        m, v = slots
        step_size, root = self._scales()
        m.lerp_(grad, 1.0 - self.betas[0])
        v.mul_(self.betas[1]).addcmul_(grad, grad, value=1.0 - self.betas[1])
        p.addcdiv_(m, (v.sqrt() / root).add_(self.eps), value=-step_size)


class FlatRMSprop(_Flat):
    """RMSprop with eps inside the root: v ← αv + (1−α)g²; p ← p − lr·g / √(v + eps); v starts at 1.

    torch.optim.RMSprop has √v + eps and starts at 0, and A2C learns worse with it.
    Source: Tieleman and Hinton 2012, in the form of TensorFlow 1 that A2C's published numbers used.
    """

    slots = ("v",)

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, alpha: float = 0.99, eps: float = 1e-5
    ) -> None:
        super().__init__(params, lr=lr)
        self.alpha, self.eps = alpha, eps

    def _first(self, name: str, p: Tensor) -> Tensor:
        return torch.ones_like(p, memory_format=torch.contiguous_format, requires_grad=False)

    def _by_kernel(self, grad: NDArray[Any], views: list[NDArray[Any]]) -> None:
        p, v = views
        f32 = np.float32
        rest = f32(1.0 - self.alpha)
        rmsprop_step(p, grad, v, f32(self.lr), f32(self.alpha), rest, f32(self.eps))

    def _by_torch(self, p: Tensor, grad: Tensor, slots: Sequence[Tensor]) -> None:
        (v,) = slots
        v.mul_(self.alpha).addcmul_(grad, grad, value=1.0 - self.alpha)
        p.addcdiv_(grad, (v + self.eps).sqrt_(), value=-self.lr)


__all__ = ["FlatAdam", "FlatRMSprop", "clip_grad_norm_"]
