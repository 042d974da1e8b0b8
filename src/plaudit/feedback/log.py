"""A feedback log opened: who writes, who reads, and how rows come in; the store is built on it.

All that this process writes goes through one connection, its threads taking turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, insert

from plaudit.feedback import questions as ask
from plaudit.feedback.database import (
    BUSY_SECONDS,
    database_url,
    lock_for_writing,
    open_engines,
    plain_errors,
    shown_url,
    snapshots,
    writers,
)
from plaudit.feedback.derived import CATCH_UP, catch_up, derive, is_current
from plaudit.feedback.migrate import prepare
from plaudit.feedback.readings import entry_of_row
from plaudit.feedback.tables import ItemRow, SegmentRow, VoteRow
from plaudit.records.errors import UserError, nearest


class Log:
    """The tables of a store, open: `batch` to write, `reading` to read, `append` for votes."""

    def __init__(self, where: str | Path, *, create: bool = True) -> None:
        url = database_url(where)
        self.name = shown_url(url)
        if url.get_backend_name() == "sqlite":
            _check_path(url.database, create=create)
        self._write_engine, self._engine = open_engines(url)
        self._writer = writers(self._write_engine)
        self._reader = snapshots(self._engine)
        self._turn = threading.RLock()  # of this process' threads, to write
        self._open = threading.local()
        try:
            with plain_errors(self.name):
                prepare(self._write_engine, self.name)
            with self.reading():  # derives what a store of an earlier Plaudit lacks
                pass
        except UserError as error:
            self.close()
            if "read-only" in str(error):
                raise UserError(
                    f"{self.name} is read-only, and this Plaudit must write to a store of an "
                    "earlier one once: open it where it may be written, or a copy of it"
                ) from error
            raise

    def close(self) -> None:
        """Let go of the database; the store is not usable afterwards."""
        self._engine.dispose()
        self._write_engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything added inside is kept together or, after an error, not at all."""
        if getattr(self._open, "connection", None) is not None:
            if not self._open.writes:
                raise UserError(f"{self.name}: nothing can be added while a snapshot is read")
            yield
            return
        with self.turn(), plain_errors(self.name), self._writer.begin() as connection:
            lock_for_writing(connection)
            if not is_current(connection):
                catch_up(connection)
            self._open.connection, self._open.writes = connection, True
            try:
                yield
            finally:
                self._open.connection = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """This thread's turn to write; the others of the process wait."""
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise UserError(
                f"{self.name}: this process has been writing for over {BUSY_SECONDS:.0f} s; try again"
            )
        try:
            yield
        finally:
            self._turn.release()

    def is_writing(self) -> bool:
        """Whether this thread has a batch open."""
        return getattr(self._open, "connection", None) is not None and self._open.writes

    @contextmanager
    def turn_if_free(self) -> Iterator[bool]:
        """This thread's turn to write if no other thread has it; says whether it does."""
        free = self._turn.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self._turn.release()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append checked rows of `votes` with the ids that follow, inside an open batch."""
        self._insert(VoteRow, [dict(row) for row in rows])
        derive(self._connection, [entry_of_row(row) for row in rows])

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot for several questions: this thread's open batch, else a transaction."""
        connection = getattr(self._open, "connection", None)
        if connection is not None:
            yield connection
            return
        while True:
            with plain_errors(self.name), self._reader.begin() as connection:
                if is_current(connection):
                    self._open.connection, self._open.writes = connection, False
                    try:
                        yield connection
                    finally:
                        self._open.connection = None
                    return
            self._catch_up()

    # --- inside ----------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Derive what the log of another Plaudit lacks, letting other writers in between."""
        while True:
            with self.turn(), plain_errors(self.name), self._writer.begin() as connection:
                lock_for_writing(connection)
                if is_current(connection):
                    return
                catch_up(connection, CATCH_UP)

    @property
    def _connection(self) -> Connection:
        connection: Connection = self._open.connection
        return connection

    def _next_id(self, table: type[ItemRow] | type[SegmentRow] | type[VoteRow]) -> int:
        return ask.last_id(self._connection, table) + 1

    def _insert(self, table: type, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)


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
