"""A large change of the catalog: the old snapshot serves, as a whole, until the new one is there;
what is changed meanwhile is not lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.domain.accounts import Account
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.service.batcher import Batcher
from astcredit.service.errors import StorageError
from astcredit.service.ledger import Ledger
from astcredit.storage import catalog as catalog_module
from astcredit.storage import catalog_rows
from astcredit.storage.books import SqlBooks
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from support.core import BatchLog, Clock, change_catalog, no_orphan, opened, policy, request
from support.plans import ACCOUNTS
from support.stored_plans import store

MOST = 3
"""Rows that are read at once: the accounts of the world are six, its routing rules three."""
NOTED = "version = (SELECT version FROM astcatalog)"
ALL = f"UPDATE astaccount SET tag = 'all', {NOTED}"
ONE = f"UPDATE astaccount SET tag = 'one', {NOTED} WHERE id = 1"
OFF = f"UPDATE astclient SET enabled = 0, {NOTED} WHERE id = 1"


class Gate:
    """Holds the loads of accounts while a test wants it, and may let one fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = asyncio.Event()
        self.fail: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._really = catalog_rows.load_accounts
        monkeypatch.setattr(catalog_module, "load_accounts", self)

    def hold(self) -> None:
        self.began.clear()
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def __call__(
        self, connection: AsyncConnection, since: int | None
    ) -> Mapping[int, Account]:
        """The accounts as they are when the load begins; it ends when it is let go."""
        accounts = await self._really(connection, since)
        self.began.set()
        await self._open.wait()
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        return accounts


class Site:
    """A database with the world in it, a catalog that has been loaded once, and the gate."""

    def __init__(self, database: Database, source: SqlCatalog, gate: Gate) -> None:
        self.database = database
        self.source = source
        self.gate = gate

    async def noted(self, *statements: str) -> Catalog:
        """Change something as the command line does; the catalog as the next call sees it."""
        traced = "UPDATE astcatalog SET traced = traced + 1"
        raised = "UPDATE astcatalog SET version = version + 1"
        lowered = "UPDATE astcatalog SET version = version - 1"  # as `change_catalog` raises it
        await change_catalog(self.database, traced, raised, *statements, lowered)
        return await self.now()

    async def now(self) -> Catalog:
        return await self.source.at_least(await self.version())

    async def version(self) -> int:
        async with self.database.reading(seconds=None) as connection:
            result = await connection.exec_driver_sql("SELECT version FROM astcatalog")
            return int(result.scalar_one())

    async def loaded(self) -> Catalog:
        """The catalog when nothing is loaded beside it any more, without a question for it."""
        while self.source._overtaking:  # noqa: ASYNC110 - what happens inside has no event
            await asyncio.sleep(0.001)
        return await self.source.at_least(0)


