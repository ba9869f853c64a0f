"""Which terminators may carry a call, in the order in which they are to be tried.

A plan's rules of the longest prefix come first, those of shorter prefixes after them as further
routes. Within a prefix the plan's order decides: by priority and weight, or by cost. A rule that
cannot be used is passed over, and the reason is kept for whoever asks why a call had no route.
What is full at this moment is not known here: `Route.refusal` says it of the counters.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Final

from astcredit.domain.accounts import Account, Termination
from astcredit.domain.capacity import Direction, Level, Limit, Occupancy, Scope, Uses
from astcredit.domain.catalog import Catalog
from astcredit.domain.dialing import NoDialString, dial_string, rewritten
from astcredit.domain.draws import draw
from astcredit.domain.money import Micros, short_text
from astcredit.domain.ratetable import RateTable
from astcredit.domain.rating import SECONDS_PER_MINUTE, Rate, price
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule
from astcredit.domain.text import printable

ANY_PREFIX: Final = "any"
"""How messages call the empty prefix."""

MOST_REASON: Final = 400
"""Characters: AC_REASON shows the first 160, a simulation and a log show all."""

COMPARED_SECONDS: Final = SECONDS_PER_MINUTE
"""Costs and margins are those of a call of one minute, fees and minimum charges included."""


@dataclass(frozen=True, slots=True)
class Route:
    """A way for a call: by which rule of which plan, to whom, at what rate, and what to dial.

    `rate` is what the terminator charges; `catalog` the snapshot that the route was found in.
    """

    plan_name: str
    rule: Rule
    terminator: Account
    rate: Rate
    dial: str
    catalog: Catalog = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The rule's name for messages: plan, prefix and terminator."""
        return f"{self.plan_name} {self.rule.prefix or ANY_PREFIX} {self.terminator.name}"

    @property
    def reseller_id(self) -> int | None:
        """The reseller of the terminator's client, if any."""
        return self.catalog.client_of(self.terminator).reseller_id

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The levels at which a call on this route terminates, the widest first."""
        own = Level(Scope.ROUTE, self.rule.id, Direction.TERM)
        wider = self.catalog.term_limits(self.terminator)
        return (*wider, Limit(own, self.name, self.rule.capacity))

    def occupancy(self, account_id: int | None, reseller_id: int | None) -> Occupancy:
        """What a call of that originator is counted at when it takes this route."""
        return Occupancy(
            account_id,
            reseller_id,
            self.rule.id,
            self.terminator.id,
            self.terminator.client_id,
            self.reseller_id,
        )

    def refusal(self, uses: Uses) -> str:
        """The first level that has no room for one more call, and why; empty if all have."""
        for limit in self.limits:
            if why := limit.refusal(uses):
                return why
        return ""


@dataclass(frozen=True, slots=True)
class Routing:
    """What a plan has for a number: routes in the order to try, and what was passed over.

    `passed` has a line for each matching rule that is no route, in the order of prefixes.
    """

    plan: RoutingPlan
    number: str
    routes: tuple[Route, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def plan_name(self) -> str:
        """The plan's name, for messages."""
        return self.plan.name

    @property
    def reason(self) -> str:
        """Why there is no route, one line of at most MOST_REASON characters; empty if there is."""
        if self.routes:
            return ""
        plan = f"routing plan {printable(self.plan.name)}"
        if not self.plan.enabled:
            return f"{plan} is disabled"
        if not self.passed:
            return f"{plan} has no rule for {self.number}"
        return _joined(f"{plan} has no usable route for {self.number}: ", self.passed)


@dataclass(frozen=True, slots=True)
class RoutingQuery:
    """A question for routes.

    `number` is E.164 digits, `rate` what the client pays in `currency`, `node` the Asterisk server
    that will dial. `key` (the call's id) draws among weights: the same key, the same order.
    `pjsip_endpoint` is as in `dial_string`.
    """

    plan: RoutingPlan
    number: str
    node: str
    currency: str
    rate: Rate
    key: str
    now_ms: int
    pjsip_endpoint: str = ""


class _PassedOver(Exception):  # noqa: N818 - it names an outcome, not a fault
    """A rule is no route. The text continues a line that begins with the terminator's name."""


def find_routes(catalog: Catalog, query: RoutingQuery) -> Routing:
    """The routes of a call, in the order to try. A plan that is disabled has none."""
    plan = query.plan
    if not plan.enabled:
        return Routing(plan, query.number)
    routes: list[Route] = []
    passed: list[str] = []
    for rules in plan.matching(query.number):
        found: list[Route] = []
        for rule in rules:
            try:
                found.append(_route(catalog, query, rule))
            except _PassedOver as why:
                passed.append(f"{_terminator_name(catalog, rule)} {why}")
        routes += _ordered(found, plan.order, query.key)
    return Routing(plan, query.number, tuple(routes), tuple(passed))


