"""How answers are drawn: the one config that sampler and trainer share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from plaudit.records.config import Config

Precision = Literal["float32", "int8"]
"""Of the sampler's products; "float32" stands for the weights' own."""


class Sampling(Config):
    """The distribution of answers: logits / temperature, then top-k, then min-p, then top-p."""

    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size"),
        "with it a token's probability would depend on which tokens were drawn before, and what is "
        "drawn would not be what is trained: leave it out",
    )

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
    min_p: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Draw from tokens at least this times as likely as the most likely one; 0 is "
        "off (2407.01082; 0.05 to 0.1 is usual).",
    )

    @property
    def distribution(self) -> tuple[float, float, int, float]:
        """What two samplings must share for their log-probabilities to be of one distribution."""
        return self.temperature, self.top_p, self.top_k, self.min_p

    @property
    def filters(self) -> bool:
        """Whether some tokens cannot be drawn."""
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0
