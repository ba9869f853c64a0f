"""Fixtures for every test: databases, and a clean environment.

`database_url`  an empty database's address, once on SQLite and once on MariaDB
`sqlite_url`    an empty SQLite database (the file does not exist yet)
`mariadb_url`   an empty database on the private MariaDB server
`mariadb`       that server itself (support.databases.MariaDb): more databases, a look from outside
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.databases import MariaDb, start_mariadb

# A property that is slow on a busy machine is not wrong: no deadline, no complaint about speed.
# In CI the examples are the same in every run, so that a green tree stays green.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own ASTCREDIT_… settings do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("ASTCREDIT_") and not name.startswith("ASTCREDIT_LAB_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """The session's private MariaDB server. Whoever kills it must `restart` it."""
    server = start_mariadb()
    yield server
    server.stop()


@pytest.fixture
def mariadb_url(mariadb: MariaDb) -> Iterator[str]:
    """An empty MariaDB database of this test's own."""
    name = mariadb.create_database()
    yield mariadb.url(name)
    mariadb.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite database of this test's own; its file does not exist yet."""
    return f"sqlite:///{tmp_path / 'astcredit.db'}"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of this test's own; the test runs on SQLite and on MariaDB."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the MariaDB server is marked so, and can be left out with -m 'not mariadb'."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if {"mariadb", "mariadb_url"} & set(names):
            item.add_marker("mariadb")
