"""A call on its way from a route that failed to the next one: which it is, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from astcredit.domain.books import OpenCall
from astcredit.domain.capacity import Occupancy
from astcredit.domain.rerouting import next_route, rerouted
from astcredit.domain.routing import Routing
from astcredit.domain.routing_plan import Rule
from astcredit.domain.screening import route
from astcredit.domain.states import CallState
from support.core import NODE, NOW_MS, RATE, call_id, policy
from support.plans import ACCOUNTS, COSTS, DEARER, RULES, level, routed
from support.plans import next_route as question

NUMBER = "442071234567"


def routing(
    limits: Mapping[str, int | None] | None = None, rules: tuple[Rule, ...] = RULES
) -> Routing:
    """All routes of the call: c1, c2, c3."""
    found = route(
        routed(limits, rules=rules),
        ACCOUNTS[0],
        NUMBER,
        RATE,
        node=NODE,
        key=call_id(1),
        now_ms=NOW_MS,
        policy=policy(),
    )
    assert found is not None
    return found


def on(rule_id: int | None, tried: tuple[int, ...] = (), said: str = "") -> OpenCall:
    """The call on one of its routes, or on none (the dialplan's own trunk)."""
    way = next((w for w in routing().routes if w.rule.id == rule_id), None)
    return OpenCall(
        call_id=call_id(1),
        client_id=1,
        node=NODE,
        uniqueid="caller-1",
        leg_uniqueid=None,
        state=CallState.OPEN,
        rate=RATE,
        reserved=3_600_000,
        seconds=3_600,
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 4_000_000,
        dialed_at_ms=None,
        answered_at_ms=None,
        occupancy=way.occupancy(1, 1) if way else Occupancy(1, 1, rule_id),
        number=NUMBER,
        cost_rate=way.rate if way else None,
        routes_tried=tried,
        tried=said,
    )


def following(call: OpenCall, limits: Mapping[str, int] | None = None, **uses: int) -> int | None:
    """The rule of the next route, where counters are as given ("client_3_term": 1)."""
    counted = {level(key.replace("_", ":")): use for key, use in uses.items()}
    found = next_route(call, routing(limits), counted)
    return found.rule.id if found else None


@pytest.mark.parametrize(
    ("now_on", "tried", "then"),
    [
        (21, (), 22),
        (22, (21,), 23),
        (23, (21, 22), None),
        (22, (), 21),  # the first was full when the call was authorized: it is tried now
        (23, (22,), 21),
        (21, (22, 23), None),
        (None, (), 21),  # the client got its plan after the call was authorized
        (99, (), 21),  # the rule is in force no longer
        (21, (98, 97), 22),
    ],
)
def test_the_first_that_was_not_tried(
    now_on: int | None, tried: tuple[int, ...], then: int | None
) -> None:
    assert following(on(now_on, tried)) == then


def test_what_is_full_is_skipped_and_not_counted_as_tried() -> None:
    call = on(21)
    assert following(call, {"route:22:term": 3}, route_22_term=3, route_21_term=1) == 23
    assert following(call, {"route:22:term": 3}, route_22_term=2, route_21_term=1) == 22
    full = {"route:22:term": 0, "route:23:term": 0}
    assert following(call, full, route_21_term=1) is None


@pytest.mark.parametrize("shared", ["client:3:term", "reseller:2:term"])
def test_a_call_is_not_in_its_own_way(shared: str) -> None:
    """c1 and c2 are one client's: with room for one call, the call itself is that one."""
    key = shared.replace(":", "_")
    assert following(on(21), {shared: 1}, **{key: 1}) == 22
    assert following(on(21), {shared: 1}, **{key: 2}) == 23  # somebody else is there, too
    assert following(on(23, (21,)), {shared: 1}, **{key: 1}) is None  # it is not there itself


@pytest.mark.parametrize(
    "key", ["reseller:2:term", "client:3:term", "account:12:term", "route:22:term"]
)
def test_an_emergency_call_takes_the_first_untried_route_whatever_the_uses(key: str) -> None:
    routes, full = routing({key: 1}), {level(key): 5}
    call = replace(on(21), number="112")
    assert next_route(call, routes, full) != routes.routes[1]
    assert next_route(call, routes, full, {"112", "911"}) == routes.routes[1]
    assert (
        next_route(replace(on(22, (21,)), number="112"), routes, full, {"112"}) == routes.routes[2]
    )
    assert next_route(replace(on(23, (21, 22)), number="112"), routes, {}, {"112"}) is None
    assert next_route(replace(call, number="1121"), routes, full, {"112"}) != routes.routes[1]


def test_originating_levels_are_not_looked_at() -> None:
    """The call was admitted there and is still up; a limit that was lowered leaves it alone."""
    limits = {"reseller:1:orig": 0, "client:1:orig": 0, "account:1:orig": 0}
    assert following(on(21), limits, reseller_1_orig=5, account_1_orig=5) == 22


def test_the_call_moves_with_its_terminators_levels_and_rate() -> None:
    routes = routing()
    moved = rerouted(on(21), routes.routes[2], routes, question(1))
    before, after = on(21).occupancy, moved.occupancy
    assert after == Occupancy(1, 1, 23, 13, 4, None)
    assert (after.account_id, after.reseller_id) == (before.account_id, before.reseller_id)
    assert moved.cost_rate is not None
    assert moved.cost_rate.rate_per_minute == DEARER.rate_per_minute != COSTS.rate_per_minute
    assert replace(
        moved,
        occupancy=before,
        cost_rate=on(21).cost_rate,
        routes_tried=(),
        tried="",
    ) == on(21)  # money, seconds, times: as they were


def test_what_was_tried_is_kept_in_order_and_in_words() -> None:
    routes = routing()
    first = rerouted(on(21), routes.routes[1], routes, question(1, "", "CONGESTION", 34))
    assert (first.routes_tried, first.tried) == ((21,), "c1 CONGESTION 34")
    second = rerouted(first, routes.routes[2], routes, question(1, "", "BUSY", 17))
    assert (second.routes_tried, second.tried) == ((21, 22), "c1 CONGESTION 34; c2 BUSY 17")


def test_a_rule_that_is_gone_is_told_by_its_number() -> None:
    routes = routing()
    moved = rerouted(on(99), routes.routes[0], routes, question(1, "", "CHANUNAVAIL", 0))
    assert (moved.routes_tried, moved.tried) == ((99,), "route 99 CHANUNAVAIL 0")


def test_a_call_that_was_on_the_dialplans_trunk_has_tried_no_rule() -> None:
    routes = routing()
    moved = rerouted(on(None), routes.routes[0], routes, question(1))
    assert moved.routes_tried == ()
    assert moved.occupancy.route_id == 21
