"""Accounts as administrators change them, on both kinds of database."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.domain.deck import DeckErrors
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.account_csv import AccountSheet, read_accounts, write_accounts
from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_import import Imported, Known
from astcredit.service.account_ports import Account, Termination
from astcredit.service.account_rules import AccountChange, TerminationChange
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import RefusedError, StorageError
from astcredit.service.routing_ports import PlanHead
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.schema import upgrade
from support.calls import query
from support.core import NOW_MS, Clock, opened

HOSTILE = "'; DROP TABLE astclient, -- %s {0} ${EXTEN} \\ Grüße 🎈"
IP = IdentKind.IP

FULL = AccountChange(
    idents=["10.0.0.0/24", "2001:DB8::1"],
    rate_table="retail",
    tag=HOSTILE,
    notes=HOSTILE,
    ident_by=IP,
    tech_prefix="77",
    gateways=["pbx1", "pbx2"],
    routing_plan="plan",
    source_policy=SourcePolicy.OVERWRITE,
    dids=["+4930", "4940"],
    orig_enabled=False,
    orig_capacity=0,
    termination=TerminationChange(
        "cost", "night", 30, Protocol.SIP, "sip.example.com", 5070, "peer", "10.0.0.1"
    ),
)


@dataclass(frozen=True)
class Office:
    """The desk of accounts on a database with two clients, two rate tables and a routing plan."""

    database: Database
    desk: AccountDesk
    admin: Administration

    async def versions(self) -> tuple[int, dict[str, int]]:
        """The catalog's version, and the one of each account."""
        (row,) = await query(self.database, "SELECT version FROM astcatalog")
        rows = await query(self.database, "SELECT name, version FROM astaccount")
        return int(row["version"]), {row["name"]: int(row["version"]) for row in rows}

    async def audit_rows(self) -> list[tuple[Any, ...]]:
        """What astaudit holds of accounts, in order."""
        rows = await query(
            self.database, "SELECT * FROM astaudit WHERE object_kind = 'account' ORDER BY id"
        )
        return [
            (
                row["action"],
                row["object_name"],
                *(row[c] and json.loads(row[c]) for c in ("state_before", "state_after")),
                row["note"],
            )
            for row in rows
        ]


