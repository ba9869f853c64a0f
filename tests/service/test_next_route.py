"""The next route of a reservation: capacity moves along, nothing is counted or tried twice, and an
answer that was lost is given again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from astcredit.domain.calls import RouteRequest
from astcredit.domain.catalog import Catalog
from astcredit.domain.rating import Rate
from astcredit.domain.routing_plan import Rule
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.operations import NoFurtherRoute, Operation, Outcome, Rerouted, Undelivered
from support.core import (
    EMERGENCY,
    NODE,
    NOW_MS,
    RATE,
    BatchLog,
    answered,
    call_id,
    caller_ended,
    leg_ended,
    no_orphan,
    rate_table,
    request,
)
from support.memory_books import Fault, audit
from support.plans import CLIENTS, RULES, Exchange, next_route, routed, told

# A dialplan asks for a next route when it has the answer of `authorize`: the call is in the books.


def up(limits: Mapping[str, int | None] | None = None, rules: Collection[Rule] = RULES) -> Exchange:
    """A world in which call 1 is on its first route."""
    it = Exchange(routed(limits, rules=rules))
    it.play(request(1))
    return it


one_or_many = pytest.mark.parametrize("together", [False, True], ids=["single", "together"])


@one_or_many
def test_each_question_gets_the_next_route_until_there_is_none(together: bool) -> None:
    it = up()
    asks = [next_route(1, f"ask-{n}", "CONGESTION", 30 + n) for n in (1, 2, 3, 4)]
    assert told(it.play(*asks, together=together)) == ["c2", "c3", "NOROUTE", "NOROUTE"]
    assert it.on() == 23
    held = it.books.snapshot().reservations[0]
    assert held.routes_tried == (21, 22)
    cdr = it.books.cdrs[call_id(1)]
    assert (cdr.tried, cdr.route_id) == ("c1 CONGESTION 31; c2 CONGESTION 32", 23)


def test_the_capacity_moves_along() -> None:
    it = up()
    it.play(next_route(1))
    assert it.uses() == {
        "account:1:orig": 1,
        "reseller:1:orig": 1,
        "account:12:term": 1,
        "client:3:term": 1,
        "reseller:2:term": 1,
        "route:22:term": 1,
    }
    it.play(next_route(1, "second"))
    assert it.uses() == {
        "account:1:orig": 1,
        "reseller:1:orig": 1,
        "account:13:term": 1,
        "client:4:term": 1,
        "route:23:term": 1,
    }
    it.play(caller_ended(1))
    assert it.uses() == {}


@one_or_many
def test_what_it_leaves_is_free_for_the_next_call(together: bool) -> None:
    it = up({"account:11:term": 1}, RULES[:2])
    assert told(it.play(next_route(1), request(2), together=together)) == ["c2", "ALLOWED"]
    assert (it.on(1), it.on(2)) == (22, 21)


@pytest.mark.parametrize("shared", ["client:3:term", "reseller:2:term"])
def test_it_does_not_count_itself_twice(shared: str) -> None:
    """The terminator's client has room for one call, and two accounts: the call is that one."""
    it = up({shared: 1}, RULES[:2])
    assert told(it.play(next_route(1))) == ["c2"]
    assert it.uses()[shared] == 1
    assert told(it.play(request(2))) == ["CAPACITY"]


@one_or_many
def test_a_full_route_is_skipped_and_tried_later_when_it_has_room(together: bool) -> None:
    it = up({"route:22:term": 1})
    it.play(request(2))
    outcomes = it.play(next_route(1), next_route(2, "a"), together=together)
    assert told(outcomes) == ["c2", "c3"]
    it.play(caller_ended(1))
    assert told(it.play(next_route(2, "b"), next_route(2, "c"), together=together)) == [
        "c2",
        "NOROUTE",
    ]
    assert it.books.calls[call_id(2)].routes_tried == (21, 23)


def test_no_money_moves() -> None:
    it = up()
    before = it.books.clients[1]
    (outcome,) = it.play(next_route(1))
    assert isinstance(outcome, Rerouted)
    assert it.books.clients[1] == before == outcome.client


