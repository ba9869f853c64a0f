"""The catalog: what people configure, as an immutable snapshot that every call is decided on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from astcredit.domain.accounts import Account
from astcredit.domain.blocks import Blocks
from astcredit.domain.calls import Origin
from astcredit.domain.capacity import Direction, Level, Limit, Scope
from astcredit.domain.identification import Identified, Identities
from astcredit.domain.ratetable import RateTable
from astcredit.domain.records import record
from astcredit.domain.routing_plan import RoutingPlan


class ClientKind(StrEnum):
    """How a client pays: from a balance that must not run out, or afterwards."""

    PREPAID = "prepaid"
    POSTPAID = "postpaid"


@dataclass(frozen=True, slots=True)
class Reseller:
    """Whose clients share a capacity."""

    id: int
    name: str
    enabled: bool = True
    orig_capacity: int | None = None
    term_capacity: int | None = None


@record
class ClientSettings:
    """What is configured for a client; its money is in `ClientBooks`."""

    id: int
    name: str
    currency: str
    rate_table_id: int | None
    enabled: bool
    reseller_id: int | None = None
    routing_plan_id: int | None = None
    orig_capacity: int | None = None
    term_capacity: int | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """A snapshot of the catalog at one version. Build it with `compile_catalog`."""

    version: int
    clients: Mapping[int, ClientSettings]
    accounts: Mapping[int, Account]
    identities: Identities
    rate_tables: Mapping[int, RateTable] = field(default_factory=dict)
    resellers: Mapping[int, Reseller] = field(default_factory=dict)
    routing_plans: Mapping[int, RoutingPlan] = field(default_factory=dict)
    blocks: Blocks = field(default_factory=Blocks)

    def identify(self, origin: Origin, number: str = "") -> Identified | None:
        """The account that a call is recognised as, or None."""
        return self.identities.find(origin, number)

    def client_of(self, account: Account) -> ClientSettings:
        """The client that pays for the account."""
        return self.clients[account.client_id]

    def reseller_of(self, client: ClientSettings) -> Reseller | None:
        """The reseller that the client belongs to, if any."""
        return None if client.reseller_id is None else self.resellers.get(client.reseller_id)

    def rate_table_for(self, account: Account) -> RateTable | None:
        """The account's own rate table, else its client's; None if neither has an enabled one."""
        own = account.rate_table_id
        table_id = own if own is not None else self.client_of(account).rate_table_id
        return None if table_id is None else self.rate_tables.get(table_id)

    def routing_plan_id_for(self, account: Account) -> int | None:
        """The account's own routing plan, else its client's; None: the dialplan's own trunk."""
        own = account.routing_plan_id
        return own if own is not None else self.client_of(account).routing_plan_id

    def orig_limits(self, account: Account) -> tuple[Limit, ...]:
        """The levels at which the account's calls originate, the widest first."""
        client = self.client_of(account)
        of_client = Level(Scope.CLIENT, client.id, Direction.ORIG)
        of_account = Level(Scope.ACCOUNT, account.id, Direction.ORIG)
        return (
            *self._reseller_limit(client, Direction.ORIG),
            Limit(of_client, client.name, client.orig_capacity),
            Limit(of_account, account.name, account.orig_capacity),
        )

    def term_limits(self, account: Account) -> tuple[Limit, ...]:
        """The levels at which calls to the terminator end, the widest first."""
        client = self.client_of(account)
        capacity = account.termination.capacity if account.termination else None
        of_client = Level(Scope.CLIENT, client.id, Direction.TERM)
        of_account = Level(Scope.ACCOUNT, account.id, Direction.TERM)
        return (
            *self._reseller_limit(client, Direction.TERM),
            Limit(of_client, client.name, client.term_capacity),
            Limit(of_account, account.name, capacity),
        )

    def _reseller_limit(self, client: ClientSettings, direction: Direction) -> tuple[Limit, ...]:
        reseller = self.reseller_of(client)
        if reseller is None:
            return ()
        most = reseller.orig_capacity if direction is Direction.ORIG else reseller.term_capacity
        return (Limit(Level(Scope.RESELLER, reseller.id, direction), reseller.name, most),)

    def off(self, account: Account) -> str:
        """Why nothing of this account's client goes in either direction; empty if it does."""
        if not account.enabled:
            return f"account {account.name!r} is disabled"
        client = self.client_of(account)
        if not client.enabled:
            return f"client {client.name!r} is disabled"
        reseller = self.reseller_of(client)
        if reseller is not None and not reseller.enabled:
            return f"reseller {reseller.name!r} is disabled"
        return ""

    def originator_off(self, account: Account) -> str:
        """Why the account makes no calls (DISABLED); empty if it may."""
        off = self.off(account)
        if off or account.orig_enabled:
            return off
        return f"account {account.name!r} is disabled as an originator"


def compile_catalog(
    version: int,
    clients: Mapping[int, ClientSettings],
    accounts: Mapping[int, Account],
    rate_tables: Mapping[int, RateTable],
    resellers: Iterable[Reseller] = (),
    routing_plans: Mapping[int, RoutingPlan] | None = None,
    blocks: Blocks | None = None,
) -> Catalog:
    """Build the snapshot and its look-ups.

    Raises AmbiguousAccountsError when two accounts would answer to one identification, and
    ValueError for an identification that is none.
    """
    return Catalog(
        version,
        clients,
        accounts,
        Identities.of(accounts.values()),
        rate_tables,
        {reseller.id: reseller for reseller in resellers},
        routing_plans or {},
        blocks or Blocks(),
    )
