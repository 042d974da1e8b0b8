"""The feedback store: an append-only log of what was shown and what was said about it.

Every entry has a unique key. Adding a key again with the same content does nothing (times are
not content), and with other content is an error; so a killed job can rerun its feedback stage and
end in the identical store. Undo is one more entry, and an undo can itself be undone.
"""

from __future__ import annotations

import hashlib
import threading
import time as clock
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, func, insert, select

from plaudit.feedback.entries import (
    Comparison,
    Item,
    NewVote,
    Score,
    Segment,
    Vote,
    check_item,
    check_vote,
    comparison_vote,
    score_vote,
)
from plaudit.feedback.readings import (
    SEGMENT_FIELDS,
    VOTE_FIELDS,
    Known,
    comparison_of,
    item_content,
    require_same,
    score_of,
    vote_content,
    vote_of_row,
)
from plaudit.feedback.tables import (
    ItemRow,
    SegmentRow,
    VoteRow,
    database_url,
    json_text,
    lock_for_writing,
    open_engine,
    plain_errors,
    prepare,
    shown_url,
)
from plaudit.records.errors import UserError, nearest
from plaudit.records.types import Text

_CHUNK = 500  # keys asked for in one query; SQLite allows 32,766 variables, older builds 999
T = TypeVar("T")


