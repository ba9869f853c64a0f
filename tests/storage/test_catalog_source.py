"""The catalog of a running server: what is changed in the database is in force for the next call,
and what cannot be read does not stop the calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from astcredit.domain.calls import AuthStatus, Origin
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.rate_index import RateIndex
from astcredit.domain.rating import Rate
from astcredit.service.errors import StorageError
from astcredit.storage import catalog as catalog_module
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.rate_rows import RateRows
from support.core import (
    NODE,
    NOW_MS,
    RATE,
    add_account,
    add_client,
    add_rate_table,
    change_catalog,
    identified,
    opened,
    postpaid,
    request,
    seed,
    server,
    snapshot,
)

SMALL, LARGE = 2, 11
"""Numbers of rates: with `inline_rates=10` a large table is loaded beside the old one."""


@asynccontextmanager
async def source(database: Database, rates: int = SMALL) -> AsyncIterator[SqlCatalog]:
    """A catalog that has been loaded once; its rate table has so many rates."""
    await seed(database, rates=deck(rates))
    it = SqlCatalog(database, inline_rates=10)
    await it.at_least(1)
    yield it
    await it.close()


def deck(rates: int) -> list[Rate]:
    """44… as in the small world, and others."""
    return [RATE, *(Rate(f"9{number:03}", "", 1) for number in range(rates - 1))]


async def version(database: Database) -> int:
    async with database.reading() as connection:
        result = await connection.exec_driver_sql("SELECT version FROM astcatalog")
        return int(result.scalar_one())


async def price_of(it: SqlCatalog, database: Database) -> int | None:
    """What alice's calls cost a minute for whoever asks now, in micros."""
    catalog = await it.at_least(await version(database))
    account = identified(catalog, "alice")
    assert account is not None
    table = catalog.rate_table_for(account)
    rate = table.lookup("442", NOW_MS) if table else None
    return rate.rate_per_minute if rate else None


def new_price(database: Database, micros: int, table_version: int) -> tuple[str, str]:
    """The statements of an import that sets the price of 44…."""
    amount = str(micros) if database.is_sqlite else f"{micros} / 1000000"
    return (
        f"UPDATE astrate SET rate_per_minute = {amount} WHERE prefix = '44'",
        f"UPDATE astratetable SET version = {table_version}",
    )


