"""Changing the catalog: accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from astcredit.domain.accounts import IdentKind
from astcredit.domain.calls import Origin
from astcredit.domain.numbers import Numbering
from astcredit.service.account_csv import AccountSheet
from astcredit.service.account_import import Imported, Known, Plan, plan_import, write_plan
from astcredit.service.account_ports import Account
from astcredit.service.account_recognition import Recognition, recognise, switched_off
from astcredit.service.account_rules import AccountChange, check_consistent, known_account
from astcredit.service.account_ties import recognised_alike, ties
from astcredit.service.admin_ports import AdminTransaction, Client
from astcredit.service.catalog_rules import check_rate_table, known_client, require
from astcredit.service.desk import CatalogDesk, verb
from astcredit.service.errors import RefusedError
from astcredit.service.naming import already_there, check_name, shown_name
from astcredit.service.persistence import persistently


class AccountDesk(CatalogDesk):
    """The administrator's use cases on accounts."""

    async def add(self, client: str, name: str, change: AccountChange) -> Account:
        """Add an account to a client; `change` has its idents."""
        new = change.applied_to(Account(check_name("account", name), client))
        check_consistent(new)

        async def add_() -> Account:
            async with self._store.changing_catalog() as transaction:
                owner = await known_client(transaction, client)
                if await transaction.accounts.named(name) is not None:
                    raise already_there("account", name)
                await _check_references(transaction, new, owner)
                await _check_ties(transaction, new)
                await transaction.accounts.add([new], self._now_ms())
                await self.record(transaction, "add", "account", None, new)
            return new

        return await persistently(add_)

    async def set(self, name: str, change: AccountChange) -> Account:
        """Change an account's settings; its client stays."""

        async def set_() -> Account:
            async with self._store.changing_catalog() as transaction:
                old = await known_account(transaction, name)
                new = change.applied_to(old)
                if new != old:
                    check_consistent(new)
                    owner = await known_client(transaction, old.client)
                    await _check_references(transaction, new, owner)
                    if not recognised_alike(old, new):
                        await _check_ties(transaction, new)
                    await transaction.accounts.change([new])
                    await self.record(transaction, "set", "account", old, new)
            return new

        return await persistently(set_)

    async def enable(
        self, name: str, enabled: bool, *, orig: bool = False, term: bool = False
    ) -> bool:
        """Let an account call and be called, or refuse all its new calls; False if it was so.

        With `orig` or `term` only that side is switched: the calls that it makes, or those that are
        handed to it.
        """

        async def enable_() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = await known_account(transaction, name)
                new = _switched(old, enabled, orig, term)
                if new == old:
                    return False
                if enabled:
                    check_consistent(new)
                await transaction.accounts.change([new])
                await self.record(transaction, verb(enabled), "account", old, new)
            return True

        return await persistently(enable_)

    async def accounts(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""
        async with self._store.looking() as transaction:
            if client is not None:
                await known_client(transaction, client)
            return await transaction.accounts.all(client)

    async def account(self, name: str) -> Account:
        """One account."""
        async with self._store.looking() as transaction:
            return await known_account(transaction, name)

    async def identify(self, origin: Origin, number: str, numbering: Numbering) -> Recognition:
        """Which account a call would be recognised as, and why; see `recognise`."""
        async with self._store.looking() as transaction:
            told = recognise(await transaction.accounts.all(), origin, number, numbering)
            if told.found is None:
                return told
            client = await known_client(transaction, told.accounts[told.found.account.id].client)
            found = await transaction.resellers.named(client.reseller) if client.reseller else None
            reseller = found.reseller if found else None
            return replace(told, off=switched_off(told.found, client, reseller))

    async def import_sheet(
        self,
        sheet: AccountSheet,
        source: str,
        *,
        dry_run: bool = False,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Imported:
        """Add and change the accounts of a file, all or none.

        `source` is what astaudit calls the file; `progress` is told how many accounts are written.
        With `dry_run` nothing is. Raises DeckErrors with everything that is wrong in the file.
        """

        async def import_() -> Plan:
            async with self._store.looking() as transaction:
                seen = await transaction.catalog_version()
                plan = plan_import(sheet, await Known.of(transaction))
            return await self._write(sheet, plan, seen, source, progress)

        async def look() -> Plan:
            async with self._store.looking() as transaction:
                return plan_import(sheet, await Known.of(transaction))

        return (await persistently(look if dry_run else import_)).summary

    async def _write(
        self,
        sheet: AccountSheet,
        plan: Plan,
        seen: int,
        source: str,
        progress: Callable[[int], None],
    ) -> Plan:
        """Write a plan that was made when the catalog had the version `seen`; the plan as it was
        written. It was made beforehand, so that nobody waits for this transaction while a large
        file is looked at."""
        if not plan:
            return plan
        entries = plan.entries(self._now_ms(), self._actor, source)
        async with self._store.changing_catalog() as transaction:
            if await transaction.catalog_version() != seen + 1:  # somebody came in between
                plan = plan_import(sheet, await Known.of(transaction))
                entries = plan.entries(self._now_ms(), self._actor, source) if plan else []
            await write_plan(transaction, plan, self._now_ms(), progress)
            await transaction.history.add_all(entries)
        return plan


def _switched(old: Account, enabled: bool, orig: bool, term: bool) -> Account:
    if not (orig or term):
        return replace(old, enabled=enabled)
    new = replace(old, orig_enabled=enabled) if orig else old
    if not term:
        return new
    if old.termination is not None:
        return replace(new, termination=replace(old.termination, enabled=enabled))
    if enabled:
        raise RefusedError(
            f"account {shown_name(old.name)} has no terminator settings: give it some with"
            " astcredit account set (--host, --proxy or --routing-ip)"
        )
    return new


async def _check_references(transaction: AdminTransaction, account: Account, owner: Client) -> None:
    """Refuse an account that names what is not there, or whose calls would be in two currencies.

    A terminator may charge in any currency: where it is not the calling client's, its routes are
    passed over.
    """
    await check_rate_table(transaction, account.rate_table, owner)
    if account.routing_plan:
        await require(transaction, "routing plan", account.routing_plan)
    if account.termination and account.termination.rate_table:
        await require(transaction, "rate table", account.termination.rate_table)


async def _check_ties(transaction: AdminTransaction, account: Account) -> None:
    """Refuse an account that would answer to calls of another, or to its name."""
    accounts = transaction.accounts
    others = list(await accounts.identified_by(IdentKind.NAME, account.name))
    for ident in account.idents:
        others += await accounts.identified_by(account.ident_by, ident)
        namesake = await accounts.named(ident)
        if namesake is not None:
            others.append(namesake)
    for _, error in ties([account], [one for one in others if one.name != account.name]):
        raise error
