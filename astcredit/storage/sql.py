"""Hand-written SQL for the tables that are written on every call.

The statements of a batch have as many rows as the batch has operations, which SQLAlchemy would
compile anew for each size. Values are always bound; only the names of columns and tables, which
are ours, become part of a statement.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from astcredit.domain.money import Micros, amount_text

Value: TypeAlias = int | str | None
Statement: TypeAlias = tuple[str, Sequence[Value]]
"""A statement with marks, and their values."""

FEW_ROWS: Final = 24
"""So many rows are changed faster by a CASE, and inserted faster row by row, than by way of a table
of values (MariaDB 10.11): four are changed in half the time, forty in the same."""


@dataclass(frozen=True, slots=True)
class Was:
    """What rows must hold to be changed: conditions, each with `{}` where a value belongs, and the
    values for each row, in the order in which the rows are changed."""

    conditions: Sequence[str]
    rows: Sequence[Sequence[Value]]


NO_MATTER: Final = Was((), ())


class SqlDialect(ABC):
    """Where the two kinds of database differ."""

    mark: str
    proves = False
    """Whether one statement can stop what follows it in a packet (`astcredit.storage.proofs`)."""
    begin: str
    for_update: str
    then: str
    """Joins two tables of which the first is read, and locked, before the second."""
    most_values: int
    """In one statement, at most."""

    @abstractmethod
    def amount(self, amount: Micros) -> Value:
        """An amount as the database takes it."""

    @abstractmethod
    def micros(self, column: str) -> str:
        """An expression that reads an amount's column as an integer."""

    @abstractmethod
    def holds(self, column: str) -> str:
        """A condition for `Was`: the column holds a value, or NULL."""

    @abstractmethod
    def holds_amount(self, column: str) -> str:
        """The same of an amount's column and an amount in micros."""

    @abstractmethod
    def by_key(self, table: str, alias: str) -> str:
        """The table, to be read by its primary key and in no other way."""

    @abstractmethod
    def by_index(self, table: str, alias: str, index: str) -> str:
        """The table, to be read by that index and in no other way."""

    @abstractmethod
    def delete_many(self, table: str, key: str, rows: int) -> str:
        """A statement that deletes the rows of so many keys."""

    def update_many(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        was: Was = NO_MATTER,
    ) -> Statement:
        """A statement that sets columns of some rows; of each there are the key and the columns'
        values. Those that do not hold what they must are left as they are."""
        if len(rows) > FEW_ROWS:
            return self._update_joined(table, key, columns, rows, was)
        keys, *values = zip(*rows, strict=True)
        changes, bound = self._each([f"{c} = {{}}" for c in columns], key, keys, values)
        held, what = self._each(was.conditions, key, keys, zip(*was.rows, strict=True))
        conditions = " AND ".join([self.in_list(key, len(rows)), *held])
        return (
            f"UPDATE {self._by_key_alone(table)} SET {', '.join(changes)} WHERE {conditions}",
            [*bound, *keys, *what],
        )

    def _each(
        self,
        said: Sequence[str],
        key: str,
        keys: Sequence[Value],
        columns: Iterable[Sequence[Value]],
    ) -> tuple[list[str], list[Value]]:
        """What is said with `{}`, with a value there, which is another one for each key."""
        whole, bound = [], list[Value]()
        cases = f"CASE {key}{f' WHEN {self.mark} THEN {self.mark}' * len(keys)} END"
        for part, values in zip(said, columns, strict=True):
            if _is_one(values):
                whole.append(part.format(self.mark))
                bound.append(values[0])
            else:
                whole.append(part.format(cases))
                bound += flat(zip(keys, values, strict=True))
        return whole, bound

    @abstractmethod
    def _update_joined(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        was: Was,
    ) -> Statement:
        """The same for many rows, by a join with their values."""

    @abstractmethod
    def _by_key_alone(self, table: str) -> str:
        """The table of an UPDATE, to be read by its primary key and in no other way."""

    @abstractmethod
    def add_many(
        self, table: str, columns: Sequence[str], key: str, counter: str, rows: int
    ) -> str:
        """A statement that adds to the counters of so many rows, inserting those not there."""

    @abstractmethod
    def put_many(self, table: str, columns: Sequence[str], key: Sequence[str], rows: int) -> str:
        """A statement that inserts so many rows, in place of those with the same key."""

    @abstractmethod
    def insert_new(self, table: str, columns: Sequence[str], key: str, rows: int) -> str:
        """A statement that inserts those of so many rows whose unique key is not there yet."""

    @abstractmethod
    def insert_children(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Value, ...]]
    ) -> tuple[str, Any]:
        """A statement that inserts rows of which it is known that what they refer to is there, and
        its values as the driver takes them. It locks nothing but these rows."""

    def silently(self, statements: Sequence[str]) -> Sequence[str]:
        """Statements that return no rows, in a form with as few answers as possible."""
        return statements

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

    def insert_wide(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]
    ) -> Statement:
        """A statement that inserts rows of many columns, of which many have one value in all rows.
        Not for a table that numbers its rows itself."""
        return self.insert_many(table, columns, len(rows)), flat(rows)


