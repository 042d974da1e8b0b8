"""Recognises a store's schema, makes it in an empty database, and brings an older one up to date."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, Table, delete, insert, inspect, select, update

from plaudit.feedback.database import lock_for_writing, use_write_ahead_log
from plaudit.feedback.derived_tables import (
    RaterRow,
    RunRow,
    StandingRow,
    StandingUndoRow,
    TallyRow,
)
from plaudit.feedback.tables import LOG, SCHEMA_VERSION, Base, MetaRow, VoteRow
from plaudit.records.errors import UserError

_OLDER = ("1",)
_VOTE_COLUMNS = {"offer": "INTEGER REFERENCES offers (id)", "visible_seconds": "DOUBLE PRECISION"}
_DERIVED_IN_1 = {
    row.__tablename__ for row in (StandingRow, StandingUndoRow, TallyRow, RaterRow, RunRow)
}


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
    if found not in (*_OLDER, str(SCHEMA_VERSION)):
        raise UserError(
            f"{where} has feedback schema {found}, this Plaudit reads {SCHEMA_VERSION}; "
            "upgrade Plaudit or choose another file"
        )
    return True


def prepare(engine: Engine, where: str) -> None:
    """Recognise the schema; create the tables in an empty database, or bring an older one up to date.

    All of it happens in one transaction under the write lock. A store of a Plaudit that kept no
    derived tables gets them, empty.
    """
    with engine.begin() as connection:
        known = is_prepared(connection, where)
        if known and _is_current(connection):
            return
    if engine.dialect.name == "sqlite" and not known:
        use_write_ahead_log(engine)
    with engine.execution_options(plaudit_write=True).begin() as connection:
        lock_for_writing(connection)
        if is_prepared(connection, where):
            if not _is_current(connection):
                _bring_up_to_date(connection)
            return
        Base.metadata.create_all(connection)
        row = {"name": "schema_version", "value": str(SCHEMA_VERSION)}
        connection.execute(insert(MetaRow), row)


def _is_current(connection: Connection) -> bool:
    """Whether the schema is the newest and every table is there."""
    found = connection.scalar(select(MetaRow.value).where(MetaRow.name == "schema_version"))
    tables = set(inspect(connection).get_table_names())
    return found == str(SCHEMA_VERSION) and set(Base.metadata.tables) <= tables


def _bring_up_to_date(connection: Connection) -> None:
    """Every table and column of this schema; what is in the log stays as it is."""
    there = set(inspect(connection).get_table_names())
    log = [table for name, table in Base.metadata.tables.items() if name in LOG]
    derived = [table for name, table in Base.metadata.tables.items() if name not in LOG]
    Base.metadata.create_all(connection, tables=log)
    _add_columns(connection)
    old = [table for table in derived if table.name in _DERIVED_IN_1]
    if any(table.name not in there for table in old):  # the log is then read from its start
        Base.metadata.drop_all(connection, tables=derived)
        connection.execute(delete(MetaRow).where(MetaRow.name != "schema_version"))
    elif any(table.name not in there for table in derived):
        Base.metadata.drop_all(connection, tables=[t for t in derived if t not in old])
    Base.metadata.create_all(connection, tables=derived)
    mark = update(MetaRow).where(MetaRow.name == "schema_version")
    connection.execute(mark.values(value=str(SCHEMA_VERSION)))


def _add_columns(connection: Connection) -> None:
    """What votes gained in schema 2, with the index on it."""
    votes = VoteRow.__table__
    assert isinstance(votes, Table)
    there = {column["name"] for column in inspect(connection).get_columns(votes.name)}
    for name, type_ in _VOTE_COLUMNS.items():
        if name not in there:
            connection.exec_driver_sql(f"ALTER TABLE votes ADD COLUMN {name} {type_}")
    indexes = {index["name"] for index in inspect(connection).get_indexes(votes.name)}
    for index in votes.indexes:
        if index.name not in indexes:
            index.create(connection)
