"""A counter never drifts, and no level is ever above its limit when a call is admitted: under any
mixture of starts, answers, ends, failovers and faults, while people change limits and resellers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astcredit.domain.calls import CallRequest, RouteRequest
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.errors import PoisonError
from astcredit.service.ledger import Carried
from astcredit.service.operations import Changed, Expire, Operation, Outcome, Rerouted, Undelivered
from support.core import (
    EMERGENCY,
    BatchLog,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    no_orphan,
    postpaid,
    prepaid,
    request,
)
from support.memory_books import Fault, audit
from support.plans import ACCOUNTS, CLIENTS, RULES, Exchange, level, next_route, routed

LONG_MS = 10**8
"""Longer than any reservation lasts."""

ALL_LEVELS = (
    *(f"reseller:{id}:{way}" for id in (1, 2) for way in ("orig", "term")),
    *(f"client:{id}:orig" for id in (1, 2)),
    *(f"client:{id}:term" for id in (3, 4)),
    *(f"account:{id}:orig" for id in (1, 2, 3)),
    *(f"account:{id}:term" for id in (11, 12, 13)),
    *(f"route:{id}:term" for id in (21, 22, 23)),
)

Kind: TypeAlias = Literal["next", "answer", "leg", "caller", "report", "gone", "expire"]


@dataclass(frozen=True)
class Ask:
    """A call is authorized."""

    who: str
    dialled: str


@dataclass(frozen=True)
class Tell:
    """Something is said of one of the calls that there are."""

    what: Kind
    which: int


@dataclass(frozen=True)
class Together:
    """Operations that arrive at once; what happens to the transactions; what is poison."""

    operations: tuple[Ask | Tell, ...]
    faults: tuple[Fault | None, ...]
    poisoned: int | None


@dataclass(frozen=True)
class Limit:
    key: str
    most: int | None


@dataclass(frozen=True)
class Move:
    """A client gets another reseller, or none."""

    client_id: int
    reseller_id: int | None


@dataclass(frozen=True)
class Off:
    """A rule is switched off, or on."""

    rule_id: int


@dataclass(frozen=True)
class Later:
    pass


Step: TypeAlias = Together | Limit | Move | Off | Later

asks = st.builds(
    Ask,
    st.sampled_from(["alice", "alice", "alan", "bob", "mallory"]),
    st.sampled_from(["442071234567"] * 5 + [EMERGENCY, "999"]),
)
kinds: list[Kind] = ["next", "next", "answer", "leg", "caller", "report", "gone", "expire"]
tells = st.builds(Tell, st.sampled_from(kinds), st.integers(0, 50))
batches = st.builds(
    Together,
    st.lists(asks | asks | tells, min_size=1, max_size=8).map(tuple),
    st.lists(
        st.sampled_from([None, Fault.TRANSIENT, Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT]),
        max_size=3,
    ).map(tuple),
    st.none() | st.none() | st.integers(0, 7),
)
limits = st.builds(Limit, st.sampled_from(ALL_LEVELS), st.sampled_from([None, 0, 1, 2, 3]))
changes = st.one_of(
    limits,
    st.builds(Move, st.sampled_from([1, 2, 3, 4]), st.sampled_from([None, 1, 2])),
    st.builds(Off, st.sampled_from([21, 22, 23])),
    st.just(Later()),
)
histories = st.tuples(
    st.lists(limits, max_size=6), st.lists(batches | batches | changes, min_size=1, max_size=12)
).map(lambda parts: [*parts[0], *parts[1]])


def levels_of(catalog: Catalog, account_id: int, rule_id: int | None) -> dict[str, int | None]:
    """Where a call counts and what the limits are there, by the documentation alone."""
    account = catalog.accounts[account_id]
    client = catalog.clients[account.client_id]
    found = {f"client:{client.id}:orig": client.orig_capacity,
             f"account:{account_id}:orig": account.orig_capacity}  # fmt: skip
    if client.reseller_id:
        reseller = catalog.resellers[client.reseller_id]
        found[f"reseller:{reseller.id}:orig"] = reseller.orig_capacity
    if rule_id is not None:
        rule = next(r for r in catalog.routing_plans[1].rules if r.id == rule_id)
        found[f"route:{rule_id}:term"] = rule.capacity
        carrier = catalog.accounts[rule.account_id]
        assert carrier.termination
        found[f"account:{carrier.id}:term"] = carrier.termination.capacity
        client = catalog.clients[carrier.client_id]
        found[f"client:{client.id}:term"] = client.term_capacity
        if client.reseller_id:
            reseller = catalog.resellers[client.reseller_id]
            found[f"reseller:{reseller.id}:term"] = reseller.term_capacity
    return found


class Watched(Exchange):
    """An exchange whose every transaction is checked, step by step, against the limits."""

    def __init__(self) -> None:
        clients = [prepaid(1, 20_000_000), *(postpaid(id) for id in (2, 3, 4))]
        super().__init__(routed(), clients)
        self.admitted = 0
        self.moved = 0

    async def apply(
        self,
        operations: Sequence[Operation],
        carried: Carried,
        outcomes: list[Outcome],
        ahead: bool,
    ) -> None:
        up = {id: self._levels(id) for id in self.books.calls}
        try:
            await self.ledger.apply(operations, carried, outcomes, ahead)
        finally:
            self._check(up, operations, carried, outcomes)

    def _levels(self, id: str) -> set[str]:
        """Where an open call is counted, as its reservation says."""
        call = self.books.calls[id]
        return {x.key for x in call.occupancy.levels()} | {f"client:{call.client_id}:orig"}

    def _check(
        self,
        up: dict[str, set[str]],
        operations: Sequence[Operation],
        carried: Carried,
        outcomes: Sequence[Outcome],
    ) -> None:
        known = {id(outcome) for outcome in carried.values()}
        for operation, outcome in zip(operations, outcomes, strict=False):
            if id(outcome) in known:
                continue  # an earlier attempt did it
            match operation, outcome:
                case CallRequest(call_id=call), Decision() if outcome.allowed and outcome.account:
                    rule = outcome.route.rule.id if outcome.route else None
                    levels = levels_of(self.source.catalog, outcome.account.id, rule)
                    self._admit(up, call, levels, outcome.number == EMERGENCY)
                    self.admitted += 1
                case RouteRequest(), Rerouted():
                    call = outcome.call.call_id
                    before = up.pop(call)
                    account_id = outcome.call.occupancy.account_id or 0
                    levels = levels_of(self.source.catalog, account_id, outcome.route.rule.id)
                    arriving = {k: most for k, most in levels.items() if k.endswith(":term")}
                    self._admit(up, call, arriving)
                    up[call] |= {key for key in before if key.endswith(":orig")}
                    self.moved += 1
                case _, Changed():
                    for settlement in outcome.settled:
                        del up[settlement.call.call_id]

    def _admit(
        self,
        up: dict[str, set[str]],
        call: str,
        levels: dict[str, int | None],
        emergency: bool = False,
    ) -> None:
        use = Counter(key for keys in up.values() for key in keys)
        for key, most in levels.items():
            assert emergency or most is None or use[key] < most, f"{key} has {use[key]} of {most}"
        up[call] = set(levels)


@dataclass
class Player:
    """Plays a history on a watched exchange."""

    it: Watched
    batcher: Batcher
    limits: dict[str, int | None] = field(default_factory=dict)
    resellers: dict[int, int | None] = field(default_factory=lambda: {1: 1, 2: 1, 3: 2, 4: None})
    off: set[int] = field(default_factory=set)
    made: int = 0
    asked: int = 0

    async def step(self, step: Step) -> None:
        match step:
            case Together():
                await self._together(step)
            case Limit(key, most):
                self.limits[key] = most
            case Move(client_id, reseller_id):
                self.resellers[client_id] = reseller_id
            case Off(rule_id):
                self.off ^= {rule_id}
            case Later():
                self.it.clock.now_ms += LONG_MS
        self.it.source.catalog = routed(
            self.limits,
            rules=[replace(rule, enabled=rule.id not in self.off) for rule in RULES],
            clients=[replace(c, reseller_id=self.resellers[c.id]) for c in CLIENTS],
            accounts=ACCOUNTS,
        )
        assert audit(self.it.books.snapshot()) == []
        assert min(self.it.books.uses.values(), default=0) >= 0

    async def _together(self, step: Together) -> None:
        self.it.clock.now_ms += 60_000
        there = self.made
        operations = [self._operation(spec, there) for spec in step.operations]
        self.it.books.faults.extend(step.faults)
        if step.poisoned is not None:
            self.it.books.poison = {_subject(operations[step.poisoned % len(operations)])}
        outcomes = await asyncio.gather(
            *(self.batcher.submit(operation) for operation in operations), return_exceptions=True
        )
        for operation, outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, PoisonError)
                assert _subject(operation) in self.it.books.poison
        self.it.books.poison = set()
        self.it.books.faults.clear()

    def _operation(self, spec: Ask | Tell, there: int) -> Operation:
        """Calls are asked about as they come; what is told is told of calls made before."""
        if isinstance(spec, Ask) or there == 0:
            self.made += 1
            ask = spec if isinstance(spec, Ask) else Ask("alice", "442071234567")
            return request(self.made, ask.who, ask.dialled)
        number, now_ms = 1 + spec.which % there, self.it.clock.now_ms
        self.asked += 1
        said: dict[Kind, Operation] = {
            "next": next_route(number, f"ask-{self.asked}"),
            "answer": answered(number, now_ms),
            "leg": leg_ended(number, now_ms + 1_500),
            "caller": caller_ended(number, now_ms),
            "report": hangup(number, now_ms, 1_000, "ANSWER" if spec.which % 2 else "BUSY"),
            "gone": Undelivered(call_id(number), now_ms),
            "expire": Expire(call_id(number), now_ms),
        }
        return said[spec.what]

    async def end(self) -> None:
        """All that is still up is over one day."""
        self.it.clock.now_ms += LONG_MS
        now_ms = self.it.clock.now_ms
        await asyncio.gather(
            *(self.batcher.submit(Expire(id, now_ms)) for id in list(self.it.books.calls))
        )
        assert not self.it.books.calls
        assert self.it.uses() == {}
        assert {client.reserved for client in self.it.books.clients.values()} == {0}


def _subject(operation: Operation) -> str:
    """The call that a batch touches when it does this; the last part of a channel is its number."""
    match operation:
        case (
            CallRequest(call_id=id)
            | RouteRequest(call_id=id)
            | Undelivered(call_id=id)
            | Expire(call_id=id)
        ):
            return id
    return call_id(int(_channel(operation).rsplit("-", 1)[1]))


def _channel(operation: Operation) -> str:
    return str(getattr(operation, "caller_uniqueid", "") or getattr(operation, "uniqueid", ""))


async def play(history: Sequence[Step]) -> Watched:
    it = Watched()
    batcher = Batcher(it.apply, no_orphan, BatchLog(), most_operations=256, event_delay=0.001)
    batcher.start()
    player = Player(it, batcher)
    for step in history:
        await player.step(step)
    await player.end()
    await batcher.stop(60)
    assert audit(it.books.snapshot()) == []
    return it


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once: a test does not wait for the machine."""
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.0)


