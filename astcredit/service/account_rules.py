"""Changes of an account's settings, and what the settings of one account demand of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from astcredit.domain import accounts as domain
from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.domain.dialing import NoDialString, dial_string
from astcredit.service.account_ports import Account, Termination
from astcredit.service.account_settings import (
    IDENTS_EXPECTED,
    SettingError,
    checked_capacity,
    checked_dids,
    checked_gateways,
    checked_host,
    checked_idents,
    checked_port,
    checked_proxy,
    checked_routing_ip,
    checked_tech_prefix,
    checked_text,
)
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.catalog_rules import KEEP, Capacity, Keep, kept
from astcredit.service.naming import MOST_NAME, MOST_NOTES, known

Port: TypeAlias = int | Literal[Keep.KEEP] | None
"""A port as it is asked for; None for the protocol's own, KEEP for the one that is."""

TARGET_EXPECTED: Final = (
    "a host, proxy or routing IP to hand calls to (--host, --proxy, --routing-ip)"
)
DIDS_EXPECTED: Final = "allow-any, or at least one DID (--did)"


@dataclass(frozen=True, slots=True)
class TerminationChange:
    """New values for terminator settings; what is None (numbers: KEEP) stays, '' means none.

    An account without terminator settings gets them by `enabled` True or by any value here; then
    the side is on unless `enabled` says otherwise. Where they are there, `enabled` alone moves it.
    """

    rate_table: str | None = None
    tag: str | None = None
    capacity: Capacity = KEEP
    protocol: Protocol | None = None
    host: str | None = None
    port: Port = KEEP
    proxy: str | None = None
    routing_ip: str | None = None
    enabled: bool | None = None

    def applied_to(self, old: Termination | None) -> Termination | None:
        """The settings after the change. Raises SettingError for a value that cannot be."""
        if old is None and not (self.enabled or self._gives_any()):
            return None
        base = old or Termination()
        return Termination(
            base.rate_table if self.rate_table is None else self.rate_table,
            base.tag if self.tag is None else checked_text("term_tag", self.tag, MOST_NAME),
            checked_capacity("term_capacity", kept(self.capacity, base.capacity)),
            self.protocol or base.protocol,
            base.host if self.host is None else checked_host(self.host),
            checked_port(kept(self.port, base.port)),
            base.proxy if self.proxy is None else checked_proxy(self.proxy),
            base.routing_ip if self.routing_ip is None else checked_routing_ip(self.routing_ip),
            base.enabled if self.enabled is None else self.enabled,
        )

    def _gives_any(self) -> bool:
        """Whether any of the settings is given a value."""
        texts = (self.rate_table, self.tag, self.protocol, self.host, self.proxy, self.routing_ip)
        numbers = (self.capacity, self.port)
        return any(texts) or any(number not in (None, KEEP) for number in numbers)


@dataclass(frozen=True, slots=True)
class AccountChange:
    """New values for settings of an account; what is None (capacity: KEEP) stays.

    Empty texts and lists mean none. What an account is recognised by changes together with its
    idents.
    """

    idents: Sequence[str] | None = None
    rate_table: str | None = None
    tag: str | None = None
    notes: str | None = None
    enabled: bool | None = None
    ident_by: IdentKind | None = None
    tech_prefix: str | None = None
    gateways: Sequence[str] | None = None
    routing_plan: str | None = None
    source_policy: SourcePolicy | None = None
    dids: Sequence[str] | None = None
    orig_enabled: bool | None = None
    orig_capacity: Capacity = KEEP
    termination: TerminationChange = TerminationChange()

    def applied_to(self, old: Account) -> Account:
        """The account after the change, each setting by itself in order.

        Raises SettingError for a value that cannot be; see `contradictions` too.
        """
        kind = self.ident_by or old.ident_by
        capacity = kept(self.orig_capacity, old.orig_capacity)
        return replace(
            old,
            ident_by=kind,
            idents=self._idents(kind, old),
            rate_table=old.rate_table if self.rate_table is None else self.rate_table,
            routing_plan=old.routing_plan if self.routing_plan is None else self.routing_plan,
            tag=old.tag if self.tag is None else checked_text("tag", self.tag, MOST_NAME),
            notes=old.notes
            if self.notes is None
            else checked_text("notes", self.notes, MOST_NOTES),
            enabled=old.enabled if self.enabled is None else self.enabled,
            tech_prefix=old.tech_prefix
            if self.tech_prefix is None
            else checked_tech_prefix(self.tech_prefix),
            gateways=old.gateways if self.gateways is None else checked_gateways(self.gateways),
            source_policy=self.source_policy or old.source_policy,
            dids=old.dids if self.dids is None else checked_dids(self.dids),
            orig_enabled=old.orig_enabled if self.orig_enabled is None else self.orig_enabled,
            orig_capacity=checked_capacity("orig_capacity", capacity),
            termination=self.termination.applied_to(old.termination),
        )

    def _idents(self, kind: IdentKind, old: Account) -> tuple[str, ...]:
        if self.idents is not None:
            return checked_idents(kind, self.idents)
        if not old.idents:
            raise SettingError("ident", "", IDENTS_EXPECTED)
        if kind is old.ident_by:
            return old.idents
        raise SettingError("ident_by", kind, "idents of that kind together with it (--ident)")


def contradictions(account: Account) -> Iterator[SettingError]:
    """What in an account's settings does not go together."""
    if account.source_policy is not SourcePolicy.ALLOW_ANY and not account.dids:
        yield SettingError("src_policy", account.source_policy, DIDS_EXPECTED)
    term = account.termination
    if term is None or not term.enabled:
        return
    if not (term.host or term.proxy or term.routing_ip):
        yield SettingError("term_enabled", "on", TARGET_EXPECTED)
        return
    try:
        # The endpoint stands for the setting that names one for carriers known by address.
        dial_string(_dialled(term), "1", "endpoint")
    except NoDialString as error:
        yield SettingError("protocol", term.protocol, f"settings that Dial can use: {error}")


def check_consistent(account: Account) -> None:
    """Raise the first of an account's contradictions, a SettingError."""
    for error in contradictions(account):
        raise error


def _dialled(term: Termination) -> domain.Termination:
    return domain.Termination(
        protocol=term.protocol,
        host=term.host,
        port=term.port,
        proxy=term.proxy,
        routing_ip=term.routing_ip,
    )


async def known_account(transaction: AdminTransaction, name: str) -> Account:
    """The account of that name. Raises RefusedError with the nearest one."""
    return await known("account", name, await transaction.accounts.named(name), transaction.names)
