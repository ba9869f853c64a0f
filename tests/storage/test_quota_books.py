"""Quotas on real databases: the same as in memory, and shared by servers and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import select

from astcredit.domain.books import ClientBooks
from astcredit.domain.decisions import Decision
from astcredit.service.batcher import Batcher
from astcredit.service.errors import TransientError
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Operation, Outcome
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.tables import astoutbox
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    Clock,
    FixedCatalog,
    answered,
    authorize_in_a_process,
    caller_ended,
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

SECOND = 1_000
LONGEST = LONGEST_SECONDS * SECOND
MONTH, DAY = "2027-01", "2027-01-15"


def with_quota(client: ClientBooks, monthly: int | None, daily: int | None) -> ClientBooks:
    return replace(client, monthly_quota=monthly, daily_quota=daily, quota_counted=True)


async def in_order(database: Database) -> None:
    """What the audit says, and the one of the tests."""
    result = await SqlAuditor(database).examine()
    assert result.findings == []
    assert audit(await snapshot(database)) == []


async def told(database: Database) -> list[str]:
    async with database.reading() as connection:
        rows = await connection.execute(select(astoutbox.c.reference).order_by(astoutbox.c.id))
        return [row[0] for row in rows]


def both(*references: str) -> list[str]:
    """The rows of the outbox: one for each who is told."""
    return [f"{reference}:{who}" for reference in references for who in ("client", "admin")]


def talk(number: int, seconds: int, at_ms: int = NOW_MS) -> list[Operation]:
    return [answered(number, at_ms), leg_ended(number, at_ms + seconds * 1000)]


def test_they_are_the_same_as_in_memory(database_url: str) -> None:
    """Row by row, over refusals, a change of day and calls that belong to the day before."""
    clients = [
        with_quota(postpaid(1), 80 * SECOND, 50 * SECOND),
        replace(with_quota(prepaid(2, 100 * SECOND), None, 0), low_balance=200 * SECOND),
    ]
    today: list[list[Operation]] = [
        [request(1), request(2), request(3, "bob"), request(4, "bob", "112")],
        talk(1, 30),
        [request(5), caller_ended(4), request(6, "alan", "112")],
    ]
    tomorrow_ms = NOW_MS + 86_400_000
    tomorrow: list[list[Operation]] = [
        [request(7), request(8)],
        [*talk(5, 20, tomorrow_ms), *talk(7, 10, tomorrow_ms)],
        [request(9)],
    ]

    async def main() -> None:
        clock, memory = Clock(), MemoryBooks(clients)
        async with opened(database_url) as database:
            await seed(database, clients)
            source = SqlCatalog(database, inline_rates=1_000)
            catalog = FixedCatalog(await source.at_least(0))
            ledgers = [
                Ledger(books, catalog, policy(), clock) for books in (memory, SqlBooks(database))
            ]
            for batch in [*today, None, *tomorrow]:
                if batch is None:
                    clock.now_ms = tomorrow_ms
                    continue
                for ledger in ledgers:
                    await ledger.apply(batch, {}, [])
                assert await snapshot(database) == memory.snapshot()
            await in_order(database)
            assert await told(database) == both(*(alert.reference for alert in memory.alerts))
            assert len(memory.alerts) >= 4
            await source.close()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["monthly", "daily"])
def test_fifty_at_once_in_two_processes_never_pass_a_quota(database_url: str, kind: str) -> None:
    """A quota for four longest calls and seven seconds, and not a micro-unit more."""
    most = 4 * LONGEST + 7 * SECOND
    quotas = (most, None) if kind == "monthly" else (None, most)

    async def prepare() -> None:
        async with opened(database_url) as database:
            await seed(database, [with_quota(postpaid(1), *quotas), prepaid(2)])

    async def check() -> None:
        async with opened(database_url) as database:
            books = await snapshot(database)
            assert books.statuses() == {"open": 5, "QUOTA": 45}
            assert {usage.reserved for _, usage in books.usages} == {most}
            await in_order(database)
            assert await told(database) == []  # nothing is spent yet

    asyncio.run(prepare())
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(2), context.SimpleQueue()
    servers = [
        context.Process(
            target=authorize_in_a_process, args=(database_url, range(half, 50, 2), ready, answers)
        )
        for half in (0, 1)
    ]
    for process in servers:
        process.start()
    statuses = Counter(status for _ in servers for status in answers.get())
    for process in servers:
        process.join(60)
    answers.close()
    assert statuses == {"ALLOWED": 5, "QUOTA": 45}
    asyncio.run(check())


async def all_of(batchers: Sequence[Batcher], operations: Sequence[Operation]) -> list[Outcome]:
    """Each operation at one of the servers, in turn."""
    futures = [
        batchers[n % len(batchers)].submit(operation) for n, operation in enumerate(operations)
    ]
    return list(await asyncio.gather(*futures))


def test_small_batches_of_two_servers_share_a_quota_and_tell_once(database_url: str) -> None:
    """Their transactions meet often; calls end and their remainder is taken again."""
    most = 400 * SECOND

    async def main() -> None:
        async with opened(database_url) as one, opened(database_url) as two:
            await seed(one, [with_quota(postpaid(1), None, most), prepaid(2)])
            minute = policy(max_seconds=60)
            async with (
                server(one, most_operations=3, call_policy=minute) as first,
                server(two, most_operations=2, call_policy=minute) as second,
            ):
                talked = 0
                for wave in range(20):
                    numbers = range(wave * 20, wave * 20 + 20)
                    outcomes = await all_of([first, second], [request(n) for n in numbers])
                    allowed = [
                        (n, o.seconds)
                        for n, o in zip(numbers, outcomes, strict=True)
                        if isinstance(o, Decision) and o.allowed
                    ]
                    assert sum(seconds for _, seconds in allowed) <= 400 - talked
                    for n, _ in allowed:
                        begin, end = talk(n, 11)
                        await second.submit(begin)
                        await first.submit(end)
                    talked += sum(min(11, seconds) for _, seconds in allowed)
            usages = dict((await snapshot(one)).usages)
            assert usages[1, DAY].spent == talked * SECOND
            assert usages[1, DAY].reserved == 0
            assert talked == 400
            await in_order(one)
            assert await told(one) == both(f"quota:1:{DAY}:80", f"quota:1:{DAY}:100")

    asyncio.run(main())


def test_after_a_restart_nobody_is_told_again(database_url: str) -> None:
    async def day_of_a_server(numbers: range) -> None:
        async with opened(database_url) as database, server(database) as batcher:
            for n in numbers:
                await batcher.submit(request(n))
                for event in talk(n, 9):
                    await batcher.submit(event)

    async def main() -> None:
        async with opened(database_url) as database:
            client = replace(prepaid(1, 1_000 * SECOND), low_balance=995 * SECOND)
            await seed(database, [with_quota(client, 10 * SECOND, None), prepaid(2)])
            for start in (1, 4, 7):
                await day_of_a_server(range(start, start + 3))
            references = await told(database)
            assert sorted(references) == sorted(
                both(f"quota:1:{MONTH}:80", f"quota:1:{MONTH}:100", "low-balance:1:2")
            )
            await in_order(database)

    asyncio.run(main())


def test_what_was_told_is_not_told_again_even_if_it_is_asked_for(database_url: str) -> None:
    """Somebody set what was told back by hand: the call is booked, and no second mail is made."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [with_quota(postpaid(1), 10 * SECOND, None), prepaid(2)])
            async with server(database) as batcher:
                for n in (1, 2):
                    await batcher.submit(request(n))
                    for event in talk(n, 4 + n):
                        await batcher.submit(event)
                    async with database.transaction() as connection:
                        await connection.exec_driver_sql("UPDATE astquota SET told = 0")
                await batcher.submit(request(3))
            assert await told(database) == both(f"quota:1:{MONTH}:80", f"quota:1:{MONTH}:100")
            assert (await snapshot(database)).statuses() == {"completed": 2, "QUOTA": 1}

    asyncio.run(main())


class Deadlocked(SqlBooks):
    """Books whose transactions are rolled back at COMMIT."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        async with super().transaction() as transaction:
            yield transaction
            raise TransientError("staged: deadlock")


def test_a_transaction_that_is_tried_again_tells_once(database_url: str) -> None:
    """What it told the first time went with it."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [with_quota(postpaid(1), 10 * SECOND, None), prepaid(2)])
            source = SqlCatalog(database, inline_rates=1_000)
            ledger, failing = (
                Ledger(books, source, policy(), Clock())
                for books in (SqlBooks(database), Deadlocked(database))
            )
            await ledger.apply([request(1)], {}, [])
            with pytest.raises(TransientError):
                await failing.apply(talk(1, 9), {}, [])
            assert await told(database) == []
            for _ in range(3):
                await ledger.apply(talk(1, 9), {}, [])
            assert await told(database) == both(f"quota:1:{MONTH}:80")
            await in_order(database)
            await source.close()

    asyncio.run(main())
