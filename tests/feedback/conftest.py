"""What the store's tests share: a PostgreSQL server of their own, and an empty database in it."""

from __future__ import annotations

import pytest

from postgres_server import fresh_database, postgres_server


@pytest.fixture(scope="session")
def server():
    """URL of a server, without a database name."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(server):
    """URL of an empty database, dropped afterwards."""
    with fresh_database(server) as url:
        yield url
