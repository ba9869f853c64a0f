"""Capacity at every level and in both directions: what is admitted, refused, counted and freed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from astcredit.domain.accounts import SourcePolicy
from astcredit.domain.calls import AuthStatus
from astcredit.domain.decisions import Decision
from astcredit.domain.rating import Rate
from astcredit.service.operations import Expire, Operation, Outcome, Undelivered
from support.core import (
    EMERGENCY,
    NOW_MS,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    postpaid,
    prepaid,
    rate_table,
    request,
)
from support.plans import ACCOUNTS, ALICE_TO_C1, CLIENTS, COSTS, RULES, Exchange, routed, told

ONE_ROUTE = RULES[:1]
NAMES = ("north", "client1", "alice", "south", "client3", "c1", "plan1 44 c1")
ORIG, TERM = ALICE_TO_C1[:3], ALICE_TO_C1[3:]

every_level = pytest.mark.parametrize("key", ALICE_TO_C1)
one_or_many = pytest.mark.parametrize("together", [False, True], ids=["single", "together"])


def exchange(key: str, limit: int | None) -> Exchange:
    """A world with one route and one limit."""
    return Exchange(routed({key: limit}, rules=ONE_ROUTE))


def reason(outcomes: Sequence[Outcome]) -> str:
    decision = outcomes[-1]
    assert isinstance(decision, Decision)
    return decision.reason


@every_level
@pytest.mark.parametrize("limit", [None, 0, 1, 3])
@one_or_many
def test_a_limit_of_n_admits_n_at_once_and_names_itself_to_the_next(
    key: str, limit: int | None, together: bool
) -> None:
    it = exchange(key, limit)
    outcomes = it.play(*(request(n) for n in range(1, 6)), together=together)
    admitted = 5 if limit is None else limit
    assert told(outcomes) == ["ALLOWED"] * admitted + ["CAPACITY"] * (5 - admitted)
    if limit is not None:
        scope, _, way = key.split(":")
        name, ways = NAMES[ALICE_TO_C1.index(key)], {"orig": "originating", "term": "terminating"}
        assert reason(outcomes) == (f"{scope} {name!r} has {limit} of {limit} {ways[way]} calls up")


@every_level
def test_what_ends_makes_room_at_once(key: str) -> None:
    it = exchange(key, 1)
    it.play(request(1))
    assert told(it.play(request(2))) == ["CAPACITY"]
    assert told(it.play(caller_ended(1), request(3), request(4))) == ["ALLOWED", "CAPACITY"]


ENDS: dict[str, Callable[[Exchange], list[Operation]]] = {
    "leg": lambda it: [answered(1), leg_ended(1, NOW_MS + 9_000)],
    "busy": lambda it: [caller_ended(1)],
    "report": lambda it: [hangup(1, talk_ms=3_000)],
    "report of a failure": lambda it: [hangup(1, dialstatus="BUSY")],
    "undelivered": lambda it: [Undelivered(call_id(1), NOW_MS)],
    "expired": lambda it: [Expire(call_id(1), NOW_MS)],
    "expired while talking": lambda it: [answered(1), Expire(call_id(1), NOW_MS)],
}


@pytest.mark.parametrize("how", ENDS.values(), ids=ENDS)
@one_or_many
def test_every_kind_of_end_gives_every_level_back(
    how: Callable[[Exchange], list[Operation]], together: bool
) -> None:
    it = Exchange()
    it.play(request(1))
    assert it.uses() == dict.fromkeys([x for x in ALICE_TO_C1 if x != "client:1:orig"], 1)
    assert it.books.clients[1].active_calls == 1
    it.clock.now_ms += 10**8
    ends = how(it)
    it.play(*ends, *ends, together=together)  # each of them twice
    assert it.uses() == {}
    assert it.books.clients[1].active_calls == 0


@every_level
def test_every_level_is_counted_without_any_limit_too(key: str) -> None:
    """A limit that is set later finds the true number."""
    it = Exchange(routed(rules=ONE_ROUTE))
    it.play(request(1), request(2))
    it.source.catalog = routed({key: 2}, rules=ONE_ROUTE)
    assert told(it.play(request(3))) == ["CAPACITY"]
    it.source.catalog = routed({key: 3}, rules=ONE_ROUTE)
    assert told(it.play(request(4))) == ["ALLOWED"]


@every_level
def test_a_limit_below_its_use_refuses_new_calls_and_leaves_running_ones(key: str) -> None:
    it = exchange(key, 3)
    it.play(*(request(n) for n in (1, 2, 3)))
    it.source.catalog = routed({key: 1}, rules=ONE_ROUTE)
    outcomes = it.play(request(4))
    assert told(outcomes) == ["CAPACITY"]
    assert "has 3 of 1 " in reason(outcomes)
    assert len(it.books.calls) == 3
    it.play(answered(1), caller_ended(2))  # they go on, and end, as if nothing were
    assert it.books.cdrs[call_id(1)].status == "answered"
    assert told(it.play(request(5))) == ["CAPACITY"]  # two are still up
    assert told(it.play(leg_ended(1, NOW_MS + 1), request(6))) == ["CAPACITY"]
    assert told(it.play(caller_ended(3), request(7))) == ["ALLOWED"]


@every_level
@pytest.mark.parametrize("other", ALICE_TO_C1)
def test_the_strongest_bound_wins_and_the_first_of_equal_ones_is_named(
    key: str, other: str
) -> None:
    it = Exchange(routed({other: 2, key: 1}, rules=ONE_ROUTE))
    outcomes = it.play(request(1), request(2))
    assert told(outcomes) == ["ALLOWED", "CAPACITY"]
    assert repr(NAMES[ALICE_TO_C1.index(key)]) in reason(outcomes)
    it.source.catalog = routed({key: 1, other: 1}, rules=ONE_ROUTE)
    first = min(key, other, key=ALICE_TO_C1.index)
    assert repr(NAMES[ALICE_TO_C1.index(first)]) in reason(it.play(request(3)))


# Who shares what


@pytest.mark.parametrize(
    ("key", "shared_by", "not_by"),
    [
        ("account:1:orig", [], ["alan", "bob"]),
        ("client:1:orig", ["alan"], ["bob"]),
        ("reseller:1:orig", ["alan", "bob"], []),
        ("route:21:term", ["alan", "bob"], []),
        ("account:11:term", ["alan", "bob"], []),
        ("client:3:term", ["alan", "bob"], []),
        ("reseller:2:term", ["alan", "bob"], []),
    ],
)
def test_a_level_is_shared_by_all_below_it_and_nobody_else(
    key: str, shared_by: list[str], not_by: list[str]
) -> None:
    it = exchange(key, 1)
    it.play(request(1, "alice"))
    for number, name in enumerate(shared_by, 2):
        assert told(it.play(request(number, name))) == ["CAPACITY"]
    for number, name in enumerate(not_by, 4):
        assert told(it.play(request(number, name))) == ["ALLOWED"]


def test_two_routes_to_one_terminator_share_its_capacity_and_not_their_own() -> None:
    rules = (replace(RULES[0]), replace(RULES[0], id=22, prefix="442", priority=9))
    it = Exchange(routed({"route:22:term": 1, "account:11:term": 2}, rules=rules))
    outcomes = it.play(*(request(n) for n in (1, 2, 3)))
    assert told(outcomes) == ["ALLOWED", "ALLOWED", "CAPACITY"]
    assert [it.on(n) for n in (1, 2)] == [22, 21]


def test_originating_and_terminating_calls_of_one_object_are_counted_apart() -> None:
    """c1 calls, too: its limits as an originator know nothing of what it terminates."""
    caller = replace(ACCOUNTS[3], orig_enabled=True, rate_table_id=1, routing_plan_id=None)
    limits: dict[str, int | None] = {
        "account:11:orig": 1,
        "client:3:orig": 1,
        "reseller:2:orig": 1,
    }
    catalog = routed(limits, rules=ONE_ROUTE, accounts=[*ACCOUNTS[:3], caller, *ACCOUNTS[4:]])
    it = Exchange(catalog)
    assert told(it.play(*(request(n) for n in (1, 2, 3)))) == ["ALLOWED"] * 3
    assert told(it.play(request(4, "c1"), request(5, "c1"))) == ["ALLOWED", "CAPACITY"]
    assert it.uses()["account:11:orig"] == 1
    assert it.uses()["account:11:term"] == 3


def test_a_call_on_the_dialplans_trunk_is_counted_where_it_comes_from() -> None:
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    it = Exchange(routed({"account:1:orig": 1}, clients=clients))
    assert told(it.play(request(1), request(2))) == ["ALLOWED", "CAPACITY"]
    assert it.uses() == {"account:1:orig": 1, "reseller:1:orig": 1}


def test_who_changes_the_reseller_takes_no_running_call_along() -> None:
    """A running call is given back where it was counted, new ones are counted at the new one."""
    it = Exchange(routed({"reseller:1:orig": 2}, rules=ONE_ROUTE))
    it.play(request(1), request(2))
    moved = [replace(client, reseller_id=2) for client in CLIENTS]
    it.source.catalog = routed({"reseller:1:orig": 2}, rules=ONE_ROUTE, clients=moved)
    assert told(it.play(request(3))) == ["ALLOWED"]
    assert (it.uses()["reseller:1:orig"], it.uses()["reseller:2:orig"]) == (2, 1)
    it.play(caller_ended(1), caller_ended(2), caller_ended(3))
    assert it.uses() == {}


# Emergency calls


@every_level
def test_an_emergency_call_passes_every_limit_and_is_counted(key: str) -> None:
    it = exchange(key, 0)
    assert told(it.play(request(1, dialled=EMERGENCY))) == ["ALLOWED"]
    assert it.uses() == {"account:1:orig": 1, "reseller:1:orig": 1}
    it.source.catalog = routed({key: 1}, rules=ONE_ROUTE)
    others = told(it.play(request(2)))
    assert others == (["CAPACITY"] if key in ORIG else ["ALLOWED"])
    it.play(caller_ended(1), caller_ended(2))
    assert it.uses() == {}


def test_an_emergency_call_has_its_route_though_that_is_full() -> None:
    rules = [replace(rule, prefix="") for rule in RULES]
    costs = {2: rate_table(COSTS, Rate(EMERGENCY, "", 10**6), id=2)}
    limits: dict[str, int | None] = dict.fromkeys(TERM, 0)
    catalog = routed(limits, rules=rules)
    it = Exchange(replace(catalog, rate_tables={**catalog.rate_tables, **costs}))
    (decision,) = it.play(request(1, dialled=EMERGENCY))
    assert isinstance(decision, Decision)
    assert (decision.status, decision.route and decision.route.rule.id) == ("ALLOWED", 21)
    assert it.uses()["route:21:term"] == 1


# Before and after capacity


def test_capacity_comes_before_money_and_after_everything_else() -> None:
    poor = [prepaid(1, 0), *(postpaid(n) for n in (2, 3, 4))]
    assert told(Exchange(routed({"client:1:orig": 0}), poor).play(request(1))) == ["CAPACITY"]
    assert told(Exchange(routed({"client:1:orig": 1}), poor).play(request(1))) == ["NOCREDIT"]
    picky = [replace(ACCOUNTS[0], source_policy=SourcePolicy.REJECT), *ACCOUNTS[1:]]
    closed = routed({"client:1:orig": 0}, accounts=picky)
    assert told(Exchange(closed).play(request(1))) == ["SRCREJECT"]


def test_a_refused_call_counts_nowhere() -> None:
    poor = [prepaid(1, 0), *(postpaid(n) for n in (2, 3, 4))]
    it = Exchange(routed(), poor)
    it.play(request(1), request(2, "mallory"), request(3, dialled="999"))
    assert it.uses() == {}
    assert it.books.clients[1].active_calls == 0


# Routes


def test_the_first_route_with_room_is_taken() -> None:
    it = Exchange(routed({"route:21:term": 1, "account:12:term": 2}))
    it.play(*(request(n) for n in range(1, 6)))
    assert [it.on(n) for n in range(1, 6)] == [21, 22, 22, 23, 23]


def test_when_all_are_full_each_level_is_named_once() -> None:
    """c1 and c2 fail at their client, which both have; c3 at its own account."""
    it = Exchange(routed({"client:3:term": 1, "account:13:term": 0}))
    outcomes = it.play(request(1), request(2))
    assert told(outcomes) == ["ALLOWED", "CAPACITY"]
    assert reason(outcomes) == (
        "client 'client3' has 1 of 1 terminating calls up;"
        " account 'c3' has 0 of 0 terminating calls up"
    )


def test_where_none_is_usable_there_is_no_route_whatever_is_full() -> None:
    off = [replace(rule, enabled=False) for rule in RULES]
    it = Exchange(routed({"client:1:orig": 0}, rules=off))
    (decision,) = it.play(request(1))
    assert isinstance(decision, Decision)
    assert decision.status is AuthStatus.NOROUTE
    assert "c1 is disabled for prefix 44" in decision.reason


def test_a_route_that_is_full_is_no_reason_for_noroute() -> None:
    """One route is off, the other full: there is a route, and it has no room."""
    rules = [replace(RULES[0], enabled=False), RULES[1]]
    it = Exchange(routed({"route:22:term": 0}, rules=rules))
    outcomes = it.play(request(1))
    assert told(outcomes) == ["CAPACITY"]
    assert "route 'plan1 44 c2'" in reason(outcomes)


def test_the_rate_of_the_terminator_is_settled_with_the_call() -> None:
    """c1 charges whole minutes: 0.02 each, overrun included."""
    it = Exchange()
    it.play(request(1), answered(1), leg_ended(1, NOW_MS + 60_500))
    assert it.books.cdrs[call_id(1)].ourcost == 40_000
    it.play(request(2), caller_ended(2))
    assert it.books.cdrs[call_id(2)].ourcost is None


def test_a_call_without_a_route_owes_nobody_that_is_known() -> None:
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    it = Exchange(routed(clients=clients))
    it.play(request(1), answered(1), leg_ended(1, NOW_MS + 60_500))
    assert it.books.cdrs[call_id(1)].ourcost is None
