"""`sql/` and the program's own idea of the tables agree, and upgrades are safe to break off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Table, inspect, types
from sqlalchemy.engine.interfaces import ReflectedColumn

from astcredit.service.errors import RefusedError, StorageError
from astcredit.storage import schema
from astcredit.storage.column_types import Amount, Instant, Seconds
from astcredit.storage.database import Database
from astcredit.storage.schema import Script, missing, scripts, split_statements, upgrade
from astcredit.storage.tables import metadata
from support.calls import query
from support.core import opened

TABLES = sorted(metadata.tables.values(), key=lambda table: table.name)
FIRST = "001-tables.sql"

MARIADB_TYPES: dict[type[types.TypeEngine[Any]], str] = {
    Amount: r"DECIMAL\(18, 6\)",
    Instant: r"DATETIME(\(fsp=3\))?",
    Seconds: r"DECIMAL\(12, 3\)",
    types.BigInteger: r"BIGINT.*",
    types.SmallInteger: r"TINYINT.*",
    types.Integer: r"INTEGER.*",
    types.Text: r"TEXT.*",
    types.String: r"(VAR)?CHAR\({length}\).*",
}
SQLITE_TYPES: dict[type[types.TypeEngine[Any]], str] = {
    Amount: "INTEGER",
    Instant: "TEXT",
    Seconds: "NUMERIC",
    types.BigInteger: "INTEGER",
    types.SmallInteger: "INTEGER",
    types.Integer: "INTEGER",
    types.Text: "TEXT",
    types.String: "TEXT",
}


def with_database(url: str, work: Callable[[Database], Any]) -> Any:
    async def run() -> Any:
        async with opened(url) as database:
            return await work(database)

    return asyncio.run(run())


def reflected(url: str, look: Callable[[Connection], Any]) -> Any:
    """What `look` sees in a database that was just upgraded."""

    async def work(database: Database) -> Any:
        await upgrade(database)
        async with database.engine.connect() as connection:
            return await connection.run_sync(look)

    return with_database(url, work)


def expected_type(column: Any, sqlite: bool) -> str:
    """A pattern for what the database calls the type of a column of storage/tables.py."""
    kinds = SQLITE_TYPES if sqlite else MARIADB_TYPES
    pattern = next(kinds[kind] for kind in kinds if isinstance(column.type, kind))
    return pattern.replace("{length}", str(getattr(column.type, "length", "")))


def test_tables_in_database_are_those_of_the_program(database_url: str) -> None:
    names: Sequence[str] = reflected(database_url, lambda c: inspect(c).get_table_names())
    hidden = {"sqlite_sequence", "sqlite_stat1"}
    assert set(names) - hidden == {table.name for table in TABLES} | {"astmigration"}


def test_columns_are_those_of_the_program(database_url: str) -> None:
    """Names in order, NULL or not, type and length of every column."""
    sqlite = database_url.startswith("sqlite")

    def look(connection: Connection) -> dict[str, list[ReflectedColumn]]:
        inspector = inspect(connection)
        return {table.name: inspector.get_columns(table.name) for table in TABLES}

    found: dict[str, list[ReflectedColumn]] = reflected(database_url, look)
    for table in TABLES:
        columns = found[table.name]
        assert [c["name"] for c in columns] == [c.name for c in table.columns], table.name
        for have, want in zip(columns, table.columns, strict=True):
            label = f"{table.name}.{want.name}"
            # SQLite's AUTOINCREMENT columns are never NULL, and do not say so.
            counted = sqlite and want.primary_key and want.autoincrement is True
            assert have["nullable"] == (want.nullable or counted), label
            pattern = expected_type(want, sqlite)
            assert re.fullmatch(pattern, repr_type(have["type"])), f"{label}: {have['type']!r}"


def repr_type(kind: Any) -> str:
    if type(kind).__name__ == "DATETIME" and getattr(kind, "fsp", None):
        return f"DATETIME(fsp={kind.fsp})"
    return str(kind)


def test_instants_have_milliseconds_in_mariadb(mariadb_url: str) -> None:
    rows: list[dict[str, Any]] = with_database(
        mariadb_url,
        _after_upgrade(
            "SELECT table_name AS t, column_name AS c, datetime_precision AS p"
            " FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND data_type = 'datetime'"
            " AND table_name NOT LIKE 'v\\_%'"
        ),
    )
    expected = {
        (table.name, column.name)
        for table in TABLES
        for column in table.columns
        if isinstance(column.type, Instant)
    }
    assert {(row["t"], row["c"]) for row in rows} == expected
    assert {row["p"] for row in rows} == {3}


def test_texts_compare_byte_by_byte_in_mariadb(mariadb_url: str) -> None:
    """As in SQLite; otherwise account "Alice" would be account "alice" on one of them."""
    rows: list[dict[str, Any]] = with_database(
        mariadb_url,
        _after_upgrade(
            "SELECT DISTINCT collation_name AS c FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name LIKE 'ast%'"
            " AND table_name <> 'astmigration' AND collation_name IS NOT NULL"
        ),
    )
    assert [row["c"] for row in rows] == ["utf8mb4_bin"]


def _after_upgrade(sql: str) -> Callable[[Database], Any]:
    async def work(database: Database) -> list[dict[str, Any]]:
        await upgrade(database)
        return await query(database, sql)

    return work


Keys = dict[str, set[tuple[str, tuple[str | None, ...], bool]]]


def _keys(connection: Connection) -> Keys:
    inspector = inspect(connection)
    found: Keys = {}
    for table in TABLES:
        indexes = inspector.get_indexes(table.name)
        found[table.name] = {
            (str(i["name"]), tuple(i["column_names"]), bool(i["unique"])) for i in indexes
        }
    return found


def test_indexes_are_the_same_on_both(sqlite_url: str, mariadb_url: str) -> None:
    """A foreign key of MariaDB makes an index of its own name; apart from those they agree."""
    sqlite: Keys = reflected(sqlite_url, _keys)
    mariadb: Keys = reflected(mariadb_url, _keys)
    for table in sqlite:
        own = {key for key in mariadb[table] if not key[0].startswith("fk_")}
        assert sqlite[table] == own, table


def test_every_table_and_every_unclear_column_has_a_comment(mariadb_url: str) -> None:
    """An accountant reads them with SHOW FULL COLUMNS; a plain name explains itself."""
    clear = {
        "id",
        "name",
        "currency",
        "node",
        "email",
        "note",
        "notes",
        "tag",
        "date_created",
        "object_name",
    }
    clear |= {"client_id", "account_id", "rate_table_id", "accountcode", "destination", "seconds"}
    clear |= {"connect_fee", "first_increment", "next_increment", "grace_seconds"}
    clear |= {"minimum_charge", "rate_per_minute"}

    def look(connection: Connection) -> list[str]:
        inspector = inspect(connection)
        bare = [t.name for t in TABLES if not inspector.get_table_comment(t.name)["text"]]
        for table in TABLES:
            for column in inspector.get_columns(table.name):
                if not column.get("comment") and column["name"] not in clear:
                    bare.append(f"{table.name}.{column['name']}")
        return bare

    assert reflected(mariadb_url, look) == []


def test_upgrade_twice_changes_nothing(database_url: str) -> None:
    async def work(database: Database) -> tuple[list[str], list[str], Any, Any]:
        first = await upgrade(database)
        before = await query(database, "SELECT * FROM astmigration")
        second = await upgrade(database)
        return first, second, before, await query(database, "SELECT * FROM astmigration")

    first, second, before, after = with_database(database_url, work)
    assert FIRST in first
    assert second == []
    assert before == after


def test_missing_names_what_is_to_be_run(database_url: str) -> None:
    async def work(database: Database) -> tuple[list[str], list[str]]:
        before = await missing(database)
        await upgrade(database)
        return before, await missing(database)

    before, after = with_database(database_url, work)
    assert FIRST in before
    assert after == []


class BrokenOffError(Exception):
    """What interrupts an upgrade here."""


def interrupt_at(monkeypatch: pytest.MonkeyPatch, statement: int, *, after: bool = False) -> None:
    """Let the `statement`-th statement of the next upgrades (from 0) fail as a power cut would:
    before it is run, or after it was and before that is noted."""
    execute = schema._execute
    left = iter(range(10_000))

    async def stumbling(connection: Any, text: str) -> None:
        here = next(left) == statement
        if here and not after:
            raise BrokenOffError
        await execute(connection, text)
        if here:
            raise BrokenOffError

    monkeypatch.setattr(schema, "_execute", stumbling)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("statement", [0, 1, 2, 7])
def test_interrupted_upgrade_is_resumed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, statement: int, after: bool
) -> None:
    """MariaDB commits every CREATE by itself: half a migration stays, the rest follows later.
    Broken off after a statement and before its note, the statement is met a second time."""

    async def fail(database: Database) -> None:
        with pytest.raises(BrokenOffError):
            await upgrade(database)
        assert FIRST in await missing(database)

    with monkeypatch.context() as patch:
        interrupt_at(patch, statement, after=after)
        with_database(database_url, fail)

    def look(connection: Connection) -> set[str]:
        return set(inspect(connection).get_table_names())

    assert {table.name for table in TABLES} <= reflected(database_url, look)
    rows = with_database(database_url, lambda d: query(d, "SELECT * FROM astmigration"))
    assert all(row["finished"] == row["statements"] for row in rows)
    version = with_database(database_url, lambda d: query(d, "SELECT version FROM astcatalog"))
    assert [row["version"] for row in version] == [1]


def test_two_upgrades_at_once_make_one_schema(sqlite_url: str) -> None:
    """Two servers may be started on an empty file at the same moment."""

    async def both() -> list[list[str]]:
        async with opened(sqlite_url) as one, opened(sqlite_url) as other:
            return list(await asyncio.gather(upgrade(one), upgrade(other)))

    assert sorted(map(len, asyncio.run(both()))) == [0, len(scripts("sqlite")) - 1]


def test_newer_database_is_refused_and_left_alone(database_url: str) -> None:
    async def work(database: Database) -> list[dict[str, Any]]:
        await upgrade(database)
        async with database.transaction() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO astmigration (name, statements, finished)"
                " VALUES ('999-future.sql', 1, 1)"
            )
            await connection.exec_driver_sql("DROP VIEW v_cdr")
        with pytest.raises(RefusedError, match=r"999-future\.sql"):
            await upgrade(database)
        with pytest.raises(StorageError):  # not even the views were made anew
            await query(database, "SELECT * FROM v_cdr")
        return await query(database, "SELECT name FROM astmigration")

    assert {"name": "999-future.sql"} in with_database(database_url, work)


def test_new_migration_runs_on_an_old_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each migration once, in the order of their numbers."""
    real = scripts

    def more(kind: str) -> list[Script]:
        *migrations, views = real(kind)
        column = "ALTER TABLE astaudit ADD COLUMN further INTEGER"
        added = [Script("998-one.sql", (column,)), Script("999-two.sql", ("SELECT 1",))]
        return [*migrations, *added, views]

    async def old(database: Database) -> None:
        await upgrade(database)

    async def new(database: Database) -> tuple[list[str], list[str], list[str]]:
        todo = await missing(database)
        return todo, await upgrade(database), await upgrade(database)

    with_database(database_url, old)
    monkeypatch.setattr(schema, "scripts", more)
    names = ["998-one.sql", "999-two.sql"]
    assert with_database(database_url, new) == (names, names, [])


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
def test_files_split_into_whole_statements(kind: str) -> None:
    for script in scripts(kind):
        assert script.statements
        for statement in script.statements:
            assert re.match(r"(CREATE|INSERT|DROP|ALTER|UPDATE) ", statement), statement[:60]
            assert statement.count("(") == statement.count(")"), statement[:60]