class MySql(SqlDialect):
    """MariaDB and MySQL."""

    mark = "%s"
    begin = "START TRANSACTION"
    most_values = 1_000_000  # they are part of the text, which max_allowed_packet bounds: 16 MB
    row_word: str | None = None
    """Before each row of a VALUES statement; None where there is none. It costs the server half of
    what a UNION does."""

    compound = False
    """Whether it knows BEGIN NOT ATOMIC and SET STATEMENT: MariaDB."""

    def meet(self, server: str) -> None:
        """Learn from a server's version text what it can do."""
        version = re.search(r"(\d+)\.(\d+)\.(\d+)(?!.*\d+\.\d+\.\d+)", server)
        numbers = tuple(map(int, version.groups())) if version else (0, 0, 0)
        if "MariaDB" in server:
            self.row_word = "" if numbers >= (10, 3, 3) else None
            self.compound = self.proves = numbers >= (10, 1, 2)
        elif "TiDB" not in server and numbers >= (8, 0, 19):
            self.row_word = "ROW"

    for_update = " FOR UPDATE"
    then = "STRAIGHT_JOIN"

    def silently(self, statements: Sequence[str]) -> Sequence[str]:
        """One statement in place of several: each would be answered by a packet of its own."""
        if not self.compound or len(statements) < 2:
            return statements
        return [f"BEGIN NOT ATOMIC {'; '.join(statements)}; END"]

    def amount(self, amount: Micros) -> Value:
        return amount_text(amount)

    def micros(self, column: str) -> str:
        return f"CAST({column} * 1000000 AS SIGNED)"

    def holds(self, column: str) -> str:
        return f"{column} <=> {{}}"

    def holds_amount(self, column: str) -> str:
        # To a text a decimal is compared as a floating-point number.
        return f"{column} <=> {{}} * 0.000001"

    def _values(self, rows: Sequence[str]) -> str:
        return ", ".join(rows)

    def by_key(self, table: str, alias: str) -> str:
        # A small table would rather be scanned, and a scan waits for rows that other servers
        # have locked and this one does not want.
        return self.by_index(table, alias, "PRIMARY")

    def by_index(self, table: str, alias: str, index: str) -> str:
        return f"{table} {alias} FORCE INDEX ({index})"

    def _by_key_alone(self, table: str) -> str:
        return f"{table} FORCE INDEX (PRIMARY)"

    def insert_wide(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]
    ) -> Statement:
        """What is the same in all rows is sent, and read by the server, once: a quarter less of its
        time for a hundred calls. Such an INSERT would lock an AUTO_INCREMENT."""
        if len(rows) <= FEW_ROWS or self.row_word is None:
            return super().insert_wide(table, columns, rows)
        several, ones = _apart(zip(*rows, strict=True))
        if not several:
            return super().insert_wide(table, columns, rows)
        row = f"{self.row_word}({', '.join(['%s'] * len(several))})"
        named = ", ".join(f"c{n}" for n in several)
        found = ", ".join(f"c{n}" if n in several else "%s" for n in range(len(columns)))
        return (
            f"INSERT INTO {table} ({', '.join(columns)}) WITH w({named}) AS"
            f" (VALUES {', '.join([row] * len(rows))}) SELECT {found} FROM w",
            [*flat(zip(*several.values(), strict=True)), *ones.values()],
        )

    def _update_joined(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        was: Was,
    ) -> Statement:
        keys, *values = zip(*rows, strict=True)
        several, ones = _apart([*zip(*was.rows, strict=True), *values])
        places = {n: f"v.c{place}" for place, n in enumerate(several)}
        said = [*was.conditions, *(f"t.{column} = {{}}" for column in columns)]
        said = [part.format(places.get(n, "%s")) for n, part in enumerate(said)]
        held, changes = said[: len(was.conditions)], said[len(was.conditions) :]
        return (
            f"UPDATE ({self._table(len(several), len(rows))}) v {self.then}"
            f" {self.by_key(table, 't')} ON {' AND '.join([f't.{key} = v.k', *held])}"
            f" SET {', '.join(changes)}",
            [*flat(zip(keys, *several.values(), strict=True)), *ones.values()],
        )

    def _table(self, columns: int, rows: int) -> str:
        """A table of values: k, c0, c1 …"""
        marks = ", ".join(["%s"] * (columns + 1))
        names = ["k", *(f"c{n}" for n in range(columns))]
        if self.row_word is None:
            named = ", ".join(f"%s AS {name}" for name in names)
            return f"SELECT {named}{f' UNION ALL SELECT {marks}' * (rows - 1)}"
        listed = ", ".join([f"{self.row_word}({marks})"] * rows)
        return f"WITH w({', '.join(names)}) AS (VALUES {listed}) SELECT * FROM w"

    def add_many(
        self, table: str, columns: Sequence[str], key: str, counter: str, rows: int
    ) -> str:
        added = f"{counter} = {counter} + VALUES({counter})"
        return f"{self.insert_many(table, columns, rows)} ON DUPLICATE KEY UPDATE {added}"

    def put_many(self, table: str, columns: Sequence[str], key: Sequence[str], rows: int) -> str:
        changes = ", ".join(f"{c} = VALUES({c})" for c in columns if c not in key)
        return f"{self.insert_many(table, columns, rows)} ON DUPLICATE KEY UPDATE {changes}"

    def insert_new(self, table: str, columns: Sequence[str], key: str, rows: int) -> str:
        # INSERT IGNORE would let other errors pass too.
        kept = f"{key} = {table}.{key}"
        return f"{self.insert_many(table, columns, rows)} ON DUPLICATE KEY UPDATE {kept}"

    def insert_children(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Value, ...]]
    ) -> tuple[str, Any]:
        # To check a foreign key locks the row that is referred to until the end: an import of
        # accounts would hold up all calls of their clients.
        insert = self.insert_many(table, columns, len(rows))
        if self.compound:
            insert = f"SET STATEMENT foreign_key_checks = 0 FOR {insert}"
        else:
            insert = insert.replace("INSERT", "INSERT /*+ SET_VAR(foreign_key_checks = OFF) */", 1)
        return insert, tuple(flat(rows))

    def delete_many(self, table: str, key: str, rows: int) -> str:
        if rows == 1:
            return f"DELETE FROM {table} WHERE {key} = %s"
        # With IN it would scan a small table whatever index is forced (MariaDB 10.11).
        listed = self._table(0, rows)
        return f"DELETE t FROM ({listed}) v {self.then} {self.by_key(table, 't')} ON t.{key} = v.k"


