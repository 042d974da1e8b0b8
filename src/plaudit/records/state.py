"""One protocol of saving: whatever a loop must remember gives its state and takes it back.

    saved = part.state()       (arrays by name, JSON-able facts)
    part.restore(saved)        goes on from there, bit for bit

`Parts` is many of them saved as one, "name/key". What a `state` gives may be lent: who keeps it
past the next step of the loop copies it, as writing a checkpoint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Saved = tuple[dict[str, Any], dict[str, Any]]
"""Arrays by name, and JSON-able facts."""


class Savable(Protocol):
    """A part of a loop that can go on from what it gave."""

    def state(self) -> Saved: ...

    def restore(self, saved: Saved, /) -> Any: ...


class Parts:
    """Parts of a loop by name, saved as one and restored as one."""

    def __init__(self, **parts: Savable) -> None:
        self.parts: Mapping[str, Savable] = parts
        self.restored: dict[str, Any] = {}
        """What each part's `restore` returned, such as the observations to act on."""

    def state(self) -> Saved:
        """Arrays as "part/name", facts by part."""
        found: dict[str, Any] = {}
        facts: dict[str, Any] = {}
        for name, part in self.parts.items():
            own, facts[name] = part.state()
            found |= {f"{name}/{key}": array for key, array in own.items()}
        return found, facts

    def restore(self, saved: Saved) -> None:
        """Hands each part what it gave."""
        for name, part in self.parts.items():
            self.restored[name] = part.restore(part_of(saved, name))


def part_of(saved: Saved, name: str) -> Saved:
    """What one part of `Parts` gave."""
    prefix = f"{name}/"
    own = {k.removeprefix(prefix): a for k, a in saved[0].items() if k.startswith(prefix)}
    return own, saved[1][name]


@dataclass
class StepCounter:
    """The steps that a loop has finished."""

    step: int = 0

    def state(self) -> Saved:
        """The number."""
        return {}, {"step": self.step}

    def restore(self, saved: Saved) -> None:
        """Takes it back."""
        self.step = int(saved[1]["step"])


class SeededGenerator:
    """A random generator that can be saved; one for each purpose, all from one seed."""

    def __init__(self, seed: int, purpose: int) -> None:
        """`purpose` is a small number of the caller's own, which keeps streams apart."""
        self.rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose])))

    def state(self) -> Saved:
        """The generator's position."""
        return {}, {"generator": self.rng.bit_generator.state}

    def restore(self, saved: Saved) -> None:
        """Goes on from a position."""
        self.rng.bit_generator.state = saved[1]["generator"]
