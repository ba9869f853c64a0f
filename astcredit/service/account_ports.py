"""Accounts as people configure them, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from typing import Protocol as Interface

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.service.history_ports import State

TERM_COLUMNS: Final = (
    "term_enabled",
    "term_rate_table",
    "term_tag",
    "term_capacity",
    "protocol",
    "host",
    "port",
    "proxy",
    "routing_ip",
)
"""The columns of the terminator settings."""

COLUMNS: Final = (
    "name",
    "client",
    "ident_by",
    "ident",
    "rate_table",
    "tag",
    "notes",
    "enabled",
    "tech_prefix",
    "gateways",
    "routing_plan",
    "src_policy",
    "dids",
    "orig_enabled",
    "orig_capacity",
    *TERM_COLUMNS,
)
"""What an account's settings are called in lists, in files and in astaudit, in their order."""


@dataclass(frozen=True, slots=True)
class Termination:
    """An account's terminator settings, as `domain.accounts.Termination` with names for ids."""

    rate_table: str = ""
    tag: str = ""
    capacity: int | None = None
    protocol: Protocol = Protocol.PJSIP
    host: str = ""
    port: int | None = None
    proxy: str = ""
    routing_ip: str = ""
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Account:
    """An account's settings. `rate_table` and `routing_plan` are empty where the client's hold.

    `termination` is None for an account that never was a terminator; then it takes no calls.
    """

    name: str
    client: str
    idents: tuple[str, ...] = ()
    rate_table: str = ""
    tag: str = ""
    notes: str = ""
    enabled: bool = True
    id: int = 0
    ident_by: IdentKind = IdentKind.NAME
    tech_prefix: str = ""
    gateways: tuple[str, ...] = ()
    routing_plan: str = ""
    source_policy: SourcePolicy = SourcePolicy.ALLOW_ANY
    dids: tuple[str, ...] = ()
    orig_enabled: bool = True
    orig_capacity: int | None = None
    termination: Termination | None = None

    @property
    def needs_term_rates(self) -> bool:
        """Whether its terminator side is on and no call is routed to it for want of rates."""
        term = self.termination
        return term is not None and term.enabled and not term.rate_table

    def state(self) -> State:
        """All settings but the name, by their columns."""
        return {
            "client": self.client,
            "ident_by": self.ident_by.value,
            "ident": list(self.idents),
            "rate_table": self.rate_table,
            "tag": self.tag,
            "notes": self.notes,
            "enabled": self.enabled,
            "tech_prefix": self.tech_prefix,
            "gateways": list(self.gateways),
            "routing_plan": self.routing_plan,
            "src_policy": self.source_policy.value,
            "dids": list(self.dids),
            "orig_enabled": self.orig_enabled,
            "orig_capacity": self.orig_capacity,
            **_term_state(self.termination),
        }


def _term_state(term: Termination | None) -> State:
    """Of an account that is no terminator every one of them is None."""
    if term is None:
        return dict.fromkeys(TERM_COLUMNS)
    return {
        "term_enabled": term.enabled,
        "term_rate_table": term.rate_table,
        "term_tag": term.tag,
        "term_capacity": term.capacity,
        "protocol": term.protocol.value,
        "host": term.host,
        "port": term.port,
        "proxy": term.proxy,
        "routing_ip": term.routing_ip,
    }


class AccountStore(Interface):
    """The accounts, inside a transaction. Every method may raise StorageError."""

    async def named(self, name: str) -> Account | None: ...

    async def all(self, client: str | None = None) -> Sequence[Account]:
        """All accounts, or those of one client, by name."""

    async def identified_by(self, kind: IdentKind, ident: str) -> Sequence[Account]:
        """The accounts that have the ident, in its canonical form, among theirs of that kind."""

    async def add(self, accounts: Sequence[Account], now_ms: int) -> None:
        """Insert accounts; their clients, rate tables and routing plans exist."""

    async def change(self, accounts: Sequence[Account]) -> None:
        """Write the settings of the accounts with those ids; name and client stay."""
