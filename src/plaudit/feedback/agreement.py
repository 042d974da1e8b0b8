"""How far raters agree, beyond what chance would give: percent, Cohen, Fleiss, Krippendorff.

Ratings are `ratings[unit][rater]`, None where a rater left a unit out. Where a coefficient is not
defined (nothing rated twice, or no variation at all, so that chance alone agrees fully) the
functions raise `UndefinedAgreement` with the reason; none of them ever answers 1 for that.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from plaudit.records.errors import UserError

Level = Literal["nominal", "ordinal", "interval", "ratio"]
Category = TypeVar("Category", bound=Hashable)


_Z95 = statistics.NormalDist().inv_cdf(0.975)


class UndefinedAgreement(ValueError):
    """The coefficient has no value for these ratings; the message says why."""


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """95 % interval of a share: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Source: Wilson 1927, p. 209-210; checked against Newcombe 1998, table I.
    """
    p, zz = hits / num, _Z95 * _Z95
    middle = p + zz / (2 * num)
    half = _Z95 * math.sqrt(p * (1 - p) / num + zz / (4 * num * num))
    scale = 1 + zz / num
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def percent_agreement(ratings: Sequence[Sequence[Category | None]]) -> float:
    """Share of agreeing pairs among all pairs of ratings of one unit, 0 to 1.

    Sum over units and categories of n_uc (n_uc - 1), over the sum of n_u (n_u - 1).
    """
    agreeing = pairs = 0
    for unit in _units(ratings):
        count = Counter(unit)
        pairs += len(unit) * (len(unit) - 1)
        agreeing += sum(n * (n - 1) for n in count.values())
    if not pairs:
        raise UndefinedAgreement("no unit was rated twice")
    return agreeing / pairs


def cohen_kappa(first: Sequence[Category | None], second: Sequence[Category | None]) -> float:
    """(p_o - p_e) / (1 - p_e) for two raters, each with their own habits.

    `first[u]` and `second[u]` are the ratings of unit u; units that either left out do not count.
    p_e = sum over categories of p_1c p_2c. Source: Cohen 1960.
    """
    if len(first) != len(second):
        raise UserError(f"Cohen's kappa: {len(first)} and {len(second)} ratings, expected as many")
    pairs = [(x, y) for x, y in zip(first, second, strict=True) if x is not None and y is not None]
    return cohen_kappa_of(Counter(pairs))


def cohen_kappa_of(pairs: Mapping[tuple[Category, Category], int]) -> float:
    """Cohen's kappa of how often the two raters gave each pair of answers to one unit."""
    num = sum(pairs.values())
    if not num:
        raise UndefinedAgreement("the two raters share no unit")
    habits: tuple[Counter[Category], Counter[Category]] = Counter(), Counter()
    for (x, y), times in pairs.items():
        habits[0][x] += times
        habits[1][y] += times
    observed = sum(times for (x, y), times in pairs.items() if x == y)
    expected = sum(habits[0][category] * habits[1][category] for category in habits[0])
    if expected == num * num:
        raise UndefinedAgreement("both raters always gave one and the same answer")
    # numerator and denominator times num², so that whole agreement is exactly 1
    return (observed * num - expected) / (num * num - expected)


def mean_cohen_kappa_of(tables: Iterable[Mapping[tuple[Category, Category], int]]) -> float:
    """Cohen's kappa, averaged over the pairs of raters for whom it is defined; a table each."""
    kappas = []
    reason = "no two raters share a unit"
    for pairs in tables:
        try:
            kappas.append(cohen_kappa_of(pairs))
        except UndefinedAgreement as undefined:
            reason = str(undefined)
    if not kappas:
        raise UndefinedAgreement(reason)
    return statistics.fmean(kappas)


def fleiss_kappa(counts: Sequence[Sequence[int]]) -> float:
    """(P - P_e) / (1 - P_e), `counts[unit][category]` ratings, equally many for every unit.

    P is the mean share of agreeing pairs, P_e the sum of squared shares of the categories.
    The raters of one unit need not be those of another. Source: Fleiss 1971.
    """
    if not counts:
        raise UndefinedAgreement("no unit was rated")
    sizes = {sum(unit) for unit in counts}
    if len(sizes) > 1:
        raise UndefinedAgreement(
            f"units have {min(sizes)} to {max(sizes)} ratings; Fleiss' kappa needs equally many"
        )
    size = sizes.pop()
    if size < 2:
        raise UndefinedAgreement("no unit was rated twice")
    total = size * len(counts)
    totals: list[int] = [sum(column) for column in zip(*counts, strict=True)]
    if max(totals) == total:
        raise UndefinedAgreement("every rating is the same")
    observed = sum(n * (n - 1) for unit in counts for n in unit) / (total * (size - 1))
    expected = sum(n * n for n in totals) / (total * total)
    return (observed - expected) / (1 - expected)


