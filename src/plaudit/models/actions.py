"""Action heads: what the numbers of a net mean as a distribution over actions.

The torch side scores actions and carries gradients; the NumPy side draws them. An action is kept as
it was drawn: `to_env` makes what the world is given, and `from_env` the other way where that is
defined. Squashed and deterministic heads act in (−1, 1) per dimension, whatever the world's bounds,
so that critics see numbers of order one; their log-probabilities are densities in that unit box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from plaudit.ops import entropy, kl_exact
from plaudit.records.errors import UserError, nearest
from plaudit.records.spaces import ActionSpec

Array = NDArray[Any]
Rng = np.random.Generator

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

# log σ of the squashed Gaussian is kept in this range (Haarnoja et al. 2018, the authors' code).
LOG_STD_LOW, LOG_STD_HIGH = -20.0, 2.0


class Head(Protocol):
    """A family of distributions over actions with `num_params` numbers from the net."""

    kind: ClassVar[str]
    spec: ActionSpec
    num_params: int

    def draw(self, params: Array, rng: Rng) -> Array:
        """Actions [B, ...] from params [B, num_params]."""
        ...

    def mode(self, params: Array) -> Array:
        """The most likely (or greedy) actions."""
        ...

    def to_env(self, actions: Array) -> Array:
        """What the world is given for these actions."""
        ...

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        ...


class StochasticHead(Head, Protocol):
    """A head whose actions have log-probabilities, as policy gradients need."""

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """log π(action) [B]: natural logarithm; of a density where actions are continuous."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Exact entropy [B] in nats."""
        ...

    def snapshot(self, params: Tensor) -> Tensor:
        """All that fixes the distributions, without gradient: the `old` of `kl`."""
        ...

    def kl(self, old: Tensor, params: Tensor) -> Tensor:
        """Exact KL(old‖new) [B]: `old` from `snapshot`, `params` of the net as it is now."""
        ...


