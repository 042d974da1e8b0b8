"""Action heads: what the numbers of a net mean as a distribution over actions.

Here are those of policy-gradient actors and the list of all; heads that act in the unit box are in
`action_unit`, those of action values in `action_values`. The torch side scores actions and carries
gradients; the NumPy side draws them. An action is kept as it was drawn: `to_env` makes what the world
is given, within its bounds and in its units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.nets.action_head import Array, Head, Rng, bounds, expect
from plaudit.nets.action_unit import (
    HALF_LOG_2PI,
    LOG_STD_HIGH,
    LOG_STD_LOW,
    DeterministicTanh,
    SquashedGaussian,
)
from plaudit.nets.action_values import DuelingGreedy, Greedy
from plaudit.ops import entropy, kl_exact
from plaudit.records.errors import UserError, nearest
from plaudit.records.spaces import ActionSpec


class Categorical(Head):
    """One of n actions: π = softmax(params); a logit of −inf excludes an action."""

    kind = "categorical"

    def __init__(self, spec: ActionSpec) -> None:
        expect(spec, "discrete", self.kind)
        super().__init__(spec, spec.sizes[0])
        self.size_array = np.array(spec.sizes, np.int64)

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """log softmax(params)[action]: [B] from [B, A] and int64 [B]."""
        return params.log_softmax(-1).gather(-1, action[:, None])[:, 0]

    def entropy(self, params: Tensor) -> Tensor:
        """−Σ π log π: [B]."""
        return entropy(params)

    def snapshot(self, params: Tensor) -> Tensor:
        """The logits, without gradient."""
        return params.detach()

    def kl(self, old: Tensor, params: Tensor) -> Tensor:
        """Σ π_old (log π_old − log π): [B]."""
        return kl_exact(old, params)

    def draw(self, params: Array, rng: Rng) -> Array:
        """argmax of logits + Gumbel noise, a draw from the softmax (Gumbel 1954): int64 [B]."""
        return _gumbel_argmax(params, rng.random(params.shape))

    def mode(self, params: Array) -> Array:
        """The first of the most likely actions: int64 [B]."""
        best: Array = params.argmax(-1)
        return best


class MultiCategorical(Head):
    """k independent choices; params are their logits one after another, an action is int64 [k]."""

    kind = "multi_categorical"

    def __init__(self, spec: ActionSpec) -> None:
        expect(spec, "multi_discrete", self.kind)
        super().__init__(spec, sum(spec.sizes))
        self.size_array = np.array(spec.sizes, np.int64)
        ends = np.cumsum(spec.sizes).tolist()
        self._spans = [slice(end - size, end) for end, size in zip(ends, spec.sizes, strict=True)]

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """Σ over choices of log softmax[choice]: [B] from [B, Σn] and int64 [B, k]."""
        parts = [
            params[:, span].log_softmax(-1).gather(-1, action[:, i : i + 1])
            for i, span in enumerate(self._spans)
        ]
        return torch.cat(parts, -1).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """The sum of the choices' entropies: [B]."""
        return torch.stack([entropy(params[:, span]) for span in self._spans]).sum(0)

    def snapshot(self, params: Tensor) -> Tensor:
        """The logits, without gradient."""
        return params.detach()

    def kl(self, old: Tensor, params: Tensor) -> Tensor:
        """The sum of the choices' divergences: [B]."""
        parts = [kl_exact(old[:, span], params[:, span]) for span in self._spans]
        return torch.stack(parts).sum(0)

    def draw(self, params: Array, rng: Rng) -> Array:
        """Each choice drawn from its softmax: int64 [B, k]."""
        u = rng.random(params.shape)
        return np.stack([_gumbel_argmax(params[:, s], u[:, s]) for s in self._spans], -1)

    def mode(self, params: Array) -> Array:
        """Each choice's most likely: int64 [B, k]."""
        return np.stack([params[:, span].argmax(-1) for span in self._spans], -1)


