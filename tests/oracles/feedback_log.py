"""The feedback store's questions answered by reading its whole log into Python, entry by entry.

Nothing derived is read: only the tables `items`, `segments` and `votes`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from sqlalchemy import select

from plaudit.feedback.agreement import (
    UndefinedAgreement,
    category_counts,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from plaudit.feedback.entries import PREFERENCES, VOTE_KINDS, Item, Segment
from plaudit.feedback.readings import comparison_of, score_of, vote_of_row
from plaudit.feedback.stats import mean_cohen_kappa, wilson_interval
from plaudit.feedback.tables import ItemRow, OfferRow, SegmentRow, VoteRow


@dataclass
class Log:
    """All of a store."""

    items: list = field(default_factory=list)
    votes: list = field(default_factory=list)

    @property
    def standing(self):
        return [vote for vote in self.votes if vote.active and vote.kind != "undo"]


def read(store):
    """The whole log; an entry is active unless an active one undoes it."""
    log = Log()
    with store._engine.begin() as connection:
        segments = {}
        for row in connection.execute(
            select(SegmentRow.__table__).order_by(SegmentRow.item_id, SegmentRow.position)
        ):
            segment = Segment(row.text, row.kind, row.model, row.extra)
            segments.setdefault(row.item_id, []).append(segment)
        for row in connection.execute(select(ItemRow.__table__).order_by(ItemRow.id)):
            log.items.append(Item(row.key, row.prompt, tuple(segments[row.id]), row.columns))
        rows = connection.execute(
            select(
                VoteRow.__table__,
                ItemRow.key.label("item_key"),
                OfferRow.key.label("offer_key"),
                OfferRow.purpose,
                OfferRow.policy,
                OfferRow.propensity,
            )
            .join(ItemRow, ItemRow.id == VoteRow.item_id)
            .outerjoin(OfferRow, OfferRow.id == VoteRow.offer)
            .order_by(VoteRow.id)
        ).all()
    undone = set()
    for row in reversed(rows):  # an undo always follows what it undoes
        if row.undoes is not None and row.id not in undone:
            undone.add(row.undoes)
    log.votes = [vote_of_row(row, active=row.id not in undone) for row in rows]
    return log


def votes(log, *, active=True, kind=None, rater=None, after=None, limit=None):
    found = [
        vote
        for vote in (log.standing if active else log.votes)
        if kind in (None, vote.kind) and rater in (None, vote.rater) and vote.id > (after or 0)
    ]
    return found[:limit]


def comparisons(log, **which):
    items = {item.key: item for item in log.items}
    return [comparison_of(v, items[v.item_key]) for v in votes(log, kind="comparison", **which)]


def scores(log, **which):
    items = {item.key: item for item in log.items}
    return [score_of(v, items[v.item_key]) for v in votes(log, kind="score", **which)]


def open_items(log, rater, limit=None):
    answered = {vote.item_key for vote in log.standing if vote.rater == rater}
    return [item for item in log.items if item.key not in answered][:limit]


def last_vote(log, rater):
    """The id of what `undo(rater=...)` takes back, or None."""
    mine = [vote.id for vote in log.standing if vote.rater == rater]
    return mine[-1] if mine else None


def stats(log):
    """All of `FeedbackStats`, as a dictionary."""
    standing = log.standing
    kinds = Counter(vote.kind for vote in standing)
    by_rater = {}
    for vote in standing:
        counts = by_rater.setdefault(vote.rater, {})
        counts[vote.kind] = counts.get(vote.kind, 0) + 1
    said = Counter(vote.value["preference"] for vote in standing if vote.kind == "comparison")
    agreement, undefined = _agreement(standing)
    took = [vote.seconds for vote in standing if vote.seconds is not None]
    return {
        "num_items": len(log.items),
        "num_unjudged": len(log.items) - len({vote.item_key for vote in standing}),
        "num_votes": len(standing),
        "num_undone": sum(not vote.active and vote.kind != "undo" for vote in log.votes),
        "by_kind": {kind: kinds[kind] for kind in VOTE_KINDS if kinds[kind]},
        "by_rater": dict(sorted(by_rater.items())),
        "preferences": {name: said[name] for name in PREFERENCES},
        "num_ties": said["tie"],
        "num_both_bad": said["both_bad"],
        "agreement": agreement,
        "undefined": undefined,
        "first_shown": _first_shown(standing),
        "seconds": {
            "num": len(took),
            "median": statistics.median(took),
            "mean": statistics.fmean(took),
        }
        if took
        else None,
    }


def rater_stats(log, rater):
    """All of `RaterStats`, as a dictionary."""
    standing = [vote for vote in log.standing if vote.rater == rater]
    of_rater = stats(Log(log.items, [vote for vote in log.votes if vote.rater == rater]))
    same = ("num_votes", "num_undone", "by_kind", "preferences", "first_shown")
    took = [Fraction(vote.seconds) for vote in standing if vote.seconds is not None]
    num_answered = len({vote.item_key for vote in standing})
    return {name: of_rater[name] for name in same} | {
        "rater": rater,
        "num_answered": num_answered,
        "num_open": len(log.items) - num_answered,
        "seconds": (len(took), float(sum(took)) / len(took)) if took else None,
    }


def _agreement(standing):
    compared, scored = {}, {}
    for vote in standing:
        if vote.kind == "comparison":
            a, b, said = vote.value["a"], vote.value["b"], vote.value["preference"]
            if a > b:
                a, b, said = b, a, {"a": "b", "b": "a"}.get(said, said)
            compared.setdefault((vote.item_key, a, b), {})[vote.rater] = said
        if vote.kind == "score":
            unit = vote.item_key, vote.value["segment"]
            scored.setdefault(unit, {})[vote.rater] = vote.value["score"]
    units = [list(unit.values()) for unit in compared.values()]
    wanted = {}
    if units:
        wanted = {
            "percent": lambda: percent_agreement(units),
            "cohen": lambda: mean_cohen_kappa(list(compared.values())),
            "fleiss": lambda: fleiss_kappa(category_counts(units)),
            "krippendorff": lambda: krippendorff_alpha(units, "nominal"),
        }
    if scored:
        values = [list(unit.values()) for unit in scored.values()]
        wanted["score_krippendorff"] = lambda: krippendorff_alpha(values, "interval")
    found, undefined = {}, {}
    for name, coefficient in wanted.items():
        try:
            found[name] = coefficient()
        except UndefinedAgreement as reason:
            found[name], undefined[name] = None, str(reason)
    return found, undefined


def _first_shown(standing):
    decided = [
        vote.shown[0] == vote.value[vote.value["preference"]]
        for vote in standing
        if vote.kind == "comparison" and vote.shown and vote.value["preference"] in ("a", "b")
    ]
    if not decided:
        return None
    low, high = wilson_interval(sum(decided), len(decided))
    share = sum(decided) / len(decided)
    return {"num": len(decided), "share": share, "low": low, "high": high}
