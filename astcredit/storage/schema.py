"""The schema in the database: created and upgraded from the plain SQL in `sql/`.

`sql/KIND/NNN-*.sql` are migrations, each run once in the order of their numbers; how far each
has come is kept in `astmigration`, because MariaDB and MySQL commit every CREATE and ALTER by
itself. `sql/KIND/views.sql` holds the views and is run again by every upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.service.errors import RefusedError
from astcredit.storage.database import Database
from astcredit.storage.failures import error_code

MIGRATIONS_TABLE = """CREATE TABLE IF NOT EXISTS astmigration (
  name       VARCHAR(80) NOT NULL PRIMARY KEY,
  statements INT NOT NULL,
  finished   INT NOT NULL
)"""
VIEWS = "views.sql"

# MariaDB and MySQL: there already are such a table, column, index or row, or there is no more.
DONE_ALREADY = frozenset({1050, 1060, 1061, 1062, 1091})


@dataclass(frozen=True, slots=True)
class Script:
    """An SQL file: its name and its statements."""

    name: str
    statements: Sequence[str]


def split_statements(text: str) -> Iterator[str]:
    """The statements of an SQL file. Each ends with a semicolon at the end of a line, and
    nothing else does."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines or (line.strip() and not line.lstrip().startswith("--")):
            lines.append(line.rstrip())
        if lines and lines[-1].endswith(";"):
            yield "\n".join(lines)[:-1]
            lines = []
    if any(lines):
        raise ValueError(f"an SQL statement has no end: {lines[0]!r}")


def scripts(kind: str) -> list[Script]:
    """All files for a kind of database, migrations first, in the order in which they are run."""
    folder = resources.files("astcredit") / "sql" / kind
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[:3].isdigit())
    return [
        Script(name, tuple(split_statements((folder / name).read_text(encoding="utf-8"))))
        for name in (*names, VIEWS)
    ]


async def upgrade(database: Database) -> list[str]:
    """Bring the schema to this program's version; the names of the migrations that were run.

    Raises RefusedError when the database was made by a newer version of this program.
    """
    *migrations, views = scripts(_kind(database))
    async with database.transaction(seconds=None) as connection:
        await connection.exec_driver_sql(MIGRATIONS_TABLE)
        finished = await _finished(connection)
        _refuse_newer(finished, migrations)
        done = [await _run(connection, database, m, finished.get(m.name)) for m in migrations]
        for statement in views.statements:
            await _execute(connection, statement)
    return [name for name in done if name]


async def missing(database: Database) -> list[str]:
    """The names of the migrations that the database does not have yet.

    Raises StorageError when the database cannot be reached.
    """
    *migrations, _ = scripts(_kind(database))
    async with database.reading() as connection:
        there = await connection.run_sync(lambda c: inspect(c).has_table("astmigration"))
        finished = await _finished(connection) if there else {}
    return [m.name for m in migrations if finished.get(m.name, 0) < len(m.statements)]


def _kind(database: Database) -> str:
    return "sqlite" if database.is_sqlite else "mariadb"


async def _finished(connection: AsyncConnection) -> dict[str, int]:
    result = await connection.exec_driver_sql("SELECT name, finished FROM astmigration")
    return {row.name: row.finished for row in result}


def _refuse_newer(finished: dict[str, int], migrations: Sequence[Script]) -> None:
    unknown = sorted(set(finished) - {migration.name for migration in migrations})
    if unknown:
        raise RefusedError(
            f"the database has migration {unknown[-1]!r}, which this version of astcredit does"
            " not know: install the newer version"
        )


async def _run(
    connection: AsyncConnection, database: Database, script: Script, finished: int | None
) -> str:
    """Run what of a migration has not been run yet; its name, or '' if there was nothing."""
    mark = database.dialect.mark
    if finished is None:
        await connection.exec_driver_sql(
            f"INSERT INTO astmigration (name, statements, finished) VALUES ({mark}, {mark}, 0)",
            (script.name, len(script.statements)),
        )
    todo = script.statements[finished or 0 :]
    for number, statement in enumerate(todo, (finished or 0) + 1):
        try:
            await _execute(connection, statement)
        except DBAPIError as error:
            # MariaDB and MySQL commit such a statement by itself: an upgrade that was killed
            # before it could note that has it behind it.
            resumed = finished is not None and number == finished + 1
            if not (resumed and error_code(error) in DONE_ALREADY):
                raise
        await connection.exec_driver_sql(
            f"UPDATE astmigration SET finished = {mark} WHERE name = {mark}",
            (number, script.name),
        )
    return script.name if todo else ""


async def _execute(connection: AsyncConnection, statement: str) -> None:
    """Run a statement of a file as it stands: a % in it is no parameter."""
    await connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
