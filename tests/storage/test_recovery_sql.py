"""Recovery on real databases: what it reads, and two controllers that recover at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from astcredit.domain.states import CallState
from astcredit.service import recovery as recovery_module
from astcredit.service.batcher import Batcher
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Expire, NodeHeard, Operation, Undelivered
from astcredit.service.ports import EndedCall, OpenOnNode
from astcredit.service.recovery import Recovery
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from support.core import (
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    BatchLog,
    Clock,
    answered,
    call_id,
    caller_ended,
    leg_ended,
    no_orphan,
    opened,
    policy,
    prepaid,
    request,
    seed,
    snapshot,
)
from support.memory_books import audit
from support.peers import FakePeer, caller, leg

NUMBER = "442071234567"
CALLS = 40
RICH = [prepaid(1, 100_000_000)]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "GONE_AFTER_SECONDS", 0)


@asynccontextmanager
async def controller(database: Database) -> AsyncIterator[Batcher]:
    """What of a controller books."""
    catalog = SqlCatalog(database, inline_rates=1_000)
    ledger = Ledger(SqlBooks(database), catalog, policy(), Clock())
    batcher = Batcher(ledger.apply, no_orphan, BatchLog(), most_operations=7)
    batcher.start()
    yield batcher
    await batcher.stop(60)
    await catalog.close()


async def have(batcher: Batcher, *operations: Operation) -> None:
    await asyncio.gather(*map(batcher.submit, operations))


def open_on_node(number: int, leg: str | None, state: CallState, ends: int | None) -> OpenOnNode:
    caller = f"caller-{number}"
    return OpenOnNode(call_id(number), caller, caller, leg, state, ends, LONGEST_SECONDS)


def test_what_is_read_of_open_calls(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database, controller(database) as batcher:
            await seed(database, RICH)
            await have(batcher, request(1), request(2), request(3, node="pbx2"), request(4))
            await have(batcher, answered(2, NOW_MS + 1_234), caller_ended(4))
            ends = NOW_MS + 1_234 + LONGEST_SECONDS * 1_000
            assert await SqlBooks(database).open_on(NODE) == [
                open_on_node(1, None, CallState.OPEN, None),
                open_on_node(2, "leg-2", CallState.ANSWERED, ends),
            ]

    asyncio.run(main())


def test_who_closed_a_call_that_is_over(database_url: str) -> None:
    """A leg that is answered for it later may be one that nobody pays, or none of ours."""

    async def main() -> None:
        async with opened(database_url) as database, controller(database) as batcher:
            await seed(database, RICH)
            books = SqlBooks(database)
            await have(batcher, *(request(number) for number in (1, 2, 3)))
            await have(batcher, request(4, "nobody"))
            await have(batcher, caller_ended(1), Undelivered(call_id(2), NOW_MS))
            ended = [await books.ended(call_id(number)) for number in range(1, 6)]
            assert ended == [
                EndedCall(call_id(1), NUMBER, "ami"),
                EndedCall(call_id(2), NUMBER, "undelivered"),
                None,
                EndedCall(call_id(4), NUMBER, ""),
                None,
            ]

    asyncio.run(main())


def test_what_was_heard_is_kept_for_each_server(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database, controller(database) as batcher:
            await seed(database)
            await have(batcher, NodeHeard("a", NOW_MS), NodeHeard("b", NOW_MS + 1))
            await have(batcher, NodeHeard("a", NOW_MS + 7_001))
            async with SqlBooks(database).transaction() as transaction:
                heard = await transaction.heard_until(["a", "b", "c"])
            assert heard == {"a": NOW_MS + 7_001, "b": NOW_MS + 1}

    asyncio.run(main())


def test_the_estimate_is_by_what_is_on_record(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database, controller(database) as batcher:
            await seed(database, RICH)
            await have(batcher, request(1), answered(1, NOW_MS), NodeHeard(NODE, NOW_MS + 33_000))
            peer = FakePeer(clock_ms=NOW_MS + 60_000)
            await Recovery(SqlBooks(database), batcher.submit).recover(NODE, peer)
            await have(batcher, Expire(call_id(1), NOW_MS))
            books = await snapshot(database)
            assert (books.cdr(call_id(1)).talk_ms, books.cdr(call_id(1)).price) == (33_000, 33_000)
            assert audit(books) == []

    asyncio.run(main())


def live(numbers: Sequence[int]) -> FakePeer:
    """A server on which these calls talk on, after a minute."""
    channels = [c for n in numbers for c in (caller(n, bridge=f"b{n}"), leg(n, bridge=f"b{n}"))]
    return FakePeer(channels, NOW_MS + 60_000, {f"leg-{n}": NOW_MS for n in numbers})


def test_controllers_that_recover_a_server_at_once_settle_each_call_once(database_url: str) -> None:
    """Three, with several connections each, while ends that were heard arrive, too. Of four calls,
    one talks on, one answered unheard, one ended unheard, and the end of one is heard by all."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            databases = [await stack.enter_async_context(opened(database_url)) for _ in range(3)]
            await seed(databases[0], [prepaid(1, CALLS * LONGEST_SECONDS * 1_000)])
            batchers = [await stack.enter_async_context(controller(d)) for d in databases]
            numbers = range(1, CALLS + 1)
            unheard = [number for number in numbers if number % 4 == 1]
            await have(batchers[0], *map(request, numbers))
            await have(batchers[0], *(answered(n) for n in numbers if n not in unheard))
            await have(batchers[0], NodeHeard(NODE, NOW_MS + 20_000))
            ends = [leg_ended(n, NOW_MS + 30_000) for n in numbers if n % 4 == 3]
            talking = [n for n in numbers if n % 4 < 2]

            async def recover(database: Database, batcher: Batcher) -> None:
                heard = [batcher.submit(end) for end in ends]
                await Recovery(SqlBooks(database), batcher.submit).recover(NODE, live(talking))
                await asyncio.gather(*heard, batcher.submit(NodeHeard("elsewhere", 0)))

            await asyncio.gather(*map(recover, databases, batchers))
            books = await snapshot(databases[0])
            assert audit(books) == []
            assert books.statuses() == {"answered": CALLS // 2, "completed": CALLS // 2}
            talks = {n: books.cdr(call_id(n)).talk_ms for n in numbers if n % 4 >= 2}
            assert talks == {n: 20_000 if n % 4 == 2 else 30_000 for n in talks}
            assert {books.cdr(call_id(n)).leg_uniqueid for n in talking} == {
                f"leg-{n}" for n in talking
            }

    asyncio.run(main())
