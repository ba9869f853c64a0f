"""Builders for tests of the core: catalogs, requests, books; and the books of an SQL database.

Everything stands on the same small world: client 1 has the accounts "alice" and "alan", client 2
has "bob"; calls to 44… cost 0.06 a minute (a thousandth a second), 1/1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, fields, replace
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import Account
from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind
from astcredit.domain.calls import CallRequest, ChannelEnded, HangupReport, LegAnswered, Origin
from astcredit.domain.capacity import Occupancy, Uses
from astcredit.domain.catalog import Catalog, ClientKind, ClientSettings, compile_catalog
from astcredit.domain.decisions import CallPolicy, Decision, Rows, decide
from astcredit.domain.numbers import Numbering
from astcredit.domain.quotas import Usage
from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.domain.rating import Rate
from astcredit.domain.screening import screen
from astcredit.service.batcher import Batcher
from astcredit.service.ledger import Ledger
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database, open_database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import (
    astaccount,
    astcapacity,
    astcatalog,
    astcdr,
    astclient,
    astcreditres,
    astledger,
    astquota,
    astrate,
    astratetable,
)
from support.memory_books import CdrRow, ReservationRow, Snapshot, opening

NOW_MS = 1_800_000_000_000
NODE = "pbx1"
RATE = Rate("44", "United Kingdom", 60_000)
"""0.06 a minute, by the second: a thousandth (1,000 micros) for each."""

EMERGENCY = "112"
LONGEST_SECONDS = 3600
SETUP_SECONDS = 300


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def policy(max_seconds: int = LONGEST_SECONDS, numbering: Numbering | None = None) -> CallPolicy:
    return CallPolicy(
        max_seconds=max_seconds,
        setup_seconds=SETUP_SECONDS,
        emergency_numbers=frozenset({EMERGENCY}),
        numbering=numbering or Numbering(),
    )


def rate_row(rate: Rate = RATE, until_ms: int | None = None) -> RateRow:
    return RateRow(**asdict(rate), effective_until_ms=until_ms)


def rate_table(*rates: Rate, id: int = 1, name: str = "standard", version: int = 1) -> RateTable:
    return RateTable(id, name, "EUR", version, [rate_row(rate) for rate in rates or (RATE,)])


def settings(id: int = 1, rate_table_id: int | None = 1, enabled: bool = True) -> ClientSettings:
    return ClientSettings(id, f"client{id}", "EUR", rate_table_id, enabled)


def account(
    name: str,
    client_id: int = 1,
    id: int = 1,
    rate_table_id: int | None = None,
    enabled: bool = True,
    idents: tuple[str, ...] = (),
) -> Account:
    return Account(id, client_id, name, idents or (name,), rate_table_id, enabled)


def catalog_of(
    clients: Iterable[ClientSettings] = (),
    accounts: Iterable[Account] = (),
    tables: Iterable[RateTable] = (),
    version: int = 1,
) -> Catalog:
    """A catalog; what is not given is the small world's."""
    clients = list(clients) or [settings(1), settings(2)]
    accounts = list(accounts) or [
        account("alice", 1, 1),
        account("alan", 1, 2),
        account("bob", 2, 3),
    ]
    return compile_catalog(
        version,
        {client.id: client for client in clients},
        {account.id: account for account in accounts},
        {table.id: table for table in list(tables) or [rate_table()]},
    )