@one_or_many
def test_an_answered_call_has_no_next_route(together: bool) -> None:
    """People talk on it: Dial does not go on after an answer."""
    it = up()
    outcomes = it.play(answered(1), next_route(1), together=together)
    assert outcomes[1] == NoFurtherRoute("the call was answered")
    assert it.on() == 21


@one_or_many
@pytest.mark.parametrize(
    "end", [caller_ended(1), Undelivered(call_id(1), NOW_MS)], ids=["ended", "undelivered"]
)
def test_a_call_that_is_over_has_no_next_route(end: Undelivered, together: bool) -> None:
    it = up()
    outcomes = it.play(end, next_route(1), together=together)
    assert outcomes[1] == NoFurtherRoute("the call has no reservation")
    assert it.uses() == {}


def test_a_call_that_nobody_authorized_has_none() -> None:
    assert Exchange().play(next_route(7)) == [NoFurtherRoute("the call has no reservation")]


def test_without_an_id_the_newest_call_of_the_channel_is_meant() -> None:
    """AC_CALL was lost on the way: a channel makes one call at a time."""
    it = Exchange()
    ask = RouteRequest("", NODE, "one", "ask-1", "BUSY", 17)
    it.play(request(1, channel="one"), request(2, channel="one"), request(3, channel="other"))
    assert told(it.play(ask)) == ["c2"]
    assert [it.on(n) for n in (1, 2, 3)] == [21, 22, 21]


def test_the_id_of_another_channels_call_is_that_call() -> None:
    """A Local channel goes on for the one that asked."""
    it = up()
    assert told(it.play(replace(next_route(1), uniqueid="other"))) == ["c2"]


def test_a_client_without_a_plan_has_none() -> None:
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    it = Exchange(routed(clients=clients))
    it.play(request(1))
    assert it.play(next_route(1)) == [NoFurtherRoute("the client has no routing plan")]


def test_a_plan_that_was_given_meanwhile_is_followed() -> None:
    clients = [replace(client, routing_plan_id=None) for client in CLIENTS]
    it = Exchange(routed(clients=clients))
    it.play(request(1))
    it.source.catalog = routed()
    assert told(it.play(next_route(1))) == ["c1"]
    assert it.uses()["route:21:term"] == 1


def test_the_account_may_be_off_by_then() -> None:
    """The call was allowed, and its money is held: it goes on."""
    it = up()
    it.source.catalog = routed(clients=[replace(CLIENTS[0], enabled=False), *CLIENTS[1:]])
    assert told(it.play(next_route(1))) == ["c2"]


def test_a_terminator_that_was_switched_off_is_not_taken() -> None:
    it = up()
    rules = [RULES[0], replace(RULES[1], enabled=False), RULES[2]]
    it.source.catalog = routed(rules=rules)
    assert told(it.play(next_route(1))) == ["c3"]


def test_an_emergency_call_without_a_route_has_no_next_one() -> None:
    it = Exchange()
    it.play(request(1, dialled=EMERGENCY))
    outcome = NoFurtherRoute("routing plan 'plan1' has no further route")
    assert it.play(next_route(1)) == [outcome]


@one_or_many
def test_an_emergency_call_goes_on_to_routes_that_are_full_and_is_counted(together: bool) -> None:
    limits = {"route:22:term": 1, "account:13:term": 0, "client:4:term": 0}
    rules = [replace(rule, prefix="") for rule in RULES]
    catalog = routed(limits, rules=rules)
    charges = {id: rate_table(RATE, Rate(EMERGENCY, "", 10**6), id=id) for id in (2, 3)}
    it = Exchange(replace(catalog, rate_tables={**catalog.rate_tables, **charges}))
    it.play(request(1, dialled=EMERGENCY), request(2))
    assert told(it.play(next_route(2))) == ["c2"]
    asks = [next_route(1, f"ask-{n}") for n in (1, 2, 3)]
    assert told(it.play(*asks, together=together)) == ["c2", "c3", "NOROUTE"]
    assert it.uses()["account:13:term"] == it.uses()["route:23:term"] == 1
    assert it.uses()["route:22:term"] == 1
    it.play(caller_ended(1), caller_ended(2))
    assert it.uses() == {}


