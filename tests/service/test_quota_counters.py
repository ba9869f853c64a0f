"""What is counted of a quota never drifts, and no call is admitted past it: under any mixture of
starts, answers, ends and faults, while people change quotas and time zones, reset, and days pass.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astcredit.domain.books import ClientBooks
from astcredit.domain.quotas import UNUSED, ClientPeriod
from astcredit.service import batcher as batcher_module
from astcredit.service.admin_ports import AdminTransaction, Client
from astcredit.service.batcher import Batcher
from astcredit.service.errors import PoisonError
from astcredit.service.ledger import Carried
from astcredit.service.operations import Expire, Operation, Outcome, Undelivered
from astcredit.service.quota_desk import follow_quotas
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NOW_MS,
    BatchLog,
    answered,
    call_id,
    caller_ended,
    catalog_of,
    hangup,
    leg_ended,
    no_orphan,
    postpaid,
    prepaid,
    request,
)
from support.memory_books import Fault, MemoryBooks, MemoryTransaction, audit
from support.plans import Exchange

SECOND = 1_000
HOUR_MS = 3_600_000
LONG_MS = 10**8
"""Longer than any reservation lasts, and more than a day."""

Kind: TypeAlias = Literal["answer", "leg", "caller", "report", "gone", "expire"]


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
    seconds: int


@dataclass(frozen=True)
class Together:
    """Operations that arrive at once; what happens to the transactions; what is poison."""

    operations: tuple[Ask | Tell, ...]
    faults: tuple[Fault | None, ...]
    poisoned: int | None


@dataclass(frozen=True)
class Talk:
    """A call that is asked for and lasts as long as it may, at most an hour."""

    who: str


@dataclass(frozen=True)
class SetQuota:
    """A client gets its first quota, another one or none."""

    client_id: int
    monthly: bool
    seconds: int | None


@dataclass(frozen=True)
class Zone:
    client_id: int
    zone: str


@dataclass(frozen=True)
class Reset:
    client_id: int


@dataclass(frozen=True)
class Later:
    ms: int


Step: TypeAlias = Together | Talk | SetQuota | Zone | Reset | Later

ZONES = ["UTC", "Asia/Kathmandu", "Pacific/Auckland", "America/Los_Angeles"]
STARTS = [NOW_MS, NOW_MS + 16 * 24 * HOUR_MS + 12 * HOUR_MS]
"""The morning of a day, and four hours before a month ends."""

asks = st.builds(
    Ask,
    st.sampled_from(["alice", "alice", "alan", "bob"]),
    st.sampled_from(["442071234567"] * 5 + [EMERGENCY, "999"]),
)
kinds: list[Kind] = ["answer", "answer", "leg", "leg", "caller", "report", "gone", "expire"]
tells = st.builds(Tell, st.sampled_from(kinds), st.integers(0, 50), st.integers(0, 4_000))
batches = st.builds(
    Together,
    st.lists(asks | tells | tells, min_size=1, max_size=8).map(tuple),
    st.lists(
        st.sampled_from([None, Fault.TRANSIENT, Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT]),
        max_size=3,
    ).map(tuple),
    st.none() | st.none() | st.integers(0, 7),
)
clients = st.sampled_from([1, 2])
talks = st.builds(Talk, st.sampled_from(["alice", "bob"]))
zones = st.builds(Zone, clients, st.sampled_from(ZONES))
hours = st.builds(Later, st.sampled_from([HOUR_MS, 8 * HOUR_MS]))
quotas = st.builds(SetQuota, clients, st.booleans(), st.none() | st.integers(0, 10_000))
changes = st.one_of(
    quotas,
    zones,
    st.builds(Reset, clients),
    st.builds(Later, st.sampled_from([HOUR_MS, 8 * HOUR_MS, LONG_MS, 31 * 24 * HOUR_MS])),
)
histories = st.lists(batches | batches | batches | talks | changes, min_size=1, max_size=14)
before = st.lists(talks | zones | hours, max_size=5)
"""What is on the books when a history begins."""


def with_quotas(client: ClientBooks) -> ClientBooks:
    return replace(
        client,
        monthly_quota=9_000 * SECOND,
        daily_quota=4_000 * SECOND,
        low_balance=5_000 * SECOND,
        quota_counted=True,
    )


@dataclass(frozen=True)
class Desk:
    """What changing a quota asks of a transaction, on books in memory. Implements QuotaStore's
    part of it."""

    kept: MemoryBooks
    books: MemoryTransaction

    @property
    def quotas(self) -> Desk:
        return self

    async def count_open(self, client_id: int) -> Collection[str]:
        found: set[str] = set()
        for id, call in self.kept.calls.items():
            if call.client_id == client_id:
                self.kept.calls[id] = replace(call, periods=self.kept.cdrs[id].calendar)
                found.update(self.kept.cdrs[id].calendar)
        return found

    async def periods_from(self, client_id: int, day: str) -> Collection[str]:
        ended = [c for c in self.kept.cdrs.values() if c.price is not None]
        mine = {c.calendar for c in ended if c.client_id == client_id}
        return {period for month, its_day in mine if its_day >= day for period in (month, its_day)}

    async def sums(self, client_id: int, period: str) -> tuple[int, int]:
        cdrs = [c for c in self.kept.cdrs.values() if c.client_id == client_id]
        held = [c for c in self.kept.calls.values() if c.client_id == client_id]
        return (
            sum(c.price or 0 for c in cdrs if period in c.calendar),
            sum(c.reserved for c in held if period in c.periods),
        )


class Watched(Exchange):
    """An exchange whose every transaction is checked against the quotas. Clients that are not
    `counted` begin without any."""

    def __init__(self, counted: Collection[int] = (1, 2), start_ms: int = NOW_MS) -> None:
        people = (postpaid(1), prepaid(2, 20_000 * SECOND))
        super().__init__(catalog_of(), [with_quotas(p) if p.id in counted else p for p in people])
        self.clock.now_ms = start_ms
        self.statuses = Counter[str]()

    async def change(self, client_id: int, **settings: int | str | None) -> None:
        """Change a client's settings as an administrator does."""
        async with self.books.transaction() as transaction:
            old = (await transaction.lock_clients([client_id]))[client_id]
            new = replace(old, **settings)  # type: ignore[arg-type]
            client = Client(
                f"client{client_id}",
                id=client_id,
                kind=new.kind,
                monthly_quota=new.monthly_quota,
                daily_quota=new.daily_quota,
                timezone=new.timezone,
                low_balance=new.low_balance,
            )
            desk = cast(AdminTransaction, Desk(self.books, transaction))
            await follow_quotas(desk, client, old, self.clock.now_ms)
        counted = old.quota_counted or bool(new.quotas)
        self.books.clients[client_id] = replace(new, quota_counted=counted)

    def used(self) -> dict[ClientPeriod, int]:
        """What counts against every quota in force."""
        found = {}
        for client in self.books.clients.values():
            for quota in client.quotas.at(self.clock.now_ms):
                usage = self.books.usages.get((client.id, quota.period), UNUSED)
                found[client.id, quota.period] = usage.counted + usage.reserved
        return found

    async def apply(
        self,
        operations: Sequence[Operation],
        carried: Carried,
        outcomes: list[Outcome],
        ahead: bool,
    ) -> None:
        before = self.used()
        try:
            await self.ledger.apply(operations, carried, outcomes, ahead)
        finally:
            for (id, period), used in self.used().items():
                quota = self.books.clients[id].quotas.quota_of(period)
                assert quota is not None
                assert used <= max(quota.most, before[id, period]), (id, period, used, quota)