def at_site(
    url: str, monkeypatch: pytest.MonkeyPatch, work: Callable[[Site], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await store(database)
            source = SqlCatalog(database, inline_rates=1_000, inline_rows=MOST)
            await source.at_least(1)
            await work(Site(database, source, Gate(monkeypatch)))
            await source.close()

    asyncio.run(run())


def tags(catalog: Catalog) -> set[str]:
    return {account.tag for account in catalog.accounts.values()}


LARGE = {
    "accounts": (ALL,),
    "accounts and clients": (
        f"UPDATE astaccount SET tag = 'all', {NOTED} WHERE id < 3",
        f"UPDATE astclient SET name = name, {NOTED} WHERE id < 3",
    ),
    "rules": (ONE, "INSERT INTO astroute (routing_plan_id, prefix, account_id, date_created)"
              " VALUES (1, '49', 11, '2026-01-01 00:00:00.000')",
              "UPDATE astroutingplan SET version = 2"),
}  # fmt: skip


@pytest.mark.parametrize("statements", LARGE.values(), ids=LARGE)
def test_a_large_change_is_loaded_while_the_old_snapshot_serves(
    database_url: str, monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    async def work(it: Site) -> None:
        before = await it.source.at_least(0)
        it.gate.hold()
        assert await it.noted(*statements) is before
        await it.gate.began.wait()
        assert await it.now() is before
        it.gate.let_go()
        after = await it.loaded()
        assert (after.version, before.version) == (2, 1)
        assert tags(after) > tags(before) == {""} or tags(after) == {"all"}

    at_site(database_url, monkeypatch, work)


def test_a_change_of_as_many_rows_as_are_read_at_once_is_in_force_for_the_next_call(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(it: Site) -> None:
        after = await it.noted(f"{ALL} WHERE id <= {MOST}")
        assert [after.accounts[id].tag for id in (1, 2, 3, 11)] == ["all"] * 3 + [""]
        assert (await it.noted("UPDATE astroutingplan SET version = 2")).version == 3

    at_site(database_url, monkeypatch, work)


def test_a_change_by_hand_of_a_large_catalog_is_loaded_beside(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(it: Site) -> None:
        before = await it.source.at_least(0)
        await change_catalog(it.database, "UPDATE astaccount SET tag = 'hand' WHERE id = 2")
        assert await it.now() is before
        assert (await it.loaded()).accounts[2].tag == "hand"

    at_site(database_url, monkeypatch, work)


def test_a_small_change_meanwhile_is_in_force_right_after_the_large_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask again. Until then calls see neither: never one without the other."""

    async def work(it: Site) -> None:
        before = await it.source.at_least(0)
        it.gate.hold()
        await it.noted(ALL)
        await it.gate.began.wait()
        assert await it.noted(ONE) is before
        assert await it.noted(OFF) is before
        it.gate.let_go()
        after = await it.loaded()
        assert after.version == await it.version()
        assert [after.accounts[id].tag for id in (1, 2)] == ["one", "all"]
        assert not after.clients[1].enabled

    at_site(database_url, monkeypatch, work)


def test_a_large_change_during_the_load_of_another_is_not_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(it: Site) -> None:
        it.gate.hold()
        await it.noted(ALL)
        await it.gate.began.wait()
        await it.noted(ALL.replace("'all'", "'again'"))
        it.gate.let_go()
        assert tags(await it.loaded()) == {"again"}

    at_site(database_url, monkeypatch, work)


def test_a_load_that_fails_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database went away in the middle: the old snapshot serves until it is back."""
    monkeypatch.setattr(catalog_module, "RETRY_SECONDS", 0.01)
    caplog.set_level(logging.ERROR, "astcredit")

    async def work(it: Site) -> None:
        it.gate.fail = StorageError("gone")
        before = await it.source.at_least(0)
        assert await it.noted(ALL) is before
        assert tags(await it.loaded()) == {"all"}
        assert [getattr(r, "action", "") for r in caplog.records] == ["catalog_failed"]

    at_site(database_url, monkeypatch, work)


def test_nonsense_keeps_the_old_snapshot_until_it_is_put_right(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "astcredit")

    async def work(it: Site) -> None:
        before = await it.source.at_least(0)
        await it.noted(ALL, "UPDATE astaccount SET ident = 'alice' WHERE id = 2")
        for _ in range(3):
            assert await it.loaded() is before
            assert await it.now() is before
        assert [getattr(r, "action", "") for r in caplog.records] == ["catalog_refused"]
        await it.noted(f"UPDATE astaccount SET ident = 'alan', {NOTED} WHERE id = 2")
        assert tags(await it.loaded()) == {"all"}

    at_site(database_url, monkeypatch, work)


@asynccontextmanager
async def serving(it: Site) -> AsyncIterator[Batcher]:
    ledger = Ledger(SqlBooks(it.database), it.source, policy(), Clock())
    batcher = Batcher(ledger.apply, no_orphan, BatchLog(), most_operations=256)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop(10)


def test_calls_are_answered_during_the_load_and_by_all_changes_after_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server has once been told of a version it does not ask for again: that must not hide
    a change that came during the load."""

    async def work(it: Site) -> None:
        async with serving(it) as batcher:

            async def status(number: int, who: str = "alice") -> str:
                outcome = await batcher.submit(request(number, who))
                assert isinstance(outcome, Decision)
                return outcome.status

            assert await status(1) == "ALLOWED"
            it.gate.hold()
            renamed = f"UPDATE astaccount SET ident = 'other', {NOTED} WHERE id = 1"
            await change_catalog(it.database, ALL, renamed)
            assert [await status(2), await status(3, "other")] == ["ALLOWED", "NOACCOUNT"]
            await it.gate.began.wait()
            await change_catalog(it.database, "UPDATE astaccount SET enabled = 0 WHERE id = 2")
            assert [await status(4), await status(5, "alan")] == ["ALLOWED", "ALLOWED"]
            it.gate.let_go()
            await it.loaded()
            asked = [await status(6), await status(7, "other"), await status(8, "alan")]
            assert asked == ["NOACCOUNT", "ALLOWED", "DISABLED"]

    at_site(database_url, monkeypatch, work)


def test_a_server_that_ends_leaves_no_load_behind(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(it: Site) -> None:
        it.gate.hold()
        await it.noted(ALL)
        await it.gate.began.wait()
        await it.source.close()
        assert it.source._overtaking is None
        assert len(ACCOUNTS) == len((await it.source.at_least(0)).accounts)

    at_site(sqlite_url, monkeypatch, work)