class Sqlite(SqlDialect):
    """SQLite."""

    mark = "?"
    begin = "BEGIN IMMEDIATE"
    most_values = 32_766  # SQLITE_MAX_VARIABLE_NUMBER, unless it was compiled with another
    for_update = ""
    then = "CROSS JOIN"

    def amount(self, amount: Micros) -> Value:
        return amount

    def micros(self, column: str) -> str:
        return column

    def holds(self, column: str) -> str:
        return f"{column} IS {{}}"

    def holds_amount(self, column: str) -> str:
        return self.holds(column)

    def _values(self, rows: Sequence[str]) -> str:
        return "VALUES " + ", ".join(rows)

    def by_key(self, table: str, alias: str) -> str:
        return f"{table} {alias}"

    def by_index(self, table: str, alias: str, index: str) -> str:
        return f"{table} {alias} INDEXED BY {index}"

    def add_many(
        self, table: str, columns: Sequence[str], key: str, counter: str, rows: int
    ) -> str:
        added = f"{counter} = {table}.{counter} + excluded.{counter}"
        return f"{self.insert_many(table, columns, rows)} ON CONFLICT ({key}) DO UPDATE SET {added}"

    def put_many(self, table: str, columns: Sequence[str], key: Sequence[str], rows: int) -> str:
        changes = ", ".join(f"{c} = excluded.{c}" for c in columns if c not in key)
        return (
            f"{self.insert_many(table, columns, rows)}"
            f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
        )

    def insert_new(self, table: str, columns: Sequence[str], key: str, rows: int) -> str:
        return f"{self.insert_many(table, columns, rows)} ON CONFLICT ({key}) DO NOTHING"

    def insert_children(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Value, ...]]
    ) -> tuple[str, Any]:
        return self.insert_many(table, columns, 1), list(rows)

    def delete_many(self, table: str, key: str, rows: int) -> str:
        return f"DELETE FROM {table} WHERE {self.in_list(key, rows)}"

    def _by_key_alone(self, table: str) -> str:
        return table

    def _update_joined(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Value]],
        was: Was,
    ) -> Statement:
        both = [(*row, *held) for row, held in zip(rows, was.rows or [()] * len(rows), strict=True)]
        row = f"({', '.join(['?'] * len(both[0]))})"
        changes = [f"{column} = v.column{n}" for n, column in enumerate(columns, 2)]
        first = len(columns) + 2
        held = [part.format(f"v.column{n}") for n, part in enumerate(was.conditions, first)]
        conditions = " AND ".join([f"{table}.{key} = v.column1", *held])
        return (
            f"UPDATE {table} SET {', '.join(changes)}"
            f" FROM (VALUES {', '.join([row] * len(rows))}) AS v WHERE {conditions}",
            flat(both),
        )


def _is_one(values: Sequence[Value]) -> bool:
    return values.count(values[0]) == len(values)


def _apart(
    columns: Iterable[Sequence[Value]],
) -> tuple[dict[int, Sequence[Value]], dict[int, Value]]:
    """By their places, the columns that have several values, and the one value of those others."""
    several: dict[int, Sequence[Value]] = {}
    ones: dict[int, Value] = {}
    for place, values in enumerate(columns):
        if _is_one(values):
            ones[place] = values[0]
        else:
            several[place] = values
    return several, ones


def flat(rows: Iterable[Sequence[Value]]) -> list[Value]:
    """The values of many rows, one after the other."""
    return [value for row in rows for value in row]
