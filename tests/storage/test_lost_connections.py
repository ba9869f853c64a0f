"""The database goes away at the worst moment: nothing is lost and nothing is booked twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from astcredit.domain.decisions import Decision
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.errors import CommitUnknown, StorageError, TransientError
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Operation, Outcome
from astcredit.service.ports import Changes
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.sessions import WireSession
from support.core import (
    LONGEST_SECONDS,
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
from support.databases import MariaDb
from support.memory_books import Snapshot, audit
from support.tcp_proxy import Pipe, Proxy, proxied

FULL_CALL = LONGEST_SECONDS * 1_000
IMPATIENT_SECONDS = 0.4


@pytest.fixture(autouse=True)
def _no_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.05)


class Site:
    """A server whose database is behind a proxy, and a straight way to look at the books."""

    def __init__(self, proxy: Proxy, batcher: Batcher, log: BatchLog, url: str) -> None:
        self.proxy, self.batcher, self.log = proxy, batcher, log
        self._url = url

    def at(self, statement: str, what: Callable[[Pipe], object]) -> None:
        """Do `what` once, when a statement that matches so is on its way to the server."""

        def look(pipe: Pipe, query: str) -> None:
            if re.search(statement, query):
                self.proxy.on_query = None
                what(pipe)

        self.proxy.on_query = look

    async def books(self) -> Snapshot:
        async with opened(self._url) as straight:
            return await snapshot(straight)


@asynccontextmanager
async def site(url: str) -> AsyncIterator[Site]:
    """Call 1 is up; the client has money for it and for one and a half more."""
    async with opened(url) as straight:
        await seed(straight, [prepaid(1, FULL_CALL * 5 // 2), prepaid(2, 400 * FULL_CALL)])
    async with proxied(url) as (proxy, through), opened(through) as database:
        source = SqlCatalog(database, inline_rates=1_000)
        ledger = Ledger(SqlBooks(database), source, policy(), Clock())
        log = BatchLog()
        batcher = Batcher(ledger.apply, no_orphan, log, most_operations=256)
        batcher.start()
        await batcher.submit(request(1))
        await batcher.submit(answered(1))
        yield Site(proxy, batcher, log, url)
        await batcher.stop(20)
        await source.close()


def kill_all(mariadb: MariaDb, url: str) -> Callable[[Pipe], None]:
    """KILL every connection that came through the proxy, as an administrator would."""
    name = url.rsplit("/", 1)[1]

    def kill(pipe: Pipe) -> None:
        found = mariadb.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
            f" AND host = '127.0.0.1:{pipe.server_side_port}'"
        )
        assert len(found) == 1
        mariadb.execute(f"KILL {found[0][0]}")

    return kill


def cut(pipe: Pipe) -> None:
    pipe.cut()


def swallow(pipe: Pipe) -> None:
    pipe.swallow()


@pytest.fixture
def _asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are locked and read before they are written, and nothing is taken for granted."""
    monkeypatch.setattr(WireSession, "proves", False)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> None:
    """Whether transactions take for granted what they know."""
    if request.param == "asking":
        request.getfixturevalue("_asking")


# What a batch writes goes to the server together with its COMMIT; where it takes for granted what
# it knows, that is all there is.
BEFORE_COMMIT = ["START TRANSACTION", "SELECT id, kind"]
MOMENTS = [
    *(("asking", statement, how, TransientError) for statement in BEFORE_COMMIT
      for how in ("cut", "kill")),
    *((mode, "COMMIT", how, CommitUnknown) for mode in ("asking", "guessing")
      for how in ("cut", "kill", "swallow")),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "statement", "how", "error"), MOMENTS, indirect=["mode"])
