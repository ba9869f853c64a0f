"""Which calls are asked for, by the names of those who had to do with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from astcredit.domain.states import CallState
from astcredit.service.admin_ports import AdminStore
from astcredit.service.catalog_rules import require
from astcredit.service.errors import RefusedError
from astcredit.service.naming import shown_name
from astcredit.service.routing_ports import RuleFilter
from astcredit.service.routing_rules import parse_prefix, shown_prefix

Named: TypeAlias = Iterable[tuple[str, str | None]]
"""Kinds of objects, each with a name that was given or None."""


@dataclass(frozen=True, slots=True)
class ActiveFilter:
    """Which of the calls that are up: all those for which everything that is given holds.

    `plan` and `prefix` are of the route that a call is on now, an empty prefix the one for every
    number; `terminator` is the account that it goes to.
    """

    reseller: str | None = None
    client: str | None = None
    account: str | None = None
    plan: str | None = None
    prefix: str | None = None
    terminator: str | None = None

    @property
    def named(self) -> Named:
        """The objects that it names."""
        return (
            ("reseller", self.reseller),
            ("client", self.client),
            ("account", self.account),
            ("routing plan", self.plan),
            ("account", self.terminator),
        )


@dataclass(frozen=True, slots=True)
class CdrFilter:
    """Which CDRs: all those for which everything that is given holds.

    The interval is half open, `from_ms` <= date_created < `until_ms`. `reseller` is the client's
    when the call was made, `terminator` the account that carried it or was tried last.
    """

    client: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None
    status: CallState | None = None
    account: str | None = None
    reseller: str | None = None
    terminator: str | None = None

    @property
    def named(self) -> Named:
        """The objects that it names."""
        return (
            ("client", self.client),
            ("account", self.account),
            ("reseller", self.reseller),
            ("account", self.terminator),
        )


async def require_named(store: AdminStore, named: Named) -> None:
    """Raise RefusedError with the nearest name for one that is not there.

    It is a slip of the keyboard, not a client without calls.
    """
    given = [(kind, name) for kind, name in named if name is not None]
    if not given:
        return
    async with store.looking() as transaction:
        for kind, name in given:
            await require(transaction, kind, name)


async def route_of(store: AdminStore, text: str) -> tuple[str, str | None]:
    """The routing plan and the prefix that "PLAN" or "PLAN/PREFIX" mean; None: any prefix.

    A plan that has the whole text for its name is that plan. Raises RefusedError for a plan or a
    prefix of it that is not there.
    """
    async with store.looking() as transaction:
        plan, slash, written = text.rpartition("/")
        if not slash or await transaction.has("routing plan", text):
            await require(transaction, "routing plan", text)
            return text, None
        try:
            prefix = parse_prefix(written)
        except ValueError as error:
            raise RefusedError(f"route {shown_name(text)}: {error}") from None
        await require(transaction, "routing plan", plan)
        rules = await transaction.routing.rules(RuleFilter(plan, prefix=prefix))
        if not any(rule.prefix == prefix for rule in rules):
            raise RefusedError(
                f"routing plan {shown_name(plan)} has no route for prefix {shown_prefix(prefix)}"
            )
        return plan, prefix
