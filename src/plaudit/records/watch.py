"""Held-out figures while a loop runs: when they are taken, which are the best, when to stop.

    yield from watch.look(step, last=...)          Evaluation events
    watch.is_best, watch.reached                   what the last look found

A loop that is given no watch looks at nothing and runs to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from plaudit.records.events import Evaluation
from plaudit.records.state import Saved


class Watch:
    """Calls `evaluate` every so many steps, before the first and after the last.

    `best_by` names the figure that says which weights are best ("-" before it where less is
    better); `stop_at` maps figures to values at which to stop, likewise.
    """

    def __init__(
        self,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        *,
        every: int = 0,
        best_by: str = "",
        stop_at: Mapping[str, float] | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._every = every
        self._best_by = best_by
        self._stop_at = dict(stop_at or {})
        self._best: float | None = None
        self.is_best = False
        self.reached = False

    def look(self, step: int, *, last: bool = False) -> Iterator[Evaluation]:
        """The figures after `step`, where they are due."""
        self.is_best = False
        due = last or step == 0 or (self._every > 0 and step % self._every == 0)
        if self._evaluate is None or not due:
            return
        figures = self._evaluate()
        yield Evaluation(step, figures)
        if self._best_by:
            value = _signed(figures, self._best_by)
            self.is_best = self._best is None or value >= self._best
            self._best = value if self.is_best else self._best
        aims = self._stop_at.items()
        self.reached = step > 0 and any(_signed(figures, n) >= _aim(n, x) for n, x in aims)

    def state(self) -> Saved:
        """The best figure so far, and whether the loop is to stop."""
        return {}, {"best": self._best, "reached": self.reached}

    def restore(self, saved: Saved) -> Any:
        """Takes them back."""
        self._best, self.reached = saved[1]["best"], bool(saved[1]["reached"])


def _signed(figures: Mapping[str, float], name: str) -> float:
    """The figure, negative where less is better."""
    sign = -1.0 if name.startswith("-") else 1.0
    return sign * figures[name.removeprefix("-")]


def _aim(name: str, value: float) -> float:
    return -value if name.startswith("-") else value
