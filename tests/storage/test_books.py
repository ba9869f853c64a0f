"""The books in SQL do what the simple books in memory do, on SQLite and on MariaDB."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from astcredit.domain.accounts import IdentKind, SourcePolicy
from astcredit.domain.books import OpenCall
from astcredit.domain.calls import CallRequest
from astcredit.domain.decisions import Decision
from astcredit.domain.money import amount_text
from astcredit.domain.rating import Rate
from astcredit.service.batcher import Batcher
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Changed, Expire, Operation, Outcome, Undelivered
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.sessions import CoreSession
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    Clock,
    FixedCatalog,
    account,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    opened,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
    server,
    snapshot,
)
from support.memory_books import MemoryBooks, audit
from support.plans import ACCOUNTS, Exchange, next_route, routed
from support.processes import authorized_by_processes
from support.stored_plans import store

FULL_CALL = LONGEST_SECONDS * 1_000
"""What the longest call of the small world holds."""


def history(seed: int, length: int) -> list[list[Operation]]:
    """Calls and what is said of them, sensibly and not, in batches."""
    chance = random.Random(seed)
    operations: list[Operation] = []
    for _ in range(length):
        number, at_ms = chance.randrange(1, 30), NOW_MS + chance.randrange(4_000_000)
        who, channel = chance.choice(["alice", "alan", "bob", "x"]), chance.choice(["", "shared"])
        dialled = chance.choice(["442071234567", "+44 1", "112", "999", "x"])
        fresh = request(len(operations) + 100, who, dialled, f"caller-{number}")
        known = request(number, who, dialled, channel)
        possible: list[Operation] = [
            fresh if any(_is(o, number) for o in operations) else known,
            answered(number, at_ms, by_id=chance.random() < 0.5, channel=channel),
            leg_ended(number, at_ms),
            caller_ended(number, at_ms, channel=channel),
            hangup(number, at_ms, chance.randrange(5_000), chance.choice(["BUSY", "", "ANSWER"])),
            Undelivered(call_id(number), at_ms),
            Expire(call_id(number), at_ms),
        ]
        operations.append(chance.choice(possible))
    batches = []
    while operations:
        size = chance.randrange(1, 12)
        batches.append(operations[:size])
        operations = operations[size:]
    return batches


def _is(operation: Operation, number: int) -> bool:
    return isinstance(operation, CallRequest) and operation.call_id == call_id(number)


@pytest.mark.parametrize("chance", range(4))
def test_they_are_the_same_as_the_books_in_memory(database_url: str, chance: int) -> None:
    clients = [prepaid(1, 12_345_678, 500_001), postpaid(2, -7, None if chance % 2 else 9_000_000)]

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, clients)
            clock, memory = Clock(), MemoryBooks(clients)
            source = SqlCatalog(database, inline_rates=10)
            ledgers = [
                Ledger(SqlBooks(database), source, policy(), clock),
                Ledger(memory, FixedCatalog(), policy(), clock),
            ]
            for number, batch in enumerate(history(chance, 400)):
                clock.now_ms += 60_000
                for ledger in ledgers:
                    await ledger.apply(batch, {}, [])
                if number % 5 == 0:
                    assert await snapshot(database) == memory.snapshot()
            books = await snapshot(database)
            assert books == memory.snapshot()
            assert audit(books) == []
            assert set(books.statuses()) >= {"open", "completed", "failed", "NOACCOUNT", "INVALID"}
            for client in books.clients:
                assert await SqlBooks(database).client_books(client.id) == client
            late = sorted(memory.calls.values(), key=lambda call: call.expires_at_ms)
            limit_ms = late[len(late) // 2].expires_at_ms
            due = await SqlBooks(database).expired(limit_ms, 1_000)
            assert sorted(due) == list(await memory.expired(limit_ms, 1_000))
            assert len(await SqlBooks(database).expired(limit_ms, 1)) == 1
            await source.close()

    asyncio.run(main())


async def one_row(database: Database, statement: str) -> dict[str, object]:
    async with database.reading() as connection:
        row = (await connection.exec_driver_sql(statement)).one()
        return {name: row._mapping[name] for name in row._mapping}


MONEY = frozenset({
    "rate", "connect_fee", "minimum_charge", "price", "reservedamount",
    "ourcost", "cost_rate", "cost_connect_fee", "cost_minimum_charge",
})  # fmt: skip
TIMES = ("date_created", "dialed_at", "answered_at", "ended_at")
CDR = {
    "id": call_id(1),
    "node": NODE,
    "uniqueid": "caller-1",
    "linkedid": "caller-1",
    "leg_uniqueid": "leg-1",
    "channel": "PJSIP/x-1",
    "client_id": "1",
    "account_id": "1",
    "accountcode": "alice",
    "callerid": "100",
    "ani": "100",
    "source": "",
    "ident_by": "name",
    "tech_prefix": "",
    "dialednum": "+44 20 7123",
    "callednum": "44207123",
    "prefix": "44",
    "destination": "United Kingdom",
    "currency": "EUR",
    "rate": "0.060000",
    "connect_fee": "0.000000",
    "first_increment": "1",
    "next_increment": "1",
    "grace_seconds": "0",
    "minimum_charge": "0.000000",
    "trunk": "PJSIP/carrier",
    "status": "completed",
    "denied": "",
    "reason": "",
    "dialstatus": "ANSWER",
    "hangupcause": "16",
    "date_created": "2027-01-15 08:00:00.000",
    "dialed_at": "2027-01-15 08:00:03.000",
    "answered_at": "2027-01-15 08:00:08.000",
    "ended_at": "2027-01-15 08:00:10.003",
    "dialedtime": "7.003",
    "answeredtime": "2.003",
    "seconds": "1000",
    "billsec": "3",
    "price": "0.003000",
    "reservedamount": "1.000000",
    "overrun_ms": "0",
    "settled_by": "ami",
    "estimated": "0",
    "note": "",
    "tried": "",
    "cost_prefix": "",
    "quota_month": "2027-01",
    "quota_day": "2027-01-15",
}
"""A call on the dialplan's own trunk; what is not here is NULL."""


