"""The rates of a rate table in SQL, written in large steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.instants import instant_text
from astcredit.domain.ratetable import RateRow
from astcredit.domain.rating import MOST_PREFIX_DIGITS, Rate
from astcredit.service.admin_ports import StoredPeriod
from astcredit.storage.sql import SqlDialect, Sqlite, Value
from astcredit.storage.tables import astrate, astratetable

# A statement has so many rows at most: eleven parameters each, of which SQLite takes 32,766, and
# some 100 bytes each, of which MySQL's smallest usual packet holds four million.
ROWS_AT_ONCE: Final = 1_000

# Rows that are read are fetched so many at a time.
FETCH_ROWS: Final = 5_000

_KEY: Final = ("rate_table_id", "prefix", "effective_from")
_OTHERS: Final = (
    "destination",
    "rate_per_minute",
    "connect_fee",
    "first_increment",
    "next_increment",
    "grace_seconds",
    "minimum_charge",
    "effective_until",
)

# In the order of the fields of RateRow.
_ROW: Final = (
    astrate.c.prefix,
    astrate.c.destination,
    astrate.c.rate_per_minute,
    astrate.c.connect_fee,
    astrate.c.first_increment,
    astrate.c.next_increment,
    astrate.c.grace_seconds,
    astrate.c.minimum_charge,
    astrate.c.effective_from,
    astrate.c.effective_until,
)


class SqlRates:
    """One table's rates. Implements `astcredit.service.admin_ports.RatesTransaction`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect, table_id: int) -> None:
        self._connection = connection
        self._sql = dialect
        self._table_id = table_id
        self._own = astrate.c.rate_table_id == table_id

    async def in_force_from(self, instant_ms: int) -> AsyncIterator[StoredPeriod]:
        """The rows in force at the instant or beginning later."""
        c = astrate.c
        statement = select(c.id, c.prefix, c.effective_from, c.effective_until).where(
            self._own,
            or_(c.effective_until.is_(None), c.effective_until > instant_ms),
        )
        async for row in self._stream(statement):
            yield StoredPeriod(*row)

    async def end(self, ids: Collection[int], instant_ms: int) -> None:
        """Let rows end at the instant."""
        for part in _parts(ids):
            changed = update(astrate).where(astrate.c.id.in_(part))
            await self._connection.execute(changed.values(effective_until=instant_ms))

    async def remove(self, ids: Collection[int]) -> None:
        """Take rows out."""
        for part in _parts(ids):
            await self._connection.execute(delete(astrate).where(astrate.c.id.in_(part)))

    async def put(self, rates: Sequence[Rate]) -> None:
        """Add rates, in place of those with the same prefix and instant."""
        columns = (*_KEY, *_OTHERS)
        if isinstance(self._sql, Sqlite):
            changes = ", ".join(f"{column} = excluded.{column}" for column in _OTHERS)
            end = f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {changes}"
        else:
            changes = ", ".join(f"{column} = VALUES({column})" for column in _OTHERS)
            end = f" ON DUPLICATE KEY UPDATE {changes}"
        for start in range(0, len(rates), ROWS_AT_ONCE):
            part = rates[start : start + ROWS_AT_ONCE]
            statement = self._sql.insert_many("astrate", columns, len(part)) + end
            values = tuple(value for rate in part for value in self._values(rate))
            await self._connection.exec_driver_sql(statement, values)

    async def count(self) -> int:
        """Number of rows."""
        found = await self._connection.execute(
            select(func.count()).select_from(astrate).where(self._own)
        )
        return found.scalar_one()

    async def changed(self, rates: int) -> None:
        """Raise the table's version and note how many rates it has."""
        c = astratetable.c
        changed = update(astratetable).where(c.id == self._table_id)
        await self._connection.execute(changed.values(version=c.version + 1, rates=rates))

    async def matching(self, number: str) -> Sequence[RateRow]:
        """All rows whose prefix begins the number."""
        prefixes = [number[:length] for length in range(1, MOST_PREFIX_DIGITS + 1)]
        found = await self._connection.execute(
            select(*_ROW).where(self._own, astrate.c.prefix.in_(prefixes))
        )
        return [_rate_row(row) for row in found]

    async def in_force(self, instant_ms: int) -> AsyncIterator[RateRow]:
        """The rows in force at the instant, in the order of prefix, then of their beginning."""
        c = astrate.c
        statement = (
            select(*_ROW)
            .where(
                self._own,
                c.effective_from <= instant_ms,
                or_(c.effective_until.is_(None), c.effective_until > instant_ms),
            )
            .order_by(c.prefix, c.effective_from)
        )
        async for row in self._stream(statement):
            yield _rate_row(row)

    async def _stream(self, statement: Any) -> AsyncIterator[Any]:
        options = statement.execution_options(yield_per=FETCH_ROWS)
        async with self._connection.stream(options) as result:
            async for part in result.partitions():
                for row in part:
                    yield row

    def _values(self, rate: Rate) -> tuple[Value, ...]:
        amount = self._sql.amount
        return (
            self._table_id,
            rate.prefix,
            instant_text(rate.effective_from_ms),
            rate.destination,
            amount(rate.rate_per_minute),
            amount(rate.connect_fee),
            rate.first_increment,
            rate.next_increment,
            rate.grace_seconds,
            amount(rate.minimum_charge),
            None,
        )


def _rate_row(row: Sequence[Any]) -> RateRow:
    return RateRow(*row)


def _parts(ids: Collection[int]) -> list[list[int]]:
    ordered = sorted(ids)
    return [ordered[i : i + ROWS_AT_ONCE] for i in range(0, len(ordered), ROWS_AT_ONCE)]