def category_counts(ratings: Sequence[Sequence[Category | None]]) -> list[list[int]]:
    """The table that `fleiss_kappa` takes, of the units that were rated at least twice."""
    units = [Counter(unit) for unit in _units(ratings)]
    categories = list(dict.fromkeys(category for unit in units for category in unit))
    return [[unit[category] for category in categories] for unit in units]


def krippendorff_alpha(ratings: Sequence[Sequence[Category | None]], level: Level) -> float:
    """1 - D_o / D_e, the observed over the expected squared difference; ratings may be missing.

    From coincidences o_ck = sum over units of n_uc (n_uk - [c=k]) / (n_u - 1), n_c = sum_k o_ck:
    D_o = sum o_ck d²_ck / n,  D_e = sum n_c n_k d²_ck / (n (n - 1)), with d² by `level`:
    nominal [c≠k]; ordinal (sum of n from c to k, less half of each end)²; interval (c - k)²;
    ratio ((c - k) / (c + k))². All but nominal need numbers.
    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
    """
    units = [tuple(unit) for unit in _units(ratings)]
    alike = Counter(units)  # a large log holds few different units; each is worked out once
    sizes: Counter[Category] = Counter()
    for unit, times in alike.items():
        for value in unit:
            sizes[value] += times
    num = sum(sizes.values())
    if not units:
        raise UndefinedAgreement("no unit was rated twice")
    if len(sizes) < 2:
        raise UndefinedAgreement("every rating is the same")
    difference = _squared_difference(sizes, level)
    inside = {
        unit: _difference_between(Counter(unit), difference) / (len(unit) - 1) for unit in alike
    }
    observed = 0.0
    for unit in units:
        observed += inside[unit]
    total = _spread(sizes) if level == "interval" else _difference_between(sizes, difference)
    return 1 - observed / (total / (num - 1))


def _units(ratings: Sequence[Sequence[Category | None]]) -> list[list[Category]]:
    """What was said of each unit that was rated at least twice."""
    given = ([rating for rating in unit if rating is not None] for unit in ratings)
    return [unit for unit in given if len(unit) > 1]


def _difference_between(
    count: Mapping[Category, int], difference: Callable[[Category, Category], float]
) -> float:
    """Sum over ordered pairs of values of n_c n_k d²_ck (equal values differ by 0)."""
    values = list(count)
    total = 0.0
    for i, c in enumerate(values):
        for k in values[i + 1 :]:
            total += 2 * count[c] * count[k] * difference(c, k)
    return total


def _spread(count: Mapping[Any, int]) -> float:
    """`_difference_between` on an interval scale, in one pass: 2 n sum n_c (c - mean)².

    Scores may take as many values as there are votes, so not all pairs of values can be visited.
    """
    num = sum(count.values())
    mean = math.fsum(n * float(c) for c, n in count.items()) / num
    return 2 * num * math.fsum(n * (float(c) - mean) ** 2 for c, n in count.items())


def _squared_difference(
    sizes: Mapping[Category, int], level: Level
) -> Callable[[Category, Category], float]:
    if level == "nominal":
        return lambda c, k: float(c != k)
    numbers: dict[Category, float] = {}
    for value in sizes:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"Krippendorff's alpha, level {level}: {value!r} is not a number")
        numbers[value] = float(value)
    if level == "interval":
        return lambda c, k: (numbers[c] - numbers[k]) ** 2
    if level == "ratio":
        if min(numbers.values()) < 0:
            raise UserError(f"a ratio scale starts at 0, but {min(numbers.values())} was given")
        return lambda c, k: ((numbers[c] - numbers[k]) / (numbers[c] + numbers[k])) ** 2
    if level != "ordinal":
        raise UserError(f"level is {level!r}, expected nominal, ordinal, interval or ratio")
    # the rank of a value is the middle of its block among all ratings put in order
    rank, below = {}, 0
    for value in sorted(sizes, key=lambda v: numbers[v]):
        rank[value] = below + sizes[value] / 2
        below += sizes[value]
    return lambda c, k: (rank[c] - rank[k]) ** 2
