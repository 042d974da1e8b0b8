"""Over the whole store a page at a time: votes in the order of the log, or items with their votes.

What is there when the walk begins is walked over, and nothing newer; a vote that is taken back
meanwhile may be missing. No page holds up a writer, and no memory grows with the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, select

from plaudit.feedback import questions as ask
from plaudit.feedback.derived_tables import StandingRow
from plaudit.feedback.entries import Item, Segment, Vote
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.tables import VoteRow

PAGE = 500


class Heard(NamedTuple):
    """A vote with the item that it judges, and the number of that item."""

    vote: Vote
    item: Item
    number: int


def walk_votes(
    store: FeedbackStore, *, rater: str | None = None, kind: str | None = None, active: bool = True
) -> Iterator[Heard]:
    """Votes with their items: those that stand, or with `active=False` every entry."""
    _, last = store.size()
    after = 0
    while after < last:
        which = ask.Which(kind, rater, after, PAGE)
        with store.reading() as connection:
            page = (ask.standing_votes if active else ask.all_votes)(connection, which)
            items = _items(connection, {vote.item_key for vote in page})
        for vote in page:
            if vote.id <= last:
                yield Heard(vote, *items[vote.item_key])
        if len(page) < PAGE:
            return
        after = page[-1].id


def walk_items(
    store: FeedbackStore, *, rater: str | None = None
) -> Iterator[tuple[Item, list[Vote]]]:
    """Items in order, each with the votes on it that stand, in order."""
    last, last_vote = store.size()
    for after in range(0, last, PAGE):
        with store.reading() as connection:
            items = ask.items(connection, after=after, limit=min(PAGE, last - after))
            here = StandingRow.__table__.c
            query = (
                select(VoteRow.key)
                .join(StandingRow, StandingRow.vote_id == VoteRow.id)
                .where(here.item_id > after, here.item_id <= after + PAGE)
                .where(here.vote_id <= last_vote)
            )
            if rater is not None:
                query = query.where(here.rater == rater)
            found = ask.votes_by_key(connection, connection.scalars(query)).values()
            votes: dict[str, list[Vote]] = {}
            for vote in sorted(found, key=lambda vote: vote.id):
                votes.setdefault(vote.item_key, []).append(vote)
        for item in items:
            yield item, votes.get(item.key, [])


def _items(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[Item, int]]:
    items = {}
    for key, known in ask.known_items(connection, sorted(keys)).items():
        head, parts = known.content["item"], known.content["segments"]
        segments = tuple(Segment(s["text"], s["kind"], s["model"], s["extra"]) for s in parts)
        items[key] = (Item(key, head["prompt"], segments, head["columns"]), known.id)
    return items
