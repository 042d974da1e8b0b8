"""A GRU over observations, for policies that must remember: recurrent PPO's core.

    r, z = σ(W_r x + U_r h), σ(W_z x + U_z h);  n = tanh(W_n x + r ∘ U_n h);  h' = (1 − z) ∘ n + z ∘ h

(biases left out above.) A new episode begins with h = 0: `starts[t]` is true where the observation
of step t is the first of its episode, and then the state that came before is not read.

On a CPU a whole sequence is one operation to autograd, written by hand in NumPy: torch's own GRU
would dispatch dozens of operations a step, and stop wherever an episode begins. On another device or
in another dtype the same weights run through torch.nn.GRU.

Source: Cho et al. 2014 (1406.1078), in cuDNN's form, as torch.nn.GRU computes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plaudit.nets.gru_kernels import (
    Bools,
    begun,
    carry_back,
    gates_in,
    new_in,
    state_out,
    step_back,
)
from plaudit.nets.mlp import orthogonal
from plaudit.nets.mlp_kernels import F32
from plaudit.records.errors import UserError


class Weights(NamedTuple):
    """W [3H, D], U [3H, H] and their biases [3H], sharing memory with the parameters."""

    x: F32
    h: F32
    bias_x: F32
    bias_h: F32


class Steps(NamedTuple):
    """What the backward pass needs of T steps: states read, gates, U_n h + b, and n."""

    x: F32
    starts: Bools
    h: F32
    gates: F32
    recalled: F32
    new: F32


class GRU(nn.Module):
    """Features [T, B, H] of observations [T, B, D] with a state [B, H] that is carried on."""

    def __init__(self, num_in: int, num_hidden: int, *, rng: np.random.Generator) -> None:
        super().__init__()
        self.num_in, self.num_hidden = num_in, num_hidden
        self.cell = nn.GRU(num_in, num_hidden)
        _begin(self.cell, rng)

    def first_state(self, num_envs: int) -> F32:
        """The state before anything was seen: zeros [B, H]."""
        return np.zeros((num_envs, self.num_hidden), np.float32)

    def forward(self, x: Tensor, state: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Features [T, B, H] and the state after the last step [B, H].

        `x` is [T, B, D], `state` [B, H] what was carried into the first step, `starts` bool [T, B].
        """
        if x.ndim != 3 or x.shape[-1] != self.num_in or starts.shape != x.shape[:2]:
            raise UserError(
                f"the GRU takes x [T, B, {self.num_in}] and starts [T, B], "
                f"found {list(x.shape)} and {list(starts.shape)}."
            )
        if x.device.type != "cpu" or x.dtype != torch.float32 or not self._on_cpu():
            return self._by_torch(x, state, starts)
        out: Tensor = _Forward.apply(x, state, starts, *self.cell.parameters())  # type: ignore[no-untyped-call]
        return out, out[-1]

    def infer(self, x: NDArray[Any], state: F32, starts: Bools) -> F32:
        """The next state [B, H] (which is also the features) after one step, in NumPy.

        `x` is [B, D], `state` [B, H], `starts` bool [B]; nothing is written to.
        """
        h = np.empty_like(state)
        begun(state, starts, h)
        if not self._on_cpu():
            with torch.no_grad():
                like = next(self.cell.parameters())
                of_device = (torch.from_numpy(np.asarray(a)).to(like)[None] for a in (x, h))
                return np.asarray(self.cell(*of_device)[0][0].cpu().numpy(), np.float32)
        weights = Weights(*(p.detach().numpy() for p in self.cell.parameters()))
        of_x = np.asarray(x, np.float32) @ weights.x.T
        of_x += weights.bias_x
        new, num_envs = np.empty_like(h), len(h)
        gates = np.empty((num_envs, 2 * self.num_hidden), np.float32)
        out = np.empty_like(h)
        _step(weights, of_x, h, gates, np.empty_like(h), new, out)
        return out

    def _on_cpu(self) -> bool:
        weight = next(self.cell.parameters())
        return weight.device.type == "cpu" and weight.dtype == torch.float32

    def _by_torch(self, x: Tensor, state: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """One call for each stretch of steps in which no row begins an episode."""
        cuts = [t for t in starts.any(1).nonzero()[:, 0].tolist() if t > 0]
        parts = []
        for begin, end in itertools.pairwise([0, *cuts, x.shape[0]]):
            state = torch.where(starts[begin][:, None], 0.0, state)
            out, last = self.cell(x[begin:end], state[None])
            state = last[0]
            parts.append(out)
        return torch.cat(parts), state

    def facts(self) -> dict[str, Any]:
        """JSON that `gru_from_facts` reads: all but the weights."""
        return {"num_in": self.num_in, "num_hidden": self.num_hidden}


def gru_from_facts(facts: Mapping[str, Any]) -> GRU:
    """A GRU as `facts` says, with weights yet to be loaded."""
    return GRU(facts["num_in"], facts["num_hidden"], rng=np.random.default_rng(0))


class _Forward(torch.autograd.Function):
    """A sequence as one operation; saving its inputs lets torch notice if one was changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, starts: Tensor, *weights: Tensor) -> Tensor:
        views = Weights(*(w.detach().numpy() for w in weights))
        first = state.detach().numpy()
        out, ctx.steps = _forward(views, x.detach().numpy(), first, starts.numpy())
        ctx.save_for_backward(x, state, starts, *weights)
        return torch.from_numpy(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        views = Weights(*(w.detach().numpy() for w in ctx.saved_tensors[3:]))
        grads = _backward(views, ctx.steps, np.ascontiguousarray(grad_out.numpy()))
        of_x, of_state, *of_weights = (torch.from_numpy(g) for g in grads)
        return of_x, of_state, None, *of_weights


def _step(
    weights: Weights, of_x: F32, h: F32, gates: F32, recalled: F32, new: F32, out: F32
) -> None:
    """One step of the GRU from W x + b [B, 3H] and h [B, H]; all else is written to."""
    of_h = h @ weights.h.T
    gates_in(of_x, of_h, weights.bias_h, gates)
    np.tanh(gates, out=gates)
    new_in(of_x, of_h, weights.bias_h, gates, recalled, new)
    np.tanh(new, out=new)
    state_out(h, gates, new, out)


def _forward(weights: Weights, x: F32, state: F32, starts: Bools) -> tuple[F32, Steps]:
    """All states [T, B, H] after their steps, and what `_backward` needs."""
    num_steps, num_envs, num_in = x.shape
    num_hidden = weights.h.shape[1]
    x = np.ascontiguousarray(x)
    of_x = x.reshape(-1, num_in) @ weights.x.T
    of_x += weights.bias_x
    of_x = of_x.reshape(num_steps, num_envs, 3 * num_hidden)
    out, h, recalled, new = np.empty((4, num_steps, num_envs, num_hidden), np.float32)
    gates = np.empty((num_steps, num_envs, 2 * num_hidden), np.float32)
    for t in range(num_steps):
        begun(out[t - 1] if t else np.ascontiguousarray(state), starts[t], h[t])
        _step(weights, of_x[t], h[t], gates[t], recalled[t], new[t], out[t])
    return out, Steps(x, starts, h, gates, recalled, new)


def _backward(weights: Weights, steps: Steps, grad_out: F32) -> tuple[F32, ...]:
    """Gradients of x, of the first state, and of the four weights."""
    num_steps, num_envs, num_hidden = steps.h.shape
    grad_x, grad_h = np.empty((2, num_steps, num_envs, 3 * num_hidden), np.float32)
    carried = np.zeros((num_envs, num_hidden), np.float32)
    passed = np.empty_like(carried)
    for t in range(num_steps - 1, -1, -1):
        kept = (steps.h[t], steps.gates[t], steps.recalled[t], steps.new[t])
        step_back(grad_out[t], carried, *kept, grad_x[t], grad_h[t], passed)
        carry_back(passed, grad_h[t] @ weights.h, steps.starts[t], carried)
    rows_x, rows_h = grad_x.reshape(-1, 3 * num_hidden), grad_h.reshape(-1, 3 * num_hidden)
    of_inputs = (rows_x @ weights.x).reshape(steps.x.shape)
    of_x = rows_x.T @ steps.x.reshape(len(rows_x), -1)
    of_h = rows_h.T @ steps.h.reshape(len(rows_h), -1)
    return of_inputs, carried, of_x, of_h, rows_x.sum(0), rows_h.sum(0)


@torch.no_grad()
def _begin(cell: nn.GRU, rng: np.random.Generator) -> None:
    """Each gate's matrices orthogonal with gain 1, biases 0 (Saxe et al. 2014; PPO's authors)."""
    for name, p in cell.named_parameters():
        if name.startswith("bias"):
            p.zero_()
            continue
        gates = [orthogonal(p.shape[0] // 3, p.shape[1], rng) for _ in range(3)]
        p.copy_(torch.from_numpy(np.concatenate(gates)))


__all__ = ["F32", "GRU", "gru_from_facts"]
