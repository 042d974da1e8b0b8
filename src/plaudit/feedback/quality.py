"""How well people agree with themselves and each other, and what that says of items and persons.

Agreement is read from the items that were chosen uniformly, and no others: items chosen because
they are hard, or easy, make raters look worse, or better, than they are. Where there are fewer than
`FEW` votes a figure is left out and the reason said. Memory grows with people, not with votes.
"""

from __future__ import annotations

import statistics
import time as clock
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from plaudit.feedback import questions as ask
from plaudit.feedback.agreement import UndefinedAgreement, wilson_interval
from plaudit.feedback.agreement_sums import CategorySums, NumberSums
from plaudit.feedback.answered import MANY, chunks
from plaudit.feedback.derived_tables import AnswerRow, StandingRow
from plaudit.feedback.log import Log
from plaudit.feedback.offered import read_settings
from plaudit.feedback.tables import AnnotatorRow, ItemRow, OfferRow, VoteRow
from plaudit.records.errors import UserError

FEW = 40
"""Votes below which no figure on quality is given."""
TOO_FEW = "too few votes"
RECENT = 500
"""Of a person: the latest votes of which the median time is taken, and the latest repeats."""
MOST_ITEMS = 1000
REST = 20.0
"""Agreement is worked out anew at the earliest after so many times as long as it took."""


@dataclass(frozen=True)
class Share:
    """A share of `num` cases, with its 95 % interval (Wilson)."""

    num: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class PersonFigures:
    """One person. Shares are None without a case; with under 40 votes, `note` says so.

    `self_agreement`: repeats, shown in the other order, that got the same answer.
    `first_shown`: votes with a winner in which the answer shown first won; 0.5 without a habit.
    `with_others`: agreement with the other raters of the same items.
    """

    name: str
    role: str
    paused: bool
    num_votes: int
    num_undone: int
    num_skips: int
    num_flags: int
    median_seconds: float | None
    self_agreement: Share | None
    first_shown: Share | None
    with_others: Share | None
    note: str = ""


@dataclass(frozen=True)
class ItemFigures:
    """One item. `spread`: the chance that two of its votes differ, or the deviation of its scores.

    `surplus` counts answers beyond the overlap.
    """

    number: int
    key: str
    num_answers: int
    surplus: int
    num_skips: int
    num_flags: int
    spread: float | None


