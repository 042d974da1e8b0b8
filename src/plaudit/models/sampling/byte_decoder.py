"""Steps of Llama-shaped models whose products are of bytes (`quantised`).

Prompts are read in float32, and keys, values, norms, attention and the residual stream stay so. The
distribution that is drawn from is then another than the model's, by the rounding of a step; what is
told of a token is its log-probability under the distribution that it was drawn from.
On SmolLM2 KL(float32 ‖ int8) is 0.005 nats a token; 0.035 if channels were not mixed, and twice as
much if prompts were read by bytes too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.models.sampling.fused import FusedDecoder, fits, kernels_for
from plaudit.models.sampling.packed import AsItIs, Linear
from plaudit.models.sampling.quantised import Quantised, sums_exactly
from plaudit.records.errors import UserError
from plaudit.records.sampling import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ByteDecoder(FusedDecoder):
    """`FusedDecoder` with a copy of the maps in bytes, which steps are made of.

    Prompts are read by the weights as they lie: each once, so that another layout would not pay.
    `release` gives up the floats alone. The bytes, a fourth of them, stay: to find that most are what
    they were is several times as fast as to make them again.
    """

    def __init__(self, model: PreTrainedModel, split: int | None) -> None:
        super().__init__(model, split)
        self.make = AsItIs
        self._bytes: list[Any] = [None] * len(self.layers)
        self._byte_head: Any = None
        self._packed: dict[bytes, Tensor] = {}

    @property
    def stepped(self) -> list[Any]:
        return self._bytes

    def step_logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self._byte_head(self.norm(self.base.norm, x))
        return logits

    def refresh(self) -> None:
        super().refresh()
        packed: dict[bytes, Tensor] = {}

        def quantised(of: Linear) -> Quantised:
            made = Quantised(of.weight, of.bias, packed=self._packed)
            packed[made.digest] = made.weight
            return made

        for i, layer in enumerate(self.layers):
            maps = {
                name: quantised(getattr(layer, name)) for name in ("qkv", "out", "gate", "down")
            }
            self._bytes[i] = replace(layer, **maps)
        self._byte_head = quantised(self.head)
        self._packed = packed


def check_bytes(model: PreTrainedModel, split: int | None, precision: Precision) -> None:
    """UserError unless the precision is int8 and `ByteDecoder` serves this model, here."""
    if precision != "int8":
        raise UserError(f"precision is {precision!r}: expected float32 or int8")
    name = type(model).__name__
    why = ""
    if split is not None:
        why = "keeps no hidden states, which a split asks for, as they would be rounded"
    elif model.device.type != "cpu":
        why = f"is for models on the cpu, and this one is on {model.device}"
    elif model.dtype != torch.float32:
        why = f"is for models in float32, and this one is in {str(model.dtype).split('.')[-1]}"
    elif not fits(model):
        why = f"is for Llama-shaped models, which {name} is not"
    elif kernels_for(model, int(model.base_model.layers[0].self_attn.head_dim)) is None:
        why = (
            f"needs heads whose dimension is a multiple of 32, widths that are multiples of 16 and "
            f"SiLU, which this {name} has not"
        )
    elif not sums_exactly():
        why = "needs a processor with instructions for exact products of bytes (VNNI)"
    if why:
        raise UserError(f"precision is int8, but the int8 sampler {why}: use float32")
