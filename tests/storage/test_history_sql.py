"""astaudit as it is read: narrowed, newest first, on both kinds of database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import insert

from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_rules import AccountChange, TerminationChange
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError
from astcredit.service.history_desk import KINDS, HistoryDesk
from astcredit.service.history_ports import AuditEntry, HistoryQuery
from astcredit.service.routing_desk import RoutingDesk
from astcredit.service.routing_ports import Place
from astcredit.service.routing_rules import RuleChange
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from astcredit.storage.tables import astaudit
from support.core import Clock, opened

HOSTILE = "'; DROP TABLE astaudit; -- %s {0} \\ \x1b[2J"

ENTRIES = (
    AuditEntry(1_000, "anna@h", "add", "client", "acme", None, {"kind": "x", "enabled": True}),
    AuditEntry(2_000, "bert@h", "set", "client", "acme", {"limit": None}, {"limit": "5.000000"}),
    AuditEntry(2_000, "bert@h", "add", "account", "acme", None, {"ident": ["a", "Grüße 🎈"]}),
    AuditEntry(3_000, "anna@h", "topup", "client", "beta", {"balance": "0"}, {"balance": "1"}, "x"),
    AuditEntry(4_000, HOSTILE, "hangup", "call", HOSTILE, None, None, HOSTILE),
)  # fmt: skip
"""In the order in which they are written; ids begin at 1."""

Work = Callable[[HistoryDesk, Database], Awaitable[None]]


def with_entries(url: str, work: Work) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            store = SqlAdministration(database)
            async with store.booking_money() as transaction:
                await _write(transaction)
            await work(HistoryDesk(store), database)

    asyncio.run(run())


async def _write(transaction: AdminTransaction) -> None:
    for entry in ENTRIES:
        await transaction.record(entry)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (HistoryQuery(), [5, 4, 3, 2, 1]),
        (HistoryQuery(limit=2), [5, 4]),
        (HistoryQuery("client"), [4, 2, 1]),
        (HistoryQuery("client", "acme"), [2, 1]),
        (HistoryQuery(None, "acme"), [3, 2, 1]),
        (HistoryQuery(from_ms=2_000), [5, 4, 3, 2]),
        (HistoryQuery(until_ms=2_000), [1]),
        (HistoryQuery(from_ms=2_000, until_ms=2_001), [3, 2]),
        (HistoryQuery(actor="anna@h"), [4, 1]),
        (HistoryQuery("client", "acme", 0, 9_000, "bert@h", 1), [2]),
        (HistoryQuery(actor=HOSTILE), [5]),
        (HistoryQuery("call", HOSTILE), [5]),
        (HistoryQuery("route"), []),
    ],
)
def test_what_was_changed_is_found(database_url: str, wanted: HistoryQuery, ids: list[int]) -> None:
    async def work(desk: HistoryDesk, _: Database) -> None:
        assert await desk.entries(wanted) == [(id, ENTRIES[id - 1]) for id in ids]

    with_entries(database_url, work)


NAMELESS = {"call", "route", "block", "capacity", "template", "notification"}
"""Kinds whose objects are not found by a name."""


def test_an_unknown_name_is_refused_and_a_known_one_may_have_no_history(
    database_url: str,
) -> None:
    async def work(desk: HistoryDesk, database: Database) -> None:
        admin = Administration(SqlAdministration(database), "me@here", Clock(9_000))
        await admin.add_client("gamma", ClientChange())
        assert await desk.entries(HistoryQuery("client", "gamma", until_ms=9_000)) == []
        for kind in set(KINDS) - NAMELESS:
            with pytest.raises(RefusedError, match=f"no {kind.replace('-', ' ')} 'gama'"):
                await desk.entries(HistoryQuery(kind, "gama"))
        with pytest.raises(RefusedError, match="the nearest is 'gamma'"):
            await desk.entries(HistoryQuery("client", "gama"))
        for kind in NAMELESS:
            with pytest.raises(RefusedError, match=f"nothing is recorded of {kind} 'gama'"):
                await desk.entries(HistoryQuery(kind, "gama"))
        assert await desk.entries(HistoryQuery("call", HOSTILE, until_ms=4_000)) == []

    with_entries(database_url, work)


def test_a_route_is_found_by_its_id_and_by_its_name(database_url: str) -> None:
    """However long that is: astaudit keeps 120 characters of it."""
    plan, account = "p" * 80, "a" * 80
    change = AccountChange(["a"], termination=TerminationChange(proxy="peer"))

    async def work(_: HistoryDesk, database: Database) -> None:
        store, clock = SqlAdministration(database), Clock(9_000)
        await Administration(store, "me@here", clock).add_client("acme", ClientChange())
        await AccountDesk(store, "me@here", clock).add("acme", account, change)
        routing = RoutingDesk(store, "me@here", clock)
        await routing.add_plan(plan)
        rule = await routing.add_rule(Place(plan, "44", account), RuleChange())
        await routing.set_rule(rule.id, RuleChange(weight=7))
        desk = HistoryDesk(store)
        by_id = await desk.entries(HistoryQuery("route", str(rule.id)))
        assert [entry.action for _, entry in by_id] == ["set", "add"]
        assert await desk.entries(HistoryQuery("route", f"{plan} 44 {account}")) == by_id
        assert await desk.entries(HistoryQuery("route", str(rule.id), until_ms=9_000)) == []
        for unknown in ("99", "9" * 18, "0"):
            with pytest.raises(RefusedError, match=f"there is no route {unknown}"):
                await desk.entries(HistoryQuery("route", unknown))

    with_entries(database_url, work)


@pytest.mark.parametrize("text", ["no json", "[1]", '"x"', ""])
def test_a_state_that_somebody_wrote_by_hand_is_shown_as_it_is(sqlite_url: str, text: str) -> None:
    async def work(desk: HistoryDesk, database: Database) -> None:
        row = {"date_created": 0, "actor": "x", "action": "set", "object_kind": "client"}
        states = {"state_before": text, "state_after": None}
        async with database.transaction() as connection:
            values = {**row, **states, "object_name": "x", "note": ""}
            await connection.execute(insert(astaudit).values(values))
        ((_, entry),) = await desk.entries(HistoryQuery(limit=1))
        assert (entry.before, entry.after) == ({"text": text}, None)

    with_entries(sqlite_url, work)