@settings(max_examples=300)
@given(histories)
def test_a_counter_never_drifts_and_no_limit_is_passed(history: list[Step]) -> None:
    asyncio.run(play(history))


def test_the_histories_are_worth_playing() -> None:
    """One that does all of it: were nothing admitted or moved, the property would prove nothing."""
    ask, others = Ask("alice", "442071234567"), (Ask("bob", "442071234567"), Ask("alan", EMERGENCY))
    history: list[Step] = [
        Limit("route:21:term", 2),
        Limit("client:3:term", 3),
        Together((ask, ask, *others), (Fault.COMMITTED_UNHEARD, Fault.TRANSIENT), None),
        Together((Tell("next", 0), Tell("next", 1), ask), (Fault.LOST_AT_COMMIT,), 2),
        Move(1, 2),
        Together((Tell("next", 0), Tell("caller", 1), ask), (Fault.COMMITTED_UNHEARD,), None),
        Off(21),
        Limit("client:3:term", 0),
        Together((ask, Tell("answer", 2), Tell("leg", 2)), (), None),
        Later(),
        Together((Tell("expire", 0), ask), (), None),
    ]
    it = asyncio.run(play(history))
    assert it.admitted >= 6
    assert it.moved >= 2


def test_the_levels_of_the_property_are_all_there_are() -> None:
    """A limit at each of them is in force in the catalog that is played."""
    catalog = routed(dict.fromkeys(ALL_LEVELS, 7))
    found: dict[str, int | None] = {}
    for account_id in (1, 2, 3):
        for rule_id in (21, 22, 23):
            found |= levels_of(catalog, account_id, rule_id)
    assert {level(key): most for key, most in found.items()} == {
        level(key): 7 for key in ALL_LEVELS if key not in ("reseller:1:term", "reseller:2:orig")
    }
