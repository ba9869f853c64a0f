"""Several servers in one address: which is used, when it is left, and what is shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import make_url

from astcredit.service.errors import RefusedError, TransientError
from astcredit.storage import hosts as hosts_module
from astcredit.storage.database import Database, open_database
from astcredit.storage.hosts import addresses, shown
from support.core import opened
from support.databases import free_port
from support.tcp_proxy import Pipe, Proxy, proxied


@pytest.mark.parametrize(
    ("url", "single"),
    [
        ("sqlite:///a,b.db", ["sqlite:///a,b.db"]),
        ("mysql://u:p@h/d", ["mysql://u:p@h/d"]),
        ("mysql://u:p@h1,h2/d", ["mysql://u:p@h1/d", "mysql://u:p@h2/d"]),
        ("mysql://u:p@h1:1,h2/d?x=1,2", ["mysql://u:p@h1:1/d?x=1,2", "mysql://u:p@h2/d?x=1,2"]),
        ("mysql://u:p,/p@h1,[::1]:2/d", ["mysql://u:p,/p@h1/d", "mysql://u:p,/p@[::1]:2/d"]),
        ("nothing", ["nothing"]),
    ],
)
def test_an_address_is_taken_apart(url: str, single: list[str]) -> None:
    assert addresses(url) == single


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u:secret@h1,h2:3307/d", "mysql://u:***@h1,h2:3307/d"),
        ("mysql://u:secret@h1/d", "mysql://u:***@h1/d"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(url) == expected
    assert open_database(url).shown_url == expected


@pytest.mark.parametrize("url", ["mysql://u:secret@h1,h2:port/d", "mysql://u:secret@h1,h2"])
def test_another_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RefusedError, match="expected sqlite:///PATH or mysql://") as caught:
        open_database(url)
    assert "u:secret" not in str(caught.value)


@dataclass(frozen=True, slots=True)
class Pair:
    """One server behind two proxies: two servers, as far as the program can tell."""

    first: Proxy
    second: Proxy
    database: Database


@asynccontextmanager
async def pair(url: str) -> AsyncIterator[Pair]:
    async with proxied(url) as (first, _), proxied(url) as (second, _):
        address = make_url(url)
        both = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        login = f"{address.username}:{address.password}"
        async with opened(f"mysql://{login}@{both}/{address.database}") as database:
            yield Pair(first, second, database)


async def ask(database: Database) -> None:
    async with database.transaction(5) as connection:
        await connection.exec_driver_sql("SELECT 1")


def test_the_first_server_is_used_as_long_as_it_answers(mariadb_url: str) -> None:
    async def main() -> None:
        async with pair(mariadb_url) as it:
            for _ in range(3):
                await ask(it.database)
            assert (it.first.accepted, it.second.accepted) == (1, 0)

    asyncio.run(main())


def test_a_server_that_is_not_there_is_passed_over(mariadb_url: str) -> None:
    address = make_url(mariadb_url)
    gone = f"127.0.0.1:{free_port()}"
    login = f"{address.username}:{address.password}"
    url = f"mysql://{login}@{gone},127.0.0.1:{address.port}/{address.database}"

    async def main() -> None:
        async with opened(url) as database:
            await ask(database)

    asyncio.run(main())


def test_no_server_that_is_there_is_a_passing_trouble() -> None:
    url = f"mysql://u:p@127.0.0.1:{free_port()},127.0.0.1:{free_port()}/d"

    async def main() -> None:
        async with opened(url) as database:
            with pytest.raises(TransientError, match="connect"):
                await ask(database)

    asyncio.run(main())


def test_a_frozen_server_is_given_up_in_time_for_the_next(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection and says nothing: the driver alone would wait for ever."""
    monkeypatch.setattr(hosts_module, "CONNECT_SECONDS", 0.2)

    async def main() -> None:
        async with pair(mariadb_url) as it:
            it.first.freeze()
            await ask(it.database)
            assert it.second.accepted == 1
            it.first.thaw()

    asyncio.run(main())


def test_all_connections_leave_a_server_that_failed_one(mariadb_url: str) -> None:
    """The next transaction does not wait on a second connection to the same dead server. Nor does
    anything go back to it as long as the other works."""

    async def main() -> None:
        async with pair(mariadb_url) as it:
            async with it.database.transaction(5), it.database.transaction(5):
                pass  # two connections wait in the pool
            assert it.first.accepted == 2

            def cut(pipe: Pipe, query: str) -> None:
                it.first.on_query = None
                pipe.cut()

            it.first.on_query = cut
            with pytest.raises(TransientError):
                await ask(it.database)
            async with it.database.transaction(5), it.database.transaction(5):
                pass
            assert (it.first.accepted, it.second.accepted) == (2, 2)

    asyncio.run(main())


def test_a_server_that_does_not_answer_in_time_is_left(mariadb_url: str) -> None:
    async def main() -> None:
        async with pair(mariadb_url) as it:
            await ask(it.database)
            it.first.freeze()
            with pytest.raises(TransientError, match="in time"):
                async with it.database.transaction(0.2):
                    pass
            await ask(it.database)
            assert it.second.accepted == 1
            it.first.thaw()

    asyncio.run(main())


def test_who_gives_up_waiting_does_not_leave_the_server(mariadb_url: str) -> None:
    """A caller hung up: that says nothing of the database."""

    async def main() -> None:
        async with pair(mariadb_url) as it:
            inside = asyncio.Event()

            async def never_done() -> None:
                async with it.database.transaction(5):
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(never_done())
            await inside.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ask(it.database)
            assert it.second.accepted == 0

    asyncio.run(main())


READ_ONLY = "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = 'read only'"


@pytest.mark.parametrize(
    ("statement", "leaves"), [(READ_ONLY, True), ("UPDATE nosuchtable SET a = 1", False)]
)
def test_a_server_that_may_only_be_read_is_left(
    mariadb_url: str, statement: str, leaves: bool
) -> None:
    """Another one may take what it refuses; other errors are no reason to leave."""

    async def main() -> None:
        async with pair(mariadb_url) as it:
            with pytest.raises(TransientError):
                async with it.database.transaction(5) as connection:
                    await connection.exec_driver_sql(statement)
            await ask(it.database)
            assert it.second.accepted == int(leaves)

    asyncio.run(main())
