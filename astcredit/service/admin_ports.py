"""What administration works on: the catalog as people configure it, and the store that keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros, amount_text
from astcredit.domain.ratetable import RateRow
from astcredit.domain.rating import Rate
from astcredit.service.ports import BooksTransaction

State: TypeAlias = Mapping[str, str | int | bool | list[str] | None]
"""Names and values of an object's settings, as astaudit keeps them (JSON)."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client's settings. `rate_table` is empty for none, `credit_limit` None for no limit."""

    name: str
    kind: ClientKind = ClientKind.PREPAID
    currency: str = "EUR"
    credit_limit: Micros | None = None
    rate_table: str = ""
    email: str = ""
    enabled: bool = True
    id: int = 0

    def state(self) -> State:
        """What astaudit keeps of it."""
        limit = None if self.credit_limit is None else amount_text(self.credit_limit)
        return {
            "kind": self.kind,
            "currency": self.currency,
            "credit_limit": limit,
            "rate_table": self.rate_table,
            "email": self.email,
            "enabled": self.enabled,
        }


@dataclass(frozen=True, slots=True)
class Account:
    """An account's settings. `rate_table` is empty where the client's holds."""

    name: str
    client: str
    idents: tuple[str, ...] = ()
    rate_table: str = ""
    tag: str = ""
    notes: str = ""
    enabled: bool = True
    id: int = 0

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "client": self.client,
            "ident": list(self.idents),
            "rate_table": self.rate_table,
            "tag": self.tag,
            "notes": self.notes,
            "enabled": self.enabled,
        }


@dataclass(frozen=True, slots=True)
class RateTableHead:
    """A rate table without its rates; `rates` counts them, past and future ones included."""

    name: str
    currency: str = "EUR"
    enabled: bool = True
    rates: int = 0
    version: int = 1
    id: int = 0

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {"currency": self.currency, "enabled": self.enabled}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of astaudit: who changed what. The states hold only what changed."""

    created_at_ms: int
    actor: str
    action: str
    object_kind: str
    object_name: str
    before: State | None
    after: State | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Booking:
    """A row of the ledger, found by its reference."""

    client: str
    kind: LedgerKind
    amount: Micros
    balance_after: Micros
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class StoredPeriod:
    """Which row of a rate table is in force when, for which prefix."""

    id: int
    prefix: str
    from_ms: int
    until_ms: int | None


class RatesTransaction(Protocol):
    """The rates of one rate table, inside a transaction."""

    def in_force_from(self, instant_ms: int) -> AsyncIterator[StoredPeriod]:
        """The rows in force at the instant or beginning later."""

    async def end(self, ids: Collection[int], instant_ms: int) -> None:
        """Let rows end at the instant."""

    async def remove(self, ids: Collection[int]) -> None:
        """Take rows out."""

    async def put(self, rates: Sequence[Rate]) -> None:
        """Add rates, in place of those with the same prefix and instant."""

    async def count(self) -> int:
        """Number of rows."""

    async def changed(self, rates: int) -> None:
        """Raise the table's version and note how many rates it has."""

    async def matching(self, number: str) -> Sequence[RateRow]:
        """All rows whose prefix begins the number."""

    def in_force(self, instant_ms: int) -> AsyncIterator[RateRow]:
        """The rows in force at the instant, in the order of prefix, then of their beginning."""


class AdminTransaction(Protocol):
    """One transaction of an administrator. Every method may raise StorageError."""

    @property
    def books(self) -> BooksTransaction:
        """The books, in the same transaction."""

    async def client(self, name: str) -> Client | None: ...

    async def clients(self) -> Sequence[Client]:
        """All clients, by name."""

    async def add_client(self, client: Client, now_ms: int) -> None: ...

    async def change_client(self, client: Client) -> None:
        """Write the settings of the client with that id."""

    async def account(self, name: str) -> Account | None: ...

    async def accounts(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""

    async def identified_by(self, ident: str) -> Sequence[Account]:
        """The accounts that have the ident."""

    async def add_account(self, account: Account, now_ms: int) -> None: ...

    async def change_account(self, account: Account) -> None:
        """Write the settings of the account with that id."""

    async def rate_table(self, name: str) -> RateTableHead | None: ...

    async def rate_tables(self) -> Sequence[RateTableHead]:
        """All rate tables, by name."""

    async def rate_table_users(self, name: str) -> Sequence[Client]:
        """The clients whose calls are rated with the table, by their own or an account's choice."""

    async def add_rate_table(self, table: RateTableHead, now_ms: int) -> None: ...

    async def change_rate_table(self, table: RateTableHead) -> None:
        """Write the settings of the rate table with that id."""

    def rates(self, rate_table_id: int) -> RatesTransaction:
        """The rates of a table, in the same transaction."""

    async def names(self, kind: str) -> Sequence[str]:
        """Names of clients ("client"), accounts ("account") or rate tables ("rate table")."""

    async def booking(self, reference: str) -> Booking | None:
        """The ledger's row with that reference."""

    async def client_books(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Books without a lock, for a look."""

    async def record(self, entry: AuditEntry) -> None:
        """Add a row to astaudit."""


class AdminStore(Protocol):
    """Opens the transactions of administrators; all raise StorageErrors."""

    def changing_catalog(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that changes the catalog: one at a time, servers see it by its version."""

    def booking_money(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that changes balances."""

    def looking(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that only reads, and sees one state of everything."""
