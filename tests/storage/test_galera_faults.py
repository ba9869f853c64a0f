"""Servers of a cluster are killed, frozen and cut off under load, and controllers are killed:
nothing is lost, nothing is booked twice, and all servers agree afterwards."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from astcredit.asterisk.simulator import SimulatedChannel, SimulationError
from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.decisions import Decision
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.errors import CommitUnknown
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Outcome
from astcredit.storage.books import SqlBooks, SqlBooksTransaction
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    BatchLog,
    Clock,
    answered,
    call_id,
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
from support.galera import Galera, GaleraNode
from support.plans import routed
from support.server import RunningServer, astcredit, serving
from support.stored_plans import store

pytestmark = pytest.mark.mariadb

FULL_CALL = LONGEST_SECONDS * 1_000
PLENTY = 10_000 * FULL_CALL
IMPATIENT_SECONDS = 2.0


@pytest.fixture(autouse=True)
def _no_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.05)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction is given up sooner than after five seconds."""
    for method in (Database.transaction, Database.session):
        function = method.__wrapped__  # type: ignore[union-attr]
        monkeypatch.setattr(function, "__defaults__", (IMPATIENT_SECONDS,))


def with_quota(client: ClientBooks, quota: int) -> ClientBooks:
    return replace(client, monthly_quota=quota, quota_counted=True)


async def whole_calls(batcher: Batcher, numbers: range, people: tuple[str, str]) -> list[Outcome]:
    """Calls from their authorization to their end, all at once; the decisions."""

    async def call(number: int) -> Outcome:
        decision = await batcher.submit(request(number, people[number % 2]))
        await batcher.submit(answered(number))
        await batcher.submit(leg_ended(number, NOW_MS + 2_000))
        return decision

    return list(await asyncio.gather(*map(call, numbers)))


@asynccontextmanager
async def two_controllers(
    galera: Galera, name: str, *hosts: tuple[int, ...]
) -> AsyncIterator[tuple[Batcher, Batcher]]:
    """Two controllers, each with its own order of servers; small batches, so that they are many."""
    first, second = (galera.url(name, *order) for order in hosts)
    async with opened(galera.url(name, 2)) as straight:
        await seed(straight, [prepaid(1, PLENTY), prepaid(2, PLENTY)])
    async with (
        opened(first) as one,
        opened(second) as two,
        server(one, most_operations=20) as here,
        server(two, most_operations=20) as there,
    ):
        yield here, there


def kill(node: GaleraNode) -> Callable[[], None]:
    node.kill()
    return node.restart


def freeze(node: GaleraNode) -> Callable[[], None]:
    node.freeze()
    return node.thaw


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("fault", [kill, freeze], ids=lambda fault: fault.__name__)
def test_a_server_is_lost_in_the_middle_of_a_load(
    galera: Galera, galera_name: str, fault: Callable[[GaleraNode], Callable[[], None]]
) -> None:
    """Whoever used it goes on with the next one, and it agrees when it is back."""
    back: Callable[[], None] | None = None

    async def main() -> None:
        nonlocal back
        async with two_controllers(galera, galera_name, (0, 1), (1, 0)) as (here, there):
            loads = [
                asyncio.create_task(whole_calls(here, range(1_000, 1_120), ("alice", "bob"))),
                asyncio.create_task(whole_calls(there, range(2_000, 2_120), ("bob", "alan"))),
            ]
            await here.submit(request(1))  # behind the first batches, before the last
            back = fault(galera.nodes[0])
            for decisions in await asyncio.gather(*loads):
                assert all(isinstance(d, Decision) and d.allowed for d in decisions)
            back()
            back = None
        galera.wait_until_whole()
        books = await galera.agreed(galera_name)
        assert books.statuses() == {"open": 1, "completed": 240}
        assert sum(client.balance for client in books.clients) == 2 * PLENTY - 240 * 2_000

    try:
        asyncio.run(main())
    finally:
        if back is not None:
            back()


class CutOff(SqlBooks):
    """Sends its first COMMIT at the moment in which its server is cut off from the others."""

    def __init__(self, database: Database, node: GaleraNode) -> None:
        super().__init__(database)
        self._node: GaleraNode | None = node

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlBooksTransaction]:
        async with super().transaction() as transaction:
            yield transaction
            await transaction.session.ask()  # what is written waits for COMMIT if it can
            node, self._node = self._node, None
            if node is not None:
                await asyncio.to_thread(node.cut_off)


def test_the_outcome_of_a_commit_on_a_server_that_is_cut_off_is_not_known(
    galera: Galera, galera_name: str
) -> None:
    """It says "error during commit", which is no answer: the others may have it. They are asked."""
    node = galera.nodes[0]

    async def main() -> None:
        async with opened(galera.url(galera_name, 0, 1)) as database:
            await seed(database, [prepaid(1, FULL_CALL)])
            source, log = SqlCatalog(database, inline_rates=1_000), BatchLog()
            ledger = Ledger(CutOff(database, node), source, policy(), Clock())
            batcher = Batcher(ledger.apply, no_orphan, log, most_operations=256)
            batcher.start()
            decision = await batcher.submit(request(1))
            await batcher.stop(10)
            await source.close()
            assert isinstance(decision, Decision)
            assert decision.seconds == LONGEST_SECONDS
            assert type(log.failed[0]) is CommitUnknown
            assert "1180" in str(log.failed[0])
        node.reconnect()
        galera.wait_until_whole()
        books = await galera.agreed(galera_name)
        assert [(cdr.id, cdr.status) for cdr in books.cdrs] == [(call_id(1), "open")]

    try:
        asyncio.run(main())
    finally:
        node.reconnect()


