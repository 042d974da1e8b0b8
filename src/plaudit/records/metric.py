"""One entry of the glossary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down", "watch"]


@dataclass(frozen=True)
class Metric:
    """One number: a sentence, how it is computed, what to expect, and which way it should go."""

    sentence: str
    formula: str
    healthy: str
    direction: Direction = "watch"
