"""What a transaction takes for granted is proved by the database, or nothing is done.

Servers on one MariaDB that remember what they did last, while others change it behind their backs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymysql.err import OperationalError
from storage.test_books import history as calls_of_all_kinds
from storage.test_capacity_books import LIMITED
from storage.test_capacity_books import history as routed_calls

from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import AuthStatus
from astcredit.domain.decisions import Decision
from astcredit.service.errors import CommitUnknown, StorageError
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Changed, Operation, Outcome, Rerouted
from astcredit.service.ports import Wanted
from astcredit.storage import guesses as guesses_module
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.guesses import Guesses
from astcredit.storage.sessions import WireSession
from astcredit.storage.sql import Was
from astcredit.storage.wire import WireConnection
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    caller_ended,
    change_catalog,
    leg_ended,
    opened,
    policy,
    postpaid,
    prepaid,
    request,
    seed,
    snapshot,
)
from support.memory_books import MemoryBooks, audit
from support.plans import Exchange, next_route, routed
from support.stored_plans import store

FULL_CALL = LONGEST_SECONDS * 1_000


class Server:
    """A ledger with connections, a catalog and a memory of its own."""

    def __init__(self, database: Database, clock: Clock, *, denied_cdr: bool = True) -> None:
        self.database = database
        self._catalog = SqlCatalog(database, inline_rates=10)
        books = SqlBooks(database)
        self.ledger = Ledger(books, self._catalog, policy(), clock, denied_cdr=denied_cdr)

    async def do(self, *operations: Operation) -> list[Outcome]:
        outcomes: list[Outcome] = []
        await self.ledger.apply(operations, {}, outcomes)
        return outcomes

    async def close(self) -> None:
        await self._catalog.close()


@asynccontextmanager
async def servers(
    url: str, count: int, clients: Sequence[ClientBooks] = (), *, denied_cdr: bool = True
) -> AsyncIterator[list[Server]]:
    """So many servers on fresh books, which are right at the end."""
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(url)) for _ in range(count)]
        await seed(databases[0], clients or [prepaid(1, 10**9), prepaid(2, 10**9)])
        found = [Server(database, Clock(), denied_cdr=denied_cdr) for database in databases]
        yield found
        for one in found:
            await one.close()
        assert audit(await snapshot(databases[0])) == []


def story(
    url: str, told: Callable[..., Awaitable[None]], count: int = 2, *clients: ClientBooks
) -> None:
    async def main() -> None:
        async with servers(url, count, clients) as found:
            await told(*found)

    asyncio.run(main())


async def sql(server: Server, *statements: str) -> None:
    """What somebody else does, who tells nobody."""
    async with server.database.transaction() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


@pytest.fixture
def packets(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The packets that go to the server, each as its statements."""
    sent: list[Sequence[str]] = []
    send = WireConnection._send

    async def noted(self: WireConnection, statements: Sequence[str], endings: int) -> object:
        sent.append(statements)
        return await send(self, statements, endings)

    monkeypatch.setattr(WireConnection, "_send", noted)
    return sent


@pytest.mark.mariadb
def test_a_call_of_a_client_that_is_known_costs_four_round_trips(
    mariadb_url: str, packets: list[Sequence[str]]
) -> None:
    """One to ask, one for its answer, two for its end: what a channel carried must be looked up."""

    async def told(one: Server) -> None:
        await one.do(request(1))
        for operation, expected in (
            (request(2), 1),
            (answered(2), 1),
            (leg_ended(2, NOW_MS + 5_000), 2),
            (request(3), 1),
        ):
            packets.clear()
            await one.do(operation)
            assert len(packets) == expected, operation
            assert packets[-1][-1] == "COMMIT"

    story(mariadb_url, told, 1)