class FeedbackStore:
    """A log of items and votes in an SQLite file, or in PostgreSQL by URL.

    Safe to use from several threads and processes: writers take turns. With `create=False` a file
    that is not there is an error. Errors: a folder or file that cannot be used, a database of
    something else or of a newer Plaudit, a full disk: each a UserError of one sentence.
    """

    def __init__(self, where: str | Path, *, create: bool = True) -> None:
        url = database_url(where)
        self.name = shown_url(url)
        if url.get_backend_name() == "sqlite":
            _check_path(url.database, create=create)
        self._engine = open_engine(url)
        self._writer = self._engine.execution_options(plaudit_write=True)
        self._open = threading.local()
        try:
            with plain_errors(self.name):
                prepare(self._engine, self.name)
        except UserError:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Let go of the database; the store is not usable afterwards."""
        self._engine.dispose()

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing ---------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything added inside is kept together or, after an error, not at all."""
        if getattr(self._open, "connection", None) is not None:
            yield
            return
        with plain_errors(self.name), self._writer.begin() as connection:
            lock_for_writing(connection)
            self._open.connection = connection
            try:
                yield
            finally:
                self._open.connection = None

    def add_items(self, items: Iterable[Item]) -> list[int]:
        """Append items, in order; gives the id of each, new or known."""
        wanted = list(items)
        for item in wanted:
            check_item(item)
        with self.batch():
            known = self._known_items([item.key for item in wanted])
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
            items = self._known_items([vote.item_key for _, vote in wanted])
            keys = [key for key, _ in wanted]
            keys += [vote.undoes for _, vote in wanted if vote.undoes is not None]
            known = self._known_votes(keys)
            next_vote, now = self._next_id(VoteRow), clock.time()
            rows: list[dict[str, Any]] = []
            for key, vote in wanted:
                item = items.get(vote.item_key)
                if item is None:
                    raise UserError(f"{self.name}: there is no item {vote.item_key!r} to vote on")
                check_vote(vote, item.num_segments)
                content = vote_content(vote, item.id, known)
                before = known.get(key)
                if before is not None:
                    require_same(before.content, content, f"vote {key!r}", self.name)
                    continue
                when = now if vote.time is None else vote.time
                row = {"id": next_vote, "key": key, "seconds": vote.seconds, "time": when}
                rows.append(row | content)
                known[key] = Known(next_vote, content)
                next_vote += 1
            self._insert(VoteRow, rows)
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
        with self.batch():
            if key is not None and (done := self._known_votes([key]).get(key)) is not None:
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
        """How many items and how many votes (undone ones and undos included) the log holds."""
        with self._reading():
            return self._next_id(ItemRow) - 1, self._next_id(VoteRow) - 1

    def items(self) -> list[Item]:
        """All items with their segments, in the order they were added."""
        with self._reading() as connection:
            segments: dict[int, list[Segment]] = {}
            for row in connection.execute(
                select(SegmentRow.__table__).order_by(SegmentRow.item_id, SegmentRow.position)
            ):
                segment = Segment(row.text, row.kind, row.model, row.extra)
                segments.setdefault(row.item_id, []).append(segment)
            rows = connection.execute(select(ItemRow.__table__).order_by(ItemRow.id))
            return [Item(r.key, r.prompt, tuple(segments[r.id]), r.columns) for r in rows]

    def votes(
        self, *, active: bool = True, kind: str | None = None, rater: str | None = None
    ) -> list[Vote]:
        """The log in order: votes that stand (without undos), or with `active=False` everything."""
        with self._reading() as connection:
            rows = connection.execute(
                select(VoteRow.__table__, ItemRow.key.label("item_key"))
                .join(ItemRow, ItemRow.id == VoteRow.item_id)
                .order_by(VoteRow.id)
            ).all()
        undone: set[int] = set()
        for row in reversed(rows):  # an undo always follows what it undoes
            if row.undoes is not None and row.id not in undone:
                undone.add(row.undoes)
        return [
            vote_of_row(row, active=row.id not in undone)
            for row in rows
            if (not active or (row.id not in undone and row.kind != "undo"))
            and kind in (None, row.kind)
            and rater in (None, row.rater)
        ]

    def comparisons(self, *, rater: str | None = None) -> list[Comparison]:
        """Active comparisons, in the order they were made."""
        with self._reading():
            items = {item.key: item for item in self.items()}
            votes = self.votes(kind="comparison", rater=rater)
        return [comparison_of(vote, items[vote.item_key]) for vote in votes]

    def scores(self, *, rater: str | None = None) -> list[Score]:
        """Active scores, in the order they were given."""
        with self._reading():
            items = {item.key: item for item in self.items()}
            votes = self.votes(kind="score", rater=rater)
        return [score_of(vote, items[vote.item_key]) for vote in votes]

    def open_items(self, rater: str) -> list[Item]:
        """Items on which `rater` has no active vote, in the order they were added."""
        with self._reading():
            answered = {vote.item_key for vote in self.votes(rater=rater)}
            return [item for item in self.items() if item.key not in answered]

    def content_digest(self) -> str:
        """SHA-256 of everything in the log, ids and order included, except times."""
        digest = hashlib.sha256()
        with self._reading() as connection:
            for row in (ItemRow, SegmentRow, VoteRow):
                table = row.__table__
                names = [c for c in table.columns if c.name not in ("time", "seconds")]
                for values in connection.execute(select(*names).order_by(row.id)):
                    digest.update(json_text([row.__tablename__, *values]).encode() + b"\n")
        return digest.hexdigest()

    # --- inside ----------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """One snapshot: the open batch if this thread has one, else a read transaction."""
        connection = getattr(self._open, "connection", None)
        if connection is not None:
            yield connection
            return
        with plain_errors(self.name), self._engine.begin() as connection:
            self._open.connection = connection
            try:
                yield connection
            finally:
                self._open.connection = None

    @property
    def _connection(self) -> Connection:
        connection: Connection = self._open.connection
        return connection

    def _next_id(self, table: type[ItemRow] | type[SegmentRow] | type[VoteRow]) -> int:
        return (self._connection.scalar(select(func.max(table.id))) or 0) + 1

    def _insert(self, table: type, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)

    def _known_items(self, keys: Sequence[str]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for chunk in _chunks(keys):
            here = ItemRow.key.in_(chunk)
            segments: dict[int, list[dict[str, Any]]] = {}
            for row in self._connection.execute(
                select(SegmentRow.__table__)
                .join(ItemRow, ItemRow.id == SegmentRow.item_id)
                .where(here)
                .order_by(SegmentRow.item_id, SegmentRow.position)
            ):
                fields = {name: getattr(row, name) for name in SEGMENT_FIELDS}
                segments.setdefault(row.item_id, []).append(fields)
            for row in self._connection.execute(select(ItemRow.__table__).where(here)):
                head = {"prompt": row.prompt, "columns": row.columns}
                content = {"item": head, "segments": segments[row.id]}
                known[row.key] = Known(row.id, content, len(segments[row.id]))
        return known

    def _known_votes(self, keys: Sequence[str]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        for chunk in _chunks(keys):
            rows = self._connection.execute(select(VoteRow.__table__).where(VoteRow.key.in_(chunk)))
            for row in rows:
                content = {name: getattr(row, name) for name in VOTE_FIELDS}
                known[row.key] = Known(row.id, content)
        return known

    def _to_undo(self, vote_id: int | None, rater: str | None) -> Vote:
        log = self.votes(active=False)
        if vote_id is None:
            if rater is None:
                raise UserError("undo needs a vote's id or a rater's name")
            mine = [v for v in log if v.rater == rater and v.active and v.kind != "undo"]
            if not mine:
                hint = nearest(rater, {v.rater for v in log} - {rater})
                raise UserError(f"{self.name}: {rater!r} has no vote to undo{hint}")
            return mine[-1]
        for vote in log:
            if vote.id == vote_id:
                if not vote.active:
                    raise UserError(f"{self.name}: vote {vote_id} is already undone")
                return vote
        raise UserError(f"{self.name}: there is no vote {vote_id}; the log ends at {len(log)}")


def _check_path(path: str | None, *, create: bool) -> None:
    if not path or path == ":memory:" or path.startswith("file:"):
        return
    file = Path(path)
    if not file.parent.is_dir():
        raise UserError(f"{path}: the folder {file.parent} does not exist; make it first")
    if file.is_dir():
        raise UserError(f"{path} is a folder, expected the path of a feedback store (a file)")
    if not create and not file.is_file():
        hint = nearest(file.name, (other.name for other in file.parent.iterdir()))
        raise UserError(f"{path}: there is no such feedback store{hint}")


def _chunks(keys: Sequence[T]) -> Iterator[list[T]]:
    distinct = list(dict.fromkeys(keys))
    for start in range(0, len(distinct), _CHUNK):
        yield distinct[start : start + _CHUNK]
