"""Changing the catalog: clients and rate tables. What all changes have in common: desk.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from astcredit.domain.books import ClientBooks
from astcredit.service.admin_ports import Client, RateTableHead
from astcredit.service.catalog_rules import (
    ClientChange,
    check_amounts,
    check_client_change,
    check_references,
    check_table_change,
    known_client,
    known_rate_table,
    require,
)
from astcredit.service.desk import CatalogDesk, verb
from astcredit.service.naming import already_there, appear, check_currency, check_name
from astcredit.service.persistence import persistently
from astcredit.service.quota_desk import follow_quotas


@dataclass(frozen=True, slots=True)
class ClientAndBooks:
    """A client with its money as it stands."""

    client: Client
    books: ClientBooks


class Administration(CatalogDesk):
    """The administrator's use cases on clients and rate tables."""

    async def add_client(self, name: str, change: ClientChange) -> Client:
        """Add a client; what `change` leaves open is prepaid, EUR and nothing else."""
        new = change.applied_to(Client(check_name("client", name)))

        async def add() -> Client:
            async with self._store.changing_catalog() as transaction:
                if await transaction.client(name) is not None:
                    raise already_there("client", name)
                await check_references(transaction, new)
                await transaction.add_client(new, self._now_ms())
                await self.record(transaction, "add", "client", None, new)
            return new

        return await persistently(add)

    async def set_client(self, name: str, change: ClientChange) -> Client:
        """Change a client's settings.

        Its currency cannot change once money was booked, nor without the amounts that are in it,
        and a prepaid client must be able to pay what it has reserved.
        """

        async def set_() -> Client:
            async with self._store.changing_catalog() as transaction:
                old = await known_client(transaction, name)
                new = change.applied_to(old)
                if new != old:
                    books = (await transaction.books.lock_clients([old.id]))[old.id]
                    await check_client_change(transaction, old, new, books)
                    check_amounts(old, new, change)
                    await transaction.change_client(new)
                    await follow_quotas(transaction, new, books, self._now_ms())
                    await self.record(transaction, "set", "client", old, new)
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
                await self.record(transaction, verb(enabled), "client", old, new)
            return True

        return await persistently(enable)

    async def clients(
        self, words: Sequence[str] = (), reseller: str | None = None
    ) -> Sequence[ClientAndBooks]:
        """All clients, or those of one reseller, in whose settings every word appears, by name."""
        async with self._store.looking() as transaction:
            if reseller is not None:
                await require(transaction, "reseller", reseller)
            found = await transaction.clients(reseller)
            clients = [client for client in found if appear(words, _texts(client))]
            books = await transaction.client_books([client.id for client in clients])
        return [ClientAndBooks(client, books[client.id]) for client in clients]

    async def client(self, name: str) -> ClientAndBooks:
        """One client."""
        async with self._store.looking() as transaction:
            client = await known_client(transaction, name)
            return ClientAndBooks(client, (await transaction.client_books([client.id]))[client.id])

    async def add_rate_table(self, name: str, currency: str) -> RateTableHead:
        """Add an empty rate table."""
        new = RateTableHead(check_name("rate table", name), check_currency(currency))

        async def add() -> RateTableHead:
            async with self._store.changing_catalog() as transaction:
                if await transaction.rate_table(name) is not None:
                    raise already_there("rate table", name)
                await transaction.add_rate_table(new, self._now_ms())
                await self.record(transaction, "add", "rate-table", None, new)
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
                    await self.record(transaction, "set", "rate-table", old, new)
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
                await self.record(transaction, verb(enabled), "rate-table", old, new)
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


def _texts(client: Client) -> tuple[str, ...]:
    """What a client is searched by."""
    return (
        client.name,
        client.kind,
        client.currency,
        client.rate_table,
        client.email,
        client.reseller,
        client.routing_plan,
    )
