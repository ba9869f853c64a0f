"""Three months of calls, made by the real Ledger and Batcher, and what they must cost.

`fill` books them into a database. `CALLS` says what each was and, computed here by other means
than the program's, what it costs: an accountant's numbers can be checked against it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from math import ceil
from typing import Any, TypeAlias

import pytest

from astcredit.domain.calls import CallRequest, ChannelEnded, HangupReport, LegAnswered
from astcredit.domain.catalog import ClientKind
from astcredit.domain.decisions import CallPolicy
from astcredit.domain.money import parse_amount
from astcredit.domain.numbers import Numbering
from astcredit.domain.rating import Rate
from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_rules import AccountChange
from astcredit.service.administration import Administration
from astcredit.service.batcher import Batcher
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.ledger import Ledger
from astcredit.service.money_desk import MoneyDesk
from astcredit.service.operations import Expire, Operation
from astcredit.service.rate_desk import RateDesk
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.core import BatchLog, Clock, no_orphan, opened
from support.databases import MariaDb

SETUP_MS = 5_000
"""From authorization to answer, in every call here."""
MOST_SECONDS = 3600
TRUNK = "PJSIP/carrier"
HOSTILE_CALLERID = "=cmd|'/c calc'!A0%s\x1b[2J"
"""A formula, a format, a terminal sequence: what a caller can send as his number."""


def ms(text: str) -> int:
    """Milliseconds since 1970 of "2026-11-01 00:00:00.000", UTC."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


@dataclass(frozen=True)
class Tariff:
    """What a destination costs a client, in currency units and seconds."""

    destination: str
    prefix: str
    per_minute: str
    fee: str = "0"
    first: int = 1
    next: int = 1

    def billsec(self, seconds: int) -> int:
        if seconds == 0:
            return 0
        return self.first + ceil(max(0, seconds - self.first) / self.next) * self.next

    def price(self, seconds: int) -> Decimal:
        """By decimals instead of integers of micros."""
        if seconds == 0:
            return Decimal(0)
        exact = Decimal(self.fee) + Decimal(self.per_minute) * self.billsec(seconds) / 60
        return exact.quantize(Decimal("0.000001"), ROUND_CEILING)

    def rate(self) -> Rate:
        return Rate(
            self.prefix,
            self.destination,
            parse_amount(self.per_minute),
            parse_amount(self.fee),
            self.first,
            self.next,
        )


UK = Tariff("United Kingdom", "44", "0.06", first=60, next=60)
GERMANY = Tariff("Germany", "49", "0.03", fee="0.02", first=30, next=6)
USA = Tariff("USA", "1", "0.012345")
UK_USD = Tariff("United Kingdom", "44", "0.10")


@dataclass(frozen=True)
class Made:
    """A call, and how it went: `talk_ms` None where it was not answered."""

    at: str
    account: str
    client: str | None
    number: str
    tariff: Tariff | None = None
    talk_ms: int | None = None
    end: str = "ami"
    dialstatus: str = "ANSWER"
    denied: str = ""
    allowed: int = MOST_SECONDS

    @property
    def month(self) -> str:
        return self.at[:7]

    @property
    def day(self) -> str:
        return self.at[:10]

    @property
    def status(self) -> str:
        if self.denied:
            return "denied"
        if self.end in ("open", "answered"):
            return self.end
        return "failed" if self.talk_ms is None else "completed"

    @property
    def seconds(self) -> int:
        """Seconds talked that are charged."""
        return min(ceil((self.talk_ms or 0) / 1000), self.allowed)

    @property
    def billsec(self) -> int:
        return self.tariff.billsec(self.seconds) if self.tariff else 0

    @property
    def price(self) -> Decimal:
        charged = self.status == "completed" and self.tariff is not None
        return self.tariff.price(self.seconds) if charged and self.tariff else Decimal(0)

    @property
    def currency(self) -> str:
        return {None: "", "dora": "USD"}.get(self.client, "EUR")


