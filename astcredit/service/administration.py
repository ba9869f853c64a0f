"""Changing the catalog: clients, accounts and rate tables.

Every change is one transaction that raises the catalog's version first (that is also the lock
which lets one change happen at a time), checks, writes, and adds a row to astaudit. Objects are
never deleted: what has history is disabled.

Every method may raise StorageError; those that change something raise RefusedError, with a line
for the user, when a rule does not allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from astcredit.domain.books import ClientBooks
from astcredit.service.admin_ports import (
    Account,
    AdminStore,
    AdminTransaction,
    AuditEntry,
    Client,
    RateTableHead,
    State,
)
from astcredit.service.catalog_rules import (
    AccountChange,
    ClientChange,
    check_account,
    check_client_change,
    check_currencies,
    check_table_change,
    known_account,
    known_client,
    known_rate_table,
)
from astcredit.service.naming import already_there, check_currency, check_name
from astcredit.service.persistence import persistently


@dataclass(frozen=True, slots=True)
class ClientAndBooks:
    """A client with its money as it stands."""

    client: Client
    books: ClientBooks


Record: TypeAlias = Client | Account | RateTableHead


class Administration:
    """The administrator's use cases on the catalog, on behalf of `actor` (user@host)."""

    def __init__(self, store: AdminStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms

    async def add_client(self, name: str, change: ClientChange) -> Client:
        """Add a client; what `change` leaves open is prepaid, EUR and nothing else."""
        new = change.applied_to(Client(check_name("client", name)))

        async def add() -> Client:
            async with self._store.changing_catalog() as transaction:
                if await transaction.client(name) is not None:
                    raise already_there("client", name)
                await check_currencies(transaction, new)
                await transaction.add_client(new, self._now_ms())
                await self._record(transaction, "add", "client", None, new)
            return new

        return await persistently(add)

    async def set_client(self, name: str, change: ClientChange) -> Client:
        """Change a client's settings.

        Its currency cannot change once money was booked, and a prepaid client must be able to pay
        what it has reserved.
        """

        async def set_() -> Client:
            async with self._store.changing_catalog() as transaction:
                old = await known_client(transaction, name)
                new = change.applied_to(old)
                if new != old:
                    books = (await transaction.books.lock_clients([old.id]))[old.id]
                    await check_client_change(transaction, old, new, books)
                    await transaction.change_client(new)
                    await self._record(transaction, "set", "client", old, new)
            return new

        return await persistently(set_)

    async def enable_client(self, name: str, enabled: bool) -> bool:
        """Let a client call, or refuse all its new calls; False if it was so already."""

        async def enable() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = await known_client(transaction, name)
                if old.enabled == enabled:
                    return False
                new = replace(old, enabled=enabled)
                await transaction.change_client(new)
                await self._record(transaction, _verb(enabled), "client", old, new)
            return True

        return await persistently(enable)

    async def clients(self) -> Sequence[ClientAndBooks]:
        """All clients, by name."""
        async with self._store.looking() as transaction:
            clients = await transaction.clients()
            books = await transaction.client_books([client.id for client in clients])
        return [ClientAndBooks(client, books[client.id]) for client in clients]

    async def client(self, name: str) -> ClientAndBooks:
        """One client."""
        async with self._store.looking() as transaction:
            client = await known_client(transaction, name)
            return ClientAndBooks(client, (await transaction.client_books([client.id]))[client.id])

    async def add_account(self, client: str, name: str, change: AccountChange) -> Account:
        """Add an account to a client; `change` has its idents."""
        new = change.applied_to(Account(check_name("account", name), client))

        async def add() -> Account:
            async with self._store.changing_catalog() as transaction:
                owner = await known_client(transaction, client)
                if await transaction.account(name) is not None:
                    raise already_there("account", name)
                await check_account(transaction, new, owner)
                await transaction.add_account(new, self._now_ms())
                await self._record(transaction, "add", "account", None, new)
            return new

        return await persistently(add)

    async def set_account(self, name: str, change: AccountChange) -> Account:
        """Change an account's settings."""

        async def set_() -> Account:
            async with self._store.changing_catalog() as transaction:
                old = await known_account(transaction, name)
                new = change.applied_to(old)
                if new != old:
                    owner = await known_client(transaction, old.client)
                    await check_account(transaction, new, owner)
                    await transaction.change_account(new)
                    await self._record(transaction, "set", "account", old, new)
            return new

        return await persistently(set_)

    async def enable_account(self, name: str, enabled: bool) -> bool:
        """Let an account call, or refuse all its new calls; False if it was so already."""

        async def enable() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = await known_account(transaction, name)
                if old.enabled == enabled:
                    return False
                new = replace(old, enabled=enabled)
                await transaction.change_account(new)
                await self._record(transaction, _verb(enabled), "account", old, new)
            return True

        return await persistently(enable)

    async def accounts(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""
        async with self._store.looking() as transaction:
            if client is not None:
                await known_client(transaction, client)
            return await transaction.accounts(client)

    async def account(self, name: str) -> Account:
        """One account."""
        async with self._store.looking() as transaction:
            return await known_account(transaction, name)

    async def add_rate_table(self, name: str, currency: str) -> RateTableHead:
        """Add an empty rate table."""
        new = RateTableHead(check_name("rate table", name), check_currency(currency))

        async def add() -> RateTableHead:
            async with self._store.changing_catalog() as transaction:
                if await transaction.rate_table(name) is not None:
                    raise already_there("rate table", name)
                await transaction.add_rate_table(new, self._now_ms())
                await self._record(transaction, "add", "rate-table", None, new)
            return new

        return await persistently(add)

    async def set_rate_table(self, name: str, currency: str) -> RateTableHead:
        """Change the currency of a rate table that has no rates and no client of another one."""
        check_currency(currency)

        async def set_() -> RateTableHead:
            async with self._store.changing_catalog() as transaction:
                old = await known_rate_table(transaction, name)
                new = replace(old, currency=currency)
                if new != old:
                    await check_table_change(transaction, old, new)
                    await transaction.change_rate_table(new)
                    await self._record(transaction, "set", "rate-table", old, new)
            return new

        return await persistently(set_)

    async def enable_rate_table(self, name: str, enabled: bool) -> bool:
        """Rate with a table, or refuse every call that needs it; False if it was so already."""

        async def enable() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = await known_rate_table(transaction, name)
                if old.enabled == enabled:
                    return False
                new = replace(old, enabled=enabled)
                await transaction.change_rate_table(new)
                await self._record(transaction, _verb(enabled), "rate-table", old, new)
            return True

        return await persistently(enable)

    async def rate_tables(self) -> Sequence[RateTableHead]:
        """All rate tables, by name."""
        async with self._store.looking() as transaction:
            return await transaction.rate_tables()

    async def rate_table(self, name: str) -> RateTableHead:
        """One rate table."""
        async with self._store.looking() as transaction:
            return await known_rate_table(transaction, name)

    async def _record(
        self,
        transaction: AdminTransaction,
        action: str,
        kind: str,
        old: Record | None,
        new: Record,
    ) -> None:
        before, after = _changes(old.state() if old else None, new.state())
        entry = AuditEntry(self._now_ms(), self._actor, action, kind, new.name, before, after)
        await transaction.record(entry)


def _verb(enabled: bool) -> str:
    return "enable" if enabled else "disable"


def _changes(before: State | None, after: State) -> tuple[State | None, State]:
    """What differs between two states; of a new object everything."""
    if before is None:
        return None, after
    names = [name for name in after if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}