class Player:
    """Plays a history on a watched exchange."""

    def __init__(self, it: Watched, batcher: Batcher) -> None:
        self.it = it
        self.batcher = batcher
        self.made = 0

    async def step(self, step: Step) -> None:
        match step:
            case Together():
                await self._together(step)
            case Talk(who):
                await self._talk(who)
            case SetQuota(client_id, monthly, seconds):
                most = None if seconds is None else seconds * SECOND
                name = "monthly_quota" if monthly else "daily_quota"
                await self.it.change(client_id, **{name: most})
            case Zone(client_id, zone):
                await self.it.change(client_id, timezone=zone)
            case Reset(client_id):
                for key, usage in self.it.books.usages.items():
                    if key[0] == client_id:
                        now_ms = self.it.clock.now_ms
                        self.it.books.usages[key] = replace(
                            usage, waived=usage.spent, reset_ms=now_ms
                        )
            case Later(ms):
                self.it.clock.now_ms += ms
        assert audit(self.it.books.snapshot()) == []

    async def _talk(self, who: str) -> None:
        self.made += 1
        number, now_ms = self.made, self.it.clock.now_ms
        decision = await self.batcher.submit(request(number, who))
        self.it.statuses[str(getattr(decision, "status", ""))] += 1
        await self.batcher.submit(answered(number, now_ms))
        await self.batcher.submit(leg_ended(number, now_ms + LONGEST_SECONDS * 1_000))

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
            elif (status := getattr(outcome, "status", None)) is not None:
                self.it.statuses[str(status)] += 1
        self.it.books.poison = set()
        self.it.books.faults.clear()

    def _operation(self, spec: Ask | Tell, there: int) -> Operation:
        """Calls are asked about as they come; what is told is told of calls made before."""
        if isinstance(spec, Ask) or there == 0:
            self.made += 1
            ask = spec if isinstance(spec, Ask) else Ask("alice", "442071234567")
            return request(self.made, ask.who, ask.dialled)
        number, now_ms = 1 + spec.which % there, self.it.clock.now_ms
        talk_ms = spec.seconds * 1000
        said: dict[Kind, Operation] = {
            "answer": answered(number, now_ms - talk_ms),
            "leg": leg_ended(number, now_ms),
            "caller": caller_ended(number, now_ms),
            "report": hangup(number, now_ms, talk_ms, "ANSWER" if spec.which % 2 else "BUSY"),
            "gone": Undelivered(call_id(number), now_ms),
            "expire": Expire(call_id(number), now_ms),
        }
        return said[spec.what]

    async def end(self) -> None:
        """All that is still up is over one day; then nothing is reserved anywhere."""
        self.it.clock.now_ms += LONG_MS
        now_ms = self.it.clock.now_ms
        await asyncio.gather(
            *(self.batcher.submit(Expire(id, now_ms)) for id in list(self.it.books.calls))
        )
        assert {usage.reserved for usage in self.it.books.usages.values()} <= {0}


