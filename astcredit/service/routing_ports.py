"""Routing plans and their rules as people configure them, and where they are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from astcredit.domain.capacity import Level, Uses
from astcredit.domain.money import Micros, amount_text
from astcredit.domain.routing import ANY_PREFIX
from astcredit.domain.routing_plan import RouteOrder
from astcredit.service.history_ports import State


@dataclass(frozen=True, slots=True)
class PlanHead:
    """A routing plan without its rules; `rules` counts them, disabled ones included.

    `clients` and `accounts` count those that have chosen the plan themselves.
    """

    name: str
    order: RouteOrder = RouteOrder.PRIORITY
    enabled: bool = True
    rules: int = 0
    clients: int = 0
    accounts: int = 0
    version: int = 1
    id: int = 0

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {"order": self.order, "enabled": self.enabled}


@dataclass(frozen=True, slots=True)
class PlanRule:
    """A rule of a routing plan: calls to `prefix` may go to the terminator `account`.

    The fields are those of `domain.routing_plan.Rule`, with names in place of ids.
    """

    plan: str
    prefix: str
    account: str
    priority: int = 1
    weight: int = 1
    capacity: int | None = None
    strip: int = 0
    prepend: str = ""
    min_margin: Micros | None = None
    enabled: bool = True
    id: int = 0

    @property
    def name(self) -> str:
        """What the rule is called in messages and in astaudit."""
        return str(self.place)

    @property
    def place(self) -> Place:
        """What no other rule has."""
        return Place(self.plan, self.prefix, self.account)

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "plan": self.plan,
            "prefix": self.prefix,
            "account": self.account,
            "priority": self.priority,
            "weight": self.weight,
            "capacity": self.capacity,
            "strip": self.strip,
            "prepend": self.prepend,
            "min_margin": None if self.min_margin is None else amount_text(self.min_margin),
            "enabled": self.enabled,
        }


class Place(NamedTuple):
    """Which rule: the one of a plan for a prefix to an account."""

    plan: str
    prefix: str
    account: str

    def __str__(self) -> str:
        return f"{self.plan} {self.prefix or ANY_PREFIX} {self.account}"


@dataclass(frozen=True, slots=True)
class RuleFilter:
    """Which rules are wanted: what is None does not matter.

    `prefix` takes the rules whose prefix begins with it; the empty one those for every number.
    """

    plan: str | None = None
    account: str | None = None
    prefix: str | None = None


class RoutingStore(Protocol):
    """Routing plans and their rules, inside a transaction. Every method may raise StorageError."""

    async def plan(self, name: str) -> PlanHead | None:
        """The routing plan of that name."""

    async def plans(self) -> Sequence[PlanHead]:
        """All routing plans, by name."""

    async def add_plan(self, plan: PlanHead, now_ms: int) -> None: ...

    async def change_plan(self, plan: PlanHead) -> None:
        """Write the settings of the plan with that id."""

    async def rules_changed(self, plan: str) -> None:
        """Raise the plan's version: servers load the rules of a plan whose version moved."""

    async def rule(self, id: int) -> PlanRule | None:
        """The rule with that id."""

    async def rule_at(self, place: Place) -> PlanRule | None:
        """The rule at that place."""

    async def rules(self, wanted: RuleFilter) -> Sequence[PlanRule]:
        """The rules that are wanted: by plan, prefix, priority and account."""

    async def add_rules(self, rules: Sequence[PlanRule], now_ms: int) -> None:
        """Insert rules, whose plans and accounts exist; their ids are made."""

    async def change_rules(self, rules: Sequence[PlanRule]) -> None:
        """Write the settings of the rules with those ids; plan, prefix and account stay."""

    async def terminators(self, accounts: Collection[str]) -> Mapping[str, bool]:
        """Of the accounts that exist, by name: whether they have terminator settings."""

    async def uses(self, levels: Collection[Level]) -> Uses:
        """Calls that are up at each of the levels, for a look."""
