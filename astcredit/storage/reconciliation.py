"""Reconciling in SQL: the calls in doubt, and their CDRs once it is known what they were."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.books import ClientBooks
from astcredit.domain.correction import CallInDoubt, Correction, Finding
from astcredit.domain.rating import Rate
from astcredit.domain.states import CallState
from astcredit.domain.witness import ChannelCall
from astcredit.service.history_ports import AuditEntry
from astcredit.service.reconciliation_ports import DoubtfulCall
from astcredit.storage.admin_history import SqlHistory
from astcredit.storage.books import SqlBooksTransaction
from astcredit.storage.database import Database
from astcredit.storage.sessions import CoreSession
from astcredit.storage.sql import SqlDialect
from astcredit.storage.tables import astcdr, astclient, astcreditres, astledger, fit

# So many ids go into one statement: SQLite takes 32,766 parameters.
IDS_AT_ONCE = 1_000

_OVER = (CallState.COMPLETED, CallState.FAILED)


class SqlReconciliation:
    """The calls in doubt of one database. Implements
    `astcredit.service.reconciliation_ports.ReconciliationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def doubtful(self, node: str | None) -> Sequence[DoubtfulCall]:
        """The calls that are open and those that are over but estimated, oldest first."""
        found: list[DoubtfulCall] = []
        async with self._database.reading(seconds=None) as connection:
            for statement in (_OPEN, _ESTIMATED):
                wanted = statement if node is None else statement.where(astcdr.c.node == node)
                rows = await connection.execute(wanted)
                found.extend(DoubtfulCall(_call(row), row.client, row.currency) for row in rows)
        return sorted(found, key=lambda doubtful: doubtful.call.call_id)

    async def calls_of(self, uniqueids: Collection[str]) -> Sequence[ChannelCall]:
        """All calls that were made by channels of these uniqueids, oldest first."""
        c = astcdr.c
        made = select(c.id, c.node, c.uniqueid, c.date_created, c.dialednum).where(
            c.status != CallState.DENIED
        )
        found: list[ChannelCall] = []
        async with self._database.reading(seconds=None) as connection:
            for ids in _chunks(uniqueids):
                rows = await connection.execute(made.where(c.uniqueid.in_(ids)))
                found.extend(ChannelCall(*row) for row in rows)
        return sorted(found, key=lambda call: call.call_id)

    async def heard_until(self, nodes: Collection[str]) -> Mapping[str, int]:
        """Up to when all that happened on those nodes is on record; nothing for others."""
        if not nodes:
            return {}
        async with self.looking() as transaction:
            return await transaction.books.heard_until(nodes)

    @asynccontextmanager
    async def booking(self) -> AsyncIterator[SqlReconciliationTransaction]:
        """A transaction that changes the books."""
        async with self._database.transaction() as connection:
            yield SqlReconciliationTransaction(connection, self._database.dialect, locks=True)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[SqlReconciliationTransaction]:
        """A transaction that only reads, and sees one state of everything."""
        async with self._database.reading(seconds=None) as connection:
            yield SqlReconciliationTransaction(connection, self._database.dialect, locks=False)


class SqlReconciliationTransaction:
    """One transaction. Implements
    `astcredit.service.reconciliation_ports.ReconciliationTransaction`."""

    def __init__(self, connection: AsyncConnection, dialect: SqlDialect, *, locks: bool) -> None:
        self._connection = connection
        self._locks = locks
        self.books = SqlBooksTransaction(CoreSession(connection), dialect)
        self._history = SqlHistory(connection, dialect)

    async def clients(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """The books of clients, locked in the one fixed order if they may be changed."""
        read = self.books.lock_clients if self._locks else self.books.read_clients
        return await read(ids) if ids else {}

    async def estimated(self, call_ids: Collection[str]) -> Sequence[CallInDoubt]:
        """Those of the calls that are over and still estimated."""
        found: list[CallInDoubt] = []
        for ids in _chunks(call_ids):
            rows = await self._connection.execute(_ESTIMATED.where(astcdr.c.id.in_(ids)))
            found.extend(map(_call, rows))
        return sorted(found, key=lambda call: call.call_id)

    async def write(self, corrections: Sequence[Correction], now_ms: int) -> None:
        """Note in their CDRs what was found out about calls."""
        if corrections:
            values = [_values(correction, now_ms) for correction in corrections]
            await self._connection.execute(_CORRECT, values)

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows to astaudit, in their order."""
        await self._history.add_all(entries)


_corrections = (
    select(func.count())
    .select_from(astledger)
    .where(astledger.c.call_id == astcdr.c.id, astledger.c.kind != "charge")
    .scalar_subquery()
)

_charged_at = (
    select(func.min(astledger.c.date_created))
    .where(astledger.c.call_id == astcdr.c.id, astledger.c.kind == "charge")
    .scalar_subquery()
)

_ALL: Select[Any] = select(
    astcdr,
    astclient.c.name.label("client"),
    astcreditres.c.expires_at,
    _corrections.label("corrections"),
    func.coalesce(_charged_at, astcdr.c.ended_at).label("booked_at"),
).where(astcdr.c.rate.is_not(None))

_OPEN: Select[Any] = _ALL.join_from(
    astcreditres, astcdr, astcdr.c.id == astcreditres.c.call_id
).join(astclient, astclient.c.id == astcdr.c.client_id)

# There is no index for it: a look through the CDRs, a second for a million, when somebody asks.
_ESTIMATED: Select[Any] = (
    _ALL.join_from(astcdr, astclient, astclient.c.id == astcdr.c.client_id)
    .outerjoin(astcreditres, astcreditres.c.call_id == astcdr.c.id)
    .where(astcdr.c.estimated == 1, astcdr.c.status.in_(_OVER))
)

_CORRECT = (
    update(astcdr)
    .where(astcdr.c.id == bindparam("key"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in (
                "estimated", "note", "corrected", "corrected_at", "corrected_billsec",
                "corrected_answeredtime", "corrected_ourcost",
            )
        }
    )
)  # fmt: skip


def _values(correction: Correction, now_ms: int) -> dict[str, Any]:
    call = correction.call
    note = f"{correction.note}; before: {call.note}" if call.note else correction.note
    money = correction.entry is not None or call.corrections > 0
    wrong = correction.finding is not Finding.CONFIRMED
    ourcost = call.corrected_ourcost + correction.ourcost
    return {
        "key": call.call_id,
        "new_estimated": 0,
        "new_note": fit(astcdr, "note", note),
        "new_corrected": call.corrected - correction.amount if money else None,
        "new_corrected_at": now_ms,
        "new_corrected_billsec": correction.billsec if wrong else None,
        "new_corrected_answeredtime": correction.talk_ms if wrong else None,
        "new_corrected_ourcost": ourcost if wrong and call.cost_rate is not None else None,
    }


def _chunks(ids: Collection[str]) -> Iterator[Sequence[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), IDS_AT_ONCE):
        yield ordered[start : start + IDS_AT_ONCE]


def _call(row: Any) -> CallInDoubt:
    over = row.status in _OVER
    return CallInDoubt(
        call_id=row.id,
        client_id=row.client_id,
        node=row.node,
        uniqueid=row.uniqueid,
        channel=row.channel,
        leg_uniqueid=row.leg_uniqueid,
        dialled=row.dialednum,
        state=CallState(row.status),
        created_at_ms=row.date_created,
        answered_at_ms=row.answered_at,
        expires_at_ms=row.expires_at,
        rate=_rate(row, row.prefix, ""),
        reserved=row.reservedamount,
        seconds=row.seconds,
        billsec=row.billsec or 0,
        price=(row.price or 0) if over else None,
        ourcost=row.ourcost,
        cost_rate=None if row.cost_rate is None else _rate(row, row.cost_prefix, "cost_"),
        corrected=row.corrected or 0,
        corrected_ourcost=row.corrected_ourcost or 0,
        corrections=row.corrections,
        periods=() if row.quota_month is None else (row.quota_month, row.quota_day),
        booked_at_ms=row.booked_at,
        note=row.note,
    )


def _rate(row: Any, prefix: str, start: str) -> Rate:
    """The rate in the columns that begin so."""
    values = row._mapping
    return Rate(
        prefix,
        row.destination,
        values[f"{start}rate"],
        values[f"{start}connect_fee"],
        values[f"{start}first_increment"],
        values[f"{start}next_increment"],
        values[f"{start}grace_seconds"],
        values[f"{start}minimum_charge"],
    )
