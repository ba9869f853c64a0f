"""Calls as reports show them, read with the indexes that settlement has anyway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Select, and_, or_, select

from astcredit.domain.rating import Rate
from astcredit.domain.states import CallState
from astcredit.service.reports import ActiveCall, CdrFilter, CdrRecord
from astcredit.storage.database import Database
from astcredit.storage.tables import astaccount, astcdr, astclient, astcreditres

# Rows of an export that are in memory at once: a few megabytes, and statements enough apart that
# their cost does not show.
PAGE_ROWS = 2_000


class SqlReports:
    """Reads the calls of one database. Implements `astcredit.service.reports.Reports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active_calls(self) -> Sequence[ActiveCall]:
        """The calls that are up or being set up, oldest first."""
        async with self._database.reading(seconds=None) as connection:
            rows = await connection.execute(_ACTIVE.order_by(astcreditres.c.call_id))
            return [_active_call(row) for row in rows]

    async def active_call(self, call_id: str) -> ActiveCall | None:
        """One of them."""
        async with self._database.reading() as connection:
            rows = await connection.execute(_ACTIVE.where(astcreditres.c.call_id == call_id))
            row = rows.first()
        return None if row is None else _active_call(row)

    async def cdr(self, call_id: str) -> CdrRecord | None:
        """The CDR of one call."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_CDRS.where(astcdr.c.id == call_id))).first()
        return None if row is None else _cdr(row)

    async def newest_cdrs(self, wanted: CdrFilter, most: int) -> Sequence[CdrRecord]:
        """The newest CDRs, newest first."""
        c = astcdr.c
        statement = _matching(wanted).order_by(c.date_created.desc(), c.id.desc()).limit(most)
        async with self._database.reading(seconds=None) as connection:
            return [_cdr(row) for row in await connection.execute(statement)]

    async def all_cdrs(
        self, wanted: CdrFilter, page_rows: int = PAGE_ROWS
    ) -> AsyncGenerator[CdrRecord, None]:
        """All CDRs as they stand at one instant, oldest first, a page at a time."""
        c = astcdr.c
        statement = _matching(wanted).order_by(c.date_created, c.id).limit(page_rows)
        async with self._database.reading(seconds=None) as connection:
            page = (await connection.execute(statement)).all()
            while page:
                for row in page:
                    yield _cdr(row)
                after = _after(page[-1].date_created, page[-1].id)
                page = (await connection.execute(statement.where(after))).all()


def _after(date_created: int, id: str) -> Any:
    """What comes later in the order of date and id, in words that the index understands."""
    c = astcdr.c
    return and_(c.date_created >= date_created, or_(c.date_created > date_created, c.id > id))


def _matching(wanted: CdrFilter) -> Select[Any]:
    c = astcdr.c
    statement = _CDRS
    if wanted.client is not None:
        # By the id: the index is (client_id, date_created), and the name is looked up once.
        named = select(astclient.c.id).where(astclient.c.name == wanted.client).scalar_subquery()
        statement = statement.where(c.client_id == named)
    if wanted.from_ms is not None:
        statement = statement.where(c.date_created >= wanted.from_ms)
    if wanted.until_ms is not None:
        statement = statement.where(c.date_created < wanted.until_ms)
    if wanted.status is not None:
        statement = statement.where(c.status == wanted.status)
    return statement


_CDR_FIELDS = tuple(field.name for field in fields(CdrRecord))
_COLUMNS = dict(astcdr.c) | {"client": astclient.c.name, "account": astaccount.c.name}
_CDRS: Select[Any] = (
    select(*(_COLUMNS[name].label(name) for name in _CDR_FIELDS))
    .select_from(astcdr)
    .outerjoin(astclient, astclient.c.id == astcdr.c.client_id)
    .outerjoin(astaccount, astaccount.c.id == astcdr.c.account_id)
)
_STATUS = _CDR_FIELDS.index("status")
_ESTIMATED = _CDR_FIELDS.index("estimated")

_RATE = (
    "prefix", "destination", "rate", "connect_fee", "first_increment", "next_increment",
    "grace_seconds", "minimum_charge",
)  # fmt: skip
_ACTIVE: Select[Any] = (
    select(
        astcreditres.c.call_id,
        astcreditres.c.node,
        astcreditres.c.uniqueid,
        astcreditres.c.leg_uniqueid,
        astclient.c.name,
        astaccount.c.name,
        astcdr.c.callerid,
        astcdr.c.callednum,
        astcdr.c.status,
        astcdr.c.currency,
        astcreditres.c.reservedamount,
        astcreditres.c.seconds,
        astcreditres.c.date_created,
        astcdr.c.answered_at,
        *(astcdr.c[name] for name in _RATE),
    )
    .join_from(astcreditres, astcdr, astcdr.c.id == astcreditres.c.call_id)
    .join(astclient, astclient.c.id == astcreditres.c.client_id)
    .outerjoin(astaccount, astaccount.c.id == astcdr.c.account_id)
)
_BEFORE_RATE = 14


def _active_call(row: Sequence[Any]) -> ActiveCall:
    return ActiveCall(
        id=row[0],
        node=row[1],
        uniqueid=row[2],
        leg_uniqueid=row[3],
        client=row[4],
        account=row[5] or "",
        callerid=row[6],
        number=row[7],
        state=CallState(row[8]),
        currency=row[9],
        reserved=row[10],
        seconds_allowed=row[11],
        date_created=row[12],
        answered_at=row[13],
        rate=Rate(*row[_BEFORE_RATE:]),
    )


def _cdr(row: Sequence[Any]) -> CdrRecord:
    values = list(row)
    values[_STATUS] = CallState(values[_STATUS])
    values[_ESTIMATED] = bool(values[_ESTIMATED])
    return CdrRecord(*values)
