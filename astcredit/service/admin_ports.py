"""What administration works on: the catalog as people configure it, and the store that keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros, amount_text
from astcredit.domain.rate_columns import RateColumns, RateRow
from astcredit.service.account_ports import AccountStore
from astcredit.service.block_ports import BlockStore
from astcredit.service.capacity_ports import CapacityStore
from astcredit.service.history_ports import AuditEntry, HistoryStore, State
from astcredit.service.ports import BooksTransaction
from astcredit.service.quota_ports import QuotaStore
from astcredit.service.reseller_ports import ResellerStore
from astcredit.service.routing_ports import RoutingStore


@dataclass(frozen=True, slots=True)
class Client:
    """A client's settings. An empty name is none; a limit, quota or capacity of None is no limit.

    `low_balance`: the balance below which it is told; None: never.
    """

    name: str
    kind: ClientKind = ClientKind.PREPAID
    currency: str = "EUR"
    credit_limit: Micros | None = None
    rate_table: str = ""
    email: str = ""
    enabled: bool = True
    id: int = 0
    reseller: str = ""
    routing_plan: str = ""
    orig_capacity: int | None = None
    term_capacity: int | None = None
    monthly_quota: Micros | None = None
    daily_quota: Micros | None = None
    timezone: str = "UTC"
    low_balance: Micros | None = None

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "kind": self.kind,
            "currency": self.currency,
            "credit_limit": _optional_amount(self.credit_limit),
            "rate_table": self.rate_table,
            "email": self.email,
            "enabled": self.enabled,
            "reseller": self.reseller,
            "routing_plan": self.routing_plan,
            "orig_capacity": self.orig_capacity,
            "term_capacity": self.term_capacity,
            "monthly_quota": _optional_amount(self.monthly_quota),
            "daily_quota": _optional_amount(self.daily_quota),
            "timezone": self.timezone,
            "low_balance": _optional_amount(self.low_balance),
        }


def _optional_amount(amount: Micros | None) -> str | None:
    return None if amount is None else amount_text(amount)


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

    async def put(self, rates: RateColumns) -> None:
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

    @property
    def accounts(self) -> AccountStore:
        """The accounts, in the same transaction."""

    @property
    def resellers(self) -> ResellerStore:
        """The resellers, in the same transaction."""

    @property
    def blocks(self) -> BlockStore:
        """The blocked prefixes, in the same transaction."""

    @property
    def routing(self) -> RoutingStore:
        """The routing plans and their rules, in the same transaction."""

    @property
    def capacity(self) -> CapacityStore:
        """The counters of calls, in the same transaction."""

    @property
    def quotas(self) -> QuotaStore:
        """The quotas and their usage, in the same transaction."""

    @property
    def history(self) -> HistoryStore:
        """What was changed before, in the same transaction."""

    async def catalog_version(self) -> int:
        """The catalog's version; a transaction that changes the catalog has raised it by one."""

    async def client(self, name: str) -> Client | None: ...

    async def clients(self, reseller: str | None = None) -> Sequence[Client]:
        """All clients, or those of one reseller, by name."""

    async def add_client(self, client: Client, now_ms: int) -> None: ...

    async def change_client(self, client: Client) -> None:
        """Write the settings of the client with that id."""

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
        """Names of one kind: "client", "account", "reseller", "rate table", "routing plan"."""

    async def has(self, kind: str, name: str) -> bool:
        """Whether there is an object of that kind (as for `names`) and name."""

    async def booking(self, reference: str) -> Booking | None:
        """The ledger's row with that reference."""

    async def client_books(self, ids: Collection[int]) -> Mapping[int, ClientBooks]:
        """Books without a lock, for a look."""

    async def record(self, entry: AuditEntry) -> None:
        """Add a row to astaudit."""

    async def record_all(self, entries: Sequence[AuditEntry]) -> None:
        """Add rows to astaudit, in their order."""


class AdminStore(Protocol):
    """Opens the transactions of administrators; all raise StorageErrors."""

    def changing_catalog(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that changes the catalog: one at a time, servers see it by its version."""

    def booking_money(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that changes balances."""

    def looking(self) -> AbstractAsyncContextManager[AdminTransaction]:
        """A transaction that only reads, and sees one state of everything."""
