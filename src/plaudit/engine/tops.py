"""How a top is taught: all of its weights, or low-rank adapters beside them.

    top = whole(decoder)                       or   adapted(decoder, LoRA(rank=8), seed=0)
    top.forward, top.parameters, top.written()

Any role may be taught either way. Adapters hold a fiftieth of the top's numbers at rank 8, and of
its moments. After every step the merged weights are written into the plain top, so that the sampler
and whoever saves a model see the policy as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from plaudit.models.adapter import adapter_parameters, merge, with_adapters
from plaudit.models.backbone import Decoder


@dataclass(frozen=True)
class LoRA:
    """Adapters of `rank` on the linear maps; `seed` decides the first values of A (B starts at
    zero, so the first top is the plain one)."""

    rank: int
    seed: int = 0


class Top(Protocol):
    """A top in training."""

    forward: Decoder
    """What computes, with gradients where it is taught."""
    plain: Decoder
    """The same numbers in the model's own modules."""
    rank: int
    """Of its adapters; 0 where all weights are taught."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is taught, by name."""
        ...

    def written(self) -> None:
        """After a step: make `plain` what `forward` is."""
        ...


class WholeTop:
    """All weights of the top are taught."""

    rank = 0

    def __init__(self, top: Decoder) -> None:
        self.forward = self.plain = top.requires_grad_(True)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The top's own."""
        return dict(self.plain.named_parameters())

    def written(self) -> None:
        """Nothing to do: they are one."""


class AdaptedTop:
    """Adapters are taught, relative to the weights that the top has now."""

    def __init__(self, top: Decoder, lora: LoRA) -> None:
        self.plain = top.requires_grad_(False)
        self.rank = lora.rank
        self.forward = with_adapters(top, rank=lora.rank, seed=lora.seed)

    def parameters(self) -> dict[str, nn.Parameter]:
        """A and B of every map."""
        return adapter_parameters(self.forward)

    def written(self) -> None:
        """Merge the adapters into the plain weights."""
        merge(self.forward, self.plain)


def taught(top: Decoder, lora: LoRA | None) -> WholeTop | AdaptedTop:
    """The top, to be taught by adapters where there are any to be."""
    return WholeTop(top) if lora is None else AdaptedTop(top, lora)