def at_office(url: str, work: Callable[[Office], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            store, clock = SqlAdministration(database), Clock()
            admin = Administration(store, "me@here", clock)
            await admin.add_rate_table("retail", "EUR")
            await admin.add_rate_table("cost", "USD")
            async with store.changing_catalog() as transaction:
                await transaction.routing.add_plan(PlanHead("plan", RouteOrder.PRIORITY), NOW_MS)
            for name in ("acme", "beta"):
                await admin.add_client(name, ClientChange())
            await work(Office(database, AccountDesk(store, "me@here", clock), admin))

    asyncio.run(run())


def sheet(text: str) -> AccountSheet:
    return read_accounts(io.StringIO(text, newline=""))


def test_every_setting_comes_back_as_it_was_given(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("acme", "full", FULL)
        found = await at.desk.account("full")
        assert found == Account(
            "full",
            "acme",
            ("10.0.0.0/24", "2001:db8::1"),
            "retail",
            HOSTILE,
            HOSTILE,
            True,
            1,
            IP,
            "77",
            ("pbx1", "pbx2"),
            "plan",
            SourcePolicy.OVERWRITE,
            ("4930", "4940"),
            False,
            0,
            Termination(
                "cost", "night", 30, Protocol.SIP, "sip.example.com", 5070, "peer", "10.0.0.1"
            ),
        )
        (row,) = await query(at.database, "SELECT * FROM astaccount")
        assert (row["ident"], row["dids"], row["gateways"]) == (
            "10.0.0.0/24;2001:db8::1",
            "4930;4940",
            "pbx1;pbx2",
        )
        assert (row["terminates"], row["term_enabled"]) == (1, 1)
        plain = AccountChange(["full"], "", "", "", True, IdentKind.NAME, "", [], "")
        await at.desk.set("full", replace(plain, source_policy=SourcePolicy.ALLOW_ANY, dids=[]))
        (row,) = await query(at.database, "SELECT * FROM astaccount")
        assert (row["rate_table_id"], row["routing_plan_id"], row["dids"]) == (None, None, None)
        assert (await at.desk.account("full")).idents == ("full",)

    at_office(database_url, work)


def test_every_change_leaves_an_audit_row_and_marks_the_account(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("acme", "other", AccountChange(["other"]))
        await at.desk.add("acme", "desk", AccountChange(["a", "b"]))
        (_, (action, name, before, after, _)) = await at.audit_rows()
        assert (action, name, before) == ("add", "desk", None)
        assert after == (await at.desk.account("desk")).state()
        changes: list[
            tuple[Callable[[], Awaitable[object]], str, dict[str, object], dict[str, object]]
        ] = [
            (
                lambda: at.desk.set("desk", AccountChange(["b", "c"], tag="x")),
                "set",
                {"ident": ["a", "b"], "tag": ""},
                {"ident": ["b", "c"], "tag": "x"},
            ),
            (
                lambda: at.desk.set(
                    "desk", AccountChange(termination=TerminationChange(proxy="p"))
                ),
                "set",
                {"term_enabled": None, "protocol": None, "proxy": None},
                {"term_enabled": True, "protocol": "PJSIP", "proxy": "p"},
            ),
            (
                lambda: at.desk.enable("desk", False),
                "disable",
                {"enabled": True},
                {"enabled": False},
            ),
            (
                lambda: at.desk.enable("desk", False, orig=True, term=True),
                "disable",
                {"orig_enabled": True, "term_enabled": True},
                {"orig_enabled": False, "term_enabled": False},
            ),
            (
                lambda: at.desk.enable("desk", True, term=True),
                "enable",
                {"term_enabled": False},
                {"term_enabled": True},
            ),
        ]
        for change, action, before, after in changes:
            version, _ = await at.versions()
            await change()
            now, rows = await at.versions()
            assert (now, rows["desk"]) == (version + 1, version + 1)
            assert rows["other"] < version
            last = (await at.audit_rows())[-1]
            assert last[:2] == (action, "desk")
            assert before.items() <= last[2].items()
            assert after.items() <= last[3].items()

    at_office(database_url, work)


def test_what_changes_nothing_leaves_no_audit_row(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("acme", "desk", AccountChange(["a"]))
        await at.desk.set("desk", AccountChange(["a"], tag="", orig_capacity=None))
        assert not await at.desk.enable("desk", True)
        assert not await at.desk.enable("desk", True, orig=True)
        assert not await at.desk.enable("desk", False, term=True)
        with pytest.raises(RefusedError, match="no terminator settings"):
            await at.desk.enable("desk", True, term=True)
        assert [row[0] for row in await at.audit_rows()] == ["add"]

    at_office(database_url, work)


def test_a_terminator_without_a_place_to_dial_is_not_switched_on(database_url: str) -> None:
    async def work(at: Office) -> None:
        nowhere = TerminationChange(tag="night", enabled=False)
        await at.desk.add("acme", "desk", AccountChange(["a"], termination=nowhere))
        with pytest.raises(RefusedError, match="--host, --proxy, --routing-ip"):
            await at.desk.enable("desk", True, term=True)
        assert (await at.desk.account("desk")).termination == Termination(
            tag="night", enabled=False
        )

    at_office(database_url, work)


def test_accounts_are_found_by_kind_and_exact_ident(database_url: str) -> None:
    async def work(at: Office) -> None:
        for name, kind, idents in (
            ("capital", IdentKind.NAME, ["Alice", "442"]),
            ("small", IdentKind.NAME, ["alice"]),
            ("longer", IdentKind.NAME, ["alice2", "x alice"]),
            ("number", IdentKind.ANI, ["442", "44*"]),
        ):
            await at.desk.add("acme", name, AccountChange(idents, ident_by=kind))
        async with SqlAdministration(at.database).looking() as transaction:
            for kind, ident, expected in (
                (IdentKind.NAME, "alice", ["small"]),
                (IdentKind.NAME, "Alice", ["capital"]),
                (IdentKind.NAME, "442", ["capital"]),
                (IdentKind.ANI, "442", ["number"]),
                (IdentKind.ANI, "44", []),
                (IdentKind.NAME, "lice", []),
            ):
                found = await transaction.accounts.identified_by(kind, ident)
                assert [account.name for account in found] == expected

    at_office(database_url, work)


REFUSED: tuple[tuple[AccountChange, str], ...] = (
    (AccountChange(rate_table="retial"), "no rate table 'retial'; the nearest is 'retail'"),
    (AccountChange(rate_table="cost"), "'cost' is in USD, client 'acme' in EUR"),
    (AccountChange(routing_plan="plam"), "no routing plan 'plam'; the nearest is 'plan'"),
    (AccountChange(source_policy=SourcePolicy.REJECT), "at least one DID"),
    (AccountChange(termination=TerminationChange(enabled=True)), "--host, --proxy"),
    (
        AccountChange(termination=TerminationChange("costs", host="h")),
        "no rate table 'costs'; the nearest is 'cost'",
    ),
    (AccountChange(["taken"]), "'desk' and 'first' are both identified by the name 'taken'"),
    (AccountChange(["free", "taken"]), "'first' is an account of client 'beta'"),
    (AccountChange(ident_by=IP), "together with it"),
)


def test_a_refused_change_changes_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("beta", "first", AccountChange(["taken"]))
        await at.desk.add("acme", "desk", AccountChange(["desk"]))
        before = (await at.versions(), await at.audit_rows(), await at.desk.accounts())
        for change, words in REFUSED:
            with pytest.raises(RefusedError, match=words):
                await at.desk.set("desk", change)
            if change.idents is not None:
                with pytest.raises(RefusedError, match=words.replace("desk", "new")):
                    await at.desk.add("acme", "new", change)
        with pytest.raises(RefusedError, match="account 'desk' exists already"):
            await at.desk.add("acme", "desk", AccountChange(["new"]))
        with pytest.raises(RefusedError, match="no client 'acne'; the nearest is 'acme'"):
            await at.desk.add("acne", "new", AccountChange(["new"]))
        with pytest.raises(RefusedError, match="no account 'desc'; the nearest is 'desk'"):
            await at.desk.set("desc", AccountChange(["new"]))
        assert before == (await at.versions(), await at.audit_rows(), await at.desk.accounts())

    at_office(database_url, work)


def test_an_ident_is_one_accounts_whatever_characters_it_has(database_url: str) -> None:
    names = ("x", "%", "_", "a_b", "/", "\\", "'", "|", "Grüße 🎈")

    async def work(at: Office) -> None:
        await at.desk.add("acme", "first", AccountChange(["other", *names]))
        for taken in names:
            with pytest.raises(RefusedError, match=r"'second' and 'first'"):
                await at.desk.add("beta", "second", AccountChange(["free", taken]))
        doubled = [name * 2 for name in names]
        await at.desk.add("beta", "second", AccountChange([*doubled, "y", "X"]))
        await at.desk.set("first", AccountChange(["x", "new"]))

    at_office(database_url, work)


def test_no_account_is_called_as_another_is_identified(database_url: str) -> None:
    """By whichever command, and in whichever order."""
    by_ip = AccountChange(["10.0.0.5"], ident_by=IP)

    async def work(at: Office) -> None:
        await at.desk.add("acme", "foo", by_ip)
        await at.desk.add("beta", "bar", AccountChange(["b", "free"]))
        before = (await at.versions(), await at.audit_rows(), await at.desk.accounts())
        told = "account 'bar2' would be identified by another account's name; 'foo' is an account"
        with pytest.raises(RefusedError, match=told):
            await at.desk.add("beta", "bar2", AccountChange(["x", "foo"], tech_prefix="77"))
        with pytest.raises(RefusedError, match=told.replace("bar2", "bar")):
            await at.desk.set("bar", AccountChange(["x", "foo"]))
        with pytest.raises(
            RefusedError, match=told.replace("bar2", "foo").replace("'foo' is", "'bar' is")
        ):
            await at.desk.set("foo", AccountChange(["bar"], ident_by=IdentKind.NAME))
        with pytest.raises(RefusedError, match="account 'bar' is identified by the name 'free'"):
            await at.desk.add("acme", "free", replace(by_ip, idents=["10.0.0.6"]))
        for lines, column in (
            ("new,acme,name,foo\n", "ident"),
            ("free,acme,ip,10.0.0.6\n", "name"),
            ("bar,beta,name,foo\n", "ident"),
            ("one,acme,name,two\ntwo,acme,name,x\n", "ident"),
        ):
            with pytest.raises(DeckErrors) as caught:
                await at.desk.import_sheet(sheet(f"name,client,ident_by,ident\n{lines}"), "file")
            assert [(error.line, error.column) for error in caught.value.errors] == [(2, column)]
        assert before == (await at.versions(), await at.audit_rows(), await at.desk.accounts())

    at_office(database_url, work)


def test_settings_of_accounts_that_tie_by_an_old_row_can_be_changed(database_url: str) -> None:
    """Somebody, or a version before this rule, made the pair; either can be put right."""

    async def work(at: Office) -> None:
        await at.desk.add("acme", "foo", AccountChange(["10.0.0.5"], ident_by=IP))
        await at.desk.add("beta", "bar", AccountChange(["b"]))
        async with at.database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astaccount SET ident = 'foo' WHERE id = 2")
        await at.desk.set("foo", AccountChange(["10.0.0.6"]))
        await at.desk.set("bar", AccountChange(notes="to be named otherwise"))
        await at.desk.enable("bar", False)
        await at.desk.enable("bar", True)
        with pytest.raises(RefusedError, match="another account's name"):
            await at.desk.set("bar", AccountChange(["foo", "b"]))
        await at.desk.set("bar", AccountChange(["b"]))

    at_office(database_url, work)


def test_accounts_tie_only_within_a_kind_a_tech_prefix_and_a_gateway(database_url: str) -> None:
    ten = AccountChange(["10.0.0.1"], ident_by=IP)

    async def work(at: Office) -> None:
        await at.desk.add("acme", "first", ten)
        for name, change in (
            ("name", AccountChange(["10.0.0.1"])),
            ("network", replace(ten, idents=["10.0.0.0/24"])),
            ("port", replace(ten, idents=["10.0.0.1:5060"])),
            ("prefix", replace(ten, tech_prefix="77")),
            ("gateway", replace(ten, gateways=["pbx1"])),
        ):
            await at.desk.add("acme", name, change)
        for change, other in (
            (replace(ten, idents=["::ffff:10.0.0.1"]), "first"),
            (replace(ten, tech_prefix="77"), "prefix"),
            (replace(ten, gateways=["pbx2", "pbx1"]), "gateway"),
        ):
            with pytest.raises(RefusedError, match=f"'last' and '{other}' are both"):
                await at.desk.add("beta", "last", change)
        with pytest.raises(RefusedError, match="'gateway' and 'first'"):
            await at.desk.set("gateway", AccountChange(gateways=[]))
        with pytest.raises(RefusedError, match="'prefix' and 'first'"):
            await at.desk.set("prefix", AccountChange(tech_prefix=""))

    at_office(database_url, work)


def test_accounts_that_tie_by_hand_can_be_told_apart_again(database_url: str) -> None:
    async def work(at: Office) -> None:
        for name in ("one", "two"):
            await at.desk.add("acme", name, AccountChange([name]))
        async with at.database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astaccount SET ident = 'same'")
        await at.desk.set("two", AccountChange(notes="ties with one"))
        await at.desk.set("two", AccountChange(["two"]))
        assert (await at.desk.account("two")).idents == ("two",)

    at_office(database_url, work)


def test_a_row_that_makes_no_sense_is_named(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("acme", "desk", AccountChange(["a"]))
        async with at.database.transaction() as connection:
            await connection.exec_driver_sql("UPDATE astaccount SET src_policy = 'nope'")
        with pytest.raises(StorageError, match="account 'desk' makes no sense: 'nope'"):
            await at.desk.account("desk")

    at_office(database_url, work)


def test_an_import_adds_and_changes_all_in_one(database_url: str) -> None:
    text = (
        "name,client,ident_by,ident,tag,rate_table,term_rate_table,proxy\n"
        "desk,acme,name,a,new,retail,,\n"
        "same,acme,name,s,,,,\n"
        "third,beta,ani,44207*,,,cost,peer\n"
    )

    async def work(at: Office) -> None:
        await at.desk.add("acme", "desk", AccountChange(["a"]))
        await at.desk.add("acme", "same", AccountChange(["s"]))
        before = (await at.versions(), await at.audit_rows())
        dry = await at.desk.import_sheet(sheet(text), "x.csv", dry_run=True)
        assert dry == Imported(1, 1, 1, [])
        assert before == (await at.versions(), await at.audit_rows())
        moves: list[int] = []
        done = await at.desk.import_sheet(sheet(text), "x.csv", progress=moves.append)
        assert (done, moves) == (dry, [1, 2])
        third = await at.desk.account("third")
        assert third == Account(
            "third",
            "beta",
            ("44207*",),
            id=third.id,
            ident_by=IdentKind.ANI,
            termination=Termination("cost", proxy="peer"),
        )
        version, rows = await at.versions()
        assert (rows["third"], rows["desk"]) == (version, version)
        assert rows["same"] < version
        assert (await at.audit_rows())[2:] == [
            ("add", "third", None, third.state(), "x.csv"),
            (
                "set",
                "desk",
                {"rate_table": "", "tag": ""},
                {"rate_table": "retail", "tag": "new"},
                "x.csv",
            ),
            ("import", "x.csv", None, {"added": 1, "changed": 1, "unchanged": 1}, ""),
        ]
        written = "".join(write_accounts(await at.desk.accounts()))
        again = await at.desk.import_sheet(sheet(written), "y.csv")
        assert again == Imported(0, 0, 3, [])
        assert len(await at.audit_rows()) == 5

    at_office(database_url, work)


def test_an_import_with_an_error_changes_nothing(database_url: str) -> None:
    async def work(at: Office) -> None:
        await at.desk.add("acme", "desk", AccountChange(["a"]))
        before = (await at.versions(), await at.audit_rows(), await at.desk.accounts())
        text = "name,client,ident_by,ident\nnew,acme,name,n\nold,acme,name,a\n"
        with pytest.raises(DeckErrors, match="line 3, column ident"):
            await at.desk.import_sheet(sheet(text), "x.csv")
        assert before == (await at.versions(), await at.audit_rows(), await at.desk.accounts())

    at_office(database_url, work)


def test_more_accounts_than_a_statement_takes_go_in_and_change(database_url: str) -> None:
    """1,300 rows, some of them with long lists, are several statements of one transaction."""
    many = [
        Account(
            f"account{number}",
            ("acme", "beta")[number % 2],
            (f"ident{number}",),
            notes="n" * 1000,
            source_policy=SourcePolicy.OVERWRITE,
            dids=tuple(f"49{number:04}{did:06}" for did in range(200 if number % 50 == 0 else 1)),
            orig_capacity=number,
            termination=Termination(proxy="p") if number % 3 == 0 else None,
        )
        for number in range(1300)
    ]

    async def work(at: Office) -> None:
        text = "".join(write_accounts(many))
        done = await at.desk.import_sheet(sheet(text), "x.csv")
        assert (done.added, len(done.need_term_rates)) == (1300, 434)
        stored = {account.name: account for account in await at.desk.accounts()}
        assert all(stored[one.name] == replace(one, id=stored[one.name].id) for one in many)
        changed = [replace(one, tag="x", orig_capacity=None, rate_table="retail") for one in many]
        done = await at.desk.import_sheet(sheet("".join(write_accounts(changed))), "y.csv")
        assert done.changed == 1300
        stored = {account.name: account for account in await at.desk.accounts()}
        assert all(stored[one.name] == replace(one, id=stored[one.name].id) for one in changed)
        assert len(await at.desk.accounts("acme")) == 650
        assert len(await at.audit_rows()) == 2 * 1301

    at_office(database_url, work)


@pytest.mark.parametrize("made", ["add", "change"])
def test_calls_go_on_while_an_import_writes(mariadb_url: str, made: str) -> None:
    """It holds no lock on clients, though accounts refer to them: a call locks its client."""

    async def work(at: Office) -> None:
        await at.desk.add("acme", "old", AccountChange(["old"], rate_table="retail"))
        old = await at.desk.account("old")
        store = SqlAdministration(at.database)
        async with store.changing_catalog() as importing, store.booking_money() as calling:
            if made == "add":
                new = replace(old, id=0, name="new", idents=("new",), routing_plan="plan")
                await importing.accounts.add([new, replace(new, name="two", client="beta")], NOW_MS)
            else:
                await importing.accounts.change([replace(old, notes="x", rate_table="")])
            client = await calling.client("acme")
            assert client is not None
            await calling.books.lock_clients([client.id])
        assert len(await at.desk.accounts()) == (3 if made == "add" else 1)

    at_office(mariadb_url, work)


def test_what_is_changed_while_an_import_looks_at_its_file_counts(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes an ident of the file, and then gives it back: refused, then taken."""
    really, meanwhile = Known.of, list[tuple[str, AccountChange]]()

    async def work(at: Office) -> None:
        async def known(transaction: AdminTransaction) -> Known:
            found = await really(transaction)
            if meanwhile:
                await at.desk.set(*meanwhile.pop())
            return found

        monkeypatch.setattr(Known, "of", known)
        await at.desk.add("acme", "desk", AccountChange(["a"]))
        file = sheet("name,client,ident_by,ident\nnew,acme,name,b\n")
        meanwhile.append(("desk", AccountChange(["b"])))
        with pytest.raises(DeckErrors, match="'new' and 'desk' are both identified"):
            await at.desk.import_sheet(file, "x.csv")
        meanwhile.append(("desk", AccountChange(["a"])))
        with pytest.raises(DeckErrors):  # it was taken when the file was looked at
            await at.desk.import_sheet(file, "x.csv")
        meanwhile.append(("desk", AccountChange(["c"], notes="other")))
        assert (await at.desk.import_sheet(file, "x.csv")).added == 1
        assert [account.name for account in await at.desk.accounts()] == ["desk", "new"]
        assert [row[:2] for row in await at.audit_rows()][-2:] == [
            ("add", "new"),
            ("import", "x.csv"),
        ]

    at_office(database_url, work)
