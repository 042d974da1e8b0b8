"""A disk that can be stopped at any moment: what was written and not synced is then gone.

`Disk` stands under SQLite as its file layer and records every write, truncation, deletion and sync.
`after(point)` gives the files as a power failure after that many of these acts could leave them:
what was synced is there; of what was not, sectors survive at random, or none does. `connect` is a
DB-API connection on such a disk, with which the store itself runs.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import apsw

SECTOR = 512


class Disk(apsw.VFS):
    """The file layer `name`, over the machine's own."""

    def __init__(self, name):
        self.name = name
        self.acts = []  # (what, file, offset or size, bytes)
        super().__init__(name, "")

    def xOpen(self, name, flags):
        path = Path(name.filename() if hasattr(name, "filename") else name).name
        return _File(self, path, name, flags)

    def xDelete(self, filename, sync):
        super().xDelete(filename, sync)
        self.acts.append(("delete", Path(filename).name, 0, b""))

    def after(self, point, *, seed=None):
        """File name to content after the first `point` acts; a seed lets some sectors survive."""
        chance = random.Random(seed)
        durable, pending = {}, {}
        for what, file, place, data in self.acts[:point]:
            if what == "delete":
                durable.pop(file, None), pending.pop(file, None)
            elif what == "sync":
                for act in pending.pop(file, []):
                    durable[file] = _done(durable.get(file, b""), *act)
            else:
                pending.setdefault(file, []).append((what, place, data))
        if seed is not None:
            for file, acts in pending.items():
                for act in _some_sectors(acts, chance):
                    durable[file] = _done(durable.get(file, b""), *act)
        return durable


class _File(apsw.VFSFile):
    def __init__(self, disk, path, name, flags):
        self.disk, self.path = disk, path
        super().__init__("", name, flags)

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self.disk.acts.append(("write", self.path, offset, bytes(data)))

    def xTruncate(self, size):
        super().xTruncate(size)
        self.disk.acts.append(("truncate", self.path, size, b""))

    def xSync(self, flags):
        super().xSync(flags)
        self.disk.acts.append(("sync", self.path, 0, b""))


def _done(content, what, place, data):
    if what == "truncate":
        return content[:place]
    content = content.ljust(place, b"\0")
    return content[:place] + data + content[place + len(data) :]


def _some_sectors(acts, chance):
    for what, place, data in acts:
        if what == "truncate":
            if chance.random() < 0.5:
                yield what, place, data
            continue
        for start in range(0, len(data), SECTOR):
            if chance.random() < 0.5:
                yield what, place + start, data[start : start + SECTOR]


# --- the least of DB-API 2 that SQLAlchemy's dialect for SQLite uses ---------------------------

module = SimpleNamespace(
    paramstyle="qmark", sqlite_version=apsw.sqlite_lib_version(), PARSE_COLNAMES=0, PARSE_DECLTYPES=0,
    sqlite_version_info=tuple(int(part) for part in apsw.sqlite_lib_version().split(".")),
    Error=apsw.Error, DatabaseError=apsw.Error, OperationalError=apsw.Error,
    IntegrityError=apsw.ConstraintError, ProgrammingError=apsw.Error, Binary=bytes,
)  # fmt: skip


def connect(path, disk, *, synchronous=None):
    """A connection alone on its file; `synchronous` overrides what the store asks for."""
    raw = apsw.Connection(str(path), vfs=disk.name)
    raw.execute("PRAGMA locking_mode=EXCLUSIVE")  # the write-ahead log's index is then in memory
    raw.execute("PRAGMA wal_autocheckpoint=30")  # so that a short run has many checkpoints
    return _Connection(raw, synchronous)


class _Connection:
    isolation_level = None

    def __init__(self, raw, synchronous):
        self.raw, self.synchronous = raw, synchronous

    def cursor(self):
        return _Cursor(self)

    def execute(self, sql, parameters=()):
        return self.cursor().execute(sql, parameters)

    def create_function(self, name, num, function, deterministic=False):
        self.raw.create_scalar_function(name, function, num, deterministic=deterministic)

    def commit(self):
        if self.raw.in_transaction:
            self.raw.execute("COMMIT")

    def rollback(self):
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")

    def close(self):
        self.raw.close()


class _Cursor:
    arraysize, lastrowid = 1, None

    def __init__(self, connection):
        self.connection, self.rows, self.description, self.rowcount = connection, [], None, -1

    def execute(self, sql, parameters=()):
        raw = self.connection.raw
        if "synchronous" in sql and self.connection.synchronous is not None:
            sql = f"PRAGMA synchronous={self.connection.synchronous}"
        cursor = raw.cursor()
        cursor.exec_trace = self._describe
        before = raw.total_changes()
        self.rows = list(cursor.execute(sql, tuple(parameters)))
        self.rowcount = raw.total_changes() - before
        return self

    def executemany(self, sql, rows):
        total = 0
        for row in rows:
            total += self.execute(sql, row).rowcount
        self.rowcount = total
        return self

    def _describe(self, cursor, _sql, _bindings):
        names = cursor.get_description()
        self.description = [(name, *[None] * 6) for name, _ in names] if names else None
        return True

    def fetchone(self):
        return self.rows.pop(0) if self.rows else None

    def fetchmany(self, num=1):
        some, self.rows = self.rows[:num], self.rows[num:]
        return some

    def fetchall(self):
        some, self.rows = self.rows, []
        return some

    def close(self):
        self.rows = []