@dataclass(frozen=True)
class Agreement:
    """Coefficients by name; None where `reasons` says why there is none.

    percent, cohen (mean over pairs), fleiss, krippendorff of comparisons, score_krippendorff of
    scores; of `num_units` pairs of answers with `num_votes` votes from the uniform draws.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str]
    num_units: int
    num_votes: int
    surplus: int
    overlap: int


def share_of(hits: int, num: int) -> Share | None:
    """The share of hits with its interval; None of nothing."""
    return Share(num, hits / num, *wilson_interval(hits, num)) if num else None


_AMONG_OTHERS = (
    select(AnswerRow.item_id)
    .where(AnswerRow.is_work == 1, AnswerRow.num_said > 0)
    .group_by(AnswerRow.item_id)
    .having(func.count() > 1)
)
_UNIFORM = (
    select(StandingRow.item_id, StandingRow.low, StandingRow.high, StandingRow.rater,
           StandingRow.said, StandingRow.score)
    .join(VoteRow, VoteRow.id == StandingRow.vote_id)
    .join(OfferRow, OfferRow.id == VoteRow.offer)
    .where(
        StandingRow.kind == bindparam("kind"),
        OfferRow.policy == "uniform",
        StandingRow.item_id.in_(_AMONG_OTHERS),
    )
    .order_by(StandingRow.item_id, StandingRow.low, StandingRow.high, StandingRow.vote_id)
)  # fmt: skip
_REPEATS = (
    select(OfferRow.item_id, OfferRow.id)
    .where(OfferRow.annotator_id == bindparam("who"), OfferRow.purpose == "repeat")
    .order_by(OfferRow.id.desc())
    .limit(RECENT)
)
_SAID_TWICE = (
    select(OfferRow.item_id, OfferRow.purpose, VoteRow.kind, VoteRow.value)
    .join(VoteRow, VoteRow.offer == OfferRow.id)
    .join(StandingRow, StandingRow.vote_id == VoteRow.id)
    .where(
        OfferRow.annotator_id == bindparam("who"),
        OfferRow.item_id.in_(MANY),
        VoteRow.kind.in_(("comparison", "ranking")),
        (OfferRow.policy == "uniform") | (OfferRow.purpose == "repeat"),
    )
    .order_by(VoteRow.id)
)
_TAKEN = func.count(AnswerRow.annotator_id.distinct())
_OF_ITEMS = (
    select(AnswerRow.item_id, _TAKEN)
    .where(AnswerRow.item_id.in_(MANY), AnswerRow.is_work == 1, AnswerRow.num_said > 0)
    .group_by(AnswerRow.item_id)
)
_VOTES_ON = (
    select(StandingRow.item_id, StandingRow.rater, StandingRow.kind, StandingRow.low,
           StandingRow.high, StandingRow.said, StandingRow.score)
    .join(VoteRow, VoteRow.id == StandingRow.vote_id)
    .where(StandingRow.item_id.in_(MANY), VoteRow.offer.is_not(None))
    .order_by(StandingRow.item_id, StandingRow.vote_id)
)  # fmt: skip


class Quality:
    """Figures on the votes of a store that answer offers."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: _Kept | None = None

    def per_person(self) -> list[PersonFigures]:
        """Everybody, in the order in which they were added."""
        with self._log.reading() as connection:
            people = connection.execute(select(AnnotatorRow.__table__).order_by(AnnotatorRow.id))
            others = self._sums(connection).compared.with_others()
            return [_of_person(connection, row, others) for row in people.all()]

    def per_item(self, after: int = 0, limit: int = 100) -> list[ItemFigures]:
        """At most `limit` items with a number above `after`, in order."""
        if not 0 < limit <= MOST_ITEMS or not 0 <= after < 2**31:
            raise UserError(f"items after {after}, {limit} of them; expected 1 to {MOST_ITEMS}")
        query = select(ItemRow.id, ItemRow.key).where(ItemRow.id > after)
        with self._log.reading() as connection:
            keys = {
                r.id: r.key for r in connection.execute(query.order_by(ItemRow.id).limit(limit))
            }
            overlap = read_settings(connection).overlap
            num_answers: Counter[int] = Counter()
            votes: defaultdict[int, list[Any]] = defaultdict(list)
            for chunk in chunks(keys):
                for item, num in connection.execute(_OF_ITEMS, {"many": chunk}):
                    num_answers[item] = num
                for row in connection.execute(_VOTES_ON, {"many": chunk}):
                    votes[row.item_id].append(row)
            return [
                _of_item(number, key, num_answers[number], overlap, votes[number])
                for number, key in keys.items()
            ]

    def agreement(self) -> Agreement:
        """How far people agree beyond chance, on the items chosen uniformly."""
        with self._log.reading() as connection:
            sums = self._sums(connection)
        compared, scored, surplus, overlap = sums.compared, sums.scored, sums.surplus, sums.overlap
        wanted: dict[str, tuple[int, Callable[[], float]]] = {
            "percent": (compared.num_ratings, compared.percent),
            "cohen": (compared.num_ratings, compared.cohen),
            "fleiss": (compared.num_ratings, compared.fleiss),
            "krippendorff": (compared.num_ratings, compared.krippendorff),
            "score_krippendorff": (scored.num_ratings, scored.krippendorff),
        }
        values: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for name, (num, coefficient) in wanted.items():
            try:
                if num < FEW:
                    raise UndefinedAgreement(
                        f"{TOO_FEW}: {num} on items with two raters, {FEW} needed"
                    )
                values[name] = coefficient()
            except UndefinedAgreement as reason:
                values[name], reasons[name] = None, str(reason)
        num_units = compared.num_units + scored.num_units
        num_votes = compared.num_ratings + scored.num_ratings
        return Agreement(values, reasons, num_units, num_votes, surplus, overlap)

    def _sums(self, connection: Connection) -> _Kept:
        """What is read from all votes: kept while there are no new ones, or it is young."""
        overlap = read_settings(connection).overlap
        last, begin = ask.last_id(connection, VoteRow), clock.monotonic()
        kept = self._kept
        if kept is None or kept.overlap != overlap or (kept.last != last and begin >= kept.until):
            compared, scored = _compared(connection), _scored(connection)
            surplus = _surplus(connection, overlap)
            end = clock.monotonic()
            kept = _Kept(last, end + REST * (end - begin), compared, scored, surplus, overlap)
            self._kept = kept
        return kept


@dataclass(frozen=True)
class _Kept:
    """What the votes up to `last` say, good enough until then."""

    last: int
    until: float
    compared: CategorySums
    scored: NumberSums
    surplus: int
    overlap: int


