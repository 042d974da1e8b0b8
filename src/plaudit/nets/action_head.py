"""What every action head offers: drawing in NumPy, and facts to build it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from plaudit.nets.mlp_kernels import F32
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec

Array = NDArray[Any]
Rng = np.random.Generator


class Head(nn.Module, ABC):
    """A family of distributions over actions, chosen among by `num_params` numbers from a net."""

    kind: ClassVar[str]

    def __init__(self, spec: ActionSpec, num_params: int) -> None:
        super().__init__()
        self.spec, self.num_params = spec, num_params

    @abstractmethod
    def draw(self, params: Array, rng: Rng) -> Array:
        """Actions [B, ...] from params [B, num_params]."""

    @abstractmethod
    def mode(self, params: Array) -> Array:
        """The most likely, or the best, actions [B, ...]."""

    def to_env(self, actions: Array) -> Array:
        """What the world is given for these actions."""
        return actions

    def facts(self) -> dict[str, Any]:
        """JSON that `head_from_facts` reads."""
        return {"kind": self.kind, "spec": self.spec.facts()}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Head:
        """The head with these facts; its parameters, if any, are loaded apart."""
        own = {k: v for k, v in facts.items() if k not in ("kind", "spec")}
        return cls(ActionSpec.from_facts(facts["spec"]), **own)


def bounds(spec: ActionSpec) -> tuple[F32, F32]:
    """Least and greatest actions of a box, each [d]; infinite where there is none in float32."""
    with np.errstate(over="ignore"):
        return np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)


def expect(spec: ActionSpec, kind: str, head: str) -> None:
    """Raises UserError where a head cannot serve an action space."""
    if spec.kind != kind:
        raise UserError(
            f"a {head} policy needs a {kind} action space, found {spec.kind} {spec.sizes}."
        )
