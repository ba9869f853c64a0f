"""Blocked prefixes as administrators change them in SQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from astcredit.service.administration import Administration
from astcredit.service.block_desk import BlockDesk
from astcredit.service.block_ports import Block
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.calls import query
from support.core import Clock, opened

Work = Callable[[BlockDesk, Database], Awaitable[None]]


def at_desk(url: str, work: Work) -> None:
    """With the clients acme and beta."""

    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            store, clock = SqlAdministration(database), Clock()
            for name in ("acme", "beta"):
                await Administration(store, "me@here", clock).add_client(name, ClientChange())
            await work(BlockDesk(store, "me@here", clock), database)

    asyncio.run(run())


async def names(desk: BlockDesk) -> list[str]:
    return [block.name for block in await desk.blocks()]


def test_a_prefix_is_blocked_once_for_everybody_and_once_for_each_client(
    database_url: str,
) -> None:
    async def work(desk: BlockDesk, _: Database) -> None:
        await desk.add("+44900", note="premium")
        await desk.add("44900", "acme")
        await desk.add("44900", "beta")
        for client, whose in (("", "everybody"), ("acme", "client 'acme'")):
            with pytest.raises(RefusedError, match=f"44900 for {whose} is there already, with id"):
                await desk.add("+44900", client)
        await desk.enable("44900", "acme", False)
        with pytest.raises(RefusedError, match="with id 2; it is disabled"):
            await desk.add("44900", "acme")
        assert await names(desk) == ["44900", "44900 acme", "44900 beta"]
        assert [block.id for block in await desk.blocks("acme")] == [2]

    at_desk(database_url, work)


@pytest.mark.parametrize("prefix", ["", "+", "++44", "44x", "4 4", "٤٤", "4" * 21, "44;", "-44"])
def test_what_is_no_prefix_is_refused(sqlite_url: str, prefix: str) -> None:
    async def work(desk: BlockDesk, database: Database) -> None:
        with pytest.raises(RefusedError, match="expected 1 to 20 digits"):
            await desk.add(prefix)
        with pytest.raises(RefusedError, match="expected 1 to 20 digits"):
            await desk.enable(prefix, "", False)
        assert await query(database, "SELECT * FROM astblock") == []

    at_desk(sqlite_url, work)


def test_the_longest_prefix_is_kept_whole(database_url: str) -> None:
    async def work(desk: BlockDesk, _: Database) -> None:
        assert (await desk.add("9" * 20, "acme", "x" * 200)).prefix == "9" * 20
        assert (await desk.block("9" * 20, "acme")).note == "x" * 200

    at_desk(database_url, work)


def test_every_change_leaves_an_audit_row_and_a_version(database_url: str) -> None:
    async def work(desk: BlockDesk, database: Database) -> None:
        await desk.add("882", "acme", "satellite")
        await desk.set("882", "acme", "")
        await desk.set("882", "acme", "")
        assert (await desk.enable("882", "acme", False))[0]
        assert not (await desk.enable("882", "acme", False))[0]
        assert (await desk.enable("882", "acme", True))[0]
        rows = await query(database, "SELECT * FROM astaudit WHERE object_kind = 'block'")
        states = [(r["state_before"], r["state_after"]) for r in rows]
        assert {r["object_name"] for r in rows} == {"882 acme"}
        assert [r["action"] for r in rows] == ["add", "set", "disable", "enable"]
        assert [(a and json.loads(a), json.loads(b)) for a, b in states] == [
            (None, {"prefix": "882", "client": "acme", "note": "satellite", "enabled": True}),
            ({"note": "satellite"}, {"note": ""}),
            ({"enabled": True}, {"enabled": False}),
            ({"enabled": False}, {"enabled": True}),
        ]
        (catalog,) = await query(database, "SELECT version, traced FROM astcatalog")
        with pytest.raises(RefusedError):
            await desk.add("882", "acme")
        assert await query(database, "SELECT version, traced FROM astcatalog") == [catalog]

    at_desk(database_url, work)


def test_a_block_is_named_by_its_prefix_or_by_its_id(database_url: str) -> None:
    async def work(desk: BlockDesk, _: Database) -> None:
        first = await desk.add("900", "acme")
        second = await desk.add("882")
        assert await desk.block(str(first.id)) == first == await desk.block("900", "acme")
        assert await desk.block(str(second.id)) == second == await desk.block("+882")

    at_desk(database_url, work)


def test_a_number_that_is_an_id_and_a_prefix_is_refused(database_url: str) -> None:
    """Else the wrong block could be lifted. A + or a client says that it is the prefix."""

    async def work(desk: BlockDesk, _: Database) -> None:
        first = await desk.add("900", "acme")
        assert first.id == 1
        second = await desk.add("1")
        with pytest.raises(RefusedError, match=r"1 is the id of the block of prefix 900.*\+900"):
            await desk.enable("1", "", False)
        assert [block.enabled for block in await desk.blocks()] == [True, True]
        assert await desk.block("+1") == second
        mine = await desk.add("1", "acme")
        assert await desk.block("1", "acme") == mine

    at_desk(database_url, work)


def test_its_own_id_as_prefix_names_a_block(database_url: str) -> None:
    async def work(desk: BlockDesk, _: Database) -> None:
        assert await desk.add("1") == Block("1", id=1) == await desk.block("1")

    at_desk(database_url, work)


@pytest.mark.parametrize(
    ("name", "client", "message"),
    [
        ("44900", "", "no block of prefix 44900 for everybody; there is a .* for client 'acme'"),
        ("44900", "beta", "no block of prefix 44900 for client 'beta'; there is .* 'acme'"),
        ("77", "", "no block of prefix 77 for everybody$"),
        ("99999999999", "", "no block of prefix 99999999999"),
        ("44900", "acmee", "no client 'acmee'; the nearest is 'acme'"),
    ],
)
def test_an_unknown_block_is_refused_with_the_nearest(
    sqlite_url: str, name: str, client: str, message: str
) -> None:
    async def work(desk: BlockDesk, _: Database) -> None:
        await desk.add("44900", "acme")
        with pytest.raises(RefusedError, match=message):
            await desk.enable(name, client, False)

    at_desk(sqlite_url, work)
