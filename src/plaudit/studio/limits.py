"""How often one person, or one address, may ask: buckets that fill again while nothing is asked."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_BUCKETS = 10_000
"""Buckets kept; the one that was asked longest ago makes room, and it is full again by then."""


@dataclass
class Buckets:
    """A bucket of `burst` for each name, which gains `rate` a second."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _level: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, name: str, num: float = 1) -> float:
        """0 where `num` were taken; else the seconds until they can be, with nothing taken."""
        level = self._now(name)
        if num > level:
            return (num - level) / self.rate
        self._put(name, level - num)
        return 0.0

    def give_back(self, name: str, num: float = 1) -> None:
        """As if `num` had not been taken."""
        self._put(name, min(self.burst, self._now(name) + num))

    def _now(self, name: str) -> float:
        level, then = self._level.get(name, (self.burst, self.clock()))
        return min(self.burst, level + (self.clock() - then) * self.rate)

    def _put(self, name: str, level: float) -> None:
        self._level[name] = (level, self.clock())
        self._level.move_to_end(name)
        if len(self._level) > MOST_BUCKETS:
            self._level.popitem(last=False)


@dataclass
class Rates:
    """The studio's limits. Joins that succeed do not count: a class may come through one address."""

    joins: Buckets = field(default_factory=lambda: Buckets(10 / 60, 10))
    votes: Buckets = field(default_factory=lambda: Buckets(5, 100))
    offers: Buckets = field(default_factory=lambda: Buckets(5, 100))
