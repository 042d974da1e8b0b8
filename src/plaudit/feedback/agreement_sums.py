"""The coefficients of `agreement.py` from running sums, for more units than fit into memory.

Units are added one after another and forgotten; what is kept grows with the number of raters and of
categories, never with the units. A coefficient that is not defined raises `UndefinedAgreement`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import combinations

from plaudit.feedback.agreement import UndefinedAgreement, mean_cohen_kappa_of

Pair = tuple[str, str]


class CategorySums:
    """Ratings in categories without order: percent, Cohen, Fleiss and Krippendorff (nominal)."""

    def __init__(self) -> None:
        self.num_units = self.num_ratings = 0
        self._totals: Counter[str] = Counter()
        self._sizes: Counter[int] = Counter()
        self._agreeing = 0  # ordered pairs of ratings of one unit that are the same
        self._apart = 0.0  # sum over units of the pairs that differ, over n_u - 1
        self._together: defaultdict[Pair, Counter[tuple[str, str]]] = defaultdict(Counter)

    def add(self, unit: Mapping[str, str]) -> None:
        """One unit, as rater to rating; it counts if it was rated at least twice."""
        num = len(unit)
        if num < 2:
            return
        count = Counter(unit.values())
        same = sum(n * (n - 1) for n in count.values())
        self.num_units += 1
        self.num_ratings += num
        self._totals.update(count)
        self._sizes[num] += 1
        self._agreeing += same
        self._apart += (num * (num - 1) - same) / (num - 1)
        for one, other in combinations(sorted(unit), 2):
            self._together[one, other][unit[one], unit[other]] += 1

    def percent(self) -> float:
        """Share of agreeing pairs among all pairs of ratings of one unit."""
        self._require_units()
        return self._agreeing / sum(n * (n - 1) * num for n, num in self._sizes.items())

    def cohen(self) -> float:
        """Mean over the pairs of raters for whom Cohen's kappa is defined."""
        return mean_cohen_kappa_of(self._together.values())

    def fleiss(self) -> float:
        """(P - P_e) / (1 - P_e), where every unit has equally many ratings."""
        self._require_units()
        if len(self._sizes) > 1:
            raise UndefinedAgreement(
                f"units have {min(self._sizes)} to {max(self._sizes)} ratings; Fleiss' kappa "
                "needs equally many"
            )
        self._require_variation()
        total = self.num_ratings
        observed = self._agreeing / (total * (next(iter(self._sizes)) - 1))
        expected = sum(n * n for n in self._totals.values()) / (total * total)
        return (observed - expected) / (1 - expected)

    def krippendorff(self) -> float:
        """1 - D_o / D_e with differences of 0 and 1."""
        self._require_units()
        self._require_variation()
        num = self.num_ratings
        expected = num * num - sum(n * n for n in self._totals.values())
        return 1 - self._apart / (expected / (num - 1))

    def with_others(self) -> dict[str, tuple[int, int]]:
        """Rater to (agreeing, all) of their ratings beside another rater's of the same unit."""
        sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        for raters, pairs in self._together.items():
            agreeing = sum(num for (one, other), num in pairs.items() if one == other)
            for rater in raters:
                sums[rater][0] += agreeing
                sums[rater][1] += sum(pairs.values())
        return {rater: (agreeing, num) for rater, (agreeing, num) in sums.items()}

    def _require_units(self) -> None:
        if not self.num_units:
            raise UndefinedAgreement("no unit was rated twice")

    def _require_variation(self) -> None:
        if len(self._totals) < 2:
            raise UndefinedAgreement("every rating is the same")


class NumberSums:
    """Ratings on an interval scale: Krippendorff's alpha."""

    def __init__(self) -> None:
        self.num_units = self.num_ratings = 0
        self._mean = self._squares = self._inside = 0.0

    def add(self, unit: Mapping[str, float]) -> None:
        """One unit, as rater to number; it counts if it was rated at least twice."""
        if len(unit) < 2:
            return
        values = list(unit.values())
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        self._inside += 2 * len(values) * squares / (len(values) - 1)
        # sums of squares around the mean of two groups (Chan, Golub and LeVeque 1983, eq. 2.1)
        num, apart = self.num_ratings + len(values), mean - self._mean
        self._squares += squares + apart * apart * self.num_ratings * len(values) / num
        self._mean += apart * len(values) / num
        self.num_ratings = num
        self.num_units += 1

    def krippendorff(self) -> float:
        """1 - D_o / D_e with squared differences."""
        if not self.num_units:
            raise UndefinedAgreement("no unit was rated twice")
        if self._squares == 0:
            raise UndefinedAgreement("every rating is the same")
        num = self.num_ratings
        return 1 - self._inside / (2 * num * self._squares / (num - 1))
