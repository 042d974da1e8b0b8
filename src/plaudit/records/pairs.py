"""Comparisons as index pairs over a batch of answers: what reward models learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pairs:
    """Comparisons between rows of a batch of answers; a pair's rows answer the same prompt.

    `a`, `b` are row indices; `share` is the share of votes for a, ties counting half; `margin` is by
    how much a should lead, where that was said (empty: of no pair).
    """

    a: tuple[int, ...]
    b: tuple[int, ...]
    share: tuple[float, ...]
    margin: tuple[float, ...] = ()

    @property
    def margins(self) -> tuple[float, ...]:
        """One for each pair, 0 where none was said."""
        return self.margin or (0.0,) * len(self.a)

    def at(self, places: Sequence[int]) -> Pairs:
        """The pairs at these places, in their order."""
        margin = [self.margin[i] for i in places] if self.margin else []
        return Pairs(
            tuple(self.a[i] for i in places),
            tuple(self.b[i] for i in places),
            tuple(self.share[i] for i in places),
            tuple(margin),
        )

    def __len__(self) -> int:
        return len(self.a)

    def among(self, rows: Sequence[int]) -> Pairs:
        """The pairs whose rows are all in `rows`, re-indexed into it."""
        new = {row: i for i, row in enumerate(rows)}
        kept = self.at([i for i in range(len(self)) if self.a[i] in new and self.b[i] in new])
        return replace(
            kept, a=tuple(new[row] for row in kept.a), b=tuple(new[row] for row in kept.b)
        )
