"""The state of a feedback store in numbers, and as lines for the terminal.

A unit of agreement is a pair of answers of one item; a rater's latest active vote on it counts.
Preferences are four categories (a, b, tie, both bad) without order; scores are an interval scale.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

from plaudit.feedback.agreement import (
    UndefinedAgreement,
    category_counts,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from plaudit.feedback.entries import PREFERENCES, VOTE_KINDS, Vote
from plaudit.feedback.store import FeedbackStore

Category = TypeVar("Category", bound=Hashable)
Unit = tuple[str, int, int]
_Z95 = statistics.NormalDist().inv_cdf(0.975)


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


def feedback_stats(store: FeedbackStore) -> FeedbackStats:
    """Counts, agreement, side bias and pace of the active votes."""
    log = store.votes(active=False)
    votes = [vote for vote in log if vote.active and vote.kind != "undo"]
    kinds = Counter(vote.kind for vote in votes)
    by_rater: dict[str, dict[str, int]] = {}
    for vote in votes:
        counts = by_rater.setdefault(vote.rater, {})
        counts[vote.kind] = counts.get(vote.kind, 0) + 1
    said = Counter(vote.value["preference"] for vote in votes if vote.kind == "comparison")
    agreement, undefined = _agreement(votes)
    num_items = len(store.items())
    took = [vote.seconds for vote in votes if vote.seconds is not None]
    return FeedbackStats(
        num_items=num_items,
        num_unjudged=num_items - len({vote.item_key for vote in votes}),
        num_votes=len(votes),
        num_undone=sum(not vote.active and vote.kind != "undo" for vote in log),
        by_kind={kind: kinds[kind] for kind in VOTE_KINDS if kinds[kind]},
        by_rater=dict(sorted(by_rater.items())),
        preferences={name: said[name] for name in PREFERENCES},
        num_ties=said["tie"],
        num_both_bad=said["both_bad"],
        agreement=agreement,
        undefined=undefined,
        first_shown=_first_shown(votes),
        seconds=Seconds(len(took), statistics.median(took), statistics.fmean(took))
        if took
        else None,
    )


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """95 % interval of a share: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Source: Wilson 1927, p. 209-210; checked against Newcombe 1998, table I.
    """
    p, zz = hits / num, _Z95 * _Z95
    middle = p + zz / (2 * num)
    half = _Z95 * math.sqrt(p * (1 - p) / num + zz / (4 * num * num))
    scale = 1 + zz / num
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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


def _agreement(votes: Sequence[Vote]) -> tuple[dict[str, float | None], dict[str, str]]:
    compared = _by_unit(votes, "comparison", _compared)
    scored = _by_unit(votes, "score", _scored)
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
    shared: dict[tuple[str, str], tuple[list[Category], list[Category]]] = {}
    for unit in units:
        for one, other in combinations(sorted(unit), 2):
            first, second = shared.setdefault((one, other), ([], []))
            first.append(unit[one])
            second.append(unit[other])
    kappas = []
    reason = "no two raters share a unit"
    for first, second in shared.values():
        try:
            kappas.append(cohen_kappa(first, second))
        except UndefinedAgreement as undefined:
            reason = str(undefined)
    if not kappas:
        raise UndefinedAgreement(reason)
    return statistics.fmean(kappas)


def _by_unit(
    votes: Sequence[Vote], kind: str, read: Callable[[Vote], tuple[Unit, Category]]
) -> dict[Unit, dict[str, Category]]:
    """Unit to rater to rating; a later vote of a rater replaces an earlier one."""
    units: dict[Unit, dict[str, Category]] = {}
    for vote in votes:
        if vote.kind == kind:
            unit, rating = read(vote)
            units.setdefault(unit, {})[vote.rater] = rating
    return units


def _compared(vote: Vote) -> tuple[Unit, str]:
    a, b, said = vote.value["a"], vote.value["b"], vote.value["preference"]
    if a > b:
        a, b, said = b, a, {"a": "b", "b": "a"}.get(said, said)
    return (vote.item_key, a, b), said


def _scored(vote: Vote) -> tuple[Unit, float]:
    segment = vote.value["segment"]
    return (vote.item_key, segment, segment), vote.value["score"]


def _first_shown(votes: Sequence[Vote]) -> SideBias | None:
    decided = [
        vote.shown[0] == vote.value[vote.value["preference"]]
        for vote in votes
        if vote.kind == "comparison" and vote.shown and vote.value["preference"] in ("a", "b")
    ]
    if not decided:
        return None
    low, high = wilson_interval(sum(decided), len(decided))
    return SideBias(len(decided), sum(decided) / len(decided), low, high)
