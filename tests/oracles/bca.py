"""The BCa interval of a ratio of sums by enumerating every resample: exact, slow, no sampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist


def _counts(total: int, cells: int) -> Iterator[tuple[int, ...]]:
    """Every way to draw `total` from `cells` with replacement, as counts."""
    for bars in itertools.combinations(range(total + cells - 1), cells - 1):
        edges = (-1, *bars, total + cells - 1)
        yield tuple(edges[i + 1] - edges[i] - 1 for i in range(cells))


def exact_bca(
    top: Sequence[float], bottom: Sequence[float], level: float
) -> tuple[float, float, float]:
    """(value, low, high) from the whole bootstrap distribution and its probabilities."""
    n = len(top)
    value = sum(top) / sum(bottom)
    atoms = []
    for counts in _counts(n, n):
        ways = math.factorial(n)
        for c in counts:
            ways //= math.factorial(c)
        ratio = sum(c * t for c, t in zip(counts, top, strict=True)) / sum(
            c * b for c, b in zip(counts, bottom, strict=True)
        )
        atoms.append((ratio, ways / n**n))
    atoms.sort()
    below = sum(p for r, p in atoms if r < value) + 0.5 * sum(p for r, p in atoms if r == value)
    normal = NormalDist()
    z0 = normal.inv_cdf(below)
    jack = [(sum(top) - top[i]) / (sum(bottom) - bottom[i]) for i in range(n)]
    centre = sum(jack) / n
    a = sum((centre - j) ** 3 for j in jack) / (6 * sum((centre - j) ** 2 for j in jack) ** 1.5)
    ends = []
    for z in (normal.inv_cdf((1 - level) / 2), normal.inv_cdf((1 + level) / 2)):
        wanted, sofar = normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))), 0.0
        for ratio, p in atoms:
            sofar += p
            if sofar >= wanted:
                ends.append(ratio)
                break
    return value, ends[0], ends[1]