@pytest.mark.mariadb
@pytest.mark.parametrize("size", [3, 40])
def test_batches_of_any_size_are_proved(
    mariadb_url: str, packets: list[Sequence[str]], size: int
) -> None:
    """Few rows are changed by other statements than many."""
    first, second = range(1, size + 1), range(101, size + 101)

    async def told(one: Server, two: Server) -> None:
        await one.do(*map(request, first))
        packets.clear()
        await one.do(*map(request, second))
        await one.do(*map(answered, second))
        assert len(packets) == 2
        await one.do(*(leg_ended(n, NOW_MS + 5_000) for n in second))
        assert len(packets) == 4
        # Somebody else has ended one of many, and changed the client.
        await two.do(caller_ended(1, NOW_MS + 1_000))
        changed = await one.do(*map(answered, first))
        assert [bool(c.answered) for c in changed if isinstance(c, Changed)] == [
            False,
            *[True] * (size - 1),
        ]
        outcomes = await one.do(*(request(n + 200) for n in first))
        assert all(isinstance(o, Decision) and o.allowed for o in outcomes)
        books = await snapshot(one.database)
        assert books.client(1).active_calls == 2 * size - 1

    story(mariadb_url, told, 2, *(prepaid(n, 10**9) for n in (1, 2)))


CHANGES = {
    "balance": "balance = balance - 900000000, ledger_seq = ledger_seq + 1",
    "balance alone": "balance = balance - 7",
    "a micro of a large balance": "balance = balance - 0.000001, ledger_seq = ledger_seq + 1",
    "ledger_seq": "ledger_seq = ledger_seq + 7",
    "credit_limit": "credit_limit = 5",
    "kind": "kind = 'postpaid', credit_limit = NULL",
    "low_balance": "low_balance = 7",
    "low_balance_told": "low_balance_told = 1",
    "timezone": "timezone = 'Asia/Tokyo'",
    "monthly_quota": "monthly_quota = 1000, quota_counted = 1",
    "daily_quota": "daily_quota = 1000, quota_counted = 1",
}


@pytest.mark.mariadb
@pytest.mark.parametrize("what", CHANGES)
def test_whatever_of_a_client_was_changed_is_seen(mariadb_url: str, what: str) -> None:
    """Of a client with a hundred billions: a micro less is nothing to a floating-point number."""
    rich = prepaid(1, 100_000_000_000 * 10**6)

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database, [rich])
            one = Server(database, Clock())
            await one.do(request(1))
            await sql(one, f"UPDATE astclient SET {CHANGES[what]} WHERE id = 1")
            (before,) = (await snapshot(database)).clients
            (decision,) = await one.do(request(2))
            assert isinstance(decision, Decision)
            assert decision.client == before.reserve(decision.reserved)
            assert (await snapshot(database)).clients == (decision.client,)
            await one.close()

    asyncio.run(main())


@pytest.mark.mariadb
def test_a_catalog_that_was_changed_is_seen(mariadb_url: str) -> None:
    async def told(one: Server) -> None:
        await one.do(request(1))
        await change_catalog(one.database, "UPDATE astaccount SET enabled = 0, version = 2")
        (decision,) = await one.do(request(2))
        assert isinstance(decision, Decision)
        assert decision.status is AuthStatus.DISABLED

    story(mariadb_url, told, 1)


@pytest.mark.mariadb
def test_a_catalog_that_is_being_changed_holds_nobody_up(mariadb_url: str) -> None:
    """An import has the version's row until it is over."""

    async def told(one: Server, two: Server) -> None:
        await one.do(request(1))
        async with two.database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astcatalog SET version = version + 1")
            (decision,) = await one.do(request(2))
            assert isinstance(decision, Decision)
            assert decision.allowed

    story(mariadb_url, told)


@pytest.mark.mariadb
@pytest.mark.parametrize("denied_cdr", [True, False])
def test_a_client_that_was_refused_may_have_got_money(mariadb_url: str, denied_cdr: bool) -> None:
    """A refusal changes nothing of its client, and is proved all the same."""

    async def main() -> None:
        clients = [prepaid(1, FULL_CALL), prepaid(2)]
        async with servers(mariadb_url, 2, clients, denied_cdr=denied_cdr) as (one, two):
            told = [await one.do(request(n)) for n in (1, 2)]
            await two.do(caller_ended(1, NOW_MS + 1_000))
            told += [await one.do(request(n)) for n in (3, 4)]
            statuses = [d.status for (d,) in told if isinstance(d, Decision)]
            refused = AuthStatus.NOCREDIT
            assert statuses == [AuthStatus.ALLOWED, refused, AuthStatus.ALLOWED, refused]

    asyncio.run(main())


