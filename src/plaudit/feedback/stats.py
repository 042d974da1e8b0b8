"""The state of a feedback store in numbers, and as lines for the terminal.

A unit of agreement is a pair of answers of one item; a rater's latest active vote on it counts.
Preferences are four categories (a, b, tie, both bad) without order; scores are an interval scale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TypeVar

from plaudit.feedback import questions as ask
from plaudit.feedback.agreement import (
    UndefinedAgreement,
    category_counts,
    fleiss_kappa,
    krippendorff_alpha,
    mean_cohen_kappa_of,
    percent_agreement,
    wilson_interval,
)
from plaudit.feedback.entries import PREFERENCES, VOTE_KINDS, check_name
from plaudit.feedback.store import FeedbackStore

Category = TypeVar("Category", bound=Hashable)
Unit = tuple[int, int, int]


@dataclass(frozen=True)
class SideBias:
    """How often the answer shown first won, of `num` votes with a winner and a known order.

    `low` and `high` bound the share at 95 % (Wilson); without a habit they enclose 0.5.
    """

    num: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Seconds:
    """Time a vote took, over the `num` votes that say."""

    num: int
    median: float
    mean: float


@dataclass(frozen=True)
class FeedbackStats:
    """What a store holds. A coefficient is None where `undefined` gives the reason.

    `agreement` holds percent, cohen (mean over pairs of raters), fleiss, krippendorff (nominal)
    of comparisons, and score_krippendorff (interval) of scores.
    """

    num_items: int
    num_unjudged: int
    num_votes: int
    num_undone: int
    by_kind: Mapping[str, int]
    by_rater: Mapping[str, Mapping[str, int]]
    preferences: Mapping[str, int]
    num_ties: int
    num_both_bad: int
    agreement: Mapping[str, float | None]
    undefined: Mapping[str, str]
    first_shown: SideBias | None
    seconds: Seconds | None


@dataclass(frozen=True)
class RaterStats:
    """What one rater said: their votes that stand, and the items on which one of them stands.

    `seconds` is (number of votes that say, mean); the median, which needs them all, is left to
    `feedback_stats`.
    """

    rater: str
    num_answered: int
    num_open: int
    num_votes: int
    num_undone: int
    by_kind: Mapping[str, int]
    preferences: Mapping[str, int]
    first_shown: SideBias | None
    seconds: tuple[int, float] | None


def rater_stats(store: FeedbackStore, rater: str) -> RaterStats:
    """Counts, side bias and pace of one rater, at a cost that does not grow with the log.

    A rater without an entry has all counts 0.
    """
    check_name(rater, "a rater's name")
    with store.reading() as connection:
        tallies = ask.tallies(connection, rater)
        num_answered = ask.num_answered(connection, rater)
        num_items, _ = store.size()
    votes = [row for row in tallies if row.kind != "undo"]
    said = _summed(votes, "comparison")
    kinds = _by_kind(votes)
    return RaterStats(
        rater=rater,
        num_answered=num_answered,
        num_open=num_items - num_answered,
        num_votes=sum(row.num for row in votes),
        num_undone=sum(row.num_undone for row in votes),
        by_kind={kind: kinds[kind] for kind in VOTE_KINDS if kinds[kind]},
        preferences={name: said[name] for name in PREFERENCES},
        first_shown=_first_shown(votes),
        seconds=_pace(votes),
    )


def feedback_stats(store: FeedbackStore) -> FeedbackStats:
    """Counts, agreement, side bias and pace of the active votes, all of one moment."""
    with store.reading() as connection:
        votes = [row for row in ask.tallies(connection) if row.kind != "undo"]
        num_items, _ = store.size()
        num_judged = ask.num_judged(connection)
        begun = ask.first_votes(connection)
        compared = _by_unit(ask.ratings(connection, "comparison"))
        scored = _by_unit(ask.ratings(connection, "score"))
        pace = _pace(votes)
        median = ask.median_seconds(connection, pace[0]) if pace is not None else 0.0
    kinds = _by_kind(votes)
    said = _summed(votes, "comparison")
    agreement, undefined = _agreement(compared, scored)
    return FeedbackStats(
        num_items=num_items,
        num_unjudged=num_items - num_judged,
        num_votes=sum(row.num for row in votes),
        num_undone=sum(row.num_undone for row in votes),
        by_kind={kind: kinds[kind] for kind in VOTE_KINDS if kinds[kind]},
        by_rater=_by_rater(votes, begun),
        preferences={name: said[name] for name in PREFERENCES},
        num_ties=said["tie"],
        num_both_bad=said["both_bad"],
        agreement=agreement,
        undefined=undefined,
        first_shown=_first_shown(votes),
        seconds=None if pace is None else Seconds(pace[0], median, pace[1]),
    )


def _by_kind(votes: Sequence[ask.Tally]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in votes:
        counts[row.kind] += row.num
    return counts


def _summed(votes: Sequence[ask.Tally], kind: str) -> Counter[str]:
    """How often each answer was given in votes of a kind."""
    counts: Counter[str] = Counter()
    for row in votes:
        if row.kind == kind:
            counts[row.answer] += row.num
    return counts


def _by_rater(
    votes: Sequence[ask.Tally], begun: Mapping[tuple[str, str], int]
) -> dict[str, dict[str, int]]:
    """Raters by name, and the kinds of their votes in the order in which they began them."""
    counts: dict[str, Counter[str]] = {}
    for row in votes:
        if row.num:
            counts.setdefault(row.rater, Counter())[row.kind] += row.num
    return {
        rater: {kind: of[kind] for kind in sorted(of, key=lambda kind: begun[rater, kind])}
        for rater, of in sorted(counts.items())
    }


def render(stats: FeedbackStats) -> list[str]:
    """The figures as plain lines, one table in two columns."""
    rows = [
        ("items", f"{stats.num_items} ({stats.num_unjudged} without a vote)"),
        ("votes", f"{stats.num_votes} ({stats.num_undone} more undone)"),
    ]
    rows += [(f"  {kind}", str(num)) for kind, num in stats.by_kind.items()]
    rows.append(("raters", str(len(stats.by_rater))))
    for rater, counts in stats.by_rater.items():
        rows.append((f"  {rater}", ", ".join(f"{num} {kind}" for kind, num in counts.items())))
    compared = sum(stats.preferences.values())
    if compared:
        rows.append(("ties", f"{stats.num_ties} of {compared}"))
        rows.append(("both bad", f"{stats.num_both_bad} of {compared}"))
    for name, title in _COEFFICIENTS.items():
        if name in stats.undefined:
            rows.append((title, f"not defined: {stats.undefined[name]}"))
        elif name in stats.agreement:
            rows.append((title, f"{stats.agreement[name]:.3f}"))
    if stats.first_shown is not None:
        side = stats.first_shown
        interval = f"[{side.low:.2f}, {side.high:.2f}] of {side.num} (0.5 without side bias)"
        rows.append(("first shown was chosen", f"{side.share:.2f} {interval}"))
    if stats.seconds is not None:
        pace = stats.seconds
        rows.append(("seconds a vote", f"median {pace.median:.1f}, mean {pace.mean:.1f}"))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


_COEFFICIENTS = {
    "percent": "agreement of two raters",
    "cohen": "Cohen's kappa (mean)",
    "fleiss": "Fleiss' kappa",
    "krippendorff": "Krippendorff's alpha",
    "score_krippendorff": "alpha of scores",
}


def _agreement(
    compared: Mapping[Unit, Mapping[str, str]], scored: Mapping[Unit, Mapping[str, float]]
) -> tuple[dict[str, float | None], dict[str, str]]:
    units = [list(unit.values()) for unit in compared.values()]
    scores = [list(unit.values()) for unit in scored.values()]
    wanted: dict[str, Callable[[], float]] = {}
    if units:
        wanted |= {
            "percent": lambda: percent_agreement(units),
            "cohen": lambda: mean_cohen_kappa(list(compared.values())),
            "fleiss": lambda: fleiss_kappa(category_counts(units)),
            "krippendorff": lambda: krippendorff_alpha(units, "nominal"),
        }
    if scores:
        wanted["score_krippendorff"] = lambda: krippendorff_alpha(scores, "interval")
    found: dict[str, float | None] = {}
    undefined: dict[str, str] = {}
    for name, coefficient in wanted.items():
        try:
            found[name] = coefficient()
        except UndefinedAgreement as reason:
            found[name], undefined[name] = None, str(reason)
    return found, undefined


def mean_cohen_kappa(units: Sequence[Mapping[str, Category]]) -> float:
    """Cohen's kappa, averaged over the pairs of raters for whom it is defined.

    `units[u]` maps the raters of unit u to their ratings.
    """
    shared: dict[tuple[str, str], Counter[tuple[Category, Category]]] = {}
    for unit in units:
        for one, other in combinations(sorted(unit), 2):
            both = unit[one], unit[other]
            pairs = shared.get((one, other))
            if pairs is None:
                pairs = shared[one, other] = Counter()
            pairs[both] += 1
    return mean_cohen_kappa_of(shared.values())


def _by_unit(
    ratings: Iterable[tuple[int, int, int, str, Category]],
) -> dict[Unit, dict[str, Category]]:
    """Unit to rater to rating; a later vote of a rater replaces an earlier one."""
    units: dict[Unit, dict[str, Category]] = {}
    for item, low, high, rater, rating in ratings:
        unit = units.get((item, low, high))
        if unit is None:
            unit = units[item, low, high] = {}
        unit[rater] = rating
    return units


def _first_shown(votes: Sequence[ask.Tally]) -> SideBias | None:
    hits = sum(row.num for row in votes if row.first_won == 1)
    num = hits + sum(row.num for row in votes if row.first_won == 0)
    if not num:
        return None
    low, high = wilson_interval(hits, num)
    return SideBias(num, hits / num, low, high)


def _pace(votes: Sequence[ask.Tally]) -> tuple[int, float] | None:
    """(number of votes that say how long they took, their mean)."""
    num = sum(row.num_timed for row in votes)
    if not num:
        return None
    # each sum is exact; `fmean` is likewise the exact sum, rounded once, over the number
    return num, float(sum((row.seconds for row in votes), Fraction(0))) / num