def _subject(operation: Operation) -> str:
    """The call that a batch touches when it does this; the last part of a channel is its number."""
    if id := getattr(operation, "call_id", ""):
        return str(id)
    channel = getattr(operation, "caller_uniqueid", "") or getattr(operation, "uniqueid", "")
    return call_id(int(str(channel).rsplit("-", 1)[1]))


async def play(
    history: Sequence[Step], counted: Collection[int] = (1, 2), start_ms: int = NOW_MS
) -> Watched:
    it = Watched(counted, start_ms)
    batcher = Batcher(it.apply, no_orphan, BatchLog(), most_operations=256, event_delay=0.001)
    batcher.start()
    player = Player(it, batcher)
    for step in history:
        await player.step(step)
    await player.end()
    await batcher.stop(60)
    assert audit(it.books.snapshot()) == []
    references = Counter(alert.reference for alert in it.books.alerts)
    assert set(references.values()) <= {1}, references
    return it


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once: a test does not wait for the machine."""
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.0)


@settings(max_examples=300)
@given(before, histories, st.sampled_from([(1, 2), (1,), ()]), st.sampled_from(STARTS))
def test_what_is_counted_never_drifts_and_no_call_passes_a_quota(
    before: list[Step], history: list[Step], counted: tuple[int, ...], start_ms: int
) -> None:
    """Also of clients that have no quota yet, and calls on the books when they get one."""
    asyncio.run(play([*before, *history], counted, start_ms))


@settings(max_examples=300)
@given(st.lists(talks | zones | hours | quotas, min_size=4, max_size=12), st.sampled_from(STARTS))
def test_a_quota_counts_every_call_whatever_the_zone_was(
    history: list[Step], start_ms: int
) -> None:
    asyncio.run(play(history, counted=(), start_ms=start_ms))


FIRST, WEST, EAST = SetQuota(1, False, 5_000), "America/Los_Angeles", "Pacific/Auckland"


@pytest.mark.parametrize(
    "history",
    [
        # A call on the 15th; the first quota on the 16th; then it is the 15th again.
        [Talk("alice"), Later(20 * HOUR_MS), FIRST, Zone(1, WEST)],
        # A call on what is the 16th already, and then is the 15th for some hours more.
        [
            *[Zone(1, EAST), Later(4 * HOUR_MS), Talk("alice"), Zone(1, "UTC")],
            *[FIRST, Later(12 * HOUR_MS)],
        ],
    ],
    ids=["back a day", "on a day"],
)
def test_a_first_quota_counts_calls_of_other_zones(history: list[Step]) -> None:
    it = asyncio.run(play([*history, Talk("alice"), Talk("alice")], counted=()))
    assert it.statuses == {"ALLOWED": 2, "QUOTA": 1}


def test_the_histories_are_worth_playing() -> None:
    """One that does all of it: were nothing refused or told, the property would prove nothing."""
    ask, others = Ask("alice", "442071234567"), (Ask("bob", "442071234567"), Ask("alan", EMERGENCY))
    unheard, lost = Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT
    history: list[Step] = [
        Together((ask, ask, ask, *others), (unheard, Fault.TRANSIENT), None),
        Together((Tell("answer", 0, 3_600), Tell("leg", 0, 0), ask), (lost, unheard), None),
        SetQuota(1, False, 3_700),
        Together((Tell("answer", 1, 90), Tell("leg", 1, 0), ask), (unheard,), None),
        Zone(1, "Pacific/Auckland"),
        Later(8 * HOUR_MS),
        Together((ask, Tell("caller", 2, 0)), (), 1),
        Reset(1),
        SetQuota(1, False, None),
        SetQuota(1, True, 0),
        Together((ask, Tell("report", 3, 60)), (unheard,), None),
        Later(31 * 24 * HOUR_MS),
        Together((ask, Tell("expire", 4, 0)), (), None),
    ]
    it = asyncio.run(play(history))
    assert it.statuses["ALLOWED"] >= 5
    assert it.statuses["QUOTA"] >= 3
    periods = {period for id, period in it.books.usages if id == 1}
    assert len(periods) >= 4
    assert len(it.books.alerts) >= 3
