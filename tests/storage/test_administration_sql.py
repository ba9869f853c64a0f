"""The catalog as administrators change it, on both kinds of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from astcredit.domain.calls import Origin
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import MICROS
from astcredit.domain.rating import Rate
from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_ports import Account
from astcredit.service.account_rules import AccountChange
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError
from astcredit.service.money_desk import MoneyDesk
from astcredit.service.rate_desk import RateDesk
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.audit import SqlAuditor
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.calls import fill, query
from support.core import Clock, opened

EUR = MICROS
HOSTILE = "'; DROP TABLE astclient; -- %s {0} ${EXTEN} \\"


@dataclass(frozen=True)
class Office:
    """The desks on one database."""

    database: Database
    admin: Administration
    accounts: AccountDesk
    money: MoneyDesk
    rates: RateDesk

    async def version(self) -> int:
        (row,) = await query(self.database, "SELECT version FROM astcatalog")
        return int(row["version"])

    async def audit_rows(self) -> list[tuple[str, str, str, Any, Any]]:
        rows = await query(self.database, "SELECT * FROM astaudit ORDER BY id")
        assert {row["actor"] for row in rows} <= {"me@here", "ops@test"}
        return [
            (
                row["action"],
                row["object_kind"],
                row["object_name"],
                *(row[c] and json.loads(row[c]) for c in ("state_before", "state_after")),
            )
            for row in rows
        ]


def office(database: Database) -> Office:
    store, clock = SqlAdministration(database), Clock()
    return Office(
        database,
        Administration(store, "me@here", clock),
        AccountDesk(store, "me@here", clock),
        MoneyDesk(store, "me@here", clock),
        RateDesk(store, "me@here", clock),
    )


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            await work(office(database))

    asyncio.run(run())


Change = Callable[[Office], Awaitable[object]]

CHANGES: tuple[tuple[Change, tuple[str, str, str], Any, Any], ...] = (
    (
        lambda at: at.admin.add_rate_table("retail", "EUR"),
        ("add", "rate-table", "retail"),
        None,
        {"currency": "EUR", "enabled": True},
    ),
    (
        lambda at: at.admin.set_rate_table("retail", "USD"),
        ("set", "rate-table", "retail"),
        {"currency": "EUR"},
        {"currency": "USD"},
    ),
    (
        lambda at: at.admin.add_client("acme", ClientChange(currency="USD")),
        ("add", "client", "acme"),
        None,
        {
            "kind": "prepaid",
            "currency": "USD",
            "credit_limit": "0.000000",
            "rate_table": "",
            "email": "",
            "enabled": True,
            "reseller": "",
            "routing_plan": "",
            "orig_capacity": None,
            "term_capacity": None,
            "monthly_quota": None,
            "daily_quota": None,
            "timezone": "UTC",
            "low_balance": None,
        },
    ),
    (
        lambda at: at.admin.set_client("acme", ClientChange(credit_limit=EUR, email="a@b")),
        ("set", "client", "acme"),
        {"credit_limit": "0.000000", "email": ""},
        {"credit_limit": "1.000000", "email": "a@b"},
    ),
    (
        lambda at: at.accounts.add("acme", "desk", AccountChange(["a", "b"])),
        ("add", "account", "desk"),
        None,
        Account("desk", "acme", ("a", "b")).state(),
    ),
    (
        lambda at: at.accounts.set("desk", AccountChange(["b", "c"], tag="x")),
        ("set", "account", "desk"),
        {"ident": ["a", "b"], "tag": ""},
        {"ident": ["b", "c"], "tag": "x"},
    ),
    (
        lambda at: at.admin.enable_client("acme", False),
        ("disable", "client", "acme"),
        {"enabled": True},
        {"enabled": False},
    ),
    (
        lambda at: at.accounts.enable("desk", False),
        ("disable", "account", "desk"),
        {"enabled": True},
        {"enabled": False},
    ),
    (
        lambda at: at.admin.enable_rate_table("retail", False),
        ("disable", "rate-table", "retail"),
        {"enabled": True},
        {"enabled": False},
    ),
    (
        lambda at: at.admin.enable_client("acme", True),
        ("enable", "client", "acme"),
        {"enabled": False},
        {"enabled": True},
    ),
)
"""Changes, in their order, each with what astaudit keeps of it."""


def test_every_change_moves_the_version_and_leaves_an_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        for change, what, before, after in CHANGES:
            version = await at.version()
            await change(at)
            assert await at.version() == version + 1
            assert (await at.audit_rows())[-1] == (*what, before, after)
        assert len(await at.audit_rows()) == len(CHANGES)

    at_office(database_url, work)


def test_what_changes_nothing_leaves_no_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        await at.admin.set_client("acme", ClientChange(email=""))
        assert not await at.admin.enable_client("acme", True)
        assert [row[0] for row in await at.audit_rows()] == ["add"]

    at_office(database_url, work)


def test_a_refused_change_changes_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        version = await at.version()
        with pytest.raises(RefusedError, match="client 'acme' exists already"):
            await at.admin.add_client("acme", ClientChange())
        with pytest.raises(RefusedError, match="no rate table 'retial'"):
            await at.admin.set_client("acme", ClientChange(rate_table="retial"))
        assert await at.version() == version
        assert len(await at.audit_rows()) == 1

    at_office(database_url, work)


def test_objects_come_back_as_they_were_given(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_rate_table(HOSTILE, "EUR")
        change = ClientChange(ClientKind.POSTPAID, "EUR", 7 * EUR, HOSTILE, "a@b")
        client = await at.admin.add_client(HOSTILE, change)
        found = await at.admin.client(HOSTILE)
        assert (found.client.name, found.client.kind) == (HOSTILE, ClientKind.POSTPAID)
        assert found.client.credit_limit == 7 * EUR
        assert found.client.rate_table == HOSTILE
        assert found.books.available == 7 * EUR
        assert client.enabled
        account = AccountChange([HOSTILE.replace(";", ""), "b"], HOSTILE, "tag", "Grüße 🎈")
        await at.accounts.add(HOSTILE, "desk", account)
        (stored,) = await at.accounts.accounts(HOSTILE)
        assert (stored.idents, stored.notes) == (
            account.idents and tuple(account.idents),
            "Grüße 🎈",
        )
        assert stored.client == stored.rate_table == HOSTILE
        await at.admin.set_client(HOSTILE, ClientChange(credit_limit=None, rate_table="", email=""))
        cleared = (await at.admin.client(HOSTILE)).client
        assert (cleared.credit_limit, cleared.rate_table, cleared.email) == (None, "", "")

    at_office(database_url, work)


def test_a_name_identifies_one_account_whatever_characters_it_has(database_url: str) -> None:
    names = ("x", "%", "_", "a_b", "/", "\\", "'", "|")

    async def work(at: Office) -> None:
        for client in ("acme", "beta"):
            await at.admin.add_client(client, ClientChange())
        await at.accounts.add("acme", "first", AccountChange(["other", *names]))
        for taken in names:
            for idents in ([taken], ["free", taken]):
                with pytest.raises(RefusedError, match=r"'second' and 'first' .* client 'acme'"):
                    await at.accounts.add("beta", "second", AccountChange(idents))
        doubled = [name * 2 for name in names]
        await at.accounts.add("beta", "second", AccountChange([*doubled, "y", "X"]))
        with pytest.raises(RefusedError, match="'first' and 'second' are both identified"):
            await at.accounts.set("first", AccountChange(["y"]))
        await at.accounts.set("first", AccountChange(["x", "new"]))

    at_office(database_url, work)


def test_idents_differ_by_case_and_the_servers_catalog_takes_them(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        await at.accounts.add("acme", "one", AccountChange(["Alice", "b"]))
        await at.accounts.add("acme", "two", AccountChange(["alice"]))
        source = SqlCatalog(at.database, inline_rates=10)
        catalog = await source.at_least(await at.version())
        await source.close()
        names = {
            name: catalog.identify(Origin(node="", accountcode=name))
            for name in ("Alice", "alice", "b", "ALICE", "")
        }
        assert {key: found and found.account.name for key, found in names.items()} == {
            "Alice": "one",
            "alice": "two",
            "b": "one",
            "ALICE": None,
            "": None,
        }

    at_office(database_url, work)


def test_a_client_and_its_rate_tables_have_one_currency(database_url: str) -> None:
    async def work(at: Office) -> None:
        admin = at.admin
        await admin.add_rate_table("euro", "EUR")
        await admin.add_rate_table("dollar", "USD")
        with pytest.raises(RefusedError, match="'dollar' is in USD, client 'acme' in EUR"):
            await admin.add_client("acme", ClientChange(rate_table="dollar"))
        await admin.add_client("acme", ClientChange(rate_table="euro"))
        with pytest.raises(RefusedError, match="'dollar' is in USD, client 'acme' in EUR"):
            await at.accounts.add("acme", "desk", AccountChange(["a"], rate_table="dollar"))
        await at.accounts.add("acme", "desk", AccountChange(["a"], rate_table="euro"))
        with pytest.raises(RefusedError, match="'euro' is used by client 'acme'"):
            await admin.set_rate_table("euro", "USD")
        await admin.set_client("acme", ClientChange(rate_table=""))
        with pytest.raises(RefusedError, match="'euro' is in EUR, client 'acme' in USD"):
            await admin.set_client("acme", ClientChange(currency="USD"))  # its account's table
        with pytest.raises(RefusedError, match="'euro' is used by client 'acme'"):
            await admin.set_rate_table("euro", "USD")
        await at.accounts.set("desk", AccountChange(rate_table=""))
        await admin.set_client("acme", ClientChange(currency="USD", rate_table="dollar"))

    at_office(database_url, work)


def test_a_currency_stays_once_money_or_rates_are_in_it(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        await at.money.top_up("acme", EUR)
        with pytest.raises(RefusedError, match="bookings or calls in EUR"):
            await at.admin.set_client("acme", ClientChange(currency="USD"))
        await at.admin.add_rate_table("euro", "EUR")
        await at.rates.import_deck("euro", [Rate("44", "", 1)], 0, replace=False, source="t")
        with pytest.raises(RefusedError, match="has 1 rates in EUR"):
            await at.admin.set_rate_table("euro", "USD")

    at_office(database_url, work)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"credit_limit": 5 * EUR}, "credit limit of 5.00 EUR"),
        ({"monthly_quota": 5 * EUR}, "monthly quota of 5.00 EUR"),
        ({"daily_quota": 5 * EUR}, "daily quota of 5.00 EUR"),
        ({"low_balance": 5 * EUR}, "low balance of 5.00 EUR"),
    ],
)
def test_no_amount_is_taken_over_into_another_currency(
    sqlite_url: str, setting: dict[str, Any], said: str
) -> None:
    async def work(at: Office) -> None:
        before = await at.admin.add_client("acme", ClientChange(**setting))
        with pytest.raises(RefusedError, match=f"client 'acme' has a {said}: say .* in JPY"):
            await at.admin.set_client("acme", ClientChange(currency="JPY"))
        assert (await at.admin.client("acme")).client.currency == before.currency == "EUR"
        named = await at.admin.set_client("acme", ClientChange(currency="JPY", **setting))
        assert named.currency == "JPY"
        await at.admin.set_client("acme", ClientChange(**dict.fromkeys(setting)))
        assert (await at.admin.set_client("acme", ClientChange(currency="EUR"))).currency == "EUR"

    at_office(sqlite_url, work)


def test_a_prepaid_client_can_pay_what_it_has_reserved(database_url: str) -> None:
    """anna has two calls up: what they hold can be taken neither by a lower limit nor by an
    adjustment, and who owes cannot become prepaid."""

    async def work(at: Office) -> None:
        await fill(at.database)
        await at.admin.set_client("anna", ClientChange(credit_limit=10 * EUR))
        before = (await at.admin.client("anna")).books
        assert before.reserved > 0
        free = before.available
        assert free is not None
        with pytest.raises(RefusedError, match=r"'anna' would have balance .* reserved"):
            await at.money.adjust("anna", -free - 1, "too much")
        await at.money.adjust("anna", -free + 9 * EUR, "some of the limit too")
        with pytest.raises(RefusedError, match=r"'anna' would be prepaid with balance"):
            await at.admin.set_client("anna", ClientChange(credit_limit=0))
        assert (await SqlAuditor(at.database).examine()).in_order
        with pytest.raises(RefusedError, match="'bert' would be prepaid"):
            await at.admin.set_client("bert", ClientChange(ClientKind.PREPAID))
        await at.money.adjust("bert", -EUR, "postpaid clients may owe")
        await at.money.top_up("bert", 100 * EUR)
        changed = await at.admin.set_client("bert", ClientChange(ClientKind.PREPAID))
        assert changed.credit_limit == 0
        assert (await SqlAuditor(at.database).examine()).in_order

    at_office(database_url, work)


def test_a_limit_keeps_its_value_when_a_client_becomes_postpaid(database_url: str) -> None:
    async def work(at: Office) -> None:
        assert (await at.admin.add_client("a", ClientChange())).credit_limit == 0
        assert (
            await at.admin.add_client("b", ClientChange(ClientKind.POSTPAID))
        ).credit_limit is None
        changed = await at.admin.set_client("a", ClientChange(ClientKind.POSTPAID))
        assert changed.credit_limit == 0

    at_office(database_url, work)


@pytest.mark.parametrize("same_reference", [True, False])
def test_twenty_top_ups_at_once_all_count_and_one_reference_counts_once(
    database_url: str, same_reference: bool
) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        references: Sequence[str | None] = ["R"] * 20 if same_reference else [None] * 20
        booked = await asyncio.gather(
            *(at.money.top_up("acme", EUR, reference) for reference in references)
        )
        expected = 1 if same_reference else 20
        assert sum(not each.already for each in booked) == expected
        assert (await at.money.balance("acme")).books.balance == expected * EUR
        assert (await SqlAuditor(at.database).examine()).in_order

    at_office(database_url, work)


def test_one_reference_at_once_for_two_clients_is_one_clients(database_url: str) -> None:
    async def work(at: Office) -> None:
        for name in ("acme", "beta"):
            await at.admin.add_client(name, ClientChange())
        done = await asyncio.gather(
            *(at.money.top_up(name, EUR, "R") for name in ("acme", "beta") * 3),
            return_exceptions=True,
        )
        refused = [each for each in done if isinstance(each, RefusedError)]
        assert len(refused) == 3
        assert all("reference 'R'" in str(each) for each in refused)
        assert not [e for e in done if isinstance(e, Exception) and e not in refused]
        (row,) = await query(at.database, "SELECT COUNT(*) AS n FROM astledger")
        assert row["n"] == 1

    at_office(database_url, work)


def test_money_leaves_an_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.admin.add_client("acme", ClientChange())
        await at.money.top_up("acme", EUR, "R", "by bank")
        await at.money.top_up("acme", EUR, "R", "by bank")
        await at.money.adjust("acme", -EUR // 2, "gift taken back")
        rows = (await at.audit_rows())[1:]
        assert [row[:3] for row in rows] == [
            ("topup", "client", "acme"),
            ("adjust", "client", "acme"),
        ]
        assert rows[0][3:] == (
            {"balance": "0.000000"},
            {"balance": "1.000000", "reference": "R"},
        )
        ledger = await query(at.database, "SELECT * FROM astledger ORDER BY id")
        assert [(row["kind"], row["note"]) for row in ledger] == [
            ("topup", "by bank"),
            ("adjustment", "gift taken back"),
        ]
        stored = (await at.admin.clients())[0]
        assert stored.books.ledger_seq == 2

    at_office(database_url, work)
