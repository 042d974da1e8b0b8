"""Comparisons as index pairs over a batch of answers: what reward models learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Comparisons between rows of a batch of answers; a pair's rows answer the same prompt.

    `a`, `b` are row indices; `share` is the share of votes for a, ties counting half.
    """

    a: tuple[int, ...]
    b: tuple[int, ...]
    share: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.a)

    def among(self, rows: Sequence[int]) -> Pairs:
        """The pairs whose rows are all in `rows`, re-indexed into it."""
        new = {row: i for i, row in enumerate(rows)}
        kept = [
            (new[a], new[b], q)
            for a, b, q in zip(self.a, self.b, self.share, strict=True)
            if a in new and b in new
        ]
        return Pairs(
            tuple(a for a, _, _ in kept), tuple(b for _, b, _ in kept), tuple(q for *_, q in kept)
        )
