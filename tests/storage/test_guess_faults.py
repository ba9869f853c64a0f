"""What is remembered is wrong, and somebody would pay for it: each is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pymysql.err import OperationalError
from storage.test_guesses import (
    FULL_CALL,
    Server,
    arrive,
    lose_next_commit,
    packets,
    servers,
    sql,
    story,
)

from astcredit.domain.decisions import Decision
from astcredit.service.errors import CommitUnknown, StorageError
from astcredit.service.operations import Changed, Outcome
from astcredit.storage.wire import WireConnection
from support.core import (
    NOW_MS,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    prepaid,
    request,
    snapshot,
)

__all__ = ["packets"]  # a fixture

pytestmark = pytest.mark.mariadb


async def charged(server: Server) -> bool:
    """Whether the end of the first call's leg charges it."""
    (changed,) = await server.do(leg_ended(1, NOW_MS + 5_000))
    assert isinstance(changed, Changed)
    return [settlement.price for settlement in changed.settled] == [5_000]


def test_an_end_of_a_call_whose_answer_only_another_server_noted(mariadb_url: str) -> None:
    """As far as is remembered that channel carried nothing."""

    async def told(one: Server, two: Server) -> None:
        await one.do(request(1))
        await two.do(answered(1))
        assert await charged(one)

    story(mariadb_url, told)


def test_an_end_of_a_call_whose_answer_another_server_noted_first(mariadb_url: str) -> None:
    async def told(one: Server, two: Server) -> None:
        await one.do(request(1))
        await two.do(answered(1))
        assert await one.do(answered(1)) == [Changed()]
        for number in range(2, 12):
            await one.do(request(number))
        assert await charged(one)

    story(mariadb_url, told)


def test_an_end_of_a_call_whose_answer_was_committed_without_a_word(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection was lost after COMMIT; tried again, there was nothing left to note."""
    send = WireConnection._send
    lost: list[bool] = []

    async def lose(self: WireConnection, statements: Sequence[str], endings: int) -> object:
        rows = await send(self, statements, endings)
        if statements[-1] == "COMMIT" and not lost:
            lost.append(True)
            self.close()
            raise OperationalError(2013, "lost")
        return rows

    async def told(one: Server) -> None:
        await one.do(*map(request, (1, 2)))
        monkeypatch.setattr(WireConnection, "_send", lose)
        with pytest.raises(CommitUnknown):
            await one.do(answered(1))
        assert await one.do(answered(1)) == [Changed()]
        await one.do(request(3))
        assert await charged(one)

    story(mariadb_url, told, 1)


@pytest.mark.parametrize("denied_cdr", [True, False])
def test_a_request_that_was_refused_when_it_was_asked_again(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch, denied_cdr: bool
) -> None:
    """Its first packet comes late, to a client that has its money again: nothing is held for a call
    that nobody makes."""

    async def main() -> None:
        clients = [prepaid(1, FULL_CALL)]
        async with servers(mariadb_url, 2, clients, denied_cdr=denied_cdr) as (one, two):
            await one.do(request(1))
            await one.do(caller_ended(1, NOW_MS + 1))
            late = lose_next_commit(monkeypatch)
            first: list[Outcome] = []
            with pytest.raises(CommitUnknown):
                await one.ledger.apply([request(3)], {}, first)
            await two.do(request(9))
            again: list[Outcome] = []
            await one.ledger.apply([request(3)], {call_id(3): first[0]}, again)
            assert isinstance(again[0], Decision)
            assert not again[0].allowed
            await two.do(caller_ended(9, NOW_MS + 1))
            if denied_cdr:
                with pytest.raises(StorageError):
                    await arrive(one.database, late[0])
            else:  # the lock that it had before is lost with its connection
                assert not any("ROW_COUNT" in statement for statement in late[0])
            assert (await snapshot(one.database)).client(1).active_calls == 0

    asyncio.run(main())


def test_a_catalog_without_a_version_lets_nobody_call(mariadb_url: str) -> None:
    """The answer of a question without a row is not that of the last one."""

    async def told(one: Server) -> None:
        await one.do(*map(request, (1, 2)))
        await one.do(request(3))
        await sql(one, "DELETE FROM astcatalog")
        with pytest.raises(StorageError, match="astcatalog"):
            await one.do(request(4))
        await sql(one, "INSERT INTO astcatalog (id, version) VALUES (1, 1)")

    story(mariadb_url, told, 1)


def test_who_is_wrong_about_calls_still_knows_its_clients(
    mariadb_url: str, packets: list[Sequence[str]]
) -> None:
    """One server answers dialplans, the other one listens: what the first remembers of its calls is
    out of date as a rule, and its requests are one packet all the same."""

    async def told(one: Server, two: Server) -> None:
        await one.do(request(1))
        packets.clear()
        for number in range(2, 102):
            await one.do(request(number))
            await two.do(answered(number))
            await one.do(hangup(number, NOW_MS + 5_000, 5_000))
        wrong = sum(sent == ["ROLLBACK"] for sent in packets)
        assert wrong < 10
        assert len(packets) < 600

    story(mariadb_url, told)
