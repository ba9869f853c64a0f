"""The rates of a rate table in SQL, written in large steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text
from astcredit.domain.rate_columns import RateColumns, RateRow, Terms
from astcredit.domain.rating import MOST_PREFIX_DIGITS
from astcredit.service.admin_ports import StoredPeriod
from astcredit.storage.rate_rows import RateRows
from astcredit.storage.sql import SqlDialect, Sqlite, Value
from astcredit.storage.tables import astrate, astratetable

# A statement has so many rows at most: some 120 bytes each, a kilobyte where the destination's
# name is as long and as foreign as can be. MySQL's smallest usual packet holds four million.
ROWS_AT_ONCE: Final = 2_000

# Terms whose text is remembered: a deck has few.
MOST_REMEMBERED: Final = 65_536

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
_COLUMNS: Final = ", ".join((*_KEY, *_OTHERS))

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
        self._rows = RateRows(connection, dialect, table_id)

    def in_force_from(self, instant_ms: int) -> AsyncIterator[StoredPeriod]:
        """The rows in force at the instant or beginning later."""
        return self._rows.periods(instant_text(instant_ms))

    async def end(self, ids: Collection[int], instant_ms: int) -> None:
        """Let rows end at the instant."""
        for part in _parts(ids):
            changed = update(astrate).where(astrate.c.id.in_(part))
            await self._connection.execute(changed.values(effective_until=instant_ms))

    async def remove(self, ids: Collection[int]) -> None:
        """Take rows out."""
        for part in _parts(ids):
            await self._connection.execute(delete(astrate).where(astrate.c.id.in_(part)))

    async def put(self, rates: RateColumns) -> None:
        """Add rates, in place of those with the same prefix and instant.

        Raises ValueError for a rate that is none."""
        rates.check()
        put = self._put_sqlite if isinstance(self._sql, Sqlite) else self._put_mysql
        for start in range(0, len(rates), ROWS_AT_ONCE):
            await put(rates[start : start + ROWS_AT_ONCE])

    async def _put_sqlite(self, rates: RateColumns) -> None:
        """One statement for each row: SQLite's driver prepares it once."""
        changes = ", ".join(f"{column} = excluded.{column}" for column in _OTHERS)
        statement = (
            f"INSERT INTO astrate ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {changes}"
        )
        await self._connection.exec_driver_sql(statement, list(self._values(rates)))

    def _values(self, rates: RateColumns) -> Iterator[tuple[Value, ...]]:
        columns = zip(
            rates.prefixes, rates.destinations, rates.per_minute, rates.terms, strict=True
        )
        for prefix, destination, per_minute, terms in columns:
            *others, begin, until = terms
            yield (
                self._table_id,
                prefix,
                _instant(begin),
                destination,
                per_minute,
                *others,
                None if until is None else _instant(until),
            )

    async def _put_mysql(self, rates: RateColumns) -> None:
        """One statement for all rows. What the driver binds it turns into text value by value,
        which would take longer than the server takes. So digits are written as they are, those of
        one tariff once, and only names are bound."""
        changes = ", ".join(f"{column} = VALUES({column})" for column in _OTHERS)
        head, amount = f"({self._table_id},'", _amount
        rows = [
            f"{head}{prefix}',{begin},%s,{amount(per_minute)},{others})"
            for prefix, per_minute, (begin, others) in zip(
                rates.prefixes, rates.per_minute, map(_literals, rates.terms), strict=True
            )
        ]
        statement = (
            f"INSERT INTO astrate ({_COLUMNS}) VALUES {','.join(rows)}"
            f" ON DUPLICATE KEY UPDATE {changes}"
        )
        await self._connection.exec_driver_sql(statement, tuple(rates.destinations))

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
        async for part in self._rows.in_force(instant_text(instant_ms)):
            for row in part.rows():
                yield row


@lru_cache(MOST_REMEMBERED)
def _literals(terms: Terms) -> tuple[str, str]:
    """The beginning of a rate, and what of it stands behind the price, as MySQL's literals."""
    fee, first, following, grace, minimum, begin, until = terms
    end = "NULL" if until is None else f"'{instant_text(until)}'"
    return (
        f"'{instant_text(begin)}'",
        f"{amount_text(fee)},{first},{following},{grace},{amount_text(minimum)},{end}",
    )


_amount: Final = lru_cache(MOST_REMEMBERED)(amount_text)
_instant: Final = lru_cache(MOST_REMEMBERED)(instant_text)


def _rate_row(row: Sequence[Any]) -> RateRow:
    return RateRow(*row)


def _parts(ids: Collection[int]) -> list[list[int]]:
    ordered = sorted(ids)
    return [ordered[i : i + ROWS_AT_ONCE] for i in range(0, len(ordered), ROWS_AT_ONCE)]