@pytest.mark.usefixtures("mode")
def test_a_connection_that_is_lost(
    mariadb: MariaDb, mariadb_url: str, statement: str, how: str, error: type[StorageError]
) -> None:
    """At any moment of the transaction, by the network or by an administrator; at COMMIT before it
    reached the server or after it was done. A second decision of a request that was committed would
    give it less than its reservation: the answer must be the first one's."""
    ways = {"cut": cut, "swallow": swallow, "kill": kill_all(mariadb, mariadb_url)}

    async def main() -> None:
        async with site(mariadb_url) as it:
            it.at(statement, ways[how])
            operations: list[Operation] = [
                request(2),
                request(3),
                leg_ended(1, NOW_MS + 5_000),
                request(4, "mallory"),
            ]
            outcomes = await asyncio.gather(*map(it.batcher.submit, operations))
            assert [type(failure) for failure in it.log.failed] == [error]
            told = [o.seconds for o in outcomes if isinstance(o, Decision)]
            assert told == [LONGEST_SECONDS, LONGEST_SECONDS // 2, 0]
            books = await it.books()
            assert [books.cdr(call_id(n)).seconds for n in (2, 3, 4)] == told
            assert books.cdr(call_id(1)).price == 5_000
            assert audit(books) == []

    asyncio.run(main())


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction is given up after a moment instead of five seconds."""
    for method in (Database.transaction, Database.session):
        function = method.__wrapped__  # type: ignore[union-attr]
        monkeypatch.setattr(function, "__defaults__", (IMPATIENT_SECONDS,))


@pytest.mark.usefixtures("_impatient", "mode")
@pytest.mark.parametrize(
    ("mode", "statement", "error"),
    [
        *(("asking", statement, TransientError) for statement in BEFORE_COMMIT),
        ("asking", "COMMIT", CommitUnknown),
        ("guessing", "COMMIT", CommitUnknown),
    ],
    indirect=["mode"],
)
def test_a_server_that_never_answers_is_given_up_and_its_connection_is_not_used_again(
    mariadb_url: str, statement: str, error: type[StorageError]
) -> None:
    """A silent peer on an open socket: no error comes, ever."""

    async def main() -> None:
        async with site(mariadb_url) as it:
            it.at(statement, lambda pipe: it.proxy.freeze())
            asked = [it.batcher.submit(o) for o in (request(2), leg_ended(1, NOW_MS + 5_000))]
            await it.log.first_failure.wait()
            assert type(it.log.failed[0]) is error
            assert "did not answer in time" in str(it.log.failed[0])
            it.proxy.thaw()
            await asyncio.gather(*asked)
            books = await it.books()
            assert books.statuses() == {"open": 1, "completed": 1}
            assert audit(books) == []

    asyncio.run(main())


@pytest.mark.usefixtures("_impatient")
def test_a_rollback_that_is_never_answered_leaves_no_open_transaction(mariadb_url: str) -> None:
    """Its connection must not go back to the pool: the next one would wait, or write, in it."""

    async def main() -> None:
        async with opened(mariadb_url) as straight, proxied(mariadb_url) as (proxy, through):
            await seed(straight)
            async with opened(through) as database:

                def look(pipe: Pipe, query: str) -> None:
                    if query == "ROLLBACK":
                        proxy.freeze()

                proxy.on_query = look
                with pytest.raises(TransientError):
                    await fail_in(database)
                proxy.on_query = None
                proxy.thaw()
                async with database.transaction() as connection:
                    await connection.exec_driver_sql("UPDATE astcatalog SET version = version + 1")
            async with straight.reading() as connection:
                result = await connection.exec_driver_sql("SELECT version FROM astcatalog")
                assert result.scalar_one() == 2

    asyncio.run(main())


async def fail_in(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE astcatalog SET version = 99")
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "a value that the driver cannot send")


def test_a_deadlock_with_another_program_is_tried_again(mariadb: MariaDb, mariadb_url: str) -> None:
    """An accountant's script holds client 2 and wants client 1; a batch has client 1 and wants 2.
    The script has written more, so that it is the batch that the server gives up."""
    script = mariadb.connect(mariadb_url.rsplit("/", 1)[1])

    def run(statement: str) -> None:
        with script.cursor() as cursor:
            cursor.execute(statement)

    async def batch_waits() -> None:
        """Until the server says that a transaction waits for a lock."""
        waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        while not await asyncio.to_thread(mariadb.execute, waiting):  # noqa: ASYNC110 - the server's state has no event
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with site(mariadb_url) as it:
            await asyncio.to_thread(run, "BEGIN")
            await asyncio.to_thread(run, "UPDATE astclient SET email = 'x' WHERE id = 2")
            for _ in range(20):
                await asyncio.to_thread(run, "UPDATE astrate SET prefix = CONCAT(prefix, 4)")
                await asyncio.to_thread(run, "UPDATE astrate SET prefix = 44")
            asked = [it.batcher.submit(o) for o in (request(2, "alice"), request(3, "bob"))]
            await batch_waits()
            await asyncio.to_thread(run, "UPDATE astclient SET email = 'x' WHERE id = 1")
            await it.log.first_failure.wait()
            await asyncio.to_thread(run, "COMMIT")
            outcomes = await asyncio.gather(*asked)
            assert all(isinstance(o, Decision) and o.allowed for o in outcomes)
            assert {type(failure) for failure in it.log.failed} == {TransientError}
            assert "Deadlock" in str(it.log.failed[0])
            assert audit(await it.books()) == []

    try:
        asyncio.run(main())
    finally:
        script.close()


def test_batches_that_name_the_same_clients_in_opposite_order_do_not_deadlock(
    mariadb_url: str,
) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as one, opened(mariadb_url) as two:
            await seed(one, [prepaid(1, 900 * FULL_CALL), prepaid(2, 900 * FULL_CALL)])
            asked: list[asyncio.Future[Outcome]] = []
            async with running(one) as (first, log), running(two) as (second, other_log):
                for batcher, base, people in (
                    (first, 1_000, ("alice", "bob")),
                    (second, 2_000, ("bob", "alice")),
                ):
                    numbers = range(base, base + 80)
                    asked += [batcher.submit(request(n, people[n % 2])) for n in numbers]
                    asked += [batcher.submit(caller_ended(n)) for n in numbers]
                await asyncio.gather(*asked)
            assert [*log.failed, *other_log.failed] == []
            assert audit(await snapshot(one)) == []

    asyncio.run(main())


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[tuple[Batcher, BatchLog]]:
    """A batcher that makes many small batches."""
    source, log = SqlCatalog(database, inline_rates=1_000), BatchLog()
    ledger = Ledger(SqlBooks(database), source, policy(), Clock())
    batcher = Batcher(ledger.apply, no_orphan, log, most_operations=2)
    batcher.start()
    yield batcher, log
    await batcher.stop(20)
    await source.close()


class Abreast(SqlBooks):
    """Writes only when all others are about to write, and commits only when all have written."""

    def __init__(self, database: Database, others: asyncio.Barrier) -> None:
        super().__init__(database)
        self._others = others

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        async with super().transaction() as transaction:
            really = transaction.write

            async def write(changes: Changes) -> None:
                await self._others.wait()
                await really(changes)
                await transaction.session.ask()  # what is written waits for COMMIT if it can
                await self._others.wait()

            transaction.write = write  # type: ignore[method-assign]
            yield transaction


def test_batches_of_different_clients_do_not_wait_for_each_other(mariadb_url: str) -> None:
    """No statement locks rows that it does not need, whatever the server's optimizer thinks of so
    small a table: two transactions write at the same time and commit when both have written."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database, [prepaid(n, 90 * FULL_CALL) for n in range(1, 21)])
            others, source = asyncio.Barrier(2), SqlCatalog(database, inline_rates=1_000)
            books = Abreast(database, others)
            ledger = Ledger(books, source, policy(), Clock())
            alices, bobs = range(1, 11), range(11, 21)

            async def rewrite(ids: range) -> None:
                async with books.transaction() as transaction:
                    clients = await transaction.lock_clients(ids)
                    await transaction.write(Changes(clients=dict(clients)))

            def batches(make: Callable[[int], Operation]) -> list[list[Operation]]:
                return [[make(n) for n in numbers] for numbers in (alices, bobs)]

            asked = [[request(n, "alice") for n in alices], [request(n, "bob") for n in bobs]]
            for pair in (asked, batches(answered), batches(leg_ended)):
                await asyncio.gather(*(ledger.apply(batch, {}, []) for batch in pair))
            await asyncio.gather(rewrite(alices), rewrite(bobs))
            await asyncio.gather(rewrite(range(1, 19)), rewrite(range(19, 21)))
            assert (await snapshot(database)).statuses() == {"completed": 20}
            await source.close()

    asyncio.run(main())


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(
    ("mode", "moments"),
    [("asking", ("COMMIT", "SELECT id, kind", "COMMIT")), ("guessing", ("COMMIT", "COMMIT"))],
    indirect=["mode"],
)
def test_a_server_that_is_killed_under_load(
    mariadb: MariaDb, mariadb_url: str, moments: Sequence[str]
) -> None:
    """Power cuts and restarts: every answer stands in the books, every call is charged once."""

    async def round_of(it: Site, numbers: range, moment: str) -> None:
        it.log.first_failure.clear()
        it.at(moment, lambda pipe: mariadb.kill())
        asked = [it.batcher.submit(request(n, "bob")) for n in numbers]
        told = [answered(n) for n in numbers], [leg_ended(n, NOW_MS + 2_000) for n in numbers]
        heard = [it.batcher.submit(event) for events in told for event in events]
        await it.log.first_failure.wait()
        mariadb.restart()  # in this thread: the server dies with the thread that starts it
        outcomes = await asyncio.gather(*asked)
        assert all(isinstance(o, Decision) and o.allowed for o in outcomes)
        await asyncio.gather(*heard)

    async def main() -> None:
        async with site(mariadb_url) as it:
            for number, moment in enumerate(moments, 1):
                await round_of(it, range(100 * number, 100 * number + 90), moment)
            books, calls = await it.books(), 90 * len(moments)
            assert books.statuses() == {"answered": 1, "completed": calls}
            assert books.client(2).balance == 400 * FULL_CALL - calls * 2_000
            assert audit(books) == []

    asyncio.run(main())
