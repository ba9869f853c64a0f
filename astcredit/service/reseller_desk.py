"""Changing the catalog: resellers. What all changes have in common: desk.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.catalog_rules import KEEP, Capacity, kept
from astcredit.service.desk import CatalogDesk, verb
from astcredit.service.naming import already_there, check_name, known
from astcredit.service.persistence import persistently
from astcredit.service.reseller_ports import Reseller, ResellerInUse


@dataclass(frozen=True, slots=True)
class ResellerChange:
    """New capacities of a reseller: a number, None for no limit, KEEP for the one that is."""

    orig_capacity: Capacity = KEEP
    term_capacity: Capacity = KEEP

    def applied_to(self, reseller: Reseller) -> Reseller:
        """The reseller after the change."""
        return replace(
            reseller,
            orig_capacity=kept(self.orig_capacity, reseller.orig_capacity),
            term_capacity=kept(self.term_capacity, reseller.term_capacity),
        )


class ResellerDesk(CatalogDesk):
    """The administrator's use cases on resellers."""

    async def add(self, name: str, change: ResellerChange) -> Reseller:
        """Add a reseller; a capacity that `change` leaves open is no limit."""
        new = change.applied_to(Reseller(check_name("reseller", name)))

        async def add_() -> Reseller:
            async with self._store.changing_catalog() as transaction:
                if await transaction.resellers.named(name) is not None:
                    raise already_there("reseller", name)
                await transaction.resellers.add(new, self._now_ms())
                await self.record(transaction, "add", "reseller", None, new)
            return new

        return await persistently(add_)

    async def set(self, name: str, change: ResellerChange) -> Reseller:
        """Change a reseller's capacities.

        A limit below the calls that are up refuses new ones and leaves those.
        """

        async def set_() -> Reseller:
            async with self._store.changing_catalog() as transaction:
                old = (await known_reseller(transaction, name)).reseller
                new = change.applied_to(old)
                if new != old:
                    await transaction.resellers.change(new)
                    await self.record(transaction, "set", "reseller", old, new)
            return new

        return await persistently(set_)

    async def enable(self, name: str, enabled: bool) -> bool:
        """Let a reseller's clients call, or refuse all their new calls; False if it was so."""

        async def enable_() -> bool:
            async with self._store.changing_catalog() as transaction:
                old = (await known_reseller(transaction, name)).reseller
                if old.enabled == enabled:
                    return False
                new = replace(old, enabled=enabled)
                await transaction.resellers.change(new)
                await self.record(transaction, verb(enabled), "reseller", old, new)
            return True

        return await persistently(enable_)

    async def resellers(self) -> Sequence[ResellerInUse]:
        """All resellers, by name."""
        async with self._store.looking() as transaction:
            return await transaction.resellers.all()

    async def reseller(self, name: str) -> ResellerInUse:
        """One reseller."""
        async with self._store.looking() as transaction:
            return await known_reseller(transaction, name)


async def known_reseller(transaction: AdminTransaction, name: str) -> ResellerInUse:
    """The reseller of that name. Raises RefusedError with the nearest one."""
    found = await transaction.resellers.named(name)
    return await known("reseller", name, found, transaction.names)
