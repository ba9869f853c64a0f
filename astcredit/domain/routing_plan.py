"""Routing plans: which terminators may take calls to which prefixes, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from astcredit.domain.money import Micros


class RouteOrder(StrEnum):
    """How the rules of one prefix are ordered.

    PRIORITY: the lowest priority first, and within one priority in proportion to the weights, as
    DNS SRV records are (RFC 2782). LEAST_COST: what charges least first.
    """

    PRIORITY = "priority"
    LEAST_COST = "least-cost"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a routing plan: calls to `prefix` may go to the terminator `account_id`.

    An empty prefix is every number. `strip` digits are taken off the number's front, then `prepend`
    is put there. `capacity` None is no limit. `min_margin`: the least that a first minute must
    earn, in micros; None for no demand.
    """

    id: int
    prefix: str
    account_id: int
    priority: int = 1
    weight: int = 1
    capacity: int | None = None
    strip: int = 0
    prepend: str = ""
    min_margin: Micros | None = None
    enabled: bool = True


class RoutingPlan:
    """An immutable routing plan, compiled for look-up by number."""

    __slots__ = ("_by_prefix", "_lengths", "enabled", "id", "name", "order", "rules", "version")

    def __init__(
        self,
        id: int,
        name: str,
        order: RouteOrder,
        version: int,
        rules: Iterable[Rule] = (),
        enabled: bool = True,
    ) -> None:
        self.id: Final = id
        self.name: Final = name
        self.order: Final = order
        self.version: Final = version
        self.enabled: Final = enabled
        self.rules: Final = tuple(rules)
        by_prefix: dict[str, list[Rule]] = {}
        for rule in self.rules:
            by_prefix.setdefault(rule.prefix, []).append(rule)
        self._by_prefix: Final = {prefix: tuple(found) for prefix, found in by_prefix.items()}
        self._lengths: Final = sorted({len(prefix) for prefix in by_prefix}, reverse=True)

    def matching(self, number: str) -> Iterator[tuple[Rule, ...]]:
        """The rules for a number (E.164 digits without +): those of its longest prefix first."""
        for length in self._lengths:
            rules = self._by_prefix.get(number[:length]) if length <= len(number) else None
            if rules:
                yield rules

    def __len__(self) -> int:
        """Number of rules."""
        return len(self.rules)
