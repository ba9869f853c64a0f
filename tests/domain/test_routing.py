"""Routes: which terminators may carry a call, in what order, and why the others may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import permutations
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.accounts import Account, Termination
from astcredit.domain.capacity import Direction, Level, Occupancy, Scope
from astcredit.domain.catalog import Catalog, ClientSettings, Reseller, compile_catalog
from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.domain.rating import price
from astcredit.domain.routing import MOST_REASON, Route, Routing, RoutingQuery, find_routes
from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule

NOW_MS = 1_800_000_000_000
LONDON = "442071234567"
RETAIL = RateRow("44", "United Kingdom", 60_000)
"""What the client pays: 0.06 a minute."""

HUB = Reseller(5, "hub", term_capacity=50)
WHOLESALE = ClientSettings(9, "wholesale", "EUR", None, True, reseller_id=HUB.id, term_capacity=40)
LONE = ClientSettings(8, "lone", "EUR", None, True)


def carrier(
    id: int, client_id: int = WHOLESALE.id, termination: Termination | None = None
) -> Account:
    """Account `carrier-ID`, reached through the endpoint `ID`, which charges by rate table ID."""
    own = Termination(rate_table_id=id, proxy=f"c{id}", capacity=10 * id)
    name = f"carrier-{id}"
    return Account(id, client_id, name, (name,), termination=termination or own)


def table(id: int, *rates: RateRow, currency: str = "EUR") -> RateTable:
    return RateTable(id, f"costs-{id}", currency, 1, rates or [RateRow("44", "", 10_000 * id)])


ACCOUNTS: Mapping[int, Account] = {id: carrier(id) for id in range(1, 6)}
TABLES: Mapping[int, RateTable] = {id: table(id) for id in ACCOUNTS}
"""To 44…, carrier-1 charges 0.01 a minute, carrier-2 0.02, and so on."""


def world(
    accounts: Iterable[Account] = (),
    tables: Iterable[RateTable] = (),
    clients: Iterable[ClientSettings] = (),
    reseller: Reseller = HUB,
) -> Catalog:
    """The world above, in which some things are otherwise."""
    return compile_catalog(
        1,
        {client.id: client for client in (WHOLESALE, LONE, *clients)},
        {**ACCOUNTS, **{account.id: account for account in accounts}},
        {**TABLES, **{table.id: table for table in tables}},
        [reseller],
    )


def plan(
    *rules: Rule, order: RouteOrder = RouteOrder.PRIORITY, enabled: bool = True
) -> RoutingPlan:
    return RoutingPlan(7, "retail", order, 1, rules, enabled)


def query(routing_plan: RoutingPlan, number: str = LONDON, key: str = "call-1") -> RoutingQuery:
    return RoutingQuery(routing_plan, number, "pbx1", "EUR", RETAIL, key, NOW_MS, "carriers")


def names(routing: Routing) -> list[str]:
    return [route.terminator.name.removeprefix("carrier-") for route in routing.routes]


BY_COST = RouteOrder.LEAST_COST


@pytest.mark.parametrize(
    ("routing_plan", "order"),
    [
        (plan(Rule(1, "44", 2)), "2"),
        (plan(Rule(1, "", 1), Rule(2, "44", 2), Rule(3, "4420", 3)), "321"),
        (plan(Rule(1, "44", 1), Rule(2, "442071234567", 2), Rule(3, "4420712345678", 3)), "21"),
        (plan(Rule(1, "44", 1, priority=2), Rule(2, "44", 2, priority=1)), "21"),
        (plan(Rule(1, "44", 1, priority=2, weight=100), Rule(2, "44", 2, weight=0)), "21"),
        (plan(Rule(1, "44", 1, weight=0), Rule(2, "44", 2, weight=1)), "21"),
        (plan(Rule(1, "44", 1, priority=1), Rule(2, "442", 2, priority=9)), "21"),
        (
            plan(Rule(1, "44", 3), Rule(2, "44", 1, priority=9), Rule(3, "44", 2), order=BY_COST),
            "123",
        ),
        (plan(Rule(1, "44", 1), Rule(2, "442", 3), Rule(3, "442", 2), order=BY_COST), "231"),
        (plan(Rule(1, "44", 1, priority=2), Rule(2, "44", 1), order=BY_COST), "11"),
        (plan(Rule(1, "44", 2), Rule(2, "44", 2, strip=2)), "22"),
    ],
)
def test_the_order_of_routes(routing_plan: RoutingPlan, order: str) -> None:
    """Longest prefix, then priority or cost, then weight: each case can come out one way only."""
    routing = find_routes(world(), query(routing_plan))
    assert "".join(names(routing)) == order
    assert routing.passed == ()


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [
        (RateRow("44", "", 20_000), RateRow("44", "", 20_001), 1),
        (RateRow("44", "", 20_000, connect_fee=2), RateRow("44", "", 20_001), 2),
        (RateRow("44", "", 1, minimum_charge=20_002), RateRow("44", "", 20_001), 2),
        (RateRow("44", "", 20_000, first_increment=90), RateRow("44", "", 29_999), 2),
        (RateRow("44", "", 90_000, grace_seconds=60), RateRow("44", "", 1), 1),
    ],
)
def test_least_cost_is_what_the_first_minute_costs(
    one: RateRow, other: RateRow, first: int
) -> None:
    """Fees, minimum charges and increments included."""
    rules = plan(Rule(1, "44", 1), Rule(2, "44", 2), order=RouteOrder.LEAST_COST)
    catalog = world(tables=[table(1, one), table(2, other)])
    assert find_routes(catalog, query(rules)).routes[0].terminator.id == first


def test_what_costs_the_same_is_ordered_by_priority() -> None:
    rules = [Rule(id, "44", id, priority=priority) for id, priority in ((1, 3), (2, 1), (3, 2))]
    same = [table(id, RateRow("44", "", 20_000)) for id in (1, 2, 3)]
    routing = find_routes(world(tables=same), query(plan(*rules, order=RouteOrder.LEAST_COST)))
    assert names(routing) == ["2", "3", "1"]


def with_termination(termination: Termination) -> Catalog:
    """The world with other terminator settings for carrier-1."""
    return world([carrier(1, termination=termination)])


@pytest.mark.parametrize(
    ("catalog", "rule", "line"),
    [
        (world(), Rule(1, "44", 1, enabled=False), "carrier-1 is disabled for prefix 44"),
        (world(), Rule(1, "", 1, enabled=False), "carrier-1 is disabled for prefix any"),
        (world(), Rule(1, "44", 99), "account 99 is not there"),
        (world([replace(carrier(1), enabled=False)]), Rule(1, "44", 1), "carrier-1 is disabled"),
        (
            world(clients=[replace(WHOLESALE, enabled=False)]),
            Rule(1, "44", 1),
            "carrier-1 is off: client 'wholesale' is disabled",
        ),
        (
            world(reseller=replace(HUB, enabled=False)),
            Rule(1, "44", 1),
            "carrier-1 is off: reseller 'hub' is disabled",
        ),
        (
            world([replace(carrier(1), termination=None)]),
            Rule(1, "44", 1),
            "carrier-1 is no terminator",
        ),
        (
            with_termination(Termination(1, proxy="c1", enabled=False)),
            Rule(1, "44", 1),
            "carrier-1 is disabled as a terminator",
        ),
        (
            world([replace(carrier(1), gateways=("pbx2", "pbx3"))]),
            Rule(1, "44", 1),
            "carrier-1 does not serve 'pbx1'",
        ),
        (
            with_termination(Termination(1)),
            Rule(1, "44", 1),
            "carrier-1 has no dial string: neither proxy nor host is set",
        ),
        (
            with_termination(Termination(1, host="sip.example.com,30,g")),
            Rule(1, "44", 1),
            "carrier-1 has no dial string: 'sip.example.com,30,g': expected a host name like"
            " sip.example.com or an IP address, without port or brackets",
        ),
        (
            world(),
            Rule(1, "44", 1, strip=12),
            "carrier-1 has no dial string:"
            " 442071234567 less 12 digits: expected at least one to be left",
        ),
        (
            with_termination(Termination(None, proxy="c1")),
            Rule(1, "44", 1),
            "carrier-1 has no rate table",
        ),
        (
            with_termination(Termination(99, proxy="c1")),
            Rule(1, "44", 1),
            "carrier-1 has a rate table that is disabled",
        ),
        (
            world(tables=[table(1, RateRow("4421", "", 1))]),
            Rule(1, "44", 1),
            "carrier-1 has no rate in 'costs-1'",
        ),
        (
            world(tables=[table(1, RateRow("44", "", 1, effective_from_ms=NOW_MS + 1))]),
            Rule(1, "44", 1),
            "carrier-1 has no rate in 'costs-1'",
        ),
        (
            world(tables=[table(1, RateRow("44", "", 1), currency="USD")]),
            Rule(1, "44", 1),
            "carrier-1 charges in USD and not in EUR",
        ),
        (
            world(),
            Rule(1, "44", 1, min_margin=50_001),
            "carrier-1 leaves 0.05 of the first minute, less than 0.050001",
        ),
    ],
)
def test_why_a_rule_is_passed_over(catalog: Catalog, rule: Rule, line: str) -> None:
    """The next rule takes the call; without one, the reason is the answer."""
    after = carrier(2, LONE.id)
    catalog = compile_catalog(
        catalog.version,
        catalog.clients,
        {**catalog.accounts, 2: after},
        catalog.rate_tables,
        catalog.resellers.values(),
    )
    both = find_routes(catalog, query(plan(rule, Rule(2, "44", 2, priority=2))))
    assert (names(both), both.passed, both.reason) == (["2"], (line,), "")
    alone = find_routes(catalog, query(plan(rule)))
    assert alone.routes == ()
    assert alone.reason == f"routing plan 'retail' has no usable route for {LONDON}: {line}"


def test_a_terminator_does_not_fall_back_on_what_its_client_pays() -> None:
    """A client's rate table prices its own calls and says nothing of what terminating costs."""
    client = replace(WHOLESALE, rate_table_id=1)
    own = replace(carrier(1), rate_table_id=1, termination=Termination(proxy="c1"))
    routing = find_routes(world([own], clients=[client]), query(plan(Rule(1, "44", 1))))
    assert routing.passed == ("carrier-1 has no rate table",)


