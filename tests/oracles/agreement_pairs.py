"""Agreement by looking at every pair of ratings, one by one: slow, and without any table."""

from __future__ import annotations

from itertools import permutations, product


def pooled_pairs(ratings):
    """All ordered pairs within units rated twice or more, as (unit size, first, second)."""
    for unit in ratings:
        given = [rating for rating in unit if rating is not None]
        if len(given) > 1:
            for i, j in permutations(range(len(given)), 2):
                yield len(given), given[i], given[j]


def percent_by_pairs(ratings):
    pairs = list(pooled_pairs(ratings))
    return sum(x == y for _, x, y in pairs) / len(pairs)


def alpha_by_pairs(ratings, difference):
    """1 - mean difference inside units / mean difference of any two ratings of the pool."""
    pool = [
        rating
        for unit in ratings
        if sum(r is not None for r in unit) > 1
        for rating in unit
        if rating is not None
    ]
    inside = sum(difference(x, y, pool) / (size - 1) for size, x, y in pooled_pairs(ratings))
    anywhere = [difference(pool[i], pool[j], pool) for i, j in permutations(range(len(pool)), 2)]
    return 1 - (inside / len(pool)) / (sum(anywhere) / len(anywhere))


def ordinal_difference(x, y, pool):
    """Krippendorff's own wording: all ratings from one value to the other, half of both ends."""
    low, high = min(x, y), max(x, y)
    between = sum(low <= value <= high for value in pool)
    return (between - (pool.count(low) + pool.count(high)) / 2) ** 2 if x != y else 0.0


DIFFERENCES = {
    "nominal": lambda x, y, pool: float(x != y),
    "ordinal": ordinal_difference,
    "interval": lambda x, y, pool: (x - y) ** 2,
    "ratio": lambda x, y, pool: 0.0 if x == y else ((x - y) / (x + y)) ** 2,
}


def fleiss_by_draws(ratings):
    """Chance agreement as two independent draws, with replacement, from all ratings."""
    pool = [rating for unit in ratings for rating in unit]
    chance = sum(x == y for x, y in product(pool, pool)) / len(pool) ** 2
    observed = sum(percent_by_pairs([unit]) for unit in ratings) / len(ratings)
    return (observed - chance) / (1 - chance)


def cohen_by_draws(first, second):
    """Chance agreement as one draw from each rater."""
    chance = sum(x == y for x, y in product(first, second)) / (len(first) * len(second))
    observed = sum(x == y for x, y in zip(first, second, strict=True)) / len(first)
    return (observed - chance) / (1 - chance)
