"""How a format's rows are made of a store: one of each vote, or one of each item with its votes.

What a format cannot say is counted by reason, a kind of vote by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from plaudit.feedback.entries import Item, Vote
from plaudit.feedback.formats.base import CannotSay, Writer
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.walk import walk_items, walk_votes
from plaudit.records.rows import Row

KINDS = {
    "score": "scores",
    "comparison": "comparisons",
    "ranking": "rankings",
    "edit": "edits",
    "words": "remarks in words",
    "skip": "skips",
    "flag": "flags",
}
REASONS = {"tie": "ties", "both_bad": "both bad"}


def each_vote(write: Callable[[Vote, Item], Row | Iterable[Row]], *kinds: str) -> Writer:
    """A writer of rows of single votes; votes of other kinds are counted."""

    def rows(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
        for vote, item, _ in walk_votes(store, rater=rater):
            if vote.kind not in kinds:
                left_out[KINDS[vote.kind]] += 1
                continue
            try:
                made = write(vote, item)
            except CannotSay as reason:
                left_out[str(reason)] += 1
                continue
            if isinstance(made, dict):
                yield made
            else:
                yield from made

    return rows


def each_item(
    write: Callable[[Item, Sequence[Vote], Counter[str]], Iterable[Row]], *kinds: str
) -> Writer:
    """A writer of rows of items, each given those votes on it that are of these kinds."""

    def rows(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
        for item, votes in walk_items(store, rater=rater):
            mine = [vote for vote in votes if vote.kind in kinds]
            left_out.update(KINDS[vote.kind] for vote in votes if vote.kind not in kinds)
            if not mine:
                continue
            try:
                yield from write(item, mine, left_out)
            except CannotSay as reason:
                left_out[str(reason)] += len(mine)

    return rows


def sides(vote: Vote) -> tuple[int, int, str]:
    """The segments that a comparison compares, the lower first, and which was preferred."""
    a, b, said = vote.value["a"], vote.value["b"], vote.value["preference"]
    if a < b:
        return a, b, said
    return b, a, {"a": "b", "b": "a"}.get(said, said)


def two_answers(vote: Vote) -> tuple[int, int, str]:
    """`sides` of a comparison that has a winner; else CannotSay."""
    a, b, said = sides(vote)
    if said in REASONS:
        raise CannotSay(REASONS[said])
    return a, b, said


def by_rater(votes: Iterable[Vote]) -> dict[str, list[Vote]]:
    """Votes of each rater, in order."""
    found: dict[str, list[Vote]] = {}
    for vote in votes:
        found.setdefault(vote.rater, []).append(vote)
    return found
