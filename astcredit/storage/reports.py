"""Calls as reports show them, read with the indexes that settlement has anyway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, or_, select

from astcredit.domain.rating import Rate
from astcredit.domain.states import CallState
from astcredit.service.call_filters import ActiveFilter, CdrFilter
from astcredit.service.reports import ALL_ACTIVE, ActiveCall, CdrRecord
from astcredit.service.routing_rules import EVERY_NUMBER
from astcredit.storage.database import Database
from astcredit.storage.tables import (
    astaccount,
    astcdr,
    astclient,
    astcreditres,
    astreseller,
    astroute,
    astroutingplan,
    id_of,
)

# Rows of an export that are in memory at once: a few megabytes, and statements enough apart that
# their cost does not show.
PAGE_ROWS = 2_000


class SqlReports:
    """Reads the calls of one database. Implements `astcredit.service.reports.Reports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active_calls(self, wanted: ActiveFilter = ALL_ACTIVE) -> Sequence[ActiveCall]:
        """The calls that are up or being set up, oldest first."""
        statement = _ACTIVE.where(*_up(wanted)).order_by(astcreditres.c.call_id)
        async with self._database.reading(seconds=None) as connection:
            return [_active_call(row) for row in await connection.execute(statement)]

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


def _up(wanted: ActiveFilter) -> Iterator[ColumnElement[bool]]:
    c = astcreditres.c
    if wanted.reseller is not None:
        yield c.reseller_id == id_of(astreseller, wanted.reseller)
    if wanted.client is not None:
        yield c.client_id == id_of(astclient, wanted.client)
    if wanted.account is not None:
        yield c.account_id == id_of(astaccount, wanted.account)
    if wanted.terminator is not None:
        yield c.term_account_id == id_of(astaccount, wanted.terminator)
    if wanted.plan is not None:
        yield astroutingplan.c.name == wanted.plan
    if wanted.prefix is not None:
        yield astroute.c.prefix == wanted.prefix


def _matching(wanted: CdrFilter) -> Select[Any]:
    return _CDRS.where(*_by_names(wanted), *_by_values(wanted))


def _by_names(wanted: CdrFilter) -> Iterator[ColumnElement[bool]]:
    """By the ids: a name is looked up once, and the index is (client_id, date_created)."""
    c = astcdr.c
    if wanted.client is not None:
        yield c.client_id == id_of(astclient, wanted.client)
    if wanted.account is not None:
        named = astaccount.c.name == wanted.account
        yield c.client_id == select(astaccount.c.client_id).where(named).scalar_subquery()
        yield c.account_id == id_of(astaccount, wanted.account)
    if wanted.reseller is not None:
        yield c.reseller_id == id_of(astreseller, wanted.reseller)
    if wanted.terminator is not None:
        yield c.term_account_id == id_of(astaccount, wanted.terminator)


def _by_values(wanted: CdrFilter) -> Iterator[ColumnElement[bool]]:
    c = astcdr.c
    if wanted.from_ms is not None:
        yield c.date_created >= wanted.from_ms
    if wanted.until_ms is not None:
        yield c.date_created < wanted.until_ms
    if wanted.status is not None:
        yield c.status == wanted.status


_terminator = astaccount.alias("terminator")
_ROUTE: Mapping[str, ColumnElement[Any]] = {
    "routing_plan": astroutingplan.c.name,
    "route_prefix": case((astroute.c.prefix == "", EVERY_NUMBER), else_=astroute.c.prefix),
    "terminator": _terminator.c.name,
}
"""The route's names, as the views have them."""

_CDR_FIELDS = tuple(field.name for field in fields(CdrRecord))
_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    **dict(astcdr.c),
    "client": astclient.c.name,
    "account": astaccount.c.name,
    "reseller": astreseller.c.name,
    **_ROUTE,
}
_CDRS: Select[Any] = (
    select(*(_COLUMNS[name].label(name) for name in _CDR_FIELDS))
    .select_from(astcdr)
    .outerjoin(astclient, astclient.c.id == astcdr.c.client_id)
    .outerjoin(astaccount, astaccount.c.id == astcdr.c.account_id)
    .outerjoin(astreseller, astreseller.c.id == astcdr.c.reseller_id)
    .outerjoin(astroute, astroute.c.id == astcdr.c.route_id)
    .outerjoin(astroutingplan, astroutingplan.c.id == astroute.c.routing_plan_id)
    .outerjoin(_terminator, _terminator.c.id == astcdr.c.term_account_id)
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
        astcdr.c.leg_uniqueid,
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
        astreseller.c.name,
        *_ROUTE.values(),
        astcdr.c.ani,
        astcdr.c.source,
        *(astcdr.c[name] for name in _RATE),
    )
    .join_from(astcreditres, astcdr, astcdr.c.id == astcreditres.c.call_id)
    .join(astclient, astclient.c.id == astcreditres.c.client_id)
    .outerjoin(astaccount, astaccount.c.id == astcdr.c.account_id)
    .outerjoin(astreseller, astreseller.c.id == astcreditres.c.reseller_id)
    .outerjoin(astroute, astroute.c.id == astcreditres.c.route_id)
    .outerjoin(astroutingplan, astroutingplan.c.id == astroute.c.routing_plan_id)
    .outerjoin(_terminator, _terminator.c.id == astcreditres.c.term_account_id)
)
_BEFORE_RATE = 20


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
        reseller=row[14],
        routing_plan=row[15],
        route_prefix=row[16],
        terminator=row[17],
        ani=row[18],
        source=row[19],
        rate=Rate(*row[_BEFORE_RATE:]),
    )


def _cdr(row: Sequence[Any]) -> CdrRecord:
    values = list(row)
    values[_STATUS] = CallState(values[_STATUS])
    values[_ESTIMATED] = bool(values[_ESTIMATED])
    return CdrRecord(*values)