def _route(catalog: Catalog, query: RoutingQuery, rule: Rule) -> Route:
    """The route of a rule. Raises _PassedOver."""
    if not rule.enabled:
        raise _PassedOver(f"is disabled for prefix {rule.prefix or ANY_PREFIX}")
    terminator, termination = _terminator(catalog, query, rule)
    rate = _rate(catalog, query, rule, termination)
    try:
        number = rewritten(query.number, rule.strip, rule.prepend)
        dial = dial_string(termination, number, query.pjsip_endpoint)
    except NoDialString as error:
        raise _PassedOver(f"has no dial string: {error}") from None
    return Route(query.plan.name, rule, terminator, rate, dial, catalog)


def _terminator(catalog: Catalog, query: RoutingQuery, rule: Rule) -> tuple[Account, Termination]:
    """The account that a rule names, if it takes calls from this node. Raises _PassedOver."""
    account = catalog.accounts.get(rule.account_id)
    if account is None:
        raise _PassedOver("is not there")
    if not account.enabled:
        raise _PassedOver("is disabled")
    if off := catalog.off(account):
        raise _PassedOver(f"is off: {off}")
    termination = account.termination
    if termination is None:
        raise _PassedOver("is no terminator")
    if not termination.enabled:
        raise _PassedOver("is disabled as a terminator")
    if not account.serves(query.node):
        raise _PassedOver(f"does not serve {printable(query.node)}")
    return account, termination


def _rate(catalog: Catalog, query: RoutingQuery, rule: Rule, termination: Termination) -> Rate:
    """What the terminator charges, if that is acceptable. Raises _PassedOver."""
    table = _rate_table(catalog, termination)
    if table.currency != query.currency:
        raise _PassedOver(f"charges in {table.currency} and not in {query.currency}")
    rate = table.lookup(query.number, query.now_ms)
    if rate is None:
        raise _PassedOver(f"has no rate in {printable(table.name)}")
    if rule.min_margin is not None:
        margin = price(query.rate, COMPARED_SECONDS) - _cost(rate)
        if margin < rule.min_margin:
            least = short_text(rule.min_margin)
            raise _PassedOver(f"leaves {short_text(margin)} of the first minute, less than {least}")
    return rate


def _rate_table(catalog: Catalog, termination: Termination) -> RateTable:
    """The terminator's own rate table. Raises _PassedOver.

    Its client's rate table is what that client pays when it calls, and says nothing here.
    """
    if termination.rate_table_id is None:
        raise _PassedOver("has no rate table")
    table = catalog.rate_tables.get(termination.rate_table_id)
    if table is None:
        raise _PassedOver("has a rate table that is disabled")
    return table


def _terminator_name(catalog: Catalog, rule: Rule) -> str:
    account = catalog.accounts.get(rule.account_id)
    return f"account {rule.account_id}" if account is None else account.name


def _cost(rate: Rate) -> Micros:
    return price(rate, COMPARED_SECONDS)


def _ordered(routes: Sequence[Route], order: RouteOrder, key: str) -> list[Route]:
    """The routes of one prefix in the order in which they are to be tried."""
    if len(routes) < 2:  # nothing to order or to draw
        return list(routes)
    by_priority = sorted(routes, key=lambda route: (route.rule.priority, route.rule.id))
    ordered: list[Route] = []
    for _, equals in groupby(by_priority, lambda route: route.rule.priority):
        ordered += _by_weight(list(equals), key)
    if order is RouteOrder.LEAST_COST:  # what costs the same stays as it stands
        ordered.sort(key=lambda route: _cost(route.rate))
    return ordered


def _by_weight(rest: list[Route], key: str) -> Iterator[Route]:
    """Routes of one priority, drawn one after the other in proportion to their weights.

    As RFC 2782 orders servers; weight 0 when nothing else is left, and then evenly. A rule's id is
    in each draw, so that what is drawn at one priority says nothing about the next.
    """
    while len(rest) > 1:
        bounds = list(accumulate(max(0, route.rule.weight) for route in rest))
        if bounds[-1] == 0:
            bounds = list(range(1, len(rest) + 1))
        point = draw(f"{key}:{rest[0].rule.id}:{len(rest)}", bounds[-1])
        yield rest.pop(bisect_right(bounds, point))
    yield from rest


def _joined(begin: str, lines: Iterable[str]) -> str:
    """`begin` and as many different lines as fit, then how many there are beyond."""
    different = list(dict.fromkeys(lines))
    text = begin + different[0]
    for shown, line in enumerate(different[1:], 1):
        if len(text) + len(line) > MOST_REASON - len("; and 9999 more"):
            text += f"; and {len(different) - shown} more"
            break
        text += f"; {line}"
    return text[:MOST_REASON]