def test_statement_without_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="no end"):
        list(split_statements("-- a comment\nCREATE TABLE x (\n  id INT\n)\n"))


def test_statements_end_at_a_semicolon_that_ends_a_line() -> None:
    text = "-- first\n\nINSERT INTO x VALUES ('a;b');\n  -- indented\nSELECT 1\n-- inside\n  ;\n"
    assert list(split_statements(text)) == [
        "INSERT INTO x VALUES ('a;b')",
        "SELECT 1\n-- inside\n  ",
    ]


def test_tables_are_named_as_the_contract_does() -> None:
    wanted = {
        "astclient": "id name reseller_id kind currency balance credit_limit reserved",
        "astcreditres": "call_id node uniqueid client_id accountcode reservedamount seconds"
        " date_created",
        "astcdr": "id node uniqueid linkedid client_id accountcode callerid callednum prefix"
        " destination rate trunk status dialstatus hangupcause date_created answered_at ended_at"
        " dialedtime answeredtime billsec price ourcost reservedamount settled_by estimated",
        "astledger": "id client_id kind amount balance_after call_id reference actor note"
        " date_created",
    }
    tables: dict[str, Table] = dict(metadata.tables)
    for name, columns in wanted.items():
        assert set(columns.split()) <= set(tables[name].columns.keys()), name