@pytest.mark.parametrize("gateways", [(), ("pbx1",), ("pbx2", "pbx1")])
def test_a_terminator_serves_its_gateways_or_all(gateways: tuple[str, ...]) -> None:
    catalog = world([replace(carrier(1), gateways=gateways)])
    assert names(find_routes(catalog, query(plan(Rule(1, "44", 1))))) == ["1"]


def test_the_originator_side_has_no_say_in_termination() -> None:
    catalog = world([replace(carrier(1), orig_enabled=False, orig_capacity=0)])
    assert names(find_routes(catalog, query(plan(Rule(1, "44", 1))))) == ["1"]


@pytest.mark.parametrize(
    ("cost", "min_margin", "usable"),
    [
        (60_000, None, True),
        (70_000, None, True),  # a loss that nobody forbade
        (60_000, 0, True),
        (60_001, 0, False),
        (40_000, 20_000, True),
        (40_001, 20_000, False),
        (70_000, -10_000, True),
        (70_001, -10_000, False),
    ],
)
def test_the_margin_that_a_rule_demands(cost: int, min_margin: int | None, usable: bool) -> None:
    """What the client pays for a minute less what the terminator charges; the bound is enough."""
    catalog = world(tables=[table(1, RateRow("44", "", cost))])
    routing = find_routes(catalog, query(plan(Rule(1, "44", 1, min_margin=min_margin))))
    assert bool(routing.routes) is usable


