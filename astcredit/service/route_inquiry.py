"""Asking which routes a call to a number would get now, and why the other rules give none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from astcredit.domain.accounts import Account
from astcredit.domain.capacity import Uses
from astcredit.domain.catalog import Catalog, ClientSettings
from astcredit.domain.decisions import CallPolicy
from astcredit.domain.money import Micros
from astcredit.domain.numbers import InvalidNumber
from astcredit.domain.rating import Rate, price
from astcredit.domain.routing import COMPARED_SECONDS, Route, Routing, RoutingQuery, find_routes
from astcredit.domain.routing_plan import RoutingPlan, Rule
from astcredit.service.account_ports import Account as AccountSettings
from astcredit.service.account_rules import known_account
from astcredit.service.admin_ports import AdminStore, Client
from astcredit.service.catalog_rules import known_client
from astcredit.service.errors import RefusedError
from astcredit.service.naming import shown_name
from astcredit.service.ports import CatalogSource
from astcredit.service.routing_ports import PlanHead
from astcredit.service.routing_rules import known_routing_plan

EXAMPLE: Final = "example"
"""In place of a call's id: among rules of one priority, what one call of many would draw."""

NO_PRICE: Final = Rate("0", "", 0)
"""What nobody pays, where no client is named: no margin is looked at then."""


@dataclass(frozen=True, slots=True)
class RouteQuestion:
    """Whose call to `number`, as it is dialled, by which plan.

    Without `plan` it is the account's or the client's; one of the three is named.
    """

    number: str
    node: str
    plan: str | None = None
    client: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """A route in the order to try. `margin` is None where it is not known who pays; `full` says
    which level has no room for one more call at this moment."""

    route: Route
    cost: Micros
    margin: Micros | None
    full: str