CALLS = (
    Made("2026-10-31 23:59:59.500", "anna-desk", "anna", "442071234567", UK, 61_000),
    Made("2026-11-01 00:00:00.000", "anna-desk", "anna", "4930123456", GERMANY, 31_000),
    Made("2026-11-01 09:00:00.000", "anna-mobile", "anna", "12025550123", USA, 6_001),
    Made("2026-11-01 09:10:00.000", "anna-desk", "anna", "442071234567", UK, dialstatus="BUSY"),
    Made("2026-11-01 10:00:00.000", "anna-desk", "anna", "4930123456", GERMANY,
         dialstatus="NOANSWER"),
    Made("2026-11-02 08:00:00.000", "cara", "cara", "442071234567", UK, 120_040, allowed=120),
    Made("2026-11-02 08:10:00.000", "cara", "cara", "442071234567", UK, denied="NOCREDIT"),
    Made("2026-11-02 09:00:00.000", "ghost", None, "442071234567", denied="NOACCOUNT"),
    Made("2026-11-02 09:10:00.000", "bert", "bert", "8812345678", denied="INVALID"),
    Made("2026-11-02 09:20:00.000", "bert", "bert", "442071234567", UK, 0),
    Made("2026-11-03 10:00:00.000", "bert", "bert", "12025550123", USA, 1_200_000),
    Made("2026-11-03 11:00:00.000", "dora", "dora", "442071234567", UK_USD, 90_000),
    Made("2026-11-03 12:00:00.000", "bert", "bert", "4930123456", GERMANY, 3_600_000,
         end="expiry"),
    Made("2026-11-03 16:00:00.000", "bert", "bert", "442071234567", UK, 5_500, end="hangup"),
    Made("2026-11-30 23:59:59.999", "bert", "bert", "4930123456", GERMANY, 30_000),
    Made("2026-12-01 00:00:00.000", "bert", "bert", "442071234567", UK, 1_000),
    Made("2026-12-01 09:00:00.000", "anna-desk", "anna", "442071234567", UK, end="answered"),
    Made("2026-12-01 09:30:00.000", "anna-mobile", "anna", "4930123456", GERMANY, end="open"),
)  # fmt: skip

Booking: TypeAlias = tuple[str, str, str, str, str]
"""When, whose, how much, what, and the reference of a top-up or the note of an adjustment."""

BOOKINGS: tuple[Booking, ...] = (
    ("2026-09-30 12:00:00.000", "anna", "100.00", "topup", "PAY-1"),
    ("2026-09-30 12:01:00.000", "cara", "0.13", "topup", "PAY-2"),
    ("2026-09-30 12:02:00.000", "dora", "10.00", "topup", "PAY-3"),
    ("2026-10-15 08:00:00.000", "anna", "25.50", "topup", "PAY-4"),
    ("2026-11-02 18:00:00.000", "anna", "-1.25", "adjustment", "credit note 7"),
    ("2026-11-20 08:00:00.000", "dora", "5.000001", "topup", "PAY-5"),
)

NOW = "2026-12-01 10:00:00.000"
"""When somebody looks at it all."""


def call_id(made: Made) -> str:
    """Ids in the order of CALLS, which is that of their time."""
    return f"{CALLS.index(made):020}"


async def fill(database: Database) -> None:
    """Create the schema, the catalog and all bookings and calls, in the order of their time."""
    await upgrade(database)
    clock = Clock(ms("2026-09-30 00:00:00.000"))
    store = SqlAdministration(database)
    await _people(store, clock)
    desk = MoneyDesk(store, "ops@test", clock)
    catalog = SqlCatalog(database, inline_rates=1_000)
    rules = CallPolicy(MOST_SECONDS, 300, frozenset({"112"}), Numbering())
    ledger = Ledger(SqlBooks(database), catalog, rules, clock)
    batcher = Batcher(ledger.apply, no_orphan, BatchLog(), most_operations=256)
    batcher.start()
    steps: list[tuple[int, Operation | Booking]] = [(ms(row[0]), row) for row in BOOKINGS]
    steps += [step for made in CALLS for step in _steps(made)]
    for at_ms, step in sorted(steps, key=lambda step: step[0]):
        clock.now_ms = at_ms
        if isinstance(step, tuple):
            await _book(desk, step)
        else:
            await batcher.submit(step)
    assert await batcher.stop(30) == 0
    await catalog.close()