def test_the_margin_is_that_of_a_minute_with_all_fees() -> None:
    rates = table(1, RateRow("44", "", 30_000, connect_fee=20_000))
    demand = [Rule(id, "44", 1, min_margin=margin) for id, margin in ((1, 10_000), (2, 10_001))]
    routing = find_routes(world(tables=[rates]), query(plan(*demand)))
    assert [route.rule.id for route in routing.routes] == [1]


def test_a_number_is_rated_before_it_is_rewritten() -> None:
    rule = Rule(1, "44", 1, strip=2, prepend="*31#0")
    rates = table(1, RateRow("4420", "London", 20_000), RateRow("3", "", 1))
    (route,) = find_routes(world(tables=[rates]), query(plan(rule))).routes
    assert route.dial == "PJSIP/*31#02071234567@c1"
    assert (route.rate.destination, route.rate.rate_per_minute) == ("London", 20_000)


def test_a_terminator_known_by_address_is_reached_through_the_endpoint_of_the_query() -> None:
    (route,) = find_routes(
        with_termination(Termination(1, host="10.0.0.5")), query(plan(Rule(1, "44", 1)))
    ).routes
    assert route.dial == f"PJSIP/carriers/sip:{LONDON}@10.0.0.5"


def route_of(rule: Rule, catalog: Catalog | None = None) -> Route:
    (route,) = find_routes(catalog or world(), query(plan(rule))).routes
    return route


