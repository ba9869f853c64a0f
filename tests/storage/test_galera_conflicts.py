"""Two controllers, each on another server of a cluster, change the same rows at the same time.

A server of a Galera cluster knows only its own locks: neither transaction waits for the other. What
keeps the books is that every row on which a decision rests is written by it, so that the later of
two COMMITs is refused and tried again. Each case here is one kind of row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

import pytest

from astcredit.domain.books import ClientBooks
from astcredit.domain.decisions import Decision
from astcredit.service.batcher import Batcher
from astcredit.service.errors import RefusedError, TransientError
from astcredit.service.ledger import Ledger
from astcredit.service.money_desk import Booked, MoneyDesk
from astcredit.service.operations import Changed, Operation, Outcome
from astcredit.storage.administration import SqlAdministration, SqlAdminTransaction
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import PART_ROWS, Database
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    BatchLog,
    Clock,
    answered,
    caller_ended,
    hangup,
    leg_ended,
    no_orphan,
    opened,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
    server,
)
from support.galera import Galera
from support.plans import next_route, routed, told
from support.stored_plans import store

pytestmark = pytest.mark.mariadb

FULL_CALL = LONGEST_SECONDS * 1_000


class Meeting(SqlBooks):
    """Commits its first transaction only when the other's has written, too."""

    def __init__(self, database: Database, written: asyncio.Barrier) -> None:
        super().__init__(database)
        self._written: asyncio.Barrier | None = written

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        async with super().transaction() as transaction:
            yield transaction
            await transaction.session.ask()  # what is written waits for COMMIT if it can
            written, self._written = self._written, None
            if written is not None:
                await written.wait()


@asynccontextmanager
async def controller(
    books: SqlBooks, database: Database
) -> AsyncIterator[tuple[Batcher, BatchLog]]:
    source, log = SqlCatalog(database, inline_rates=1_000), BatchLog()
    ledger = Ledger(books, source, policy(), Clock())
    batcher = Batcher(ledger.apply, no_orphan, log, most_operations=256)
    batcher.start()
    yield batcher, log
    await batcher.stop(20)
    await source.close()


def with_quota(client: ClientBooks, quota: int) -> ClientBooks:
    return replace(client, monthly_quota=quota, quota_counted=True)


def said(outcome: Outcome) -> str:
    """What an operation came to, in a word."""
    if isinstance(outcome, Changed):
        return "settled" if outcome.settled else "answered" if outcome.answered else "nothing"
    return told([outcome])[0]


@dataclass(frozen=True, slots=True)
class Case:
    """Two batches that meet, and what comes of them."""

    row: str
    first: Sequence[Operation]
    second: Sequence[Operation]
    said: Sequence[str]
    before: Sequence[Operation] = ()
    limits: dict[str, int | None] = field(default_factory=dict)
    clients: Sequence[ClientBooks] = ()
    statuses: dict[str, int] = field(default_factory=dict)


USED = (request(9, "bob"), caller_ended(9), request(8, "alice"), caller_ended(8))
"""Calls that are over: the counters are there."""

