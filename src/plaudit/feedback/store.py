"""The feedback store: an append-only log of what was shown and what was said about it.

Every entry has a unique key. Adding a key again with the same content does nothing (times are
not content), and with other content is an error; so a killed job can rerun its feedback stage and
end in the identical store. Undo is one more entry, and an undo can itself be undone.
"""

from __future__ import annotations

import hashlib
import time as clock
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from plaudit.feedback import questions as ask
from plaudit.feedback.database import json_text
from plaudit.feedback.entries import (
    Comparison,
    Item,
    NewVote,
    Score,
    Segment,
    Vote,
    check_item,
    check_name,
    check_vote,
    comparison_vote,
    score_vote,
)
from plaudit.feedback.log import Log
from plaudit.feedback.offers import Offers
from plaudit.feedback.people import People
from plaudit.feedback.quality import Quality
from plaudit.feedback.readings import (
    Known,
    comparison_of,
    item_content,
    require_same,
    score_of,
    vote_content,
)
from plaudit.feedback.tables import ItemRow, SegmentRow, VoteRow
from plaudit.records.errors import UserError, nearest
from plaudit.records.types import Text

_NOT_DIGESTED = ("time", "seconds", "visible_seconds", "offer")


class FeedbackStore(Log):
    """A log of items and votes in an SQLite file, or in PostgreSQL by URL.

    Safe to use from several threads and processes: writers take turns. With `create=False` a file
    that is not there is an error. Errors: a folder or file that cannot be used, a database of
    something else or of a newer Plaudit, a full disk: each a UserError of one sentence.
    """

    def __init__(self, where: str | Path, *, create: bool = True) -> None:
        super().__init__(where, create=create)
        self.offers = Offers(self)  # what is shown to whom, and what they answer
        self.people = People(self, self.offers)  # annotators, invitations, sessions
        self.quality = Quality(self)  # how far people agree with themselves and each other

    # --- writing ---------------------------------------------------------------------------

    def add_items(self, items: Iterable[Item]) -> list[int]:
        """Append items, in order; gives the id of each, new or known."""
        wanted = list(items)
        for item in wanted:
            check_item(item)
        with self.batch():
            known = ask.known_items(self._connection, [item.key for item in wanted])
            next_item, next_segment = self._next_id(ItemRow), self._next_id(SegmentRow)
            rows: list[dict[str, Any]] = []
            segments: list[dict[str, Any]] = []
            for item in wanted:
                content = item_content(item)
                before = known.get(item.key)
                if before is not None:
                    require_same(before.content, content, f"item {item.key!r}", self.name)
                    continue
                rows.append({"id": next_item, "key": item.key} | content["item"])
                for segment in content["segments"]:
                    segments.append({"id": next_segment, "item_id": next_item} | segment)
                    next_segment += 1
                known[item.key] = Known(next_item, content, len(item.segments))
                next_item += 1
            self._insert(ItemRow, rows)
            self._insert(SegmentRow, segments)
        return [known[item.key].id for item in wanted]

    def add_votes(self, votes: Iterable[NewVote]) -> list[int]:
        """Append votes on items already there, in order; gives the id of each, new or known."""
        wanted = [(vote.key or uuid.uuid4().hex, vote) for vote in votes]
        with self.batch():
            items = ask.item_sizes(self._connection, [vote.item_key for _, vote in wanted])
            keys = [key for key, _ in wanted]
            keys += [vote.undoes for _, vote in wanted if vote.undoes is not None]
            known = ask.known_votes(self._connection, keys)
            next_vote, now = self._next_id(VoteRow), clock.time()
            rows: list[dict[str, Any]] = []
            for key, vote in wanted:
                if vote.item_key not in items:
                    raise UserError(f"{self.name}: there is no item {vote.item_key!r} to vote on")
                item_id, num_segments = items[vote.item_key]
                check_vote(vote, num_segments)
                content = vote_content(vote, item_id, known)
                before = known.get(key)
                if before is not None:
                    require_same(before.content, content, f"vote {key!r}", self.name)
                    continue
                when = now if vote.time is None else vote.time
                row = {"id": next_vote, "key": key, "seconds": vote.seconds, "time": when}
                row |= {"visible_seconds": vote.visible_seconds, "offer": None}
                rows.append(row | content)
                known[key] = Known(next_vote, content)
                next_vote += 1
            self.append(rows)
        return [known[key].id for key in keys[: len(wanted)]]

    def add_item(
        self,
        key: str,
        prompt: Text,
        segments: Sequence[Text | Segment],
        columns: Mapping[str, Any] | None = None,
    ) -> int:
        """Append one item; a segment may be given as its text alone."""
        if isinstance(segments, str):
            raise UserError(f"item {key!r}: segments is one text, expected a list of texts")
        whole = tuple(s if isinstance(s, Segment) else Segment(s) for s in segments)
        return self.add_items([Item(key, prompt, whole, columns or {})])[0]

    def add_comparison(self, item_key: str, rater: str, preference: str, **details: Any) -> int:
        """Append one comparison; `details` are those of `comparison_vote`."""
        return self.add_votes([comparison_vote(item_key, rater, preference, **details)])[0]

    def add_score(self, item_key: str, rater: str, score: float, **details: Any) -> int:
        """Append one score; `details` are those of `score_vote`."""
        return self.add_votes([score_vote(item_key, rater, score, **details)])[0]

    def undo(
        self,
        vote_id: int | None = None,
        *,
        rater: str | None = None,
        key: str | None = None,
        time: float | None = None,
    ) -> int:
        """Take back a vote, or the rater's last active vote that is not an undo.

        Undoing an undo brings its vote back. Gives the id of the new entry. Errors: no such vote,
        a vote that is not active, nothing left to undo.
        """
        if rater is not None:
            check_name(rater, "a rater's name")
        with self.batch():
            if key is not None and (done := self._known(key)) is not None:
                target = done.content["undoes"]
                if vote_id is not None and target != vote_id:
                    raise UserError(f"{self.name}: vote {key!r} is there with other content")
                return done.id
            target_vote = self._to_undo(vote_id, rater)
            who = target_vote.rater if rater is None else rater
            entry = NewVote(
                key, target_vote.item_key, who, "undo", {}, None, None, time, target_vote.key
            )
            return self.add_votes([entry])[0]

    # --- reading ---------------------------------------------------------------------------

    def size(self) -> tuple[int, int]:
        """How many items and how many votes (undone ones and undos included) the log holds.

        Ids are given from 1 without gaps, so these are also the ids of the newest.
        """
        with self.reading() as connection:
            return ask.last_id(connection, ItemRow), ask.last_id(connection, VoteRow)

    def items(self, *, after: int | None = None, limit: int | None = None) -> list[Item]:
        """Items with their segments, in the order they were added: those later than item `after`."""
        check_page(after, limit)
        with self.reading() as connection:
            return ask.items(connection, after=after, limit=limit)

    def votes(
        self,
        *,
        active: bool = True,
        kind: str | None = None,
        rater: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> list[Vote]:
        """The log in order: votes that stand (without undos), or with `active=False` everything.

        What is new since an entry has its id as `after`.
        """
        check_page(after, limit, rater)
        which = ask.Which(kind, rater, after, limit)
        with self.reading() as connection:
            if active:
                return ask.standing_votes(connection, which)
            return ask.all_votes(connection, which)

    def votes_by_key(self, keys: Iterable[str]) -> dict[str, Vote]:
        """Those of the entries `keys` that the log holds, undone or not."""
        with self.reading() as connection:
            return ask.votes_by_key(connection, keys)

    def comparisons(
        self, *, rater: str | None = None, after: int | None = None, limit: int | None = None
    ) -> list[Comparison]:
        """Active comparisons, in the order they were made: those later than vote `after`."""
        check_page(after, limit, rater)
        which = ask.Which("comparison", rater, after, limit)
        return [comparison_of(vote, item) for vote, item in self._judged(which)]

    def scores(
        self, *, rater: str | None = None, after: int | None = None, limit: int | None = None
    ) -> list[Score]:
        """Active scores, in the order they were given: those later than vote `after`."""
        check_page(after, limit, rater)
        which = ask.Which("score", rater, after, limit)
        return [score_of(vote, item) for vote, item in self._judged(which)]

    def open_items(self, rater: str, *, limit: int | None = None) -> list[Item]:
        """Items on which `rater` has no active vote, in the order they were added.

        At most `limit`, at a cost that does not depend on how many are answered.
        """
        check_page(None, limit, rater)
        with self.reading() as connection:
            return ask.open_items(connection, rater, limit)

    def content_digest(self) -> str:
        """SHA-256 of items and votes, ids and order included, except times and offers."""
        digest = hashlib.sha256()
        with self.reading() as connection:
            for row in (ItemRow, SegmentRow, VoteRow):
                table = row.__table__
                names = [c for c in table.columns if c.name not in _NOT_DIGESTED]
                for values in connection.execute(select(*names).order_by(row.id)):
                    digest.update(json_text([row.__tablename__, *values]).encode() + b"\n")
        return digest.hexdigest()

    # --- inside ----------------------------------------------------------------------------

    def _judged(self, which: ask.Which) -> list[tuple[Vote, Item]]:
        with self.reading() as connection:
            items = ask.items_judged(connection, which)
            votes = ask.standing_votes(connection, which)
        return [(vote, items[vote.item_key]) for vote in votes]

    def _known(self, key: str) -> Known | None:
        return ask.known_votes(self._connection, [key]).get(key)

    def _to_undo(self, vote_id: int | None, rater: str | None) -> Vote:
        connection = self._connection
        if vote_id is None:
            if rater is None:
                raise UserError("undo needs a vote's id or a rater's name")
            vote_id = ask.last_standing_id(connection, rater)
            if vote_id is None:
                hint = nearest(rater, set(ask.rater_names(connection)) - {rater})
                raise UserError(f"{self.name}: {rater!r} has no vote to undo{hint}")
        last = ask.last_id(connection, VoteRow)
        vote = ask.vote_by_id(connection, vote_id) if 0 < vote_id <= last else None
        if vote is None:
            raise UserError(f"{self.name}: there is no vote {vote_id}; the log ends at {last}")
        if not vote.active:
            raise UserError(f"{self.name}: vote {vote_id} is already undone")
        return vote


def check_page(after: int | None, limit: int | None, rater: str | None = None) -> None:
    """UserError unless a page of the log is asked for by whole numbers from 0, of a possible name."""
    for name, value in (("after", after), ("limit", limit)):
        given: object = value
        whole = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**31
        if given is not None and not whole:
            raise UserError(f"{name} is {value!r}, expected a whole number from 0, or None")
    if rater is not None:
        check_name(rater, "a rater's name")