class FixedCatalog:
    """A `CatalogSource` that has one catalog."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.catalog = catalog or catalog_of()

    async def at_least(self, version: int) -> Catalog:
        return self.catalog


def prepaid(
    id: int = 1, balance: int = 1_000_000, credit_limit: int = 0, reserved: int = 0
) -> ClientBooks:
    return ClientBooks(id, ClientKind.PREPAID, balance, credit_limit, reserved, 0, 0)


def postpaid(id: int = 1, balance: int = 0, credit_limit: int | None = None) -> ClientBooks:
    return ClientBooks(id, ClientKind.POSTPAID, balance, credit_limit, 0, 0, 0)


def call_id(number: int) -> str:
    return f"C{number:019}"


def request(
    number: int = 1,
    accountcode: str = "alice",
    dialled: str = "442071234567",
    channel: str = "",
    node: str = NODE,
) -> CallRequest:
    """The `number`th call: its id, and its calling channel unless that is given."""
    uniqueid = channel or f"caller-{number}"
    return CallRequest(
        call_id(number), node, uniqueid, uniqueid, "PJSIP/x-1", accountcode, "100", dialled
    )


def answered(
    number: int = 1,
    at_ms: int = NOW_MS,
    *,
    by_id: bool = True,
    channel: str = "",
    leg: str = "",
) -> LegAnswered:
    """The outbound leg of the `number`th call is answered."""
    return LegAnswered(
        NODE,
        channel or f"caller-{number}",
        leg or f"leg-{number}",
        at_ms,
        call_id(number) if by_id else "",
        "PJSIP/carrier",
        at_ms - 5_000,
    )


def leg_ended(number: int = 1, at_ms: int = NOW_MS, leg: str = "") -> ChannelEnded:
    return ChannelEnded(NODE, leg or f"leg-{number}", at_ms, 16, "ANSWER")


def caller_ended(
    number: int = 1, at_ms: int = NOW_MS, channel: str = "", dialstatus: str = "BUSY"
) -> ChannelEnded:
    return ChannelEnded(NODE, channel or f"caller-{number}", at_ms, 17, dialstatus, at_ms - 3_000)


def hangup(
    number: int = 1,
    at_ms: int = NOW_MS,
    talk_ms: int = 0,
    dialstatus: str = "ANSWER",
    transfer: str = "",
    by_id: bool = True,
) -> HangupReport:
    named = call_id(number) if by_id else ""
    return HangupReport(
        NODE, f"caller-{number}", named, at_ms, talk_ms, talk_ms + 5_000, dialstatus, 16, transfer
    )


def identified(catalog: Catalog, accountcode: str) -> Account | None:
    """The account whose name the accountcode is, if any."""
    found = catalog.identify(Origin(NODE, accountcode=accountcode))
    return found.account if found else None


def decided(
    request: CallRequest,
    catalog: Catalog,
    client: ClientBooks | None,
    call_policy: CallPolicy | None = None,
    *,
    uses: Uses | None = None,
    now_ms: int = NOW_MS,
) -> Decision:
    """What catalog and books say of a request, as a ledger with these rows would."""
    rules = call_policy or policy()
    screened = screen(request, catalog, rules, now_ms)
    if isinstance(screened, Decision):
        return replace(screened, client=client)
    assert client is not None
    return decide(screened, Rows(client, uses or {}, {}, now_ms), rules)


class BatchLog:
    """Notes what a batcher reports."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.failed: list[Exception] = []
        self.first_failure = asyncio.Event()

    def batch_done(self, operations: int, seconds: float) -> None:
        self.done.append(operations)

    def batch_failed(self, error: Exception) -> None:
        self.failed.append(error)
        self.first_failure.set()

    def queue_length(self, operations: int) -> None:
        pass


def no_orphan(request: CallRequest, decision: object) -> None:
    raise AssertionError(f"{request.call_id} was given back")