CASES = [
    Case(
        "the client, of whose money two calls want the last",
        [request(1)],
        [request(2)],
        ["ALLOWED", "NOCREDIT"],
        clients=[prepaid(1, FULL_CALL)],
        statuses={"open": 1, "NOCREDIT": 1},
    ),
    Case(
        "the client, whose settings hold a quota for one call",
        [request(1)],
        [request(2)],
        ["ALLOWED", "QUOTA"],
        clients=[with_quota(postpaid(1), FULL_CALL)],
        statuses={"open": 1, "QUOTA": 1},
    ),
    Case(
        "a counter that nobody has used yet",
        [request(1, "alice")],
        [request(2, "bob")],
        ["ALLOWED", "CAPACITY"],
        limits={"reseller:1:orig": 1},
        statuses={"open": 1, "CAPACITY": 1},
    ),
    Case(
        "a counter with a limit, for calls of two clients",
        [request(1, "alice")],
        [request(2, "bob")],
        ["ALLOWED", "CAPACITY"],
        before=USED,
        limits={"reseller:1:orig": 1},
        statuses={"open": 1, "CAPACITY": 1, "failed": 2},
    ),
    Case(
        "a terminator's counter: the second call takes the next route",
        [request(1, "alice")],
        [request(2, "bob")],
        ["ALLOWED", "ALLOWED"],
        before=USED,
        limits={"account:11:term": 1},
        statuses={"open": 2, "failed": 2},
    ),
    Case(
        "a route's counter, wanted as the next route and as the first",
        [next_route(1)],
        [request(2, "bob")],
        ["ALLOWED", "c2"],
        before=[request(1, "alice")],
        limits={"account:11:term": 1},
        statuses={"open": 2},
    ),
    Case(
        "a call that two servers settle",
        [leg_ended(1, NOW_MS + 5_000)],
        [hangup(1, NOW_MS + 5_000, 4_000)],
        ["nothing", "settled"],
        before=[request(1), answered(1)],
        statuses={"completed": 1},
    ),
    Case(
        "a call that nobody answered, over on two servers",
        [caller_ended(1)],
        [hangup(1, NOW_MS, 0, "BUSY")],
        ["nothing", "settled"],
        before=[request(1)],
        statuses={"failed": 1},
    ),
    Case(
        "a call that is settled in a batch which leaves its client and counters as they were",
        [caller_ended(1), request(2)],
        [caller_ended(1)],
        ["ALLOWED", "nothing", "settled"],
        before=[request(1)],
        limits={"reseller:1:orig": 1},
        statuses={"failed": 1, "open": 1},
    ),
]


async def meet(galera: Galera, name: str, case: Case) -> list[str]:
    """What is said, when both have read before either commits."""
    async with (
        opened(galera.url(name, 0)) as one,
        opened(galera.url(name, 1)) as two,
    ):
        await store(one, routed(case.limits), case.clients)
        async with server(one) as earlier:
            for operation in case.before:
                await earlier.submit(operation)
        written = asyncio.Barrier(2)
        async with (
            controller(Meeting(one, written), one) as (first, log),
            controller(Meeting(two, written), two) as (second, other_log),
        ):
            asked = [first.submit(operation) for operation in case.first]
            asked += [second.submit(operation) for operation in case.second]
            outcomes = await asyncio.gather(*asked)
        failed = [*log.failed, *other_log.failed]
        assert [type(error) for error in failed] == [TransientError], failed
    return sorted(map(said, outcomes))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_one_of_two_is_refused_at_commit_and_tried_again(
    galera: Galera, galera_name: str, case: Case
) -> None:
    async def main() -> None:
        assert await meet(galera, galera_name, case) == sorted(case.said)
        assert (await galera.agreed(galera_name)).statuses() == case.statuses

    asyncio.run(main())


class MeetingAdministration(SqlAdministration):
    """Commits its first booking only when the other's is written, too."""

    def __init__(self, database: Database, written: asyncio.Barrier) -> None:
        super().__init__(database)
        self._written: asyncio.Barrier | None = written

    @asynccontextmanager
    async def booking_money(self) -> AsyncIterator[SqlAdminTransaction]:
        async with super().booking_money() as transaction:
            yield transaction
            written, self._written = self._written, None
            if written is not None:
                await written.wait()


@pytest.mark.parametrize("other", ["client1", "client2"])
def test_one_top_up_that_comes_through_two_servers_is_booked_once(
    galera: Galera, galera_name: str, other: str
) -> None:
    """For one client its row stands against it, for two the unique reference."""

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1), prepaid(2)])
            written = asyncio.Barrier(2)
            desks = [
                MoneyDesk(MeetingAdministration(database, written), "ops@test", Clock())
                for database in (one, two)
            ]
            booked = await asyncio.gather(
                desks[0].top_up("client1", 5_000_000, "invoice-7"),
                desks[1].top_up(other, 5_000_000, "invoice-7"),
                return_exceptions=True,
            )
        if other == "client1":
            assert {b.already for b in booked if isinstance(b, Booked)} == {True, False}
        else:
            assert {type(b) for b in booked} == {Booked, RefusedError}
        books = await galera.agreed(galera_name)
        assert [e.reference for e in books.ledger].count("invoice-7") == 1

    asyncio.run(main())