def test_a_change_is_in_force_for_the_next_call(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database, source(database) as it:
            assert await price_of(it, database) == 60_000
            await change_catalog(database, *new_price(database, 70_000, 2))
            assert await price_of(it, database) == 70_000

    asyncio.run(main())


def test_a_running_server_decides_by_the_change_at_once(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [postpaid(1), postpaid(2)])
            async with server(database) as batcher:

                async def ask(number: int) -> tuple[AuthStatus, int]:
                    outcome = await batcher.submit(request(number))
                    assert isinstance(outcome, Decision)
                    return outcome.status, outcome.reserved

                assert await ask(1) == ("ALLOWED", 3_600_000)
                await change_catalog(database, *new_price(database, 120_000, 2))
                assert await ask(2) == ("ALLOWED", 7_200_000)
                await change_catalog(database, "UPDATE astaccount SET enabled = 0")
                assert await ask(3) == ("DISABLED", 0)
                await change_catalog(database, "UPDATE astaccount SET ident = 'x' WHERE id = 1")
                assert await ask(4) == ("NOACCOUNT", 0)

    asyncio.run(main())


def test_what_did_not_change_is_not_loaded_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(sqlite_url) as database, source(database) as it:
            before = await it.at_least(1)
            assert await it.at_least(1) is before
            await change_catalog(database, "UPDATE astclient SET name = 'other' WHERE id = 2")
            after = await it.at_least(2)
            assert after.clients[2].name == "other"
            assert after.rate_tables[1] is before.rate_tables[1]

    asyncio.run(main())


def test_those_who_wait_share_one_load(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(sqlite_url) as database, source(database) as it:
            loads = Loads(monkeypatch)
            loads.hold()
            await change_catalog(database, *new_price(database, 70_000, 2))
            waiting = [asyncio.create_task(it.at_least(2)) for _ in range(5)]
            await loads.began.wait()
            waiting[0].cancel()  # whoever gives up does not stop the load
            loads.let_go()
            told = await asyncio.gather(*waiting[1:])
            assert {catalog.version for catalog in told} == {2}
            assert loads.count == 1

    asyncio.run(main())


class Loads:
    """Counts the loads of rates, and holds them while a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.began = asyncio.Event()
        self.fail: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._really = catalog_module.load_rates
        monkeypatch.setattr(catalog_module, "load_rates", self)

    def hold(self) -> None:
        self.began.clear()
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def __call__(self, rows: RateRows) -> RateIndex:
        """The rates as they are when the load begins; it ends when it is let go."""
        index = await self._really(rows)
        self.count += 1
        self.began.set()
        await self._open.wait()
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        return index


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it is so; the test's time-out ends what never comes."""
    while not condition():  # noqa: ASYNC110 - what happens inside has no event
        await asyncio.sleep(0.001)


def price_now(it: SqlCatalog, micros: int) -> Callable[[], bool]:
    """Whether calls are rated by that, without a look at the database."""

    def matches() -> bool:
        catalog = it._catalog
        rate = catalog.rate_tables[1].lookup("442", NOW_MS) if catalog else None
        return rate is not None and rate.rate_per_minute == micros

    return matches


def test_a_large_deck_is_loaded_beside_while_the_old_one_serves(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(database_url) as database, source(database, LARGE) as it:
            loads = Loads(monkeypatch)
            loads.hold()
            await change_catalog(database, *new_price(database, 70_000, 2))
            assert await price_of(it, database) == 60_000  # at once, with the old rates
            await loads.began.wait()
            await change_catalog(database, "UPDATE astclient SET name = 'other' WHERE id = 2")
            assert await price_of(it, database) == 60_000
            assert (await it.at_least(3)).clients[2].name == "other"
            loads.let_go()
            await until(price_now(it, 70_000))
            assert (await it.at_least(3)).clients[2].name == "other"

    asyncio.run(main())


def test_a_deck_that_is_replaced_while_it_is_loaded_is_not_forgotten(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two imports shortly after each other: the second one is in force in the end."""

    async def main() -> None:
        async with opened(sqlite_url) as database, source(database, LARGE) as it:
            loads = Loads(monkeypatch)
            loads.hold()
            await change_catalog(database, *new_price(database, 70_000, 2))
            await it.at_least(2)
            await loads.began.wait()
            await change_catalog(database, *new_price(database, 80_000, 3))
            await it.at_least(3)
            loads.let_go()
            await until(price_now(it, 80_000))

    asyncio.run(main())


def test_a_deck_that_is_ready_during_another_change_is_not_put_back(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load of the other change began before the deck was there and ends after it."""

    async def main() -> None:
        async with opened(sqlite_url) as database, source(database, LARGE) as it:
            async with database.transaction() as connection:
                await add_rate_table(connection, 2, "second", deck(SMALL))
            loads = Loads(monkeypatch)
            loads.hold()
            await change_catalog(database, "UPDATE astratetable SET version = 1 WHERE id = 2")
            await change_catalog(
                database,
                *new_price(database, 70_000, 2),
                "UPDATE astratetable SET version = 1 WHERE id = 2",
            )
            other = asyncio.create_task(it.at_least(2))
            await until(lambda: loads.count == 2)  # the deck beside, the second table inline
            loads.let_go()
            await other
            await until(price_now(it, 70_000))
            await change_catalog(database, "UPDATE astclient SET name = 'other' WHERE id = 2")
            await it.at_least(3)
            assert price_now(it, 70_000)()

    asyncio.run(main())


@pytest.mark.parametrize("error", [StorageError("gone"), ValueError("prefix: 'x'")], ids=str)
def test_a_deck_that_could_not_be_loaded_is_tried_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """No further change is needed, and the old one serves meanwhile."""
    monkeypatch.setattr(catalog_module, "RETRY_SECONDS", 0)

    async def main() -> None:
        async with opened(sqlite_url) as database, source(database, LARGE) as it:
            loads = Loads(monkeypatch)
            loads.fail = error
            await change_catalog(database, *new_price(database, 70_000, 2))
            assert await price_of(it, database) in (60_000, 70_000)
            await until(price_now(it, 70_000))
            assert loads.count == 2

    asyncio.run(main())


def test_a_deck_of_a_restored_backup_is_loaded_though_its_version_is_lower(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(sqlite_url) as database, source(database, LARGE) as it:
            await change_catalog(database, *new_price(database, 70_000, 5))
            await it.at_least(2)
            await until(price_now(it, 70_000))
            loads = Loads(monkeypatch)
            await change_catalog(database, *new_price(database, 50_000, 3))
            await it.at_least(3)
            await until(price_now(it, 50_000))
            await until(lambda: not it._beside)
            assert loads.count == 1

    asyncio.run(main())


def test_a_table_that_is_disabled_while_it_is_loaded_is_not_used(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(sqlite_url) as database, source(database, LARGE) as it:
            loads = Loads(monkeypatch)
            loads.hold()
            await change_catalog(database, *new_price(database, 70_000, 2))
            await it.at_least(2)
            await loads.began.wait()
            await change_catalog(database, "UPDATE astratetable SET enabled = 0")
            assert await price_of(it, database) is None
            loads.let_go()
            await until(lambda: not it._beside)
            assert (await it.at_least(3)).rate_tables == {}
            await change_catalog(database, "UPDATE astratetable SET enabled = 1")
            await it.at_least(4)
            await until(price_now(it, 70_000))

    asyncio.run(main())


NONSENSE = {
    "two accounts with one name": "UPDATE astaccount SET ident = 'alice' WHERE id IN (1, 2)",
    "a prefix of letters": "UPDATE astrate SET prefix = 'abc' WHERE prefix = '9000'",
    "an increment of 0": "UPDATE astrate SET first_increment = 0 WHERE prefix = '9000'",
}


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_the_tables_keeps_the_last_good_catalog(
    database_url: str, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody wrote to the tables by hand: calls are decided as before, the log says what is
    wrong once, and when it is put right the change is in force."""
    caplog.set_level(logging.ERROR, "astcredit")

    async def main() -> None:
        async with opened(database_url) as database, source(database) as it:
            before = await it.at_least(1)
            await change_catalog(database, statement, "UPDATE astratetable SET version = 2")
            for _ in range(3):
                assert same(await it.at_least(await version(database)), before)
            actions = [getattr(record, "action", "") for record in caplog.records]
            assert actions == ["catalog_refused"]
            await change_catalog(
                database,
                "DELETE FROM astrate WHERE prefix = 'abc' OR first_increment = 0",
                "UPDATE astaccount SET ident = name",
                "UPDATE astclient SET name = 'other' WHERE id = 2",
                "UPDATE astratetable SET version = 3",
            )
            after = await it.at_least(await version(database))
            assert after.clients[2].name == "other"

    asyncio.run(main())


def same(one: Catalog, other: Catalog) -> bool:
    return replace(one, version=0, rate_tables={}) == replace(
        other, version=0, rate_tables={}
    ) and {table.version for table in one.rate_tables.values()} == {1}


def test_nonsense_at_the_start_is_a_storage_error(database_url: str) -> None:
    """There is no last good one: `serve` and `funds` say what is wrong."""

    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database)
            await change_catalog(database, NONSENSE["two accounts with one name"])
            it = SqlCatalog(database, inline_rates=10)
            for _ in range(2):
                with pytest.raises(StorageError, match="'alice' and 'alan'"):
                    await it.at_least(1)
            await change_catalog(database, "UPDATE astaccount SET ident = name")
            assert identified(await it.at_least(1), "alan") is not None
            await it.close()

    asyncio.run(main())


def test_calls_go_on_beside_nonsense(database_url: str) -> None:
    async def main() -> None:
        async with opened(database_url) as database:
            await seed(database, [postpaid(1), postpaid(2)])
            async with server(database) as batcher:
                await batcher.submit(request(1))
                await change_catalog(database, NONSENSE["two accounts with one name"])
                outcomes = await asyncio.gather(*(batcher.submit(request(n)) for n in (2, 3)))
                assert all(isinstance(o, Decision) and o.allowed for o in outcomes)
            assert (await snapshot(database)).statuses() == {"open": 3}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ident", "names"),
    [
        ("alice", ["alice"]),
        ("alice;a2", ["alice", "a2"]),
        ("alice;", ["alice"]),
        (" alice ; a2 ;; ", ["alice", "a2"]),
        (";", []),
        ("", []),
    ],
)
def test_the_names_of_an_account(database_url: str, ident: str, names: list[str]) -> None:
    """Nobody is recognised by an empty name, whatever slip is in the list."""

    async def main() -> None:
        async with opened(database_url) as database, source(database) as it:
            await change_catalog(database, f"UPDATE astaccount SET ident = '{ident}' WHERE id = 1")
            catalog = await it.at_least(2)
            assert identified(catalog, "") is None
            assert catalog.accounts[1].idents == tuple(names)
            for name in names:
                found = identified(catalog, name)
                assert found is not None
                assert found.id == 1

    asyncio.run(main())


def test_only_names_are_compared_with_the_accountcode(database_url: str) -> None:
    """An account that is recognised by an address is nobody's accountcode."""

    async def main() -> None:
        async with opened(database_url) as database, source(database) as it:
            async with database.transaction() as connection:
                await add_client(connection, postpaid(3))
                await add_account(connection, 9, 3, "gateway", "192.0.2.1")
            await change_catalog(database, "UPDATE astaccount SET ident_by = 'ip' WHERE id = 9")
            catalog = await it.at_least(2)
            assert identified(catalog, "192.0.2.1") is None
            found = catalog.identify(Origin(NODE, source="192.0.2.1:5060"))
            assert found is not None
            assert found.account.name == "gateway"

    asyncio.run(main())
