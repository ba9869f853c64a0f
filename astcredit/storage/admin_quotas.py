"""Quotas and their usage in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.money import Micros
from astcredit.domain.periods import bounds, is_month
from astcredit.domain.quotas import ClientPeriod, QuotaLimits, Usage
from astcredit.service.quota_ports import QuotaClient
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.sessions import CoreSession
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import astcdr, astclient, astcreditres, astquota

# Rows of one statement: each has two parameters, of which SQLite takes 32,766.
ROWS_AT_ONCE = 1_000

DAY_MS = 86_400_000
"""No time zone is farther from UTC."""


class SqlQuotas:
    """Quotas, in one transaction. Implements `service.quota_ports.QuotaStore`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect) -> None:
        self._connection = connection
        self._books = SqlBooksTransaction(CoreSession(connection), dialect)

    async def clients(self, name: str | None = None) -> Sequence[QuotaClient]:
        """The clients that have a quota, or one of them, by name."""
        c = astclient.c
        has_one = c.monthly_quota.is_not(None) | c.daily_quota.is_not(None)
        statement = select(*_CLIENT).where(has_one).order_by(c.name)
        if name is not None:
            statement = statement.where(c.name == name)
        return [_client(row) for row in await self._connection.execute(statement)]

    async def usages(self, periods: Collection[ClientPeriod]) -> Mapping[ClientPeriod, Usage]:
        """What clients used in those periods, if anything."""
        found: dict[ClientPeriod, Usage] = {}
        ordered = iter(sorted(periods))
        while part := list(islice(ordered, ROWS_AT_ONCE)):
            found.update(await self._books.load_usages(part))
        return found

    async def of_period(
        self, period: str, client: str | None = None
    ) -> Sequence[tuple[QuotaClient, Usage]]:
        """Who used something in a period, by name."""
        statement = (
            select(*_CLIENT, *_USAGE)
            .join_from(astquota, astclient, astclient.c.id == astquota.c.client_id)
            .where(astquota.c.period == period)
            .order_by(astclient.c.name)
        )
        if client is not None:
            statement = statement.where(astclient.c.name == client)
        rows = await self._connection.execute(statement)
        return [(_client(row[: len(_CLIENT)]), Usage(*row[len(_CLIENT) :])) for row in rows]

    async def count_open(self, client_id: int) -> Collection[str]:
        """Have the client's open calls counted in the periods of their CDRs; these periods."""
        c = astcreditres.c
        mine = c.client_id == client_id
        keys = {
            name: select(astcdr.c[name]).where(astcdr.c.id == c.call_id).scalar_subquery()
            for name in ("quota_month", "quota_day")
        }
        await self._connection.execute(update(astcreditres).where(mine).values(keys))
        rows = await self._connection.execute(
            select(c.quota_month, c.quota_day).where(mine).distinct()
        )
        return {period for row in rows for period in row if period is not None}

    async def periods_from(self, client_id: int, day: str) -> Collection[str]:
        """The days from this one on, and their months, that the client's ended calls are of."""
        c = astcdr.c
        begin, _ = bounds(day, "UTC")
        statement = select(c.quota_month, c.quota_day).where(
            c.client_id == client_id,
            # An index has the instants, and none the periods.
            c.date_created >= begin - DAY_MS,
            c.price.is_not(None),
        )
        rows = await self._connection.execute(statement.distinct())
        return {period for row in rows if row[1] >= day for period in row}

    async def sums(self, client_id: int, period: str) -> tuple[Micros, Micros]:
        """What the client's calls of a period cost, and what its open ones have reserved."""
        column = "quota_month" if is_month(period) else "quota_day"
        cdr, held = astcdr.c, astcreditres.c
        begin, end = bounds(period, "UTC")
        # The instants let it use the index on client and instant: the key alone has none.
        price = func.coalesce(cdr.price, 0) + func.coalesce(cdr.corrected, 0)
        spent = select(func.coalesce(func.sum(price), 0)).where(
            cdr.client_id == client_id,
            cdr.date_created >= begin - DAY_MS,
            cdr.date_created < end + DAY_MS,
            cdr[column] == period,
        )
        reserved = select(func.coalesce(func.sum(held.reservedamount), 0)).where(
            held.client_id == client_id, held[column] == period
        )
        found = (await self._connection.execute(spent)).scalar_one()
        return found, (await self._connection.execute(reserved)).scalar_one()


_CLIENT = (
    astclient.c.id,
    astclient.c.name,
    astclient.c.currency,
    astclient.c.monthly_quota,
    astclient.c.daily_quota,
    astclient.c.timezone,
)

_USAGE = (
    astquota.c.quota,
    astquota.c.spent,
    astquota.c.reserved,
    astquota.c.waived,
    astquota.c.told,
    astquota.c.first_over_at,
    astquota.c.last_over_at,
    astquota.c.blocked_at,
    astquota.c.reset_at,
)
"""In the order of Usage's fields."""


def _client(row: Sequence[Any]) -> QuotaClient:
    id, name, currency, *limits = row
    return QuotaClient(id, name, currency, QuotaLimits(*limits))
