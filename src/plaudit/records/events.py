"""What an algorithm says while it runs: the only channel from a loop to the world.

An algorithm is a generator of these. The command line, run folders, tests and pages consume them;
there are no callbacks. `state` in a `Checkpoint` is a callable, so that nothing is copied unless
somebody wants to save it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plaudit.records.state import Saved


@dataclass(frozen=True)
class Step:
    """One optimisation step is finished: `metrics` are scalars under the field's usual names."""

    step: int
    total: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Rollout:
    """Fresh experience: a few samples a person can read, and its summary numbers."""

    step: int
    samples: list[dict[str, Any]]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures at `step`."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """The loop may be stopped here and continued exactly.

    `state()` gives `(arrays, facts)`: tensors by name, and JSON-able facts (counters, generator
    states). `due` is true where the config asks for a save; a consumer that was interrupted saves
    at the next `Checkpoint` whether due or not. `best` is true where the loop has just judged
    itself better than, or as good as, ever before: such a state is kept beside the last one.
    """

    step: int
    state: Callable[[], Saved]
    due: bool = True
    best: bool = False


@dataclass(frozen=True)
class Done:
    """The loop is over; `metrics` are its closing figures."""

    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Event = Step | Rollout | Evaluation | Checkpoint | Done