@pytest.mark.mariadb
def test_money_for_seven_is_money_for_seven_with_servers_that_remember(mariadb_url: str) -> None:
    """Each believes that the money is still there."""

    async def told(one: Server, two: Server) -> None:
        for server, number in ((one, 1), (two, 2)):
            await server.do(request(number))
        outcomes = await asyncio.gather(*(
            server.do(*(request(100 * side + 10 * turn + n) for n in range(5)))
            for turn in range(3)
            for side, server in enumerate((one, two), 1)
        ))  # fmt: skip
        allowed = [d for part in outcomes for d in part if isinstance(d, Decision) and d.allowed]
        assert len(allowed) == 5
        assert (await snapshot(one.database)).client(1).available == 0

    story(mariadb_url, told, 2, prepaid(1, 7 * FULL_CALL), prepaid(2))


@pytest.mark.mariadb
def test_a_call_that_somebody_else_has_ended(mariadb_url: str) -> None:
    """Its answer names a call without a reservation; its end finds nothing."""

    async def told(one: Server, two: Server) -> None:
        await one.do(*map(request, (1, 2)))
        await two.do(*(caller_ended(n, NOW_MS + 1_000) for n in (1, 2)))
        assert await one.do(answered(1)) == [Changed(unreserved=answered(1))]
        assert await one.do(leg_ended(2, NOW_MS + 5_000)) == [Changed()]

    story(mariadb_url, told)


