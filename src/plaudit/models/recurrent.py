"""A GRU over observations, for policies that must remember: recurrent PPO's core.

    r, z = σ(W_r x + U_r h), σ(W_z x + U_z h);  n = tanh(W_n x + r ∘ U_n h);  h' = (1 − z) ∘ n + z ∘ h

(biases left out above.) A new episode begins with h = 0: `starts[t]` is true where the observation
of step t is the first of its episode, and then the state that came before is not read.

Source: Cho et al. 2014 (1406.1078), in cuDNN's form, as torch.nn.GRU computes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plaudit.models.mlp import orthogonal
from plaudit.records.errors import UserError

F32 = NDArray[np.float32]


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
        One fused call runs each stretch of steps in which no row begins an episode.
        """
        if x.ndim != 3 or x.shape[-1] != self.num_in or starts.shape != x.shape[:2]:
            raise UserError(
                f"the GRU takes x [T, B, {self.num_in}] and starts [T, B], "
                f"found {list(x.shape)} and {list(starts.shape)}."
            )
        num_steps = x.shape[0]
        cuts = [t for t in starts.any(1).nonzero()[:, 0].tolist() if t > 0]
        edges = [0, *cuts, num_steps]
        parts = []
        for begin, end in itertools.pairwise(edges):
            state = torch.where(starts[begin][:, None], 0.0, state)
            out, last = self.cell(x[begin:end], state[None])
            state = last[0]
            parts.append(out)
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), state

    def infer(self, x: NDArray[Any], state: F32, starts: NDArray[np.bool_]) -> F32:
        """The next state [B, H] (which is also the features) after one step, in NumPy.

        `x` is [B, D], `state` [B, H], `starts` bool [B]; nothing is written to.
        """
        weight_x, weight_h, bias_x, bias_h = (
            p.detach().cpu().numpy() for p in self.cell.parameters()
        )
        h = np.where(starts[:, None], np.float32(0.0), state)
        of_x = np.asarray(x, np.float32) @ weight_x.T
        of_x += bias_x
        of_h = h @ weight_h.T
        of_h += bias_h
        n = self.num_hidden
        gates = 0.5 * np.tanh(0.5 * (of_x[:, : 2 * n] + of_h[:, : 2 * n])) + np.float32(0.5)
        reset, update = gates[:, :n], gates[:, n:]
        new = np.tanh(of_x[:, 2 * n :] + reset * of_h[:, 2 * n :])
        out: F32 = new + update * (h - new)
        return out

    def facts(self) -> dict[str, Any]:
        """JSON that `gru_from_facts` reads: all but the weights."""
        return {"num_in": self.num_in, "num_hidden": self.num_hidden}


def gru_from_facts(facts: Mapping[str, Any]) -> GRU:
    """A GRU as `facts` says, with weights yet to be loaded."""
    return GRU(facts["num_in"], facts["num_hidden"], rng=np.random.default_rng(0))


@torch.no_grad()
def _begin(cell: nn.GRU, rng: np.random.Generator) -> None:
    """Each gate's matrices orthogonal with gain 1, biases 0 (Saxe et al. 2014; PPO's authors)."""
    for name, p in cell.named_parameters():
        if name.startswith("bias"):
            p.zero_()
            continue
        gates = [orthogonal(p.shape[0] // 3, p.shape[1], rng) for _ in range(3)]
        p.copy_(torch.from_numpy(np.concatenate(gates)))
