"""Heads that act in (−1, 1) per dimension, stretched to the world's bounds: SAC's and TD3's.

Critics see the unit action, so their inputs are of order one whatever the world's units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from plaudit.nets.action_head import Array, Head, Rng, bounds, expect
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

# log σ of the squashed Gaussian is kept in this range (Haarnoja et al. 2018, the authors' code).
LOG_STD_LOW, LOG_STD_HIGH = -20.0, 2.0


class UnitHead(Head):
    """Actions in [−1, 1] that the world gets stretched to its bounds, which must be finite."""

    def __init__(self, spec: ActionSpec, num_params: int) -> None:
        expect(spec, "box", self.kind)
        super().__init__(spec, num_params)
        low, high = bounds(spec)
        with np.errstate(over="ignore", invalid="ignore"):
            middle, half = 0.5 * (low + high), 0.5 * (high - low)
        if not np.isfinite(half).all():
            raise UserError(
                f"a {self.kind} policy needs an action space with finite bounds, found low {spec.low} "
                f"and high {spec.high}; ppo, whose Gaussian needs none, can act there."
            )
        self._low, self._high, self._middle, self._half = low, high, middle, half

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


class SquashedGaussian(UnitHead):
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
        logp = -(0.5 * noise * noise + log_std + HALF_LOG_2PI + squash).sum(-1)
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


class DeterministicTanh(UnitHead):
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
