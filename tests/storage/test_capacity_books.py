"""Capacity in SQL: the counters are those of the simple books in memory, whatever happens, and many
servers at one instant admit as many calls as there is room for, on SQLite and on MariaDB."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from astcredit.domain.calls import CallRequest
from astcredit.domain.catalog import Catalog, ClientSettings, Reseller
from astcredit.domain.routing_plan import Rule
from astcredit.service.batcher import Batcher
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Expire, Operation, Outcome, Rerouted, Undelivered
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from support.core import (
    EMERGENCY,
    NOW_MS,
    BatchLog,
    account,
    answered,
    call_id,
    caller_ended,
    change_catalog,
    hangup,
    leg_ended,
    opened,
    policy,
    request,
    server,
    snapshot,
)
from support.memory_books import audit
from support.plans import (
    ACCOUNTS,
    ALICE_TO_C1,
    CLIENTS,
    RULES,
    Exchange,
    next_route,
    routed,
    terminator,
    told,
)
from support.processes import authorized_by_processes
from support.stored_plans import store

LIMITED = {
    "reseller:1:orig": 9,
    "client:1:orig": 7,
    "account:1:orig": 5,
    "reseller:2:term": 6,
    "client:3:term": 5,
    "account:11:term": 3,
    "route:22:term": 2,
}


def history(seed: int, length: int) -> list[list[Operation]]:
    """Calls, failovers and what is said of them, sensibly and not, in batches."""
    chance = random.Random(seed)
    batches: list[list[Operation]] = []
    made = 0
    for _ in range(length):
        batch: list[Operation] = []
        there = made
        for _ in range(chance.randrange(1, 8)):
            if there == 0 or chance.random() < 0.4:
                made += 1
                who = chance.choice(["alice", "alice", "alan", "bob", "x"])
                dialled = chance.choice(["442071234567"] * 4 + [EMERGENCY])
                batch.append(request(made, who, dialled))
            else:
                batch.append(_event(chance, chance.randrange(max(1, there - 20), there + 1)))
        batches.append(batch)
    return batches


def _event(chance: random.Random, number: int) -> Operation:
    at_ms = NOW_MS + chance.randrange(4_000_000)
    possible: list[Operation] = [
        *(next_route(number, f"ask-{chance.random()}", dialstatus="BUSY") for _ in range(3)),
        answered(number, at_ms, by_id=chance.random() < 0.5),
        leg_ended(number, at_ms),
        *(caller_ended(number, at_ms) for _ in range(3)),
        hangup(number, at_ms, chance.randrange(5_000), chance.choice(["BUSY", "ANSWER"])),
        Undelivered(call_id(number), at_ms),
        Expire(call_id(number), at_ms),
    ]
    return chance.choice(possible)


CHANGES = (
    (
        "UPDATE astclient SET reseller_id = 2 WHERE id = 1",
        "UPDATE astclient SET reseller_id = NULL WHERE id = 3",
        "UPDATE astreseller SET orig_capacity = 3 WHERE id = 2",
    ),
    ("UPDATE astroute SET enabled = 0 WHERE id = 21", "UPDATE astroutingplan SET version = 2"),
)
"""What people change in the middle of a history, by hand."""


@pytest.mark.parametrize("chance", range(3))
def test_they_are_the_same_as_the_books_in_memory(database_url: str, chance: int) -> None:
    """Both after every few batches and after every change of the catalog; nothing drifts."""

    async def main() -> None:
        async with opened(database_url) as database:
            await store(database, routed(LIMITED))
            memory = Exchange()
            source = SqlCatalog(database, inline_rates=1_000)
            sql = Ledger(SqlBooks(database), source, policy(), memory.clock)
            answers: list[str] = []
            for number, batch in enumerate(history(chance, 90)):
                memory.clock.now_ms += 60_000
                if number in (30, 60):
                    await change_catalog(database, *CHANGES[number // 30 - 1])
                memory.source.catalog = await source.at_least(1 + number // 30)
                outcomes: tuple[list[Outcome], list[Outcome]] = ([], [])
                for ledger, found in zip((memory.ledger, sql), outcomes, strict=True):
                    await ledger.apply(batch, {}, found)
                assert told(outcomes[0]) == told(outcomes[1])
                answers += told(outcomes[1])
                if number % 5 == 0:
                    assert await snapshot(database) == memory.books.snapshot()
            books = await snapshot(database)
            assert books == memory.books.snapshot()
            assert audit(books) == []
            assert {"ALLOWED", "CAPACITY", "c2", "NOROUTE"} <= set(answers)
            await source.close()

    asyncio.run(main())


def test_an_emergency_call_is_known_as_one_to_a_server_that_did_not_authorize_it(
    database_url: str,
) -> None:
    """What the database has of a call says so: it goes on to a route that is full."""
    rules = [replace(rule, prefix="") for rule in RULES[:2]]

    async def main() -> None:
        async with opened(database_url) as database:
            await store(database, routed({"route:22:term": 0}, rules=rules))
            await change_catalog(
                database, "UPDATE astrate SET prefix = '1' WHERE rate_table_id = 2"
            )
            async with server(database) as batcher:
                await batcher.submit(request(1, dialled=EMERGENCY))
            async with server(database) as batcher:
                outcome = await batcher.submit(next_route(1))
            assert isinstance(outcome, Rerouted)
            assert outcome.route.rule.id == 22
            assert dict((await snapshot(database)).counters)["route:22:term"] == 1

    asyncio.run(main())


# A hundred calls at one instant at each of the levels, from two server processes

MOST = 10
EACH = 100
PROCESSES = 2


def keys_of(cell: int) -> tuple[str, ...]:
    """The levels of a cell: clients of one reseller, whose calls take the same route."""
    return (
        f"reseller:{10 + cell}:orig",
        f"client:{_client(cell, 0)}:orig",
        f"account:{_client(cell, 0)}:orig",
        f"reseller:{20 + cell}:term",
        f"client:{20 + cell}:term",
        f"account:{200 + cell}:term",
        f"route:{300 + cell}:term",
    )


def _client(cell: int, process: int) -> int:
    """The id of the client, and of its account, that calls by way of that server process."""
    return 1_000 + 10 * cell + process


LEVELS = range(len(ALICE_TO_C1))
SHARED = [0, 3, 4, 5, 6]
"""Levels that several clients share: each process has a client of its own, and only the counter's
lock is between them."""
OWN = [1, 2]
"""Levels of one client."""


def cells() -> Catalog:
    """Cells that have nothing in common, one for each level, which alone has a limit there."""
    callers = [(n, _client(n, process)) for n in LEVELS for process in range(PROCESSES)]
    carriers = [ClientSettings(20 + n, f"carriers{n}", "EUR", None, True, 20 + n) for n in LEVELS]
    return routed(
        {keys_of(cell)[cell]: MOST for cell in LEVELS},
        plans={10 + n: [Rule(300 + n, "44", 200 + n)] for n in LEVELS},
        resellers=[Reseller(id + n, f"reseller{id + n}") for id in (10, 20) for n in LEVELS],
        clients=[
            *(ClientSettings(id, f"c{id}", "EUR", 1, True, 10 + n, 10 + n) for n, id in callers),
            *carriers,
        ],
        accounts=[
            *(account(f"caller{id}", id, id) for _, id in callers),
            *(terminator(200 + n, 20 + n) for n in LEVELS),
        ],
    )


def share(cells: Sequence[int], process: int, *, shared: bool) -> list[CallRequest]:
    """The calls of a process, those of the cells in turn."""
    who = process if shared else 0
    numbers = range(process, EACH, PROCESSES)
    return [request(1000 * c + n, f"caller{_client(c, who)}") for n in numbers for c in cells]


@pytest.mark.parametrize(("of", "shared"), [(SHARED, True), (OWN, False)], ids=["shared", "own"])
def test_a_hundred_calls_at_one_instant_against_ten_are_ten_at_every_level(
    database_url: str, of: Sequence[int], shared: bool
) -> None:
    async def prepare() -> None:
        """A call of each has been there before: its counters are there, and are 0."""
        async with opened(database_url) as database:
            await store(database, cells())
            async with server(database) as batcher:
                first = [request(10**6 + c, f"caller{_client(c, 0)}") for c in of]
                await asyncio.gather(*(batcher.submit(asked) for asked in first))
                gone = [Undelivered(asked.call_id, NOW_MS) for asked in first]
                await asyncio.gather(*(batcher.submit(end) for end in gone))

    async def check() -> None:
        async with opened(database_url) as database:
            books = await snapshot(database)
        assert audit(books) == []
        uses = dict(books.counters)
        uses |= {f"client:{client.id}:orig": client.active_calls for client in books.clients}
        assert {keys_of(c)[c]: uses[keys_of(c)[c]] for c in of} == {keys_of(c)[c]: 10 for c in of}

    asyncio.run(prepare())
    shares = [share(of, process, shared=shared) for process in range(PROCESSES)]
    statuses = authorized_by_processes(database_url, shares, most_operations=16)
    asked = [call for share in shares for call in share]
    cell_of = {call.call_id: int(call.call_id[1:]) // 1000 for call in asked}
    assert Counter((cell_of[call.call_id], statuses[call.call_id]) for call in asked) == {
        (cell, status): number
        for cell in of
        for status, number in (("ALLOWED", MOST), ("CAPACITY", EACH - MOST))
    }
    asyncio.run(check())


ROUNDS = 12


def test_servers_meet_at_the_same_counters_without_a_deadlock(mariadb_url: str) -> None:
    """Different clients, the same resellers and terminators, small batches: rows are locked in one
    order, so that one server waits for the other and neither is thrown back."""
    callers = [ClientSettings(n, f"client{n}", "EUR", 1, True, 1, 1) for n in range(10, 50)]
    carriers = CLIENTS[2:]
    catalog = routed(
        clients=[*callers, *carriers],
        accounts=[*(account(f"caller{c.id}", c.id, c.id) for c in callers), *ACCOUNTS[3:]],
    )
    names = [f"caller{client.id}" for client in callers]

    async def play(batcher: Batcher, first: int, mine: Sequence[str]) -> None:
        """Calls of some clients, in any order: they start, fail over and end."""
        chance = random.Random(first)
        for round_ in range(ROUNDS):
            numbers = range(first + round_ * len(mine), first + (round_ + 1) * len(mine))
            who = chance.sample(mine, len(mine))
            asked = [request(n, name) for n, name in zip(numbers, who, strict=True)]
            moved = chance.sample([next_route(n, f"ask-{n}") for n in numbers], len(mine) // 2)
            for operations in (asked, moved, [caller_ended(n) for n in numbers]):
                await asyncio.gather(*(batcher.submit(operation) for operation in operations))

    async def main() -> None:
        async with opened(mariadb_url) as one, opened(mariadb_url) as two:
            await store(one, catalog)
            logs = (BatchLog(), BatchLog())
            async with (
                server(one, most_operations=4, log=logs[0]) as first,
                server(two, most_operations=4, log=logs[1]) as second,
            ):
                # A counter that is not there yet is the one thing that is not locked in order.
                everyone = [request(10**6 + n, name) for n, name in enumerate(names)]
                await asyncio.gather(*(first.submit(asked) for asked in everyone))
                await asyncio.gather(play(first, 1, names[::2]), play(second, 10**4, names[1::2]))
            assert [log.failed for log in logs] == [[], []]
            assert audit(await snapshot(one)) == []

    asyncio.run(main())