async def cdr(database: Database) -> dict[str, str]:
    """The row of the only call, as both kinds of database would show it: without NULLs, times with
    milliseconds, money in decimals."""
    row = await one_row(database, "SELECT * FROM astcdr")
    shown = {name: str(value) for name, value in row.items() if value is not None}
    for name in TIMES:
        # A driver's datetime shows six digits of a second, or none.
        text = shown[name] if "." in shown[name] else shown[name] + "."
        shown[name] = text.ljust(26, "0")[:23]
    for name in MONEY & shown.keys() if database.is_sqlite else ():
        shown[name] = amount_text(int(shown[name]))
    return shown


def test_the_cdr_of_a_call_as_an_accountant_reads_it(database_url: str) -> None:
    """Column by column: money in decimals on MariaDB, in millionths on SQLite."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            async with server(database) as batcher:
                await batcher.submit(request(1, dialled="+44 20 7123"))
                await batcher.submit(answered(1, NOW_MS + 8_000))
                await batcher.submit(leg_ended(1, NOW_MS + 10_003))
            assert await cdr(database) == CDR

    asyncio.run(main())


ROUTED = {
    "account_id": "7",
    "accountcode": "",
    "callerid": "442079999999",
    "ani": "030 555",
    "source": "10.1.2.3:5060",
    "ident_by": "ip",
    "tech_prefix": "77",
    "dialednum": "7744 20 7123",
    "reservedamount": "3.600000",
    "seconds": "3600",
    "reseller_id": "1",
    "route_id": "22",
    "term_account_id": "12",
    "tried": "c1 CONGESTION 34",
    "cost_prefix": "44",
    "cost_rate": "0.020000",
    "cost_connect_fee": "0.000000",
    "cost_first_increment": "60",
    "cost_next_increment": "60",
    "cost_grace_seconds": "0",
    "cost_minimum_charge": "0.000000",
    "ourcost": "0.020000",
}


def test_the_cdr_of_a_routed_call_shows_who_called_and_who_carried_it(database_url: str) -> None:
    """By address and tech prefix, with a number in place of the caller's, over the second route."""
    gate = replace(
        account("gate", id=7, idents=("10.1.2.0/24",)),
        ident_by=IdentKind.IP,
        tech_prefix="77",
        source_policy=SourcePolicy.OVERWRITE,
        dids=("442079999999",),
    )
    asked = replace(request(1, "", "7744 20 7123"), source="10.1.2.3:5060", callerid="030 555")

    async def main() -> None:
        async with opened(database_url) as database:
            await store(database, routed(accounts=[*ACCOUNTS, gate]))
            async with server(database) as batcher:
                await batcher.submit(asked)
                await batcher.submit(next_route(1))
                await batcher.submit(answered(1, NOW_MS + 8_000))
                await batcher.submit(leg_ended(1, NOW_MS + 10_003))
            assert await cdr(database) == CDR | ROUTED

    asyncio.run(main())


