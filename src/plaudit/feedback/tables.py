"""The schema of the feedback log, and how a database file or server is opened and recognised.

The log is `items`, `segments` and `votes`; its rows are only ever appended. Ids are given by the
store under its write lock, not by the database, so that a rolled back transaction leaves no gap and
a rerun ends in the same ids on SQLite and PostgreSQL alike. The other tables are derived from the
log (`derived.py` keeps them): what stands, what each rater said how often, and which items each
rater has answered. `plaudit_feedback` holds the schema version and how far the derived tables go.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from plaudit.records.errors import UserError, nearest

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
"""How long a writer waits for another; a batch of 100,000 votes takes under 10 s."""
_ADVISORY_LOCK = 0x504C4155
""""PLAU": the PostgreSQL advisory lock that serialises writers, as SQLite's own lock does."""


class Base(DeclarativeBase):
    pass


class MetaRow(Base):
    __tablename__ = "plaudit_feedback"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class ItemRow(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, unique=True)
    prompt: Mapped[Any] = mapped_column(JSON)
    columns: Mapped[Any] = mapped_column(JSON)


class SegmentRow(Base):
    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("item_id", "position"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    position: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Text)
    text: Mapped[Any] = mapped_column(JSON)
    model: Mapped[str | None] = mapped_column(Text)
    extra: Mapped[Any] = mapped_column(JSON)


class VoteRow(Base):
    __tablename__ = "votes"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(Text, unique=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    rater: Mapped[str] = mapped_column(Text, index=True)
    kind: Mapped[str] = mapped_column(Text)
    value: Mapped[Any] = mapped_column(JSON)
    shown: Mapped[Any] = mapped_column(JSON)
    seconds: Mapped[float | None] = mapped_column(Float(53))
    time: Mapped[float] = mapped_column(Float(53))
    undoes: Mapped[int | None] = mapped_column(ForeignKey("votes.id"))


class StandingRow(Base):
    """A vote that stands (undos are not votes here), with what agreement needs to know of it.

    A comparison is of segments `low` < `high`, and `said` names `low` as "a"; a score is of `low`.
    """

    __tablename__ = "standing_votes"
    __table_args__ = (
        Index("ix_standing_rater", "rater", "vote_id"),
        Index("ix_standing_rater_kind", "rater", "kind", "vote_id"),
        Index("ix_standing_kind", "kind", "vote_id"),
        Index("ix_standing_item_rater", "item_id", "rater", "vote_id"),
    )
    vote_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    item_id: Mapped[int] = mapped_column(Integer)
    rater: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    low: Mapped[int | None] = mapped_column(Integer)
    high: Mapped[int | None] = mapped_column(Integer)
    said: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None] = mapped_column(Float(53))


class StandingUndoRow(Base):
    """An undo that stands, and the entry that it takes back."""

    __tablename__ = "standing_undos"
    vote_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    undoes: Mapped[int] = mapped_column(Integer, index=True)


class TallyRow(Base):
    """How often a rater said one thing; `seconds` is their exact sum, a fraction in digits.

    `answer` is a comparison's preference ("" for other kinds); `first_won` is 1 where the segment
    shown first won, 0 where the other did, and -1 where there is no winner or no order.
    """

    __tablename__ = "tallies"
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    answer: Mapped[str] = mapped_column(Text, primary_key=True)
    first_won: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    num: Mapped[int] = mapped_column(Integer)
    num_undone: Mapped[int] = mapped_column(Integer)
    num_timed: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[str] = mapped_column(Text)


class RaterRow(Base):
    """Everybody who has an entry, and on how many items a vote of theirs stands."""

    __tablename__ = "raters"
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    num_answered: Mapped[int] = mapped_column(Integer)


class RunRow(Base):
    """Items `first` to `last`, all answered by a rater; the items on both sides of it are open."""

    __tablename__ = "answered_runs"
    __table_args__ = (Index("ix_answered_runs_last", "rater", "last"),)
    rater: Mapped[str] = mapped_column(Text, primary_key=True)
    first: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(Integer)


def database_url(where: str | Path) -> URL:
    """The URL of a store given as a path to an SQLite file, or as a database URL."""
    if not isinstance(where, str) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        raise UserError(
            "the feedback store's URL cannot be read; expected postgresql://user@host/database "
            "or a path to an SQLite file"
        ) from None
    if url.drivername == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(
            f"a feedback store cannot live in {url.get_backend_name()!r}; expected sqlite or "
            f"postgresql{nearest(url.get_backend_name(), ('sqlite', 'postgresql'))}"
        )
    return url


def shown_url(url: URL) -> str:
    """How a store is named in messages: the file's path, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


def open_engine(url: URL) -> Engine:
    """An engine whose transactions begin when told and, on SQLite, are durable at commit."""
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {}
    try:
        engine = create_engine(url, json_serializer=json_text, **options)
    except ModuleNotFoundError as error:
        raise UserError(
            f"PostgreSQL needs the driver {error.name!r}: pip install 'plaudit[postgres]'"
        ) from None
    if sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def snapshots(engine: Engine) -> Engine:
    """The engine for reading: all statements of a transaction see one state, as on SQLite anyway."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