def level(scope: Scope, id: int) -> Level:
    return Level(scope, id, Direction.TERM)


def test_the_limits_of_a_route_are_those_of_its_terminator_and_its_own_the_widest_first() -> None:
    limits = route_of(Rule(3, "44", 1, capacity=4)).limits
    assert [(limit.level, limit.name, limit.most) for limit in limits] == [
        (level(Scope.RESELLER, 5), "hub", 50),
        (level(Scope.CLIENT, 9), "wholesale", 40),
        (level(Scope.ACCOUNT, 1), "carrier-1", 10),
        (level(Scope.ROUTE, 3), "retail 44 carrier-1", 4),
    ]


def test_the_levels_of_its_limits_are_those_that_a_call_is_counted_at() -> None:
    """A level that were checked and not counted, or the reverse, would drift."""
    for catalog in (world(), world([carrier(1, LONE.id)])):
        route = route_of(Rule(3, "", 1), catalog)
        counted = route.occupancy(71, 72).levels()
        assert {limit.level for limit in route.limits} == {
            each for each in counted if each.direction is Direction.TERM
        }
    assert route.reseller_id is None
    assert route_of(Rule(3, "44", 1)).occupancy(71, 72) == Occupancy(71, 72, 3, 1, 9, 5)


@pytest.mark.parametrize(
    ("uses", "refusal"),
    [
        ({}, ""),
        (
            {level(Scope.ROUTE, 3): 3, level(Scope.ACCOUNT, 1): 9, level(Scope.CLIENT, 9): 39},
            "",
        ),
        ({level(Scope.ROUTE, 4): 99, Level(Scope.CLIENT, 9, Direction.ORIG): 99}, ""),
        (
            {level(Scope.ROUTE, 3): 4},
            "route 'retail any carrier-1' has 4 of 4 terminating calls up",
        ),
        (
            {level(Scope.ROUTE, 3): 4, level(Scope.ACCOUNT, 1): 12},
            "account 'carrier-1' has 12 of 10 terminating calls up",
        ),
        (
            {level(Scope.RESELLER, 5): 50, level(Scope.CLIENT, 9): 40},
            "reseller 'hub' has 50 of 50 terminating calls up",
        ),
    ],
)
def test_a_route_without_room_names_the_first_level_that_has_none(
    uses: Mapping[Level, int], refusal: str
) -> None:
    assert route_of(Rule(3, "", 1, capacity=4)).refusal(uses) == refusal