class _Base(nn.Module):
    kind: ClassVar[str]

    def __init__(self, spec: ActionSpec, num_params: int) -> None:
        super().__init__()
        self.spec, self.num_params = spec, num_params

    def to_env(self, actions: Array) -> Array:
        """The actions themselves."""
        return actions

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        return {"kind": self.kind, "spec": self.spec.facts()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> _Base:
        """The head with these facts; its parameters, if any, are loaded apart."""
        own = {k: v for k, v in facts.items() if k not in ("kind", "spec")}
        return cls(ActionSpec.from_facts(facts["spec"]), **own)


class Categorical(_Base):
    """One of n actions: π = softmax(params); a logit of −inf excludes an action."""

    kind = "categorical"

    def __init__(self, spec: ActionSpec) -> None:
        _expect(spec, "discrete", self.kind)
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


class MultiCategorical(_Base):
    """k independent choices; params are their logits one after another, an action is int64 [k]."""

    kind = "multi_categorical"

    def __init__(self, spec: ActionSpec) -> None:
        _expect(spec, "multi_discrete", self.kind)
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


class Gaussian(_Base):
    """N(params, σ²) per dimension with log σ a parameter of its own, the same in every state.

    Nothing squashes the action: the world gets it clipped to its bounds, but what is stored, and
    what is scored, is the action as drawn (Schulman et al. 2017, section 6.1; the clip is the
    world's affair).
    """

    kind = "gaussian"

    def __init__(self, spec: ActionSpec, *, log_std: float = 0.0) -> None:
        _expect(spec, "box", self.kind)
        super().__init__(spec, spec.sizes[0])
        self.log_std = nn.Parameter(torch.full((spec.sizes[0],), float(log_std)))
        self._low, self._high = _bounds(spec)

    def logp(self, params: Tensor, action: Tensor) -> Tensor:
        """Σ −½((a − μ)/σ)² − log σ − ½ log 2π: [B] from [B, d] and [B, d]."""
        z = (action - params) * (-self.log_std).exp()
        return -(0.5 * z * z + (self.log_std + _HALF_LOG_2PI)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Σ log σ + ½ log 2πe: [B], the same in every row."""
        return (self.log_std + (0.5 + _HALF_LOG_2PI)).sum().expand(params.shape[0])

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
        """Clipped to the world's bounds."""
        return np.minimum(np.maximum(actions, self._low), self._high)


class _Unit(_Base):
    """Actions in [−1, 1] that the world gets stretched to its bounds, which must be finite."""

    def __init__(self, spec: ActionSpec, num_params: int) -> None:
        _expect(spec, "box", self.kind)
        super().__init__(spec, num_params)
        low, high = _bounds(spec)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UserError(
                f"a {self.kind} policy needs an action space with finite bounds, "
                f"found low {spec.low} and high {spec.high}."
            )
        self._low, self._high = low, high
        self._middle, self._half = 0.5 * (low + high), 0.5 * (high - low)

    def to_env(self, actions: Array) -> Array:
        """low + (a + 1)/2·(high − low), within the bounds to the last digit."""
        stretched = self._middle + self._half * actions
        return np.minimum(np.maximum(stretched, self._low), self._high)

    def from_env(self, actions: Array) -> Array:
        """The unit action of a world's action: what `to_env` undoes."""
        unit: Array = ((actions - self._middle) / self._half).astype(np.float32)
        return unit

    def random(self, num_envs: int, rng: Rng) -> Array:
        """Uniform in the unit box: float32 [B, d], for steps before learning starts."""
        drawn = rng.uniform(-1.0, 1.0, (num_envs, self.spec.sizes[0]))
        return np.asarray(drawn, np.float32)


class SquashedGaussian(_Unit):
    """a = tanh(u), u ~ N(μ, σ²) with params [B, 2d] = (μ, log σ); log σ is clamped to [−20, 2].

    log π(a) = Σ log N(u) − 2(log 2 − u − softplus(−2u)), the stable form of −log(1 − tanh² u). The
    stretch to the world's bounds is left out of it, so a target entropy of −d means the same for
    every range (as in Stable-Baselines3; with the stretch, add −Σ log half-range).
    Source: Haarnoja et al. 2018 (1812.05905), appendix C.
    """

    kind = "squashed_gaussian"

    def __init__(self, spec: ActionSpec) -> None:
        super().__init__(spec, 2 * spec.num_params)

    def sample(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, d] in (−1, 1) and log π [B] from params [B, 2d] and N(0, 1) noise [B, d].

        Differentiable in params through the action (reparameterised).
        """
        mean, log_std = params.chunk(2, -1)
        log_std = log_std.clamp(LOG_STD_LOW, LOG_STD_HIGH)
        u = mean + log_std.exp() * noise
        squash = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
        logp = -(0.5 * noise * noise + log_std + _HALF_LOG_2PI + squash).sum(-1)
        return u.tanh(), logp

    def draw(self, params: Array, rng: Rng) -> Array:
        """float32 [B, d] in (−1, 1)."""
        mean, log_std = np.split(params, 2, axis=-1)
        std = np.exp(np.minimum(np.maximum(log_std, LOG_STD_LOW), LOG_STD_HIGH))
        drawn: Array = np.tanh(mean + std * rng.standard_normal(mean.shape, dtype=np.float32))
        return drawn

    def mode(self, params: Array) -> Array:
        """tanh μ."""
        squashed: Array = np.tanh(params[..., : self.spec.sizes[0]])
        return squashed


class DeterministicTanh(_Unit):
    """a = tanh(params), and when exploring clip(a + noise_std·N(0, 1), ±1).

    Source: Fujimoto et al. 2018 (1802.09477), section 6 and appendix C.
    """

    kind = "deterministic_tanh"

    def __init__(self, spec: ActionSpec, *, noise_std: float = 0.1) -> None:
        super().__init__(spec, spec.num_params)
        self.noise_std = noise_std

    def action(self, params: Tensor) -> Tensor:
        """tanh(params): [B, d], differentiable."""
        return params.tanh()

    def draw(self, params: Array, rng: Rng) -> Array:
        """With exploration noise: float32 [B, d] in [−1, 1]."""
        noise = np.float32(self.noise_std) * rng.standard_normal(params.shape, dtype=np.float32)
        noisy: Array = np.tanh(params) + noise
        return np.minimum(np.maximum(noisy, np.float32(-1)), np.float32(1))

    def mode(self, params: Array) -> Array:
        """tanh(params)."""
        squashed: Array = np.tanh(params)
        return squashed

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        return {**super().facts(), "noise_std": self.noise_std}


class Greedy(_Base):
    """params are values of n actions: the best of them, or with chance `epsilon` any of the n.

    Each row tosses its own coin. `epsilon` may be set between steps.
    Source: Mnih et al. 2015, algorithm 1.
    """

    kind = "greedy"

    def __init__(self, spec: ActionSpec, *, epsilon: float = 0.0) -> None:
        _expect(spec, "discrete", self.kind)
        super().__init__(spec, spec.sizes[0])
        self.epsilon = epsilon

    def q(self, params: Tensor) -> Tensor:
        """Action values [B, A]: the params."""
        return params

    def draw(self, params: Array, rng: Rng) -> Array:
        """int64 [B]: one uniform number for a row's coin, one integer for its random action."""
        explore = rng.random(params.shape[0]) < self.epsilon
        anything = rng.integers(self.spec.sizes[0], size=params.shape[0])
        chosen: Array = np.where(explore, anything, self.mode(params))
        return chosen

    def mode(self, params: Array) -> Array:
        """The first of the best actions: int64 [B]."""
        best: Array = params.argmax(-1)
        return best

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        return {**super().facts(), "epsilon": self.epsilon}


class DuelingGreedy(Greedy):
    """params are a state value and n advantages: q = v + a − mean a, and greedy in it.

    Source: Wang et al. 2016 (1511.06581), equation 9.
    """

    kind = "dueling_greedy"

    def __init__(self, spec: ActionSpec, *, epsilon: float = 0.0) -> None:
        super().__init__(spec, epsilon=epsilon)
        self.num_params = spec.sizes[0] + 1

    def q(self, params: Tensor) -> Tensor:
        """v + a − mean a: [B, A] from [B, 1 + A]."""
        value, adv = params[..., :1], params[..., 1:]
        return value + adv - adv.mean(-1, keepdim=True)

    def mode(self, params: Array) -> Array:
        """The first of the best actions: int64 [B]."""
        best: Array = params[..., 1:].argmax(-1)
        return best


HEADS: dict[str, type[_Base]] = {
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


def head_for(spec: ActionSpec) -> Categorical | MultiCategorical | Gaussian:
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


def _bounds(spec: ActionSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)


def _expect(spec: ActionSpec, kind: str, head: str) -> None:
    if spec.kind != kind:
        raise UserError(
            f"a {head} policy needs a {kind} action space, found {spec.kind} {spec.sizes}."
        )