def test_the_one_that_carried_the_call_is_owed() -> None:
    """c1 failed; c2 charges a minute of 0.02; c1 nothing."""
    it = up()
    it.play(next_route(1), answered(1), leg_ended(1, NOW_MS + 1_000))
    cdr = it.books.cdrs[call_id(1)]
    assert (cdr.ourcost, cdr.route_id, cdr.tried) == (20_000, 22, "c1 CONGESTION 34")
    it.play(request(2))
    it.play(next_route(2), next_route(2, "again"), answered(2))
    it.play(leg_ended(2, NOW_MS + 1_000))
    assert it.books.cdrs[call_id(2)].ourcost == 3_000  # c3: six seconds of 0.03 a minute


# An answer that was lost on its way from the database


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once: a test does not wait for the machine."""
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.0)


@asynccontextmanager
async def serving(catalog: Catalog | None = None) -> AsyncIterator[tuple[Exchange, Batcher]]:
    """A batcher on an exchange on which call 1 is up."""
    it = Exchange(catalog)
    batcher = Batcher(it.ledger.apply, no_orphan, BatchLog(), most_operations=256)
    batcher.start()
    await batcher.submit(request(1))
    yield it, batcher
    await batcher.stop(60)
    assert audit(it.books.snapshot()) == []


LOST = [
    [Fault.COMMITTED_UNHEARD],
    [Fault.LOST_AT_COMMIT],
    [Fault.TRANSIENT],
    [Fault.COMMITTED_UNHEARD, Fault.TRANSIENT],
    [Fault.LOST_AT_COMMIT, Fault.COMMITTED_UNHEARD, Fault.COMMITTED_UNHEARD],
]


@pytest.mark.parametrize("faults", LOST, ids=lambda faults: " ".join(f.name for f in faults))
def test_a_question_that_is_repeated_gets_the_same_route(faults: list[Fault]) -> None:
    """And not the one after it, whether the lost COMMIT happened or not."""

    async def main() -> None:
        async with serving() as (it, batcher):
            it.books.faults.extend(faults)
            outcome = await batcher.submit(next_route(1, "ask-1"))
            assert told([outcome]) == ["c2"]
            assert (it.on(), it.books.calls[call_id(1)].routes_tried) == (22, (21,))
            assert told([await batcher.submit(next_route(1, "ask-2"))]) == ["c3"]

    asyncio.run(main())


@pytest.mark.parametrize("faults", LOST, ids=lambda faults: " ".join(f.name for f in faults))
def test_calls_that_fail_at_the_same_instant_get_their_routes_again(faults: list[Fault]) -> None:
    """One carrier went down with several calls; c2 has room for one of them."""

    async def main() -> None:
        async with serving(routed({"route:22:term": 1})) as (it, batcher):
            await batcher.submit(request(2))
            it.books.faults.extend(faults)
            asks: list[Operation] = [next_route(1), next_route(2), request(3)]
            outcomes: list[Outcome] = await asyncio.gather(*(batcher.submit(a) for a in asks))
            assert told(outcomes) == ["c2", "c3", "ALLOWED"]
            assert [it.on(n) for n in (1, 2, 3)] == [22, 23, 21]

    asyncio.run(main())


def test_a_call_that_ended_between_lost_answer_and_repetition_has_no_route() -> None:
    """Another server heard its end."""

    async def main() -> None:
        async with serving() as (it, batcher):
            it.books.faults.append(Fault.COMMITTED_UNHEARD)
            outcome = batcher.submit(next_route(1, "a"))
            end = batcher.submit(caller_ended(1))
            await asyncio.gather(outcome, end)
            assert it.uses() == {}
            assert it.books.cdrs[call_id(1)].status == "failed"

    asyncio.run(main())


def test_a_question_that_nobody_waits_for_any_more_is_not_asked() -> None:
    async def main() -> None:
        async with serving() as (it, batcher):
            it.books.faults.append(Fault.TRANSIENT)
            asked = batcher.submit(next_route(1, "a"))
            await asyncio.sleep(0)
            asked.cancel()
            await batcher.submit(answered(9))
            assert it.on() == 21

    asyncio.run(main())
