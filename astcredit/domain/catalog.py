"""The catalog: what people configure, as an immutable snapshot that every call is decided on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from astcredit.domain.ratetable import RateTable


class ClientKind(StrEnum):
    """How a client pays: from a balance that must not run out, or afterwards."""

    PREPAID = "prepaid"
    POSTPAID = "postpaid"


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What is configured for a client; its money is in `ClientBooks`."""

    id: int
    name: str
    currency: str
    rate_table_id: int | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class Account:
    """One way by which a client's calls are recognised."""

    id: int
    client_id: int
    name: str
    idents: tuple[str, ...]
    rate_table_id: int | None
    enabled: bool


class AmbiguousAccountsError(ValueError):
    """Two accounts would answer to the same identification. Names both."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """A snapshot of the catalog at one version. Build it with `compile_catalog`."""

    version: int
    clients: Mapping[int, ClientSettings]
    accounts: Mapping[int, Account]
    accounts_by_name: Mapping[str, Account]
    rate_tables: Mapping[int, RateTable] = field(default_factory=dict)

    def identify(self, accountcode: str) -> Account | None:
        """The account that is recognised by this name, or None; nobody's name is empty."""
        return self.accounts_by_name.get(accountcode) if accountcode else None

    def client_of(self, account: Account) -> ClientSettings:
        """The client that pays for the account."""
        return self.clients[account.client_id]

    def rate_table_for(self, account: Account) -> RateTable | None:
        """The account's own rate table, else its client's; None if neither has an enabled one."""
        own = account.rate_table_id
        table_id = own if own is not None else self.client_of(account).rate_table_id
        return None if table_id is None else self.rate_tables.get(table_id)


def compile_catalog(
    version: int,
    clients: Mapping[int, ClientSettings],
    accounts: Mapping[int, Account],
    rate_tables: Mapping[int, RateTable],
) -> Catalog:
    """Build the snapshot and its look-up by name.

    Raises AmbiguousAccountsError when two accounts are identified by the same name.
    """
    by_name: dict[str, Account] = {}
    for account in accounts.values():
        for ident in account.idents:
            other = by_name.setdefault(ident, account)
            if other is not account:
                raise AmbiguousAccountsError(
                    f"accounts {other.name!r} and {account.name!r} are both identified by"
                    f" the name {ident!r}"
                )
    return Catalog(version, clients, accounts, by_name, rate_tables)