# A database with the small world in it


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database at `url`, closed at the end."""
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


async def seed(
    database: Database, clients: Iterable[ClientBooks] = (), rates: Sequence[Rate] = (RATE,)
) -> None:
    """Create the schema and the small world; balances are booked as top-ups."""
    await upgrade(database)
    people = [("alice", 1), ("alan", 1), ("bob", 2)]
    clients = list(clients) or [prepaid(1), prepaid(2)]
    known = {client.id for client in clients}
    async with database.transaction(seconds=None) as connection:
        await add_rate_table(connection, 1, "standard", rates)
        for client in clients:
            await add_client(connection, client)
        for id, (name, client_id) in enumerate(people, 1):
            if client_id in known:
                await add_account(connection, id, client_id, name)


async def add_rate_table(
    connection: AsyncConnection, id: int, name: str, rates: Sequence[Rate]
) -> None:
    await connection.execute(
        insert(astratetable).values(
            id=id,
            name=name,
            currency="EUR",
            version=1,
            rates=len(rates),
            enabled=1,
            date_created=NOW_MS,
        )
    )
    rows = [_rate_values(rate) | {"rate_table_id": id} for rate in rates]
    await connection.execute(insert(astrate), rows)


def _rate_values(rate: Rate) -> dict[str, Any]:
    values: dict[str, Any] = asdict(rate)
    return values | {"effective_from": values.pop("effective_from_ms"), "effective_until": None}


async def add_client(connection: AsyncConnection, client: ClientBooks) -> None:
    books, entry = opening(client)
    await connection.execute(
        insert(astclient).values(
            name=f"client{books.id}",
            currency="EUR",
            rate_table_id=1,
            email="",
            enabled=1,
            date_created=NOW_MS,
            **asdict(books),
        )
    )
    row: dict[str, Any] = asdict(entry)
    row["date_created"] = row.pop("created_at_ms")
    await connection.execute(insert(astledger).values(**row))


async def add_account(
    connection: AsyncConnection, id: int, client_id: int, name: str, ident: str = ""
) -> None:
    await connection.execute(
        insert(astaccount).values(
            id=id,
            client_id=client_id,
            name=name,
            ident_by="name",
            ident=ident or name,
            tag="",
            notes="",
            enabled=1,
            date_created=NOW_MS,
        )
    )


async def change_catalog(database: Database, *statements: str) -> None:
    """Change what people configure, and say so, as an administrator would with SQL."""
    async with database.transaction(seconds=None) as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)
        await connection.exec_driver_sql("UPDATE astcatalog SET version = version + 1")


MONEY = tuple(field.name for field in fields(ClientBooks))


async def snapshot(database: Database) -> Snapshot:
    """All rows of the database's books."""
    async with database.reading(seconds=None) as connection:
        clients = await connection.execute(
            select(*(astclient.c[name] for name in MONEY)).order_by(astclient.c.id)
        )
        cdrs = await connection.execute(select(astcdr).order_by(astcdr.c.id))
        held = await connection.execute(select(astcreditres).order_by(astcreditres.c.call_id))
        ledger = await connection.execute(
            select(astledger).order_by(astledger.c.client_id, astledger.c.seq)
        )
        counters = await connection.execute(select(astcapacity).order_by(astcapacity.c.id))
        usages = await connection.execute(
            select(astquota).order_by(astquota.c.client_id, astquota.c.period)
        )
        return Snapshot(
            tuple(ClientBooks(r.id, ClientKind(r.kind), *r[2:]) for r in clients),
            tuple(_cdr_row(row) for row in cdrs),
            tuple(
                ReservationRow(
                    r.call_id,
                    r.client_id,
                    r.reservedamount,
                    _occupancy(r),
                    tuple(map(int, filter(None, r.routes_tried.split(",")))),
                    () if r.quota_month is None else (r.quota_month, r.quota_day),
                )
                for r in held
            ),
            tuple(_ledger_entry(row) for row in ledger),
            tuple((r.id, r.calls) for r in counters if r.calls),
            tuple(((r.client_id, r.period), Usage(*r[2:])) for r in usages),
        )


def _cdr_row(row: Row[Any]) -> CdrRow:
    return CdrRow(
        row.id,
        row.client_id,
        row.status,
        row.denied,
        row.seconds,
        row.reservedamount,
        row.leg_uniqueid,
        row.dialed_at,
        row.answered_at,
        row.ended_at,
        row.answeredtime,
        row.billsec,
        row.price,
        row.overrun_ms,
        row.dialstatus,
        row.settled_by,
        bool(row.estimated),
        row.ourcost,
        row.tried,
        row.callerid,
        row.callednum,
        row.route_id,
        () if row.quota_month is None else (row.quota_month, row.quota_day),
    )


def _occupancy(row: Row[Any]) -> Occupancy:
    return Occupancy(
        row.account_id,
        row.reseller_id,
        row.route_id,
        row.term_account_id,
        row.term_client_id,
        row.term_reseller_id,
    )


def _ledger_entry(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        row.client_id,
        row.seq,
        LedgerKind(row.kind),
        row.amount,
        row.balance_after,
        row.call_id,
        row.reference,
        row.actor,
        row.note,
        row.date_created,
    )


@asynccontextmanager
async def server(
    database: Database,
    *,
    most_operations: int = 256,
    call_policy: CallPolicy | None = None,
    log: BatchLog | None = None,
) -> AsyncIterator[Batcher]:
    """A running batcher on the books of a database, as a server process has it."""
    source = SqlCatalog(database, inline_rates=1_000)
    ledger = Ledger(SqlBooks(database), source, call_policy or policy(), Clock())
    batcher = Batcher(ledger.apply, no_orphan, log or BatchLog(), most_operations=most_operations)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop(10)
        await source.close()


def authorize_in_a_process(
    url: str, numbers: Sequence[int], ready: Barrier, statuses: SimpleQueue[list[str]]
) -> None:
    """A server process of its own: authorizes calls of alice, all at once, when all are ready."""

    async def run() -> list[str]:
        async with opened(url) as database, server(database) as batcher:
            async with database.reading() as connection:  # connected before the start
                await connection.execute(select(astcatalog.c.version))
            ready.wait(60)
            outcomes = await asyncio.gather(*(batcher.submit(request(n)) for n in numbers))
            return [o.status.value for o in outcomes if isinstance(o, Decision)]

    statuses.put(asyncio.run(run()))