class Gaussian(Head):
    """N(params, σ²) per dimension with log σ a parameter of its own, the same in every state.

    Nothing squashes the action: the world gets it clipped to its bounds (on a side without one as
    it is), but what is stored, and what is scored, is the action as drawn (Schulman et al. 2017,
    section 6.1; the clip is the world's affair).
    """

    kind = "gaussian"

    def __init__(self, spec: ActionSpec, *, log_std: float = 0.0) -> None:
        expect(spec, "box", self.kind)
        super().__init__(spec, spec.sizes[0])
        self.log_std = nn.Parameter(torch.full((spec.sizes[0],), float(log_std)))
        self._low, self._high = bounds(spec)

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """Σ −½((a − μ)/σ)² − log σ − ½ log 2π: [B] from [B, d] and [B, d]."""
        z = (action - params) * (-self.log_std).exp()
        return -(0.5 * z * z + (self.log_std + HALF_LOG_2PI)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Σ log σ + ½ log 2πe: [B], the same in every row."""
        return (self.log_std + (0.5 + HALF_LOG_2PI)).sum().expand(params.shape[0])

    def snapshot(self, params: Tensor) -> Tensor:
        """[B, 2d]: the means, and log σ beside each row."""
        return torch.cat([params, self.log_std.expand_as(params)], -1).detach()

    def kl(self, old: Tensor, params: Tensor) -> Tensor:
        """Σ log(σ/σ_old) + (σ_old² + (μ_old − μ)²)/(2σ²) − ½: [B]; `old` is [B, 2d]."""
        if old.shape[-1] != 2 * self.num_params:
            raise ValueError(
                f"old must be a snapshot [B, {2 * self.num_params}], found {list(old.shape)}."
            )
        mean_old, log_std_old = old.chunk(2, -1)
        wide = self.log_std - log_std_old
        gap = (mean_old - params) * (-self.log_std).exp()
        return (wide + 0.5 * ((-2.0 * wide).exp() + gap * gap - 1.0)).sum(-1)

    def draw(self, params: Array, rng: Rng) -> Array:
        """μ + σ·noise: float32 [B, d]."""
        std = np.exp(self.log_std.detach().cpu().numpy())
        drawn: Array = params + std * rng.standard_normal(params.shape, dtype=np.float32)
        return drawn

    def mode(self, params: Array) -> Array:
        """The means."""
        return params

    def to_env(self, actions: Array) -> Array:
        """Clipped to the world's bounds, where it has any."""
        return np.minimum(np.maximum(actions, self._low), self._high)


HEADS: dict[str, type[Head]] = {
    head.kind: head
    for head in (
        Categorical,
        MultiCategorical,
        Gaussian,
        SquashedGaussian,
        DeterministicTanh,
        Greedy,
        DuelingGreedy,
    )
}


ActorHead = Categorical | MultiCategorical | Gaussian
"""The heads of policy-gradient actors."""


def head_for(spec: ActionSpec) -> ActorHead:
    """The head of a policy-gradient actor for these actions."""
    if spec.kind == "discrete":
        return Categorical(spec)
    return MultiCategorical(spec) if spec.kind == "multi_discrete" else Gaussian(spec)


def head_from_facts(facts: Mapping[str, Any]) -> Any:
    """The head that `facts()` described; its parameters, if any, are loaded apart."""
    if facts["kind"] not in HEADS:
        raise UserError(
            f"no action head is called {facts['kind']!r}{nearest(facts['kind'], HEADS)}; "
            f"there are {', '.join(HEADS)}."
        )
    return HEADS[facts["kind"]].from_facts(facts)


def _gumbel_argmax(logits: Array, u: Array) -> Array:
    """argmax of logits − log(−log(1 − u)), u uniform in [0, 1)."""
    with np.errstate(divide="ignore"):  # u = 0 gives +inf: a draw of probability 2⁻⁵³
        drawn: Array = (logits - np.log(-np.log1p(-u))).argmax(-1)
    return drawn


__all__ = [
    "HEADS",
    "LOG_STD_HIGH",
    "LOG_STD_LOW",
    "ActorHead",
    "Categorical",
    "DeterministicTanh",
    "DuelingGreedy",
    "Gaussian",
    "Greedy",
    "Head",
    "MultiCategorical",
    "SquashedGaussian",
    "head_for",
    "head_from_facts",
]
