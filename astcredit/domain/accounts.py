"""Accounts: how clients' calls are recognised, and how calls are handed to terminators."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from astcredit.domain.records import record


class IdentKind(StrEnum):
    """By what an account is recognised, in the order in which they are looked for."""

    NAME = "name"
    IP = "ip"
    ANI = "ani"


class SourcePolicy(StrEnum):
    """What becomes of a caller's number that is none of the account's DIDs."""

    ALLOW_ANY = "allow-any"
    REJECT = "reject"
    OVERWRITE = "overwrite"


class Protocol(StrEnum):
    """How Asterisk reaches a terminator: the channel technology of Dial."""

    PJSIP = "PJSIP"
    SIP = "SIP"
    IAX2 = "IAX2"


@dataclass(frozen=True, slots=True)
class Termination:
    """An account's terminator settings: what it charges, how many calls it takes, where it is.

    `proxy` is an endpoint or peer that Asterisk knows by name; `host` (with `port`) an address
    that it does not need to know, `routing_ip` the address to use in its place. A capacity of
    None is no limit.
    """

    rate_table_id: int | None = None
    capacity: int | None = None
    protocol: Protocol = Protocol.PJSIP
    host: str = ""
    port: int | None = None
    proxy: str = ""
    routing_ip: str = ""
    tag: str = ""
    enabled: bool = True


@record
class Account:
    """An account as calls are decided on it.

    `enabled` is the whole account, `orig_enabled` its originator side; `termination` is None for
    an account that never terminates. `gateways` are the Asterisk servers (nodes) for which it
    counts, all if there are none. `dids` are the numbers that it may present.
    """

    id: int
    client_id: int
    name: str
    idents: tuple[str, ...]
    rate_table_id: int | None = None
    enabled: bool = True
    ident_by: IdentKind = IdentKind.NAME
    tech_prefix: str = ""
    gateways: tuple[str, ...] = ()
    routing_plan_id: int | None = None
    source_policy: SourcePolicy = SourcePolicy.ALLOW_ANY
    dids: tuple[str, ...] = ()
    tag: str = ""
    orig_enabled: bool = True
    orig_capacity: int | None = None
    termination: Termination | None = None

    def serves(self, node: str) -> bool:
        """Whether the account counts on that Asterisk server."""
        return not self.gateways or node in self.gateways


class AmbiguousAccountsError(ValueError):
    """Two accounts would answer to the same identification. Names both."""