def test_money_that_is_taken_away_while_a_call_wants_it(galera: Galera, galera_name: str) -> None:
    """An adjustment through one server and an authorization through another: one of them has it."""

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1, FULL_CALL), prepaid(2)])
            written = asyncio.Barrier(2)
            desk = MoneyDesk(MeetingAdministration(one, written), "ops@test", Clock())
            async with controller(Meeting(two, written), two) as (batcher, _):
                taken, decision = await asyncio.gather(
                    desk.adjust("client1", -FULL_CALL, "fraud"),
                    batcher.submit(request(1)),
                    return_exceptions=True,
                )
        assert isinstance(decision, Decision)
        assert isinstance(taken, RefusedError) == decision.allowed
        await galera.agreed(galera_name)

    asyncio.run(main())


def test_calls_of_clients_that_share_no_row_do_not_meet(galera: Galera, galera_name: str) -> None:
    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1, FULL_CALL), prepaid(2, FULL_CALL)])
            written = asyncio.Barrier(2)
            async with (
                controller(Meeting(one, written), one) as (first, log),
                controller(Meeting(two, written), two) as (second, other_log),
            ):
                await asyncio.gather(
                    first.submit(request(1, "alice")), second.submit(request(2, "bob"))
                )
            assert [*log.failed, *other_log.failed] == []
        assert (await galera.agreed(galera_name)).statuses() == {"open": 2}

    asyncio.run(main())


def test_what_was_committed_through_one_server_is_seen_through_another(
    galera: Galera, galera_name: str
) -> None:
    """The second server has not yet applied the authorization when it hears of the answer. Whoever
    read there without waiting would find no such call, and its end would be lost."""
    behind = galera.nodes[1]
    holder = behind.connect()

    def hold(statement: str) -> None:
        with holder.cursor() as cursor:
            cursor.execute(statement)

    def waits() -> bool:
        begun = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'START TRANSACTION'"
        return bool(behind.execute(begun))

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1, 2 * FULL_CALL), prepaid(2)])
            async with server(one) as first, server(two) as second:
                await second.submit(request(1))
                await asyncio.to_thread(hold, "FLUSH TABLES WITH READ LOCK")
                await first.submit(request(2))
                heard = second.submit(answered(2))
                while not (heard.done() or await asyncio.to_thread(waits)):  # noqa: ASYNC110 - a state without event
                    await asyncio.sleep(0.01)
                assert not heard.done()
                await asyncio.to_thread(hold, "UNLOCK TABLES")
                assert said(await heard) == "answered"

    try:
        asyncio.run(main())
    finally:
        holder.close()
        behind.wait_until_synced()


@pytest.mark.parametrize("committed", [True, False])
def test_a_large_change_travels_in_parts_and_is_there_all_or_not_at_all(
    galera: Galera, galera_name: str, committed: bool
) -> None:
    """While it is under way a call passes on the server that has most of it already."""
    rates = 2 * PART_ROWS + 10
    columns = ("rate_table_id", "prefix", "rate_per_minute", "effective_from")

    async def count_on(number: int) -> int:
        async with opened(galera.url(galera_name, number)) as there, there.reading() as connection:
            counted = await connection.exec_driver_sql("SELECT COUNT(*) FROM astrate")
            return int(counted.scalar_one())

    async def change(database: Database, batcher: Batcher) -> None:
        async with database.transaction(seconds=None) as connection:
            for start in range(0, rates, 1_000):
                numbers = range(start, min(start + 1_000, rates))
                statement = database.dialect.insert_many("astrate", columns, len(numbers))
                rows = ((1, str(10_000 + n), "0.02", "2026-01-01") for n in numbers)
                values = tuple(value for row in rows for value in row)
                await connection.exec_driver_sql(statement, values)
            decision = await batcher.submit(request(1))
            assert isinstance(decision, Decision)
            assert decision.allowed
            if not committed:
                raise ZeroDivisionError

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1, FULL_CALL), prepaid(2)])
            async with server(two) as batcher:
                with nullcontext() if committed else pytest.raises(ZeroDivisionError):
                    await change(one, batcher)
        expected = 1 + (rates if committed else 0)
        assert [await count_on(number) for number in range(3)] == [expected] * 3

    asyncio.run(main())
