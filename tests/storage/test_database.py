"""Addresses, sessions and transactions: what commits, what does not, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from astcredit.service.errors import RefusedError, StorageError, TransientError
from astcredit.storage import database as database_module
from astcredit.storage.database import Database, open_database
from support.core import opened, seed

READ = "SELECT version FROM astcatalog"
RAISE = "UPDATE astcatalog SET version = version + 1"


async def version(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.exec_driver_sql(READ)).scalar_one())


async def nothing() -> None:
    pass


async def fail() -> None:
    raise ZeroDivisionError


async def raise_version(
    database: Database,
    seconds: float | None = 5,
    and_then: Callable[[], Awaitable[object]] = nothing,
) -> None:
    async with database.transaction(seconds) as connection:
        await connection.exec_driver_sql(RAISE)
        await and_then()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("mysql://u:secret@h/d", "mysql://u:***@h/d"),
        ("mysql://u:secret@h:3307/d", "mysql://u:***@h:3307/d"),
        ("mariadb://u:secret@h/d", "mariadb://u:***@h/d"),
    ],
)
def test_addresses(url: str, shown: str) -> None:
    database = open_database(url)
    assert database.shown_url == shown
    assert database.is_sqlite == url.startswith("sqlite")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "sqlite://",
        "mysql://u:secret@h",
        "mysql://u:secret@h/",
        "postgresql://u:secret@h/d",
        "mysql+pymysql://u:secret@h/d",
        "sqlite+pysqlite:///secret/a.db",
        "mysql://u:secret@h:port/d",
    ],
)
def test_other_addresses_are_refused_in_one_line_without_the_password(url: str) -> None:
    with pytest.raises(RefusedError, match="expected sqlite:///PATH or mysql://") as caught:
        open_database(url)
    assert "u:secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_transaction_commits_or_leaves_nothing(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(RAISE)
            assert await version(database) == 2
            with pytest.raises(ZeroDivisionError):
                await raise_version(database, 5, and_then=fail)
            assert await version(database) == 2

    asyncio.run(main())


def test_a_cancelled_transaction_leaves_nothing_and_no_lock(database_url: str) -> None:
    """Whoever comes next neither waits for it nor sees what it did."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            inside = asyncio.Event()

            async def never_done() -> None:
                async with database.transaction() as connection:
                    await connection.exec_driver_sql(RAISE)
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(never_done())
            await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(RAISE)
            assert await version(database) == 2

    asyncio.run(main())


def test_a_transaction_that_takes_too_long_is_given_up(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            with pytest.raises(TransientError, match="did not answer in time"):
                await raise_version(database, 0.2, and_then=asyncio.Event().wait)
            assert await version(database) == 1

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_lock_that_never_comes_is_given_up(
    database_url: str, cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its time, or because nobody waits; it is not taken later, when it is free."""
    impatient = (*database_module.SQLITE_SESSION, "PRAGMA busy_timeout = 200")
    monkeypatch.setattr(database_module, "SQLITE_SESSION", impatient)

    async def main() -> None:
        async with opened(database_url) as database, opened(database_url) as other:
            await seed(database)
            async with database.transaction() as holder:
                await holder.exec_driver_sql(RAISE)
                with pytest.raises(TimeoutError if cancelled else TransientError):
                    async with asyncio.timeout(0.1 if cancelled else None):
                        await raise_version(other, None if cancelled else 0.1)
            await raise_version(other)
            assert await version(other) == 3

    asyncio.run(main())


def test_in_sqlite_a_transaction_has_the_lock_from_its_beginning(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads before it writes cannot be changed by another one meanwhile."""
    impatient = (*database_module.SQLITE_SESSION, "PRAGMA busy_timeout = 50")
    monkeypatch.setattr(database_module, "SQLITE_SESSION", impatient)

    async def main() -> None:
        async with opened(sqlite_url) as database, opened(sqlite_url) as other:
            await seed(database)
            async with database.transaction():
                with pytest.raises(TransientError, match="locked"):
                    await raise_version(other)

    asyncio.run(main())


def test_reading_sees_one_state(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            async with database.reading() as connection:
                before = (await connection.exec_driver_sql(READ)).scalar_one()
                await raise_version(database, 5)
                after = (await connection.exec_driver_sql(READ)).scalar_one()
            assert (before, after, await version(database)) == (1, 1, 2)

    asyncio.run(main())


def test_a_transaction_sees_what_was_committed_while_it_waited_for_its_lock(
    mariadb_url: str,
) -> None:
    """READ COMMITTED: a batch reads the open calls after it has the clients' locks."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql("SELECT id FROM astclient WHERE id = 1")
                await raise_version(database, 5)
                assert (await connection.exec_driver_sql(READ)).scalar_one() == 2

    asyncio.run(main())


def test_a_mariadb_session(mariadb_url: str) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as database, database.reading() as connection:
            result = await connection.exec_driver_sql(
                "SELECT @@time_zone, @@collation_connection, @@character_set_client,"
                " @@sql_mode REGEXP 'STRICT_TRANS_TABLES', @@innodb_lock_wait_timeout"
            )
            assert tuple(result.one()) == ("+00:00", "utf8mb4_bin", "utf8mb4", 1, 3)

    asyncio.run(main())


def test_an_sqlite_session(sqlite_url: str) -> None:
    async def main() -> None:
        async with opened(sqlite_url) as database, database.engine.connect() as connection:
            found = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert found == ["wal", 2, 1, 3000]

    asyncio.run(main())


def test_a_server_that_cannot_be_reached_is_a_passing_trouble() -> None:
    async def main() -> None:
        async with opened("mysql://u:secret@127.0.0.1:1/d") as database:
            with pytest.raises(TransientError) as caught:
                await raise_version(database)
            assert "secret" not in str(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize("file", ["no/such/folder/a.db", "folder.db"])
def test_an_sqlite_file_that_cannot_be_opened_is_a_quiet_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """One error, and no thread of the driver that complains when the program has ended."""
    (tmp_path / "folder.db").mkdir()
    complaints: list[object] = []
    monkeypatch.setattr(threading, "excepthook", complaints.append)

    async def main() -> None:
        with pytest.raises((StorageError, RefusedError)):
            async with opened(f"sqlite:///{tmp_path}/{file}") as database:
                await raise_version(database)

    before = threading.active_count()
    for _ in range(10):
        asyncio.run(main())
    for thread in threading.enumerate()[before:]:
        thread.join(10)
    assert complaints == []