@pytest.mark.mariadb
def test_a_call_that_somebody_else_ends_at_the_same_moment(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was found and before it is written: it is charged once."""
    find = SqlBooksTransaction.find

    async def told(one: Server, two: Server) -> None:
        await one.do(*map(request, (1, 2)))
        await one.do(answered(1))

        async def find_late(self: SqlBooksTransaction, *wanted: Any) -> Any:
            found = await find(self, *wanted)
            monkeypatch.setattr(SqlBooksTransaction, "find", find)
            await two.do(leg_ended(1, NOW_MS + 5_000), caller_ended(2, NOW_MS + 1_000))
            return found

        monkeypatch.setattr(SqlBooksTransaction, "find", find_late)
        outcomes = await one.do(leg_ended(1, NOW_MS + 5_000), caller_ended(2, NOW_MS + 1_000))
        assert outcomes == [Changed(), Changed()]
        assert (await snapshot(one.database)).client(1).balance == 10**9 - 5_000

    story(mariadb_url, told)


@pytest.mark.mariadb
def test_a_call_whose_answer_somebody_else_has_noted(mariadb_url: str) -> None:
    """What is remembered of it says that nobody talks; its end must charge."""

    async def told(one: Server, two: Server) -> None:
        await one.do(*map(request, (1, 2)))
        await two.do(*map(answered, (1, 2)))
        assert await one.do(caller_ended(1, NOW_MS + 1_000)) == [Changed()]
        assert await one.do(answered(2, NOW_MS + 50, leg="other")) == [Changed()]
        for number in (1, 2):
            (changed,) = await one.do(leg_ended(number, NOW_MS + 5_000))
            assert isinstance(changed, Changed)
            assert [settlement.price for settlement in changed.settled] == [5_000]

    story(mariadb_url, told)


def lose_next_commit(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The next packet with a COMMIT gets lost on its way; it is in the list then."""
    late: list[Sequence[str]] = []
    send = WireConnection._send

    async def lose(self: WireConnection, statements: Sequence[str], endings: int) -> object:
        if statements[-1] == "COMMIT" and not late:
            late.append(statements)
            self.close()
            raise OperationalError(2013, "lost")
        return await send(self, statements, endings)

    monkeypatch.setattr(WireConnection, "_send", lose)
    return late


async def arrive(database: Database, packet: Sequence[str]) -> None:
    """Let the server execute a packet."""
    async with database.session() as session:
        assert isinstance(session, WireSession)
        try:
            await session.connection.send(packet, last=True)
        finally:
            await session.connection.send(["ROLLBACK"], last=True)


LATE: dict[str, tuple[list[Operation], Operation]] = {
    "a request": ([], request(3)),
    "an answer": ([request(3)], answered(3)),
    "an end": ([request(3), answered(3)], leg_ended(3, NOW_MS + 5_000)),
    "a request that fails": ([], request(3)),
}


@pytest.mark.mariadb
@pytest.mark.parametrize("what", LATE)
def test_what_was_lost_and_comes_after_all_does_nothing(
    mariadb_url: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet that stood in a queue of the network while it was given up and done again. A request
    meets a client as it was, if its call has failed meanwhile; its CDR is there."""
    before, operation = LATE[what]

    async def told(one: Server) -> None:
        await one.do(request(1))
        for early in before:
            await one.do(early)
        late = lose_next_commit(monkeypatch)
        outcomes: list[Outcome] = []
        with pytest.raises(CommitUnknown):
            await one.ledger.apply([operation], {}, outcomes)
        carried = {call_id(3): outcomes[0]} if isinstance(outcomes[0], Decision) else {}
        await one.ledger.apply([operation], carried, outcomes)
        if what == "a request that fails":
            await one.do(caller_ended(3, NOW_MS + 1_000))
        done = await snapshot(one.database)
        with pytest.raises(StorageError):
            await arrive(one.database, late[0])
        assert await snapshot(one.database) == done

    story(mariadb_url, told, 1)


@pytest.mark.mariadb
def test_a_call_on_a_route_without_a_limit_need_not_be_asked_for(
    mariadb_url: str, packets: list[Sequence[str]]
) -> None:
    """Its counters are counted; nothing depends on them. With a limit they are read."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await store(database, routed({"route:22:term": 1}))
            one = Server(database, Clock())
            await one.do(*map(request, (1, 2)))
            for operation, expected in (
                (answered(1), 1),
                (leg_ended(1, NOW_MS + 5_000), 2),
                (request(3), 2),
                (next_route(2), 4),
            ):
                packets.clear()
                await one.do(operation)
                assert len(packets) == expected, operation
            assert audit(await snapshot(database)) == []
            await one.close()

    asyncio.run(main())


@pytest.mark.mariadb
def test_a_call_that_somebody_else_has_sent_on_to_its_next_route(mariadb_url: str) -> None:
    """It is counted at other places than is remembered, and costs something else."""

    async def main() -> None:
        async with opened(mariadb_url) as database, opened(mariadb_url) as other:
            await store(database)
            one, two = Server(database, Clock()), Server(other, Clock())
            await one.do(*map(request, (1, 2)))
            await two.do(*map(next_route, (1, 2)))
            await one.do(answered(1), leg_ended(1, NOW_MS + 60_000), caller_ended(2, NOW_MS))
            books = await snapshot(database)
            assert books.counters == ()
            assert books.cdr(call_id(1)).route_id == 22
            assert audit(books) == []
            for server in (one, two):
                await server.close()

    asyncio.run(main())


def said(outcome: Outcome) -> object:
    """What of an outcome does not depend on where a rate was read."""
    match outcome:
        case Decision():
            return outcome.status, outcome.reason, outcome.seconds, outcome.reserved, outcome.client
        case Changed():
            settled = [(s.call.call_id, s.state, s.price, s.ourcost) for s in outcome.settled]
            return replace(outcome, settled=()), settled
        case Rerouted():
            return outcome.route.terminator.name, outcome.client
        case _:
            return outcome


PLAIN = (prepaid(1, 12_345_678, 500_001), postpaid(2, -7, 9_000_000))
WORLDS = {
    "the dialplan's own trunk": (calls_of_all_kinds, None),
    "routes": (routed_calls, routed()),
    "routes with limits": (routed_calls, routed(LIMITED)),
}


@pytest.mark.mariadb
@pytest.mark.parametrize("chance", range(2))
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("together", [True, False])
def test_servers_that_remember_do_what_the_books_in_memory_do(
    mariadb_url: str,
    world: str,
    chance: int,
    together: bool,
    packets: list[Sequence[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three servers take turns, some for long and some for one batch, and all get the answers that
    one with nothing to remember would get, however often they are wrong."""
    monkeypatch.setattr(guesses_module, "LONGEST_PAUSE", 0)
    history, catalog = WORLDS[world]
    turns = random.Random(chance)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            databases = [await stack.enter_async_context(opened(mariadb_url)) for _ in range(3)]
            clock, memory = Clock(), MemoryBooks(PLAIN)
            plain = Ledger(memory, FixedCatalog(), policy(), clock)
            if catalog is None:
                await seed(databases[0], PLAIN)
            else:
                await store(databases[0], catalog)
                exchange = Exchange(catalog)
                clock, memory, plain = exchange.clock, exchange.books, exchange.ledger
            found = [Server(database, clock) for database in databases]
            now = found[0]
            for batch in history(chance, 400):
                clock.now_ms += 60_000
                # Alone, an operation is less often saved by what another one proves.
                for operations in [batch] if together else [[operation] for operation in batch]:
                    now = turns.choice(found) if turns.random() < 0.4 else now
                    expected: list[Outcome] = []
                    await plain.apply(operations, {}, expected)
                    assert [*map(said, await now.do(*operations))] == [*map(said, expected)]
            for one in found:
                await one.close()
            books = await snapshot(databases[0])
            assert books == memory.snapshot()
            assert audit(books) == []

    asyncio.run(main())
    proved = [sent for sent in packets if any("ROW_COUNT" in statement for statement in sent)]
    wrong = [sent for sent in packets if sent == ["ROLLBACK"]]
    # Where counters have limits, they are read first, and most is asked for.
    few = catalog is WORLDS["routes with limits"][1]
    assert len(proved) > (5 if few else 25)
    assert len(wrong) > (0 if few else 5)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_only_rows_that_hold_what_they_must_are_changed(database_url: str, count: int) -> None:
    """To the micro, of amounts; NULL is NULL."""
    rich = 900_000_000_000 * 10**6 + 7

    async def main() -> None:
        async with opened(database_url) as database:
            clients = [replace(prepaid(n, rich), credit_limit=0) for n in range(1, count + 1)]
            await seed(database, clients)
            dialect = database.dialect
            holds = [dialect.holds_amount("balance"), dialect.holds("email"), dialect.holds("kind")]
            holds.append(dialect.holds_amount("low_balance"))
            wrong = {1: (rich + 1, "", "prepaid", None), 2: (rich, "", "prepaid", 0)}
            right = (rich, "", "prepaid", None)
            was = Was(holds, [wrong.get(client.id, right) for client in clients])
            changes = [(client.id, 100 + client.id, "x") for client in clients]
            statement, values = dialect.update_many(
                "astclient", "id", ("active_calls", "email"), changes, was
            )
            async with database.session() as session:
                await session.run(statement, values)
            calls = [client.active_calls for client in (await snapshot(database)).clients]
            assert calls == [0 if n in wrong else 100 + n for n in range(1, count + 1)]

    asyncio.run(main())


@pytest.mark.parametrize("together", [True, False])
def test_nothing_is_taken_for_granted_where_nothing_can_be_proved(
    database_url: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In SQLite, which is asked without a round trip; and in a cluster, where each statement goes
    alone."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            one = Server(database, Clock())
            await one.do(request(1))
            async with SqlBooks(database).transaction() as transaction:
                if isinstance(transaction.session, WireSession):
                    transaction.session.connection.together = together
                proves = transaction.session.proves
                wanted = Wanted(guess=True, answered=[call_id(1), call_id(2)])
                locked = await transaction.lock(wanted)
                known = {call_id(1)} if not proves else {call_id(1), call_id(2)}
                assert set(locked.answered) == known
                assert proves == (together and not database.is_sqlite)
                transaction.guesses = Guesses()
            await one.close()

    asyncio.run(main())