def _plain_rates(call: OpenCall) -> OpenCall:
    """Without what of a rate stands in its table only."""
    rate, cost = (
        rate and Rate(**{field.name: getattr(rate, field.name) for field in fields(Rate)})
        for rate in (call.rate, call.cost_rate)
    )
    assert rate is not None
    return replace(call, rate=rate, cost_rate=cost)


def test_a_call_that_is_up_comes_back_as_it_was(database_url: str) -> None:
    """What the next transaction decides on is what the last one left: all of it, occupancy, routes
    and both rates included."""

    async def main() -> None:
        async with opened(database_url) as database:
            await store(database)
            memory = Exchange()
            source = SqlCatalog(database, inline_rates=1_000)
            sql = Ledger(SqlBooks(database), source, policy(), memory.clock)
            for operation in (
                request(1), request(2, "bob"), request(3, "alan", EMERGENCY), request(4),
                next_route(1), next_route(1, "again"), next_route(2), answered(4),
            ):  # fmt: skip
                for ledger in (memory.ledger, sql):
                    await ledger.apply([operation], {}, [])
            async with database.transaction(seconds=None) as connection:
                transaction = SqlBooksTransaction(CoreSession(connection), database.dialect)
                found = await transaction.load_open([call_id(n) for n in range(1, 6)])
            there = {id: _plain_rates(call) for id, call in memory.books.calls.items()}
            assert {call.call_id: call for call in found} == there
            await source.close()

    asyncio.run(main())


ODD = {
    "long": "9" * 10_000,
    "emoji": "😀" * 200,
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "quotes": "'; DROP TABLE astcdr; -- \\' \" %s %(x)s {0}",
    "lines": "a\r\nb\tc",
    "arabic": "٤٤",
    "empty": "",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_callers_odd_text_is_stored_cut_and_the_call_goes_on(database_url: str, odd: str) -> None:
    """In every field that a caller or a phone can fill; beside it an ordinary call is served."""
    channel = f"{odd}-1"[-149:]
    strange = CallRequest(call_id(1), NODE, channel, odd, odd, "alice", odd, "44")
    nobody = CallRequest(call_id(2), NODE, odd, odd, odd, odd, odd, odd)

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [prepaid(1, 10 * FULL_CALL), prepaid(2)])
            async with server(database) as batcher:
                outcomes = await asyncio.gather(*map(batcher.submit, [strange, nobody, request(3)]))
                allowed = [o.allowed for o in outcomes if isinstance(o, Decision)]
                assert allowed == [True, False, True]
                await batcher.submit(answered(1, channel=channel, by_id=False, leg=odd[-149:]))
                end = leg_ended(1, NOW_MS + 1_000, odd[-149:])
                outcome = await batcher.submit(end)
                assert isinstance(outcome, Changed)
            books = await snapshot(database)
            row = await one_row(database, f"SELECT * FROM astcdr WHERE id = '{call_id(2)}'")
            for name, length in (("callerid", 80), ("linkedid", 150), ("dialednum", 80)):
                assert row[name] == odd.replace("\ud800", "?")[:length]
            assert str(row["reason"]).isprintable()
            assert audit(books) == []

    asyncio.run(main())


@pytest.mark.parametrize("length", [149, 150])
def test_a_call_on_a_channel_with_a_long_name_is_settled(database_url: str, length: int) -> None:
    """Asterisk's longest unique id has 149 characters."""
    caller, leg = "c" * length, "l" * length

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            async with server(database) as batcher:
                for operation in (
                    request(1, channel=caller),
                    answered(1, channel=caller, leg=leg, by_id=False),
                    leg_ended(1, NOW_MS + 1_000, leg),
                ):
                    await batcher.submit(operation)
            assert (await snapshot(database)).cdr(call_id(1)).price == 1_000

    asyncio.run(main())


async def ask_all(batcher: Batcher, numbers: Sequence[int]) -> list[Outcome]:
    return list(await asyncio.gather(*(batcher.submit(request(n)) for n in numbers)))