def writers(engine: Engine) -> Engine:
    """The engine for writing: once the write lock is held, what others wrote before is seen."""
    options: dict[str, Any] = {"plaudit_write": True}
    if engine.dialect.name == "postgresql":  # whatever the server's default is
        options["isolation_level"] = "READ COMMITTED"
    return engine.execution_options(**options)


def json_text(value: object) -> str:
    """JSON with readable letters; half a surrogate pair, which UTF-8 lacks, stays escaped."""
    out = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        out.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return out


def lock_for_writing(connection: Connection) -> None:
    """Become the only writer until this transaction ends (SQLite did so when it began)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))


def is_prepared(connection: Connection, where: str) -> bool:
    """True if the schema is ours, false if there are no tables yet; else UserError."""
    names = set(inspect(connection).get_table_names())
    if not names:
        return False
    if MetaRow.__tablename__ not in names:
        raise UserError(
            f"{where} is a database of something else (tables {', '.join(sorted(names)[:4])}); "
            "choose a new file or an empty database"
        )
    found = connection.scalar(select(MetaRow.value).where(MetaRow.name == "schema_version"))
    if found != str(SCHEMA_VERSION):
        raise UserError(
            f"{where} has feedback schema {found}, this Plaudit reads {SCHEMA_VERSION}; "
            "upgrade Plaudit or choose another file"
        )
    return True


def _derive_anew(connection: Connection) -> None:
    """All derived tables, empty, and the mark that says so; the log stays as it is."""
    log = {row.__tablename__ for row in (MetaRow, ItemRow, SegmentRow, VoteRow)}
    tables = [table for name, table in Base.metadata.tables.items() if name not in log]
    Base.metadata.drop_all(connection, tables=tables)
    Base.metadata.create_all(connection, tables=tables)
    connection.execute(delete(MetaRow).where(MetaRow.name != "schema_version"))


def _is_complete(connection: Connection) -> bool:
    return set(Base.metadata.tables) <= set(inspect(connection).get_table_names())


def prepare(engine: Engine, where: str) -> None:
    """Recognise the schema, or create the tables in an empty database under the write lock.

    A store of a Plaudit that kept no derived tables gets them, empty.
    """
    with engine.begin() as connection:
        known = is_prepared(connection, where)
        if known and _is_complete(connection):
            return
    if engine.dialect.name == "sqlite" and not known:
        _use_write_ahead_log(engine)
    with engine.execution_options(plaudit_write=True).begin() as connection:
        lock_for_writing(connection)
        known = is_prepared(connection, where)
        if known and _is_complete(connection):
            return
        if known:
            _derive_anew(connection)
            return
        Base.metadata.create_all(connection)
        row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
        connection.execute(insert(MetaRow), row)


@contextmanager
def plain_errors(where: str) -> Iterator[None]:
    """Turn what a database driver raises into one sentence about the store `where`."""
    try:
        yield
    except (ProgrammingError, IntegrityError):  # a mistake of ours, not of the user's
        raise
    except DBAPIError as error:
        raise UserError(f"{where}: {_reason(str(error.orig))}") from error


_REASONS = {
    "not a database": "this file is not an SQLite database; choose another path",
    "malformed": "the database is damaged; restore a copy of it",
    "readonly": "the store cannot be written: it is read-only",
    "read-only": "the store cannot be written: it is read-only",
    "disk is full": "the disk is full; nothing of this batch was kept, free space and run again",
    "locked": f"another process has been writing for over {BUSY_SECONDS:.0f} s; try again",
    "unable to open": "the store cannot be opened; is it a file in a folder you may write to?",
    "No space left": "the server's disk is full; nothing of this batch was kept",
}


def _reason(message: str) -> str:
    for part, reason in _REASONS.items():
        if part.lower() in message.lower():
            return reason
    return message.strip().splitlines()[0] if message.strip() else "the database failed"


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin or commit by itself
    connection.execute("PRAGMA synchronous=FULL").close()
    connection.execute("PRAGMA foreign_keys=ON").close()


def _use_write_ahead_log(engine: Engine) -> None:
    """A lasting property of the file; set only once it is known to be empty, hence ours.

    SQLite does not wait here as it does elsewhere: of two processes that change the journal of a
    new file at once, one is told "locked" straight away. It asks again, as long as a writer waits.
    """
    raw = engine.raw_connection()
    give_up = time.monotonic() + BUSY_SECONDS
    try:
        while True:
            try:
                raw.cursor().execute("PRAGMA journal_mode=WAL").close()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
            time.sleep(0.01)
    finally:
        raw.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a lock asked for in the middle may be refused as stale.
    writing = connection.get_execution_options().get("plaudit_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
