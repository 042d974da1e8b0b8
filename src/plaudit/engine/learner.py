"""Parameters and their optimiser: one clipped step at a time, and a state that restores exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from plaudit.engine.memory import give_back_growth
from plaudit.records.config import Config
from plaudit.records.state import Saved


class AdamConfig(Config):
    """AdamW with gradient clipping; the learning rate comes from the algorithm's schedule."""

    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean gradient (Kingma & Ba).")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the squared gradient.")
    eps: float = Field(
        1e-5, gt=0, description="Added to the root of the second moment (Huang et al. 2024: 1e-5)."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled decay per unit learning rate.")
    max_grad_norm: float = Field(
        1.0, gt=0, description="Gradients are scaled down to this global norm (Huang et al. 2024)."
    )


class Learner:
    """Named parameters, AdamW over them, and gradient clipping."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: AdamConfig) -> None:
        self.parameters = dict(parameters)
        self.config = config
        self.optimiser = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=0.0,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.optimiser.zero_grad(set_to_none=True)

    def step(self, *, lr: float) -> float:
        """Clip, step, and return the gradient's global norm before clipping.

        Raises `FloatingPointError` when the gradient is not finite: the weights are left as they
        were, so that the last checkpoint and the weights in memory are both sound.
        """
        norm = torch.nn.utils.clip_grad_norm_(
            self.parameters.values(), self.config.max_grad_norm, error_if_nonfinite=False
        )
        grad_norm = float(norm)
        if not grad_norm < float("inf"):
            raise FloatingPointError(
                f"the gradient's norm is {grad_norm}, so no step was taken: lower the learning rate"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        give_back_growth()  # activations of one size leave holes that the next do not fit
        return grad_norm

    def state(self) -> Saved:
        """Weights and moments by name, lent until the next step; moments are absent before the
        first one."""
        arrays: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            arrays[f"weight.{name}"] = parameter.detach()
            for key, value in self.optimiser.state.get(parameter, {}).items():
                arrays[f"{key}.{name}"] = value
        return arrays, {}

    def restore(self, arrays: Mapping[str, Tensor]) -> None:
        """Put back the arrays that `state` gave, bit for bit; without moments the optimiser starts
        afresh."""
        self.zero_grad()
        for name, parameter in self.parameters.items():
            with torch.no_grad():
                parameter.copy_(arrays[f"weight.{name}"])
            moments = {
                key: arrays[f"{key}.{name}"].to(parameter.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in arrays
            }
            self.optimiser.state.pop(parameter, None)
            if moments:
                self.optimiser.state[parameter] = moments