def test_money_for_seven_is_money_for_seven_with_two_servers(database_url: str) -> None:
    """200 calls at the same instant, in two processes on the same database: not one too many."""

    async def prepare() -> None:
        async with opened(database_url) as database:
            await seed(database, [prepaid(1, 7 * FULL_CALL), prepaid(2)])

    async def check() -> None:
        async with opened(database_url) as database:
            books = await snapshot(database)
            assert books.statuses() == {"open": 7, "NOCREDIT": 193}
            assert (books.client(1).available, books.client(1).active_calls) == (0, 7)
            assert audit(books) == []

    asyncio.run(prepare())
    shares = [[request(n) for n in range(half, 200, 2)] for half in (0, 1)]
    told = authorized_by_processes(database_url, shares)
    assert Counter(told.values()) == {"ALLOWED": 7, "NOCREDIT": 193}
    asyncio.run(check())


def test_several_servers_in_one_process_share_the_money(database_url: str) -> None:
    """Small batches, so that their transactions meet often."""

    async def main() -> None:
        async with opened(database_url) as one, opened(database_url) as two:
            await seed(one, [prepaid(1, 7 * FULL_CALL), prepaid(2)])
            async with (
                server(one, most_operations=3) as first,
                server(two, most_operations=3) as second,
            ):
                outcomes = await asyncio.gather(
                    ask_all(first, range(60)), ask_all(second, range(60, 120))
                )
            books = await snapshot(one)
            allowed = [o for part in outcomes for o in part if isinstance(o, Decision) if o.allowed]
            assert len(allowed) == 7
            assert books.statuses() == {"open": 7, "NOCREDIT": 113}
            assert audit(books) == []

    asyncio.run(main())


def test_two_servers_hear_of_the_same_endings(database_url: str) -> None:
    """Both listen to the same Asterisk: each call is charged once."""
    numbers = range(40)

    async def main() -> None:
        async with opened(database_url) as one, opened(database_url) as two:
            await seed(one, [prepaid(1, 100 * FULL_CALL), prepaid(2)])
            async with (
                server(one, most_operations=5) as first,
                server(two, most_operations=7) as second,
            ):
                await ask_all(first, numbers)
                told = [event for n in numbers for event in (answered(n), leg_ended(n, NOW_MS + n))]
                outcomes = await asyncio.gather(
                    *(b.submit(event) for event in told for b in (first, second))
                )
            charged = [s for o in outcomes if isinstance(o, Changed) for s in o.settled]
            assert len(charged) == len(numbers)
            books = await snapshot(one)
            assert books.statuses() == {"completed": 40}
            assert audit(books) == []

    asyncio.run(main())


def test_the_largest_batch_is_written_at_once(database_url: str) -> None:
    """SQLite takes no more than 32,766 values in a statement."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [prepaid(n, 2_000 * FULL_CALL) for n in range(1, 21)])
            source, outcomes = SqlCatalog(database, inline_rates=1_000), list[Outcome]()
            ledger = Ledger(SqlBooks(database), source, policy(), Clock())
            await ledger.apply([request(n) for n in range(1, 1_025)], {}, outcomes)
            await ledger.apply([answered(n) for n in range(1, 1_025)], {}, outcomes)
            await ledger.apply(
                [leg_ended(n, NOW_MS + 5_000) for n in range(1, 1_025)], {}, outcomes
            )
            books = await snapshot(database)
            assert books.statuses() == {"completed": 1_024}
            assert audit(books) == []
            await source.close()

    asyncio.run(main())


def test_a_call_told_answered_twice_in_one_batch_is_the_legs(database_url: str) -> None:
    """By the report of a caller who transferred, and then by Asterisk's event: the leg's end must
    find it."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            source, outcomes = SqlCatalog(database, inline_rates=1_000), list[Outcome]()
            ledger = Ledger(SqlBooks(database), source, policy(), Clock(), links=UpLinks())
            report = replace(hangup(1, NOW_MS + 4_000, 3_000), blind_transfer="999")
            await ledger.apply([request(1)], {}, outcomes)
            await ledger.apply([report, answered(1)], {}, outcomes)
            await ledger.apply([leg_ended(1, NOW_MS + 9_000)], {}, outcomes)
            (ended,) = outcomes
            assert isinstance(ended, Changed)
            assert len(ended.settled) == 1
            books = await snapshot(database)
            assert books.statuses() == {"completed": 1}
            assert audit(books) == []
            await source.close()

    asyncio.run(main())


class UpLinks:
    """Every server is listened to."""

    def configured(self, node: str) -> bool:
        return True

    def up(self, node: str) -> bool:
        return True