def _units(connection: Connection, kind: str, rating: str) -> Iterator[dict[str, Any]]:
    """The ratings of one pair of answers after another, by rater; the latest of each counts."""
    rows = connection.execution_options(yield_per=5_000).execute(_UNIFORM, {"kind": kind})
    for _, unit in groupby(rows, key=lambda row: (row.item_id, row.low, row.high)):
        yield {row.rater: getattr(row, rating) for row in unit}


def _compared(connection: Connection) -> CategorySums:
    sums = CategorySums()
    for unit in _units(connection, "comparison", "said"):
        sums.add(unit)
    return sums


def _scored(connection: Connection) -> NumberSums:
    sums = NumberSums()
    for unit in _units(connection, "score", "score"):
        sums.add(unit)
    return sums


def _surplus(connection: Connection, overlap: int) -> int:
    """Answers beyond the overlap, of all items."""
    num = _TAKEN.label("num")
    taken: Select[Any] = select(num).where(AnswerRow.is_work == 1, AnswerRow.num_said > 0)
    counts = taken.group_by(AnswerRow.item_id).having(overlap < _TAKEN).subquery()
    total = connection.scalar(select(func.sum(counts.c.num - overlap)))
    return int(total or 0)


def _of_person(
    connection: Connection, row: Any, others: Mapping[str, tuple[int, int]]
) -> PersonFigures:
    kinds: Counter[str] = Counter()
    won: Counter[int] = Counter()
    undone = 0
    for tally in ask.tallies(connection, row.name):
        if tally.kind != "undo":
            kinds[tally.kind] += tally.num
            won[tally.first_won] += tally.num
            undone += tally.num_undone
    num = sum(kinds.values())
    seconds = ask.recent_seconds(connection, row.name, RECENT)
    enough = num >= FEW
    return PersonFigures(
        name=row.name,
        role=row.role,
        paused=bool(row.paused),
        num_votes=num,
        num_undone=undone,
        num_skips=kinds["skip"],
        num_flags=kinds["flag"],
        median_seconds=statistics.median(seconds) if seconds else None,
        self_agreement=_self_agreement(connection, row.id) if enough else None,
        first_shown=share_of(won[1], won[0] + won[1]) if enough else None,
        with_others=share_of(*others.get(row.name, (0, 0))) if enough else None,
        note="" if enough else f"{TOO_FEW}: {num}, {FEW} needed",
    )


def _self_agreement(connection: Connection, who: int) -> Share | None:
    """How many of the latest repeats got the answer of the first time."""
    items = [row.item_id for row in connection.execute(_REPEATS, {"who": who})]
    said: dict[tuple[int, bool], Any] = {}
    for chunk in chunks(items):
        for row in connection.execute(_SAID_TWICE, {"who": who, "many": chunk}):
            said[row.item_id, row.purpose == "repeat"] = _meaning(row.kind, row.value)
    pairs = [(said.get((item, False)), said.get((item, True))) for item in items]
    both = [(first, again) for first, again in pairs if first is not None and again is not None]
    return share_of(sum(first == again for first, again in both), len(both))


def _meaning(kind: str, value: Mapping[str, Any]) -> Any:
    """What was said, whatever the order in which the answers stood."""
    if kind == "ranking":
        return [sorted(group) for group in value["ranking"]]
    preference = value["preference"]
    return preference if preference in ("tie", "both_bad") else value[preference]


def _of_item(
    number: int, key: str, num_answers: int, overlap: int, votes: list[Any]
) -> ItemFigures:
    kinds = Counter(vote.kind for vote in votes)
    said: defaultdict[tuple[int, int], dict[str, str]] = defaultdict(dict)
    scores: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for vote in votes:
        if vote.kind == "comparison":
            said[vote.low, vote.high][vote.rater] = vote.said
        elif vote.kind == "score":
            scores[vote.low][vote.rater] = vote.score
    return ItemFigures(
        number=number,
        key=key,
        num_answers=num_answers,
        surplus=max(0, num_answers - overlap),
        num_skips=kinds["skip"],
        num_flags=kinds["flag"],
        spread=_spread(said, scores),
    )


def _spread(
    said: Mapping[Any, Mapping[str, str]], scores: Mapping[Any, Mapping[str, float]]
) -> float | None:
    """The chance that two comparisons differ; without any, the largest deviation of scores."""
    sums = CategorySums()
    for unit in said.values():
        sums.add(unit)
    if sums.num_units:
        return 1 - sums.percent()
    apart = [statistics.pstdev(unit.values()) for unit in scores.values() if len(unit) > 1]
    return max(apart, default=None)