def test_a_plan_that_is_disabled_has_no_routes() -> None:
    routing = find_routes(world(), query(plan(Rule(1, "44", 1), enabled=False)))
    assert (routing.routes, routing.passed) == ((), ())
    assert routing.plan_name == "retail"
    assert routing.reason == "routing plan 'retail' is disabled"


@pytest.mark.parametrize("rules", [[], [Rule(1, "33", 1)]])
def test_a_plan_without_a_rule_for_the_number_says_so(rules: list[Rule]) -> None:
    reason = find_routes(world(), query(plan(*rules))).reason
    assert reason == f"routing plan 'retail' has no rule for {LONDON}"


def test_the_reason_says_each_thing_once() -> None:
    rules = [Rule(id, prefix, account) for id, prefix, account in ((1, "44", 1), (2, "", 1))]
    routing = find_routes(world([replace(carrier(1), enabled=False)]), query(plan(*rules)))
    assert len(routing.passed) == 2
    assert routing.reason.endswith(f"for {LONDON}: carrier-1 is disabled")


@pytest.mark.parametrize("length", [1, 20, 80, 300, 500])
def test_the_reason_is_bounded_and_counts_what_it_leaves_out(length: int) -> None:
    off = [
        replace(carrier(id), name=f"{id:03}" + "x" * length, enabled=False) for id in range(1, 101)
    ]
    rules = [Rule(account.id, "44", account.id) for account in off]
    reason = find_routes(world(off), query(plan(*rules))).reason
    assert len(reason) <= MOST_REASON
    shown = reason.count(" is disabled")
    if shown:
        assert reason.endswith(f"; and {100 - shown} more")


CALLS = 3_000


def shares(rules: Iterable[Rule], place: int = 0, calls: int = CALLS) -> Counter[int]:
    """How often each rule stands at a place of the order, over many calls."""
    catalog, routing_plan = world(), plan(*rules)
    return Counter(
        find_routes(catalog, query(routing_plan, key=f"call-{n}")).routes[place].rule.id
        for n in range(calls)
    )


def assert_binomial(count: int, of: int, share: float) -> None:
    """Within five standard deviations of what is expected: the keys are fixed, so it stays so."""
    assert abs(count - of * share) <= 5 * sqrt(of * share * (1 - share)), (count, of * share)


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 2, 7), (5, 5, 5, 5), (1, 99), (0, 0, 0)])
def test_calls_are_shared_in_proportion_to_the_weights(weights: tuple[int, ...]) -> None:
    """Weights of nothing but 0 are weights of nothing but 1."""
    rules = [Rule(id, "44", id, weight=weight) for id, weight in enumerate(weights, 1)]
    found = shares(rules)
    for rule in rules:
        share = rule.weight / sum(weights) if any(weights) else 1 / len(weights)
        assert_binomial(found[rule.id], CALLS, share)


def test_the_second_route_is_drawn_among_the_rest_by_their_weights() -> None:
    """7, 2 and 1: second is 2 when 7 or 1 came first, and so on, each as the weights then say."""
    weights = {1: 1, 2: 2, 3: 7}
    found = shares([Rule(id, "44", id, weight=weight) for id, weight in weights.items()], 1)
    for id, weight in weights.items():
        share = sum(
            weights[first] / 10 * weight / (10 - weights[first]) for first in weights if first != id
        )
        assert_binomial(found[id], CALLS, share)


def test_rules_of_weight_0_share_evenly_what_comes_after_all_others() -> None:
    rules = [Rule(1, "44", 1, weight=0), Rule(2, "44", 2, weight=5), Rule(3, "44", 3, weight=0)]
    assert shares(rules) == {2: CALLS}
    assert_binomial(shares(rules, 1)[1], CALLS, 0.5)


