"""What a routing plan and its rules may be: what a change of them must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeAlias

from astcredit.domain.dialing import check_prepend
from astcredit.domain.money import PRICE_EXPECTED, Micros, short_text
from astcredit.domain.rating import MOST_AMOUNT, MOST_PREFIX_DIGITS, is_prefix
from astcredit.domain.routing import ANY_PREFIX
from astcredit.domain.text import printable
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.catalog_rules import (
    KEEP,
    MOST_CAPACITY,
    Capacity,
    Limit,
    kept,
    require,
)
from astcredit.service.errors import RefusedError
from astcredit.service.naming import known, shown_name
from astcredit.service.routing_ports import Place, PlanHead, PlanRule

EVERY_NUMBER: Final = "*"
"""How a person writes the empty prefix, and how it is shown."""

PREFIX_EXPECTED: Final = f"1 to {MOST_PREFIX_DIGITS} digits, or {EVERY_NUMBER} for every number"

RANGES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        # As in DNS SRV records (RFC 2782), whose manner of choosing this is.
        "priority": (1, 65_535),
        "weight": (0, 65_535),
        "capacity": (0, MOST_CAPACITY),
        # As many digits as a prefix has.
        "strip": (0, MOST_PREFIX_DIGITS),
    }
)
"""Least and greatest value of each number in a rule."""

MARGIN_EXPECTED: Final = f"{PRICE_EXPECTED}, at most {short_text(MOST_AMOUNT)}"

MOST_ID: Final = 2**31 - 1
"""What the databases' columns of ids hold."""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """New values for settings of a rule; what is None (capacity, min_margin: KEEP) stays.

    `capacity` None is no limit, `min_margin` None no demand.
    """

    priority: int | None = None
    weight: int | None = None
    capacity: Capacity = KEEP
    strip: int | None = None
    prepend: str | None = None
    min_margin: Limit = KEEP
    enabled: bool | None = None

    def applied_to(self, rule: PlanRule) -> PlanRule:
        """The rule after the change. Raises RefusedError for a value that cannot be."""
        return check_rule(
            replace(
                rule,
                priority=rule.priority if self.priority is None else self.priority,
                weight=rule.weight if self.weight is None else self.weight,
                capacity=kept(self.capacity, rule.capacity),
                strip=rule.strip if self.strip is None else self.strip,
                prepend=rule.prepend if self.prepend is None else self.prepend,
                min_margin=kept(self.min_margin, rule.min_margin),
                enabled=rule.enabled if self.enabled is None else self.enabled,
            )
        )


RuleRef: TypeAlias = int | Place
"""A rule as a person names it: by its id, or by plan, prefix and account."""


def parse_prefix(text: str) -> str:
    """The prefix that a person writes; empty for every number. Raises ValueError.

    A + before the digits is dropped; one that stands alone is a slip, not every number.
    """
    if text in ("", EVERY_NUMBER, ANY_PREFIX):
        return ""
    prefix = text.removeprefix("+")
    if not is_prefix(prefix):
        raise ValueError(f"prefix {printable(text)}: expected {PREFIX_EXPECTED}")
    return prefix


def shown_prefix(prefix: str) -> str:
    """A rule's prefix as `parse_prefix` reads it, and visible where it is empty."""
    return prefix or EVERY_NUMBER


def check_number(field: str, value: int) -> int:
    """`value`, if the setting of that name can have it. Raises ValueError."""
    least, most = RANGES[field]
    if not least <= value <= most:
        raise ValueError(f"{field} {value}: expected {least} to {most}")
    return value


def check_margin(margin: Micros) -> Micros:
    """`margin`, if a rule can demand it. Raises ValueError."""
    if not 0 <= margin <= MOST_AMOUNT:
        raise ValueError(f"min_margin {short_text(margin)}: expected {MARGIN_EXPECTED}")
    return margin


def check_rule(rule: PlanRule) -> PlanRule:
    """`rule`, if its settings can be. Raises RefusedError."""
    try:
        for field in RANGES:
            value = getattr(rule, field)
            if value is not None:
                check_number(field, value)
        if rule.min_margin is not None:
            check_margin(rule.min_margin)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    try:
        check_prepend(rule.prepend)
    except ValueError as error:
        raise RefusedError(f"prepend {error}") from None
    return rule


async def known_routing_plan(transaction: AdminTransaction, name: str) -> PlanHead:
    """The routing plan of that name. Raises RefusedError with the nearest one."""
    plan = await transaction.routing.plan(name)
    return await known("routing plan", name, plan, transaction.names)


async def known_terminator(transaction: AdminTransaction, account: str) -> None:
    """Refuse an account that is not there, or that is not there to terminate calls."""
    terminates = (await transaction.routing.terminators([account])).get(account)
    if not await known("account", account, terminates, transaction.names):
        raise RefusedError(
            f"account {shown_name(account)} has no terminator settings: give it some first with"
            f" astcredit account set {shown_name(account)} --term"
        )


async def known_rule(transaction: AdminTransaction, ref: RuleRef) -> PlanRule:
    """The rule that is meant. Raises RefusedError that says which part of the name is unknown."""
    if isinstance(ref, int):
        rule = await transaction.routing.rule(ref) if 0 < ref <= MOST_ID else None
        if rule is None:
            raise RefusedError(f"there is no route {ref}")
        return rule
    rule = await transaction.routing.rule_at(ref)
    if rule is None:
        await known_routing_plan(transaction, ref.plan)
        await require(transaction, "account", ref.account)
        raise RefusedError(
            f"routing plan {shown_name(ref.plan)} has no route for prefix"
            f" {shown_prefix(ref.prefix)} to account {shown_name(ref.account)}"
        )
    return rule
