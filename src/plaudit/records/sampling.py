"""How answers are drawn: the one config that sampler and trainer share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.records.config import Config

Precision = Literal["float32", "int8"]
"""Of the sampler's products; "float32" stands for the weights' own."""


class Sampling(Config):
    """The distribution of answers: logits / temperature, then top-k, then top-p."""

    max_new_tokens: int = Field(
        ge=1, description="Longest answer in tokens; an answer cut here has no stop token."
    )
    temperature: float = Field(
        1.0,
        ge=0.0,
        allow_inf_nan=False,
        description="Divides the logits: 1 is the model's own distribution, 0 takes the most "
        "likely token (log-probabilities are then those at temperature 1).",
    )
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Draw from the fewest most likely tokens whose mass reaches this; 1 is off.",
    )
    top_k: int = Field(0, ge=0, description="Draw from this many most likely tokens; 0 is off.")

    @property
    def distribution(self) -> tuple[float, float, int]:
        """What two samplings must share for their log-probabilities to be of one distribution."""
        return self.temperature, self.top_p, self.top_k
