"""Hand-written SQL for the tables that are written on every call.

The statements of a batch have as many rows as the batch has operations, which SQLAlchemy would
compile anew for each size. Values are always bound; only the names of columns and tables, which
are ours, become part of a statement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

from astcredit.domain.money import Micros, amount_text

Value: TypeAlias = int | str | None


class SqlDialect(ABC):
    """Where the two kinds of database differ."""

    mark: str
    begin: str
    for_update: str

    @abstractmethod
    def amount(self, amount: Micros) -> Value:
        """An amount as the database takes it."""

    @abstractmethod
    def micros(self, column: str) -> str:
        """An expression that reads an amount's column as an integer."""

    @abstractmethod
    def by_key(self, table: str, alias: str) -> str:
        """The table, to be read by its primary key and in no other way."""

    @abstractmethod
    def delete_many(self, table: str, key: str, rows: int) -> str:
        """A statement that deletes the rows of so many keys."""

    @abstractmethod
    def update_many(self, table: str, key: str, columns: Sequence[str], rows: int) -> str:
        """A statement that sets columns of many rows. Its parameters are, row by row, the key
        and the columns' values."""

    def in_rows(self, columns: Sequence[str], rows: int) -> str:
        """A condition that is true where the columns equal one of so many rows."""
        row = f"({', '.join([self.mark] * len(columns))})"
        return f"({', '.join(columns)}) IN ({self._values([row] * rows)})"

    @abstractmethod
    def _values(self, rows: Sequence[str]) -> str: ...

    def in_list(self, column: str, values: int) -> str:
        """A condition that is true where the column equals one of so many values."""
        return f"{column} IN ({', '.join([self.mark] * values)})"

    def insert_many(self, table: str, columns: Sequence[str], rows: int) -> str:
        """A statement that inserts so many rows."""
        row = f"({', '.join([self.mark] * len(columns))})"
        return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


class MySql(SqlDialect):
    """MariaDB and MySQL."""

    mark = "%s"
    begin = "START TRANSACTION"
    for_update = " FOR UPDATE"

    def amount(self, amount: Micros) -> Value:
        return amount_text(amount)

    def micros(self, column: str) -> str:
        return f"CAST({column} * 1000000 AS SIGNED)"

    def _values(self, rows: Sequence[str]) -> str:
        return ", ".join(rows)

    def by_key(self, table: str, alias: str) -> str:
        # A small table would rather be scanned, and a scan waits for rows that other servers
        # have locked and this one does not want.
        return f"{table} {alias} FORCE INDEX (PRIMARY)"

    def update_many(self, table: str, key: str, columns: Sequence[str], rows: int) -> str:
        names = ", ".join(f"%s AS c{number}" for number in range(len(columns)))
        further = f" UNION ALL SELECT {', '.join(['%s'] * (len(columns) + 1))}"
        changes = ", ".join(f"t.{column} = v.c{n}" for n, column in enumerate(columns))
        return (
            f"UPDATE (SELECT %s AS k, {names}{further * (rows - 1)}) v"
            f" STRAIGHT_JOIN {self.by_key(table, 't')} ON t.{key} = v.k SET {changes}"
        )

    def delete_many(self, table: str, key: str, rows: int) -> str:
        keys = "SELECT %s AS k" + " UNION ALL SELECT %s" * (rows - 1)
        return f"DELETE t FROM ({keys}) v STRAIGHT_JOIN {self.by_key(table, 't')} ON t.{key} = v.k"


class Sqlite(SqlDialect):
    """SQLite."""

    mark = "?"
    begin = "BEGIN IMMEDIATE"
    for_update = ""

    def amount(self, amount: Micros) -> Value:
        return amount

    def micros(self, column: str) -> str:
        return column

    def _values(self, rows: Sequence[str]) -> str:
        return "VALUES " + ", ".join(rows)

    def by_key(self, table: str, alias: str) -> str:
        return f"{table} {alias}"

    def delete_many(self, table: str, key: str, rows: int) -> str:
        return f"DELETE FROM {table} WHERE {self.in_list(key, rows)}"

    def update_many(self, table: str, key: str, columns: Sequence[str], rows: int) -> str:
        row = f"({', '.join(['?'] * (len(columns) + 1))})"
        changes = ", ".join(f"{column} = v.column{n}" for n, column in enumerate(columns, 2))
        return (
            f"UPDATE {table} SET {changes} FROM (VALUES {', '.join([row] * rows)}) AS v"
            f" WHERE {table}.{key} = v.column1"
        )
