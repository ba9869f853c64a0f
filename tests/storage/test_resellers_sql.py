"""Resellers, and the clients that belong to them, as administrators change them in SQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError
from astcredit.service.reseller_desk import ResellerChange, ResellerDesk
from astcredit.service.reseller_ports import Reseller
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.calls import query
from support.core import Clock, opened

HOSTILE = "'; DROP TABLE astclient; -- %s {0} ${EXTEN} \\ =1+1"


@dataclass(frozen=True)
class Office:
    """The desks on one database."""

    database: Database
    resellers: ResellerDesk
    clients: Administration

    async def version(self) -> tuple[int, int]:
        (row,) = await query(self.database, "SELECT version, traced FROM astcatalog")
        return row["version"], row["traced"]

    async def audit_rows(self) -> list[tuple[Any, ...]]:
        rows = await query(self.database, "SELECT * FROM astaudit ORDER BY id")
        states = ("state_before", "state_after")
        return [
            (
                row["actor"],
                row["action"],
                row["object_kind"],
                row["object_name"],
                *(row[state] and json.loads(row[state]) for state in states),
            )
            for row in rows
        ]


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            store, clock = SqlAdministration(database), Clock()
            resellers = ResellerDesk(store, "me@here", clock)
            await work(Office(database, resellers, Administration(store, "me@here", clock)))

    asyncio.run(run())


Change = Callable[[Office], Awaitable[object]]

CHANGES: tuple[tuple[Change, tuple[str, str, str], Any, Any], ...] = (
    (
        lambda at: at.resellers.add("north", ResellerChange(5)),
        ("add", "reseller", "north"),
        None,
        {"orig_capacity": 5, "term_capacity": None, "enabled": True},
    ),
    (
        lambda at: at.resellers.set("north", ResellerChange(None, 0)),
        ("set", "reseller", "north"),
        {"orig_capacity": 5, "term_capacity": None},
        {"orig_capacity": None, "term_capacity": 0},
    ),
    (
        lambda at: at.resellers.enable("north", False),
        ("disable", "reseller", "north"),
        {"enabled": True},
        {"enabled": False},
    ),
    (
        lambda at: at.resellers.enable("north", True),
        ("enable", "reseller", "north"),
        {"enabled": False},
        {"enabled": True},
    ),
    (
        lambda at: at.clients.add_client("acme", ClientChange(reseller="north", term_capacity=7)),
        ("add", "client", "acme"),
        None,
        {
            "kind": "prepaid",
            "currency": "EUR",
            "credit_limit": "0.000000",
            "rate_table": "",
            "email": "",
            "enabled": True,
            "reseller": "north",
            "routing_plan": "",
            "orig_capacity": None,
            "term_capacity": 7,
            "monthly_quota": None,
            "daily_quota": None,
            "timezone": "UTC",
            "low_balance": None,
        },
    ),
    (
        lambda at: at.clients.set_client("acme", ClientChange(reseller="", orig_capacity=3)),
        ("set", "client", "acme"),
        {"reseller": "north", "orig_capacity": None},
        {"reseller": "", "orig_capacity": 3},
    ),
)
"""Changes, in their order, each with what astaudit keeps of it."""


def test_every_change_moves_the_version_and_leaves_an_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        for change, what, before, after in CHANGES:
            version, traced = await at.version()
            await change(at)
            assert await at.version() == (version + 1, traced + 1)
            assert (await at.audit_rows())[-1] == ("me@here", *what, before, after)
        assert len(await at.audit_rows()) == len(CHANGES)

    at_office(database_url, work)


def test_a_refused_change_leaves_neither_row_nor_version(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.resellers.add("north", ResellerChange())
        await at.clients.add_client("acme", ClientChange(reseller="north"))
        before = (await at.version(), await at.audit_rows())
        for refused, message in (
            (at.resellers.add("north", ResellerChange()), "reseller 'north' exists already"),
            (at.resellers.add(" x", ResellerChange()), "reseller ' x': expected 1 to 80"),
            (at.resellers.set("nroth", ResellerChange(1)), "no reseller 'nroth'; .*'north'"),
            (at.resellers.enable("South", False), "no reseller 'South'"),
            (at.clients.add_client("b", ClientChange(reseller="norht")), "the nearest is 'north'"),
            (at.clients.set_client("acme", ClientChange(reseller="x")), "no reseller 'x'"),
            (at.clients.set_client("acme", ClientChange(routing_plan="x")), "no routing plan 'x'"),
        ):  # fmt: skip
            with pytest.raises(RefusedError, match=message):
                await refused
        assert (await at.version(), await at.audit_rows()) == before

    at_office(database_url, work)


def test_what_changes_nothing_leaves_no_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.resellers.add("north", ResellerChange(1))
        await at.resellers.set("north", ResellerChange(1))
        await at.resellers.set("north", ResellerChange())
        assert not await at.resellers.enable("north", True)
        assert len(await at.audit_rows()) == 1

    at_office(database_url, work)


def test_only_the_changed_client_is_marked_for_the_servers(database_url: str) -> None:
    """A server reads the rows that are newer than what it has: no row too few, none too many."""

    async def versions(at: Office) -> dict[str, int]:
        rows = await query(at.database, "SELECT name, version FROM astclient")
        return {row["name"]: row["version"] for row in rows}

    async def work(at: Office) -> None:
        for name in ("a", "b"):
            await at.clients.add_client(name, ClientChange())
            assert (await versions(at))[name] == (await at.version())[0]
        before = await versions(at)
        for change in (
            at.clients.set_client("b", ClientChange(orig_capacity=1)),
            at.clients.enable_client("b", False),
        ):
            await change
            assert await versions(at) == {**before, "b": (await at.version())[0]}

    at_office(database_url, work)


def test_names_come_back_as_they_were_given(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.resellers.add(HOSTILE, ResellerChange(0, 1_000_000))
        await at.clients.add_client(HOSTILE, ClientChange(reseller=HOSTILE))
        found = await at.resellers.reseller(HOSTILE)
        assert found.reseller == Reseller(HOSTILE, 0, 1_000_000, id=found.reseller.id)
        assert (found.clients, found.orig_calls, found.term_calls) == (1, 0, 0)
        assert (await at.clients.client(HOSTILE)).client.reseller == HOSTILE
        assert [row[3] for row in await at.audit_rows()] == [HOSTILE] * 2

    at_office(database_url, work)


def test_a_client_is_found_by_its_reseller_and_by_words(database_url: str) -> None:
    async def work(at: Office) -> None:
        for name in ("North", "south"):
            await at.resellers.add(name, ResellerChange())
        for name, reseller, email in (
            ("acme", "North", "Anna@example.com"),
            ("beta", "North", ""),
            ("acme2", "south", ""),
            ("north-west", "", ""),
        ):
            await at.clients.add_client(name, ClientChange(reseller=reseller, email=email))

        async def found(*words: str, reseller: str | None = None) -> list[str]:
            return [one.client.name for one in await at.clients.clients(words, reseller)]

        assert await found() == ["acme", "acme2", "beta", "north-west"]
        assert await found(reseller="North") == ["acme", "beta"]
        assert await found("ACM", reseller="North") == ["acme"]
        assert await found("north") == ["acme", "beta", "north-west"]
        assert await found("north", "@EXAMPLE") == ["acme"]
        assert await found("nothing") == []
        with pytest.raises(RefusedError, match="no reseller 'north'"):
            await found(reseller="north")

    at_office(database_url, work)
