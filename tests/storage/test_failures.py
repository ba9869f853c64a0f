"""Drivers' errors become the few kinds that the services know, and their text is harmless."""

from __future__ import annotations

import asyncio
import sqlite3

import pymysql
import pytest
from sqlalchemy.exc import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from astcredit.service.errors import CommitUnknown, PoisonError, StorageError, TransientError
from astcredit.storage.database import Database
from astcredit.storage.failures import DRIVER_ERRORS, translate
from support.core import opened, seed


def mysql(code: int, text: str = "x") -> OperationalError:
    return OperationalError("SELECT %s", ("+44 secret",), pymysql.err.OperationalError(code, text))


def disconnected() -> OperationalError:
    error = OperationalError("SELECT 1", (), pymysql.err.OperationalError(9999, "gone"))
    error.connection_invalidated = True
    return error


LOST: list[Exception] = [
    mysql(2006),
    mysql(2013),
    mysql(2003),
    mysql(1927),
    mysql(4031),
    disconnected(),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
]
ROLLED_BACK: list[Exception] = [
    mysql(1213),  # deadlock; Galera: a conflict with another server
    mysql(3101),  # MySQL group replication: the same
    mysql(9007),  # TiDB: the same
]
# Before COMMIT they mean that nothing happened; in answer to one, that nobody knows.
PASSING: list[Exception] = [
    mysql(1180),  # Galera: cut off from the others while it asked them
    mysql(1205),  # lock wait
    mysql(1047),  # Galera: not ready
    mysql(1114),  # table full
    mysql(1045),  # access denied: a password was changed
    mysql(1290),  # read only
    ProgrammingError("", (), pymysql.err.ProgrammingError(1146, "no such table")),
    InterfaceError("", (), pymysql.err.InterfaceError(0, "")),
    OperationalError("", (), sqlite3.OperationalError("database is locked")),
    OperationalError("", (), sqlite3.OperationalError("disk I/O error")),
    PoolTimeout(),
    PendingRollbackError(),
]
BLAMING: list[Exception] = [
    mysql(1366),
    mysql(1406),
    mysql(1264),
    mysql(1292),
    mysql(1048),
    IntegrityError("", (), pymysql.err.IntegrityError(1062, "Duplicate entry")),
    IntegrityError("", (), sqlite3.IntegrityError("UNIQUE constraint failed")),
    DataError("", (), pymysql.err.DataError(1406, "too long")),
]


@pytest.mark.parametrize("committing", [False, True])
@pytest.mark.parametrize(
    ("error", "before", "at_commit"),
    [
        *((error, TransientError, CommitUnknown) for error in LOST),
        *((error, TransientError, TransientError) for error in ROLLED_BACK),
        *((error, TransientError, CommitUnknown) for error in PASSING),
        *((error, PoisonError, PoisonError) for error in BLAMING),
    ],
    ids=repr,
)
def test_every_kind(
    error: Exception,
    before: type[StorageError],
    at_commit: type[StorageError],
    committing: bool,
) -> None:
    assert isinstance(error, DRIVER_ERRORS)
    assert type(translate(error, committing=committing)) is (at_commit if committing else before)


@pytest.mark.parametrize("error", [*LOST, *ROLLED_BACK, *PASSING, *BLAMING], ids=repr)
def test_the_text_is_one_line_without_the_callers_numbers(error: Exception) -> None:
    text = str(translate(error, committing=False))
    assert text
    assert "\n" not in text
    assert "secret" not in text


LONG = "x" * 300


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO astcatalog (id, version) VALUES (1, 1)",  # duplicate key
        "UPDATE astclient SET name = NULL",
        f"UPDATE astclient SET name = '{LONG}'",
        "UPDATE astclient SET balance = 1e30",
        "UPDATE astclient SET balance = 'much'",
        "UPDATE astclient SET date_created = 'yesterday'",
    ],
)
def test_what_mariadb_refuses_is_poison(mariadb_url: str, statement: str) -> None:
    asyncio.run(expect(PoisonError, mariadb_url, statement))


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (PoisonError, "INSERT INTO astcatalog (id, version) VALUES (1, 1)"),
        (PoisonError, "UPDATE astclient SET name = NULL"),
        (TransientError, "UPDATE nosuchtable SET a = 1"),
        (TransientError, "UPDATE astclient SET nosuchcolumn = 1"),
        (TransientError, "NONSENSE"),
    ],
)
def test_on_both_databases(database_url: str, kind: type[StorageError], statement: str) -> None:
    """What blames no value may pass: a table that is being restored comes back."""
    asyncio.run(expect(kind, database_url, statement))


async def run(database: Database, *statements: str) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def expect(kind: type[StorageError], url: str, statement: str) -> None:
    """The statement fails in that way, and the connection is good for the next transaction."""
    async with opened(url) as database:
        await seed(database)
        for _ in range(2):
            with pytest.raises(StorageError) as caught:
                await run(database, "UPDATE astcatalog SET version = 99", statement)
            assert type(caught.value) is kind
        async with database.transaction() as connection:
            result = await connection.exec_driver_sql("SELECT version FROM astcatalog")
            assert result.scalar_one() == 1
