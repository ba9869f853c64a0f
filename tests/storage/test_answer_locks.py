"""An answer is noted without its client's lock: its reservation's is enough.

Two servers on one MariaDB: one notes the answer of a call, the other ends it at the same instant.
In either order the second sees what the first did, and neither waits for what it does not touch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from astcredit.domain.states import CallState
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Answered, Changed, Expire, Operation, Outcome
from astcredit.service.ports import Changes, Wanted
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database, open_database
from support.calls import somebody_waits
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    Clock,
    answered,
    call_id,
    leg_ended,
    opened,
    policy,
    prepaid,
    request,
    seed,
    snapshot,
)
from support.memory_books import audit

pytestmark = pytest.mark.mariadb

LATE_MS = NOW_MS + (LONGEST_SECONDS + 3_600) * 1_000
"""By then a call of now has expired."""


class Server:
    """A ledger with connections of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.books = SqlBooks(database)
        self._ledger = Ledger(self.books, SqlCatalog(database, inline_rates=10), policy(), clock)

    async def do(self, operation: Operation) -> Outcome:
        outcomes: list[Outcome] = []
        await self._ledger.apply([operation], {}, outcomes)
        return outcomes[0]


@asynccontextmanager
async def two_servers(url: str) -> AsyncIterator[tuple[Server, Server]]:
    """With one call up, which the second thinks has expired; the books are right at the end."""
    async with opened(url) as database:
        await seed(database, [prepaid(1, 10**9), prepaid(2, 10**9)])
        other = open_database(url)
        try:
            one, two = Server(database, Clock()), Server(other, Clock(LATE_MS))
            await one.do(request(1))
            yield one, two
        finally:
            await other.close()
        assert audit(await snapshot(database)) == []


def of_two(url: str, story: Callable[[Server, Server], Awaitable[None]]) -> None:
    async def run() -> None:
        async with two_servers(url) as servers:
            await story(*servers)

    asyncio.run(run())


async def waits_for_a_row(who: Server, what: Operation) -> asyncio.Task[Outcome]:
    """Begin something that needs a row which somebody has locked."""
    task = asyncio.create_task(who.do(what))
    while not await somebody_waits(who.database):
        assert not task.done(), task
    return task


def test_who_ends_a_call_waits_for_its_answer_and_sees_it(mariadb_url: str) -> None:
    """Unseen, the call would be released: it would talk on for nothing."""

    async def story(one: Server, two: Server) -> None:
        async with one.books.transaction() as transaction:
            locked = await transaction.lock(Wanted(answered=[call_id(1)]))
            assert set(locked.answered) == {call_id(1)}
            ending = await waits_for_a_row(two, Expire(call_id(1), LATE_MS))
            noted = Answered(call_id(1), "leg-1", "PJSIP/carrier", NOW_MS, NOW_MS)
            await transaction.write(Changes(answered=[noted]))
        outcome = await ending
        assert isinstance(outcome, Changed)
        assert [settlement.state for settlement in outcome.settled] == [CallState.COMPLETED]

    of_two(mariadb_url, story)


def test_an_answer_waits_for_who_ends_the_call_and_finds_no_reservation(mariadb_url: str) -> None:
    """Then the leg is ended: see `Changed.unreserved`."""

    async def story(one: Server, two: Server) -> None:
        async with two.books.transaction() as transaction:
            await transaction.lock(Wanted(clients=[1], calls=[call_id(1)]))
            answer = await waits_for_a_row(one, answered(1))
            await transaction.session.run("DELETE FROM astcreditres", ())
            await transaction.session.run("UPDATE astcdr SET status = 'failed'", ())
            await transaction.session.run("UPDATE astclient SET reserved = 0, active_calls = 0", ())
            await transaction.session.run("UPDATE astcapacity SET calls = 0", ())
        assert await answer == Changed(unreserved=answered(1))

    of_two(mariadb_url, story)


def test_an_answer_does_not_wait_for_its_client(mariadb_url: str) -> None:
    async def story(one: Server, two: Server) -> None:
        async with two.books.transaction() as transaction:
            await transaction.lock(Wanted(clients=[1]))
            outcome = await one.do(answered(1))
            assert isinstance(outcome, Changed)
            assert [answer.call_id for answer in outcome.answered] == [call_id(1)]
        await one.do(leg_ended(1, NOW_MS + 5_000))

    of_two(mariadb_url, story)


def test_a_small_table_is_not_locked_as_a_whole(mariadb_url: str) -> None:
    """Neither by who notes an answer nor by who ends a call: other calls are not in the way."""

    async def story(one: Server, two: Server) -> None:
        await one.do(request(2, "bob"))  # of another client
        async with two.books.transaction() as transaction:
            await transaction.lock(Wanted(clients=[1], calls=[call_id(1)]))
            await one.do(answered(2))
            await one.do(leg_ended(2, NOW_MS + 5_000))

    of_two(mariadb_url, story)