def test_what_is_drawn_at_one_priority_says_nothing_about_the_next() -> None:
    """Else all calls of a carrier that is down would go to one and the same of the next two."""
    rules = [Rule(id, "44", id, priority=1 + (id > 2)) for id in (1, 2, 3, 4)]
    catalog, routing_plan = world(), plan(*rules)
    pairs = Counter(
        (routes[0].rule.id, routes[2].rule.id)
        for n in range(CALLS)
        for routes in [find_routes(catalog, query(routing_plan, key=f"call-{n}")).routes]
    )
    assert len(pairs) == 4
    for count in pairs.values():
        assert_binomial(count, CALLS, 0.25)


TRIED = {
    **{id: carrier(id) for id in (1, 2, 3)},
    4: replace(carrier(4), enabled=False),
    5: carrier(5, termination=Termination(proxy="c5")),
}
rules_of_few_prefixes = st.lists(
    st.builds(
        Rule,
        id=st.integers(1, 10**6),
        prefix=st.sampled_from(["", "4", "44", "442", "45"]),
        account_id=st.integers(1, 5),
        priority=st.integers(1, 3),
        weight=st.integers(-1, 4),
        strip=st.integers(0, 13),
        min_margin=st.none() | st.integers(0, 60_000),
        enabled=st.booleans() | st.just(True),
    ),
    max_size=12,
    unique_by=lambda rule: rule.id,
)
orders = st.sampled_from(RouteOrder)


@given(rules_of_few_prefixes, orders)
def test_every_matching_rule_is_a_route_or_was_passed_over(
    rules: list[Rule], order: RouteOrder
) -> None:
    routing = find_routes(world(TRIED.values()), query(plan(*rules, order=order)))
    matching = {rule.id for rule in rules if LONDON.startswith(rule.prefix)}
    found = [route.rule.id for route in routing.routes]
    assert len(found) == len(set(found))
    assert set(found) <= matching
    assert len(found) + len(routing.passed) == len(matching)
    assert len(routing.reason) <= MOST_REASON


Place = Callable[[Route], tuple[int, ...]]
PLACES: Mapping[RouteOrder, Place] = {
    RouteOrder.PRIORITY: lambda route: (
        -len(route.rule.prefix),
        route.rule.priority,
        route.rule.weight <= 0,
    ),
    RouteOrder.LEAST_COST: lambda route: (
        -len(route.rule.prefix),
        price(route.rate, 60),
        route.rule.priority,
        route.rule.weight <= 0,
    ),
}
"""All of the order that is not drawn."""


@given(rules_of_few_prefixes, orders)
def test_routes_are_sorted_but_for_the_draw(rules: list[Rule], order: RouteOrder) -> None:
    routes = find_routes(world(TRIED.values()), query(plan(*rules, order=order))).routes
    assert list(routes) == sorted(routes, key=PLACES[order])


@given(rules_of_few_prefixes, orders, st.text(max_size=5))
def test_the_same_call_gets_the_same_routes_again(
    rules: list[Rule], order: RouteOrder, key: str
) -> None:
    asked = query(plan(*rules, order=order), key=key)
    assert find_routes(world(TRIED.values()), asked) == find_routes(world(TRIED.values()), asked)


@pytest.mark.parametrize("order", RouteOrder)
@pytest.mark.parametrize("key", ["call-1", "call-2", "call-3"])
def test_the_draw_does_not_depend_on_the_order_in_which_rules_were_read(
    order: RouteOrder, key: str
) -> None:
    rules = [Rule(id, "44", 1, weight=id) for id in (1, 2, 3, 4)]
    drawn = {
        tuple(route.rule.id for route in find_routes(world(), asked).routes)
        for read in permutations(rules)
        for asked in [query(plan(*read, order=order), key=key)]
    }
    assert len(drawn) == 1
