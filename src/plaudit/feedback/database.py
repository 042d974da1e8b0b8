"""How a database file or server is opened: its URL, engines, locks and errors in one sentence.

On SQLite there is one connection that writes, and others that only read: a fault in SQLite's
write-ahead log up to 3.51.2 needs two that write. Each commit is on the disk before it returns.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, ProgrammingError

from plaudit.records.errors import UserError, nearest

BUSY_SECONDS = 30.0
"""How long a writer waits for another; a batch of 100,000 votes takes under 10 s."""
_ADVISORY_LOCK = 0x504C4155
""""PLAU": the PostgreSQL advisory lock that serialises writers, as SQLite's own lock does."""


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


def open_engine(url: URL, *, num_connections: int = 0) -> Engine:
    """An engine whose transactions begin when told and, on SQLite, are durable at commit.

    At most `num_connections` at once; 0 leaves it to the driver.
    """
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {}
    if num_connections:
        options |= {"pool_size": num_connections, "max_overflow": 0, "pool_timeout": BUSY_SECONDS}
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


def open_engines(url: URL) -> tuple[Engine, Engine]:
    """(writing, reading): one connection that writes, as many that read as there are threads.

    A database in memory is one connection's own, so there both are one engine.
    """
    if url.get_backend_name() == "sqlite" and _in_memory(url.database):
        engine = open_engine(url)
        return engine, engine
    writing, reading = open_engine(url, num_connections=1), open_engine(url, num_connections=48)
    if url.get_backend_name() == "sqlite":
        event.listen(reading, "connect", _only_read)
    return writing, reading


def _in_memory(database: str | None) -> bool:
    return not database or database == ":memory:" or "mode=memory" in database


def sqlite_advice(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str | None:
    """One sentence where this SQLite has the fault of its write-ahead log, else None.

    Fixed in 3.51.3, and in 3.50.7 and 3.44.6 of the older lines (sqlite.org/wal.html).
    """
    fixed = version >= (3, 51, 3) or version < (3, 7)
    fixed |= any(low <= version < (*low[:2], 99) for low in ((3, 50, 7), (3, 44, 6)))
    if fixed:
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} can damage a file that two programs write at once "
        "(mended in 3.51.3): let no other program write to the store while this one does"
    )


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


def _only_read(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA query_only=ON").close()
    connection.execute("PRAGMA wal_autocheckpoint=0").close()


def use_write_ahead_log(engine: Engine) -> None:
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