@dataclass(frozen=True, slots=True)
class PassedRule:
    """A rule for the number that gives no route, with the terminator's name and why."""

    rule: Rule
    terminator: str
    why: str


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """What a call would get: the routes, and the rules that are passed over.

    `rate` is what the client pays, None where none is named. `reason` says why there is no route.
    """

    plan: str
    number: str
    currency: str
    rate: Rate | None
    routes: tuple[FoundRoute, ...]
    passed: tuple[PassedRule, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, as the catalog has them."""

    shown: str
    client: ClientSettings
    account: Account | None

    def rate(self, catalog: Catalog, number: str, now_ms: int) -> Rate:
        """What a call costs them. Raises RefusedError when such a call is refused."""
        if self.account is not None:
            table = catalog.rate_table_for(self.account)
        else:
            table = catalog.rate_tables.get(self.client.rate_table_id or 0)
        rate = None if table is None else table.lookup(number, now_ms)
        if rate is None:
            raise RefusedError(
                f"{self.shown} has no rate for {number}: no route is looked for (INVALID)"
            )
        return rate

    def plan_id(self, catalog: Catalog) -> int:
        """Their routing plan. Raises RefusedError when they have none."""
        account = self.account
        id = catalog.routing_plan_id_for(account) if account else self.client.routing_plan_id
        if id is None:
            raise RefusedError(
                f"{self.shown} has no routing plan: its calls take the dialplan's own trunk"
            )
        return id


@dataclass(frozen=True, slots=True)
class _Named:
    """Whom and what a question names, as people configure them."""

    plan: PlanHead | None
    client: Client | None
    account: AccountSettings | None


class RouteInquiry:
    """Answers from the catalog and the counters as they are. May raise StorageError."""

    def __init__(
        self,
        store: AdminStore,
        source: CatalogSource,
        policy: CallPolicy,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._source = source
        self._policy = policy
        self._now_ms = now_ms

    async def ask(self, question: RouteQuestion) -> RouteAnswer:
        """The routes of a call. Raises RefusedError for unknown names, a number that is none, and
        callers whose calls are not routed at all."""
        try:
            number = self._policy.numbering.normalise(question.number)
        except InvalidNumber as error:
            raise RefusedError(str(error)) from None
        named = await self._named(question)
        catalog = await self._source.at_least(0)
        caller = _caller(catalog, named)
        plan = _plan(catalog, named, caller)
        now_ms = self._now_ms()
        rate = caller.rate(catalog, number, now_ms) if caller else None
        currency = caller.client.currency if caller else _currency(catalog, plan, number)
        query = RoutingQuery(
            plan if rate else _without_margins(plan, number),
            number,
            question.node,
            currency,
            rate or NO_PRICE,
            EXAMPLE,
            now_ms,
            self._policy.pjsip_endpoint,
        )
        return await self._answer(catalog, find_routes(catalog, query), currency, rate)

    async def _named(self, question: RouteQuestion) -> _Named:
        """Whom the question names. Raises RefusedError for a name that is not there."""
        plan, client, account = question.plan, question.client, question.account
        async with self._store.looking() as transaction:
            return _Named(
                None if plan is None else await known_routing_plan(transaction, plan),
                None if client is None else await known_client(transaction, client),
                None if account is None else await known_account(transaction, account),
            )

    async def _answer(
        self, catalog: Catalog, routing: Routing, currency: str, rate: Rate | None
    ) -> RouteAnswer:
        levels = {limit.level for route in routing.routes for limit in route.limits}
        async with self._store.looking() as transaction:
            uses = await transaction.routing.uses(levels)
        return RouteAnswer(
            routing.plan_name,
            routing.number,
            currency,
            rate,
            tuple(_found(route, rate, uses) for route in routing.routes),
            _passed(catalog, routing),
            "" if routing.routes else routing.reason,
        )


def _found(route: Route, rate: Rate | None, uses: Uses) -> FoundRoute:
    cost = price(route.rate, COMPARED_SECONDS)
    margin = None if rate is None else price(rate, COMPARED_SECONDS) - cost
    return FoundRoute(route, cost, margin, route.refusal(uses))


def _passed(catalog: Catalog, routing: Routing) -> tuple[PassedRule, ...]:
    """The rules that `routing.passed` has its lines about, which are in the rules' order."""
    taken = {route.rule.id for route in routing.routes}
    rules = [rule for rule in _rules(routing.plan, routing.number) if rule.id not in taken]
    if not routing.plan.enabled:
        return ()
    return tuple(
        PassedRule(rule, catalog.accounts[rule.account_id].name, why)
        for rule, why in zip(rules, routing.passed, strict=True)
    )


def _caller(catalog: Catalog, named: _Named) -> _Caller | None:
    if named.account is not None:
        account = catalog.accounts[named.account.id]
        shown = f"account {shown_name(account.name)}"
        return _Caller(shown, catalog.client_of(account), account)
    if named.client is not None:
        client = catalog.clients[named.client.id]
        return _Caller(f"client {shown_name(client.name)}", client, None)
    return None


def _plan(catalog: Catalog, named: _Named, caller: _Caller | None) -> RoutingPlan:
    """The plan that is named, else the caller's."""
    if named.plan is not None:
        return catalog.routing_plans[named.plan.id]
    if caller is None:
        raise RefusedError("expected a routing plan, a client or an account")
    return catalog.routing_plans[caller.plan_id(catalog)]


def _currency(catalog: Catalog, plan: RoutingPlan, number: str) -> str:
    """In what the terminators of a plan charge for a number, for want of a client to pay.

    Raises RefusedError if it is not one currency: then it depends on who calls.
    """
    found = sorted({*_charged_in(catalog, _rules(plan, number))})
    if len(found) > 1:
        raise RefusedError(
            f"the terminators of routing plan {shown_name(plan.name)} for {number} charge in"
            f" {' and '.join(found)}: name who calls with --client or --account"
        )
    return found[0] if found else ""


def _charged_in(catalog: Catalog, rules: Iterable[Rule]) -> Iterable[str]:
    for rule in rules:
        account = catalog.accounts.get(rule.account_id)
        table_id = account and account.termination and account.termination.rate_table_id
        table = catalog.rate_tables.get(table_id or 0)
        if table is not None:
            yield table.currency


def _without_margins(plan: RoutingPlan, number: str) -> RoutingPlan:
    """The plan's rules for a number, none of which demands a margin."""
    rules = (replace(rule, min_margin=None) for rule in _rules(plan, number))
    return RoutingPlan(plan.id, plan.name, plan.order, plan.version, rules, plan.enabled)


def _rules(plan: RoutingPlan, number: str) -> Iterable[Rule]:
    return (rule for rules in plan.matching(number) for rule in rules)
