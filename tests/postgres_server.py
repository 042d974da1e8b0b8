"""A PostgreSQL server for tests: the one named in PLAUDIT_TEST_POSTGRES, or one started here."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def postgres_server():
    """URL of a server, without a database name."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    if given := os.environ.get("PLAUDIT_TEST_POSTGRES"):
        yield given.rstrip("/")
        return
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("no PLAUDIT_TEST_POSTGRES, and no initdb to start a server with")
    programs = Path(initdb).resolve().parent
    user = getpass.getuser()
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        if user not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("running as root, and there is no user postgres to start a server as")
    folder = Path(tempfile.mkdtemp(prefix="plaudit-postgres-"))
    shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    run = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "check": True}
    try:
        subprocess.run([initdb, "-D", data, "-U", "plaudit", "-A", "trust", "-E", "UTF8"], **run)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        control = [programs / "pg_ctl", "-D", data, "-w"]
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **run)
        try:
            yield f"postgresql://plaudit@127.0.0.1:{port}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder)


@contextmanager
def fresh_database(server):
    """URL of an empty database, dropped afterwards."""
    import psycopg

    name = f"plaudit_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