async def _people(store: SqlAdministration, clock: Clock) -> None:
    admin, rates = Administration(store, "ops@test", clock), RateDesk(store, "ops@test", clock)
    accounts = AccountDesk(store, "ops@test", clock)
    for table, currency, tariffs in (
        ("standard", "EUR", (UK, GERMANY, USA)),
        ("dollar", "USD", (UK_USD,)),
    ):
        await admin.add_rate_table(table, currency)
        deck = [tariff.rate() for tariff in tariffs]
        await rates.import_deck(table, deck, 0, replace=False, source="test")
    prepaid, postpaid = ClientKind.PREPAID, ClientKind.POSTPAID
    for name, change in (
        ("anna", ClientChange(prepaid, rate_table="standard")),
        ("bert", ClientChange(postpaid, credit_limit=None, rate_table="standard")),
        ("cara", ClientChange(prepaid, rate_table="standard")),
        ("dora", ClientChange(postpaid, "USD", parse_amount("20"), rate_table="dollar")),
    ):
        await admin.add_client(name, change)
    for client, account in (
        ("anna", "anna-desk"),
        ("anna", "anna-mobile"),
        ("bert", "bert"),
        ("cara", "cara"),
        ("dora", "dora"),
    ):
        await accounts.add(client, account, AccountChange(idents=[account]))


async def _book(desk: MoneyDesk, booking: Booking) -> None:
    _, client, amount, kind, reference = booking
    if kind == "topup":
        await desk.top_up(client, parse_amount(amount), reference)
    else:
        await desk.adjust(client, parse_amount(amount), reference)


def _steps(made: Made) -> Iterator[tuple[int, Operation]]:
    """What the dialplan asks and Asterisk reports of a call, and when."""
    id, node, began = call_id(made), "pbx1", ms(made.at)
    caller, leg = f"caller-{id}", f"leg-{id}"
    callerid = HOSTILE_CALLERID if made.end == "hangup" else "100"
    channel = "PJSIP/x-1"
    yield began, CallRequest(id, node, caller, caller, channel, made.account, callerid, made.number)
    if made.denied or made.end == "open":
        return
    answered, talk_ms = began + SETUP_MS, made.talk_ms or 0
    ended = answered + talk_ms
    if made.status == "failed":
        yield ended, ChannelEnded(node, caller, ended, 17, made.dialstatus, began + 1_000)
    elif made.end == "hangup":
        dialed_ms = talk_ms + 4_000
        yield ended, HangupReport(node, caller, id, ended, talk_ms, dialed_ms, "ANSWER", 16)
    else:
        yield answered, LegAnswered(node, caller, leg, answered, id, TRUNK, began + 1_000)
    if made.end == "expiry":
        last = began + (MOST_SECONDS + 300 + 60) * 1000
        yield last, Expire(id, last)
    elif made.end == "ami" and made.status == "completed":
        yield ended, ChannelEnded(node, leg, ended, 16, "ANSWER")


@contextmanager
def filled(
    kind: str,
    request: pytest.FixtureRequest,
    make: Callable[[Database], Awaitable[None]] = fill,
) -> Iterator[str]:
    """The address of a database of that kind ("sqlite", "mariadb") with all of it; for fixtures
    of a whole module, whose tests only read. `make` fills it."""
    if kind == "sqlite":
        folder = request.getfixturevalue("tmp_path_factory").mktemp("filled")
        asyncio.run(_fill_at(f"sqlite:///{folder / 'astcredit.db'}", make))
        yield f"sqlite:///{folder / 'astcredit.db'}"
        return
    server: MariaDb = request.getfixturevalue("mariadb")
    name = server.create_database()
    asyncio.run(_fill_at(server.url(name), make))
    yield server.url(name)
    server.drop_database(name)


async def _fill_at(url: str, make: Callable[[Database], Awaitable[None]]) -> None:
    async with opened(url) as database:
        await make(database)


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    """Run a query on the database at `url`; its rows, alike for both kinds of database."""

    async def run() -> list[dict[str, Any]]:
        async with opened(url) as database:
            return plain(await query(database, sql))

    return asyncio.run(run())


async def query(database: Database, sql: str) -> list[dict[str, Any]]:
    """Run a query as it stands, as an accountant's client would."""
    async with database.reading(seconds=None) as connection:
        result = await connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
        return [dict(row) for row in result.mappings()]


async def somebody_waits(database: Database) -> bool:
    """Whether a transaction waits for a row that another has locked (MariaDB)."""
    # Not information_schema.innodb_trx: who asks more often than ten times a second gets old news.
    (row,) = await query(database, "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
    return int(row["Value"]) > 0


def plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which the two kinds of database show equal things alike."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


_AMOUNT = re.compile(r"-?\d+\.\d{6}")


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat(sep=" ", timespec="milliseconds")
        case date():
            return value.isoformat()
        case int() | float() | Decimal():
            return Decimal(str(value))
        case str() if _AMOUNT.fullmatch(value):
            return Decimal(value)
        case str() if value.startswith("adjust:"):  # ends in an id of chance
            return "adjust:"
        case _:
            return value