def test_money_for_seven_over_two_servers(galera: Galera, galera_name: str) -> None:
    """Thirty calls at the same instant, fifteen through each server."""

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await seed(one, [prepaid(1, 7 * FULL_CALL), prepaid(2)])
            async with (
                server(one, most_operations=2) as first,
                server(two, most_operations=2) as second,
            ):
                asked = [
                    (first, second)[number % 2].submit(request(number)) for number in range(30)
                ]
                outcomes = await asyncio.gather(*asked)
        granted = [o.seconds for o in outcomes if isinstance(o, Decision) and o.allowed]
        assert granted == [LONGEST_SECONDS] * 7
        books = await galera.agreed(galera_name)
        assert books.statuses() == {"open": 7, "NOCREDIT": 23}
        assert books.client(1).reserved == books.client(1).balance

    asyncio.run(main())


def test_a_load_on_rows_that_all_share(galera: Galera, galera_name: str) -> None:
    """Two clients, one of them with a quota, one reseller, and a carrier that takes three calls at
    once: authorized through one server, answered through the other, and ended through both."""
    waves, together = 6, 10
    talk_ms, quota = 20_000, 40 * FULL_CALL
    limits = {"account:11:term": 3, "reseller:1:orig": 8}
    clients = [with_quota(postpaid(1), quota), prepaid(2, 50 * FULL_CALL)]

    async def call(number: int, here: Batcher, there: Batcher) -> str:
        decision = await here.submit(request(number, ("alice", "bob")[number % 2]))
        assert isinstance(decision, Decision)
        if decision.allowed:
            await there.submit(answered(number))
            ended = leg_ended(number, NOW_MS + talk_ms), hangup(number, NOW_MS + talk_ms, talk_ms)
            await asyncio.gather(here.submit(ended[0]), there.submit(ended[1]))
        return decision.status.value

    async def main() -> None:
        async with (
            opened(galera.url(galera_name, 0)) as one,
            opened(galera.url(galera_name, 1)) as two,
        ):
            await store(one, routed(limits), clients)
            async with (
                server(one, most_operations=3) as first,
                server(two, most_operations=3) as second,
            ):
                told: Counter[str] = Counter()
                for wave in range(waves):
                    numbers = range(100 * wave, 100 * wave + together)
                    pairs = ((first, second), (second, first))
                    told.update(
                        await asyncio.gather(*(call(n, *pairs[n // 2 % 2]) for n in numbers))
                    )
        books = await galera.agreed(galera_name)
        allowed = told.pop("ALLOWED")
        assert books.statuses() == {"completed": allowed, **told}
        assert allowed >= waves * limits["account:11:term"]
        assert books.counters == ()
        charged = -sum(e.amount for e in books.ledger if e.kind is LedgerKind.CHARGE)
        assert charged == allowed * talk_ms

    asyncio.run(main())


NUMBER = "00442071234567"
CALLS = 60
PATIENT_MS = "9000"


async def one_call(number: int, servers: Sequence[RunningServer]) -> SimulatedChannel:
    """A call that asks one server and reports its end to the other. A server that is gone in the
    middle has told nothing, or heard nothing."""
    asked, told = servers if number % 2 else servers[::-1]
    channel = SimulatedChannel("127.0.0.1", asked.port, f"call-{number}", "alice", NUMBER)
    with suppress(SimulationError):
        await channel.run("authorize")
        await hang_up(channel, told)
    return channel


async def hang_up(channel: SimulatedChannel, server: RunningServer) -> None:
    if channel.variables.get("AC_STATUS") == "ALLOWED":
        channel.port = server.port
        ended = {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "9.5", "HANGUPCAUSE": "16"}
        channel.variables |= ended
        await channel.run("hangup")


def test_a_controller_is_killed_in_the_middle_of_a_load(
    galera: Galera, galera_name: str, tmp_path: Path
) -> None:
    """Every call that it allowed ends through the other one, also if it was ended already; what it
    did not answer any more is at most a reservation, which expires."""
    urls = galera.url(galera_name, 0, 1), galera.url(galera_name, 1, 0)

    async def prepare() -> None:
        async with opened(urls[0]) as database:
            await seed(database, [prepaid(1, PLENTY), prepaid(2)])

    async def load(servers: Sequence[RunningServer]) -> Sequence[SimulatedChannel]:
        calls = [asyncio.create_task(one_call(n, servers)) for n in range(CALLS)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        servers[0].process.send_signal(signal.SIGKILL)
        channels = await asyncio.gather(*calls)
        await asyncio.gather(*(hang_up(channel, servers[1]) for channel in channels))
        return channels

    asyncio.run(prepare())
    # However slow the machine is, nobody is told ERROR.
    with (
        serving(urls[0], tmp_path, call_answer_deadline_ms=PATIENT_MS) as first,
        serving(urls[1], tmp_path, call_answer_deadline_ms=PATIENT_MS) as second,
    ):
        channels = asyncio.run(load([first, second]))
    books = asyncio.run(galera.agreed(galera_name))
    told = {channel.uniqueid: channel.variables.get("AC_STATUS") for channel in channels}
    allowed = {uniqueid for uniqueid, status in told.items() if status == "ALLOWED"}
    unanswered = {uniqueid for uniqueid, status in told.items() if status is None}
    assert allowed
    assert allowed | unanswered == set(told)
    rows = galera.nodes[2].execute("SELECT uniqueid, status FROM astcdr", galera_name)
    assert {row[0] for row in rows if row[1] == "completed"} == allowed
    assert {row[0] for row in rows if row[1] == "open"} <= unanswered
    assert len(rows) == len({row[0] for row in rows}) == len(books.cdrs)
    for number in range(len(galera.nodes)):
        astcredit(galera.url(galera_name, number), "audit")
