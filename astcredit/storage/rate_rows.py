"""The rates of a rate table, read in the order of their prefixes, some at a time.

There may be millions. MariaDB's and MySQL's driver takes rows apart in Python, column by column,
which would take ten times as long as everything else: there the server packs the rows of a portion
into one text. What most rates have in common comes as one text, too, and is read once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.rate_columns import RateColumns, Terms
from astcredit.service.admin_ports import StoredPeriod
from astcredit.storage.column_types import instant_ms
from astcredit.storage.sql import SqlDialect, Sqlite, Value

_Row: TypeAlias = Sequence[Any]

PORTION_ROWS: Final = 1_000
"""Rows at a time: a few milliseconds of work, in which no call is served."""

MOST_REMEMBERED: Final = 65_536
"""Terms that are remembered: a deck has few, and reading them is the main work."""

# Characters of a row that is packed. For longer ones MariaDB would make a temporary table on disk;
# what is cut is noticed and read again as it is.
_PACKED_CHARACTERS: Final = 500

# Before all instants of a table; a year that MariaDB knows.
_BEFORE_ALL: Final = "1000-01-01 00:00:00.000"

_SEPARATOR: Final = ";"


@dataclass(frozen=True, slots=True)
class _Condition:
    """What is asked of rows, with its values."""

    text: str = ""
    values: tuple[Value, ...] = ()


class RateRows:
    """The rates of one rate table, as one transaction sees them.

    The next portion is asked for before the last one is handed out: whoever leaves a loop over them
    before its end closes them (`contextlib.aclosing`), and asks nothing else of the connection
    in the loop.
    """

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect, table_id: int) -> None:
        self._connection = connection
        self._sql = dialect
        self._table_id = table_id

    async def all(self) -> AsyncGenerator[RateColumns, None]:
        """All rates, by prefix and beginning. They are not checked."""
        async with aclosing(self._portions(self._rate_columns())) as portions:
            async for rows in portions:
                yield _rates(rows)

    async def in_force(self, instant: str) -> AsyncGenerator[RateColumns, None]:
        """The rates in force at an instant, by prefix and beginning."""
        mark = self._sql.mark
        text = f"effective_from <= {mark} AND (effective_until IS NULL OR effective_until > {mark})"
        condition = _Condition(text, (instant, instant))
        async with aclosing(self._portions(self._rate_columns(), condition)) as portions:
            async for rows in portions:
                yield _rates(rows)

    async def periods(self, instant: str) -> AsyncGenerator[StoredPeriod, None]:
        """Which rows are in force at an instant or begin later, and when."""
        text = f"(effective_until IS NULL OR effective_until > {self._sql.mark})"
        columns = ("id", "effective_until")
        condition = _Condition(text, (instant,))
        async with aclosing(self._portions(columns, condition)) as portions:
            async for rows in portions:
                for prefix, begin, id, until in rows:
                    yield StoredPeriod(id, prefix, _instant(begin), until and _instant(until))

    def _rate_columns(self) -> tuple[str, ...]:
        micros = self._sql.micros
        common = (
            micros("connect_fee"),
            "first_increment",
            "next_increment",
            "grace_seconds",
            micros("minimum_charge"),
            "COALESCE(effective_until, '')",
        )
        return "destination", micros("rate_per_minute"), self._joined(common)

    def _joined(self, columns: Sequence[str]) -> str:
        """An expression for several columns in one text."""
        if isinstance(self._sql, Sqlite):
            return f" || '{_SEPARATOR}' || ".join(columns)
        return f"CONCAT_WS('{_SEPARATOR}', {', '.join(columns)})"

    async def _portions(
        self, columns: Sequence[str], condition: _Condition | None = None
    ) -> AsyncGenerator[Sequence[_Row], None]:
        """Prefix, beginning and these columns of all rows, by prefix and beginning."""
        asked, mark = condition or _Condition("1 = 1"), self._sql.mark
        statement = self._statement(
            columns,
            f"rate_table_id = {mark} AND prefix >= {mark}"
            f" AND (prefix > {mark} OR effective_from > {mark}) AND {asked.text}",
        )
        width = len(columns) + 2

        def portion_after(prefix: str, begin: Value) -> asyncio.Task[Sequence[_Row]]:
            values = (self._table_id, prefix, prefix, begin, *asked.values)
            return asyncio.create_task(self._rows(statement, values, width))

        loading = portion_after("", _BEFORE_ALL)
        try:
            while len(rows := await loading) == PORTION_ROWS:
                # The server reads the next ones while these are looked at.
                loading = portion_after(rows[-1][0], rows[-1][1])
                yield rows
            yield rows
        finally:
            if not loading.done():
                loading.cancel()
                await asyncio.wait([loading])

    def _statement(self, columns: Sequence[str], condition: str) -> str:
        selected = "".join(f", {column} AS c{n}" for n, column in enumerate(columns))
        index = "" if isinstance(self._sql, Sqlite) else " FORCE INDEX (uq_astrate_prefix)"
        return (
            f"SELECT prefix, effective_from{selected} FROM astrate{index} WHERE {condition}"
            f" ORDER BY prefix, effective_from LIMIT {PORTION_ROWS}"
        )

    async def _rows(self, statement: str, values: tuple[Value, ...], width: int) -> Sequence[_Row]:
        if not isinstance(self._sql, Sqlite):
            rows = await self._packed(statement, values, width)
            if rows is not None:
                return rows
        found = await self._connection.exec_driver_sql(statement, values)
        return found.all()

    async def _packed(
        self, statement: str, values: tuple[Value, ...], width: int
    ) -> Sequence[_Row] | None:
        """The rows, from one text; None if that was cut."""
        names = ", ".join(f"c{n}" for n in range(width - 2))
        row = f"CAST(JSON_ARRAY(prefix, effective_from, {names}) AS CHAR({_PACKED_CHARACTERS}))"
        packed = f"SELECT COUNT(*), GROUP_CONCAT({row}) FROM ({statement}) AS found"
        answer = await self._connection.exec_driver_sql(packed, values)
        count, text = tuple(answer.one())
        try:
            rows: list[_Row] = json.loads(f"[{text}]") if count else []
        except ValueError:
            return None
        if len(rows) != count or any(len(row) != width for row in rows):
            return None
        rows.sort(key=itemgetter(0, 1))  # as a rule they are in order already
        return rows


def _rates(rows: Sequence[_Row]) -> RateColumns:
    if not rows:
        return RateColumns((), (), (), ())
    prefixes, begins, destinations, per_minute, common = zip(*rows, strict=True)
    return RateColumns(prefixes, destinations, per_minute, list(map(_terms, common, begins)))


@lru_cache(MOST_REMEMBERED)
def _terms(common: str, begin: Any) -> Terms:
    """Raises ValueError for texts that somebody wrote into columns of numbers."""
    *numbers, until = common.split(_SEPARATOR)
    fee, first, following, grace, minimum = map(int, numbers)
    end = _instant(until) if until else None
    return fee, first, following, grace, minimum, _instant(begin), end


_instant: Final = lru_cache(MOST_REMEMBERED)(instant_ms)
