"""Requests go ahead of events that wait for one another, and nothing is decided worse for it.

An hour's delay stands for "until something else makes them due": no test waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.decisions import Decision
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.ledger import Ledger
from astcredit.service.operations import NodeHeard, Operation, Outcome
from support.core import (
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    BatchLog,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    no_orphan,
    policy,
    prepaid,
    request,
)
from support.memory_books import Fault, Gate, MemoryBooks, audit

FULL_CALL = LONGEST_SECONDS * 1_000
HOUR = 3_600.0
END_MS = NOW_MS + 5_000
"""A call that ends then costs 5,000."""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.0)


class Bench:
    """A batcher on books in memory, whose client has so much money."""

    def __init__(self, money: int, event_delay: float) -> None:
        self.books = MemoryBooks([prepaid(1, money), prepaid(2)])
        self.log = BatchLog()
        ledger = Ledger(self.books, FixedCatalog(), policy(), Clock())
        self.batcher = Batcher(
            ledger.apply, no_orphan, self.log, most_operations=256, event_delay=event_delay
        )

    async def open_calls(self, *numbers: int) -> None:
        """Calls that are answered; their events are not delayed."""
        delay, self.batcher._event_delay = self.batcher._event_delay, 0.0
        for number in numbers:
            await self.batcher.submit(request(number))
            await self.batcher.submit(answered(number))
        self.batcher._event_delay = delay
        self.log.done.clear()

    def submit(self, *operations: Operation) -> list[asyncio.Future[Outcome]]:
        return [self.batcher.submit(operation) for operation in operations]


@asynccontextmanager
async def bench(money: int = 1_000 * FULL_CALL, event_delay: float = HOUR) -> AsyncIterator[Bench]:
    it = Bench(money, event_delay)
    it.batcher.start()
    async with asyncio.timeout(60):  # nobody is to wait for events
        yield it
    assert await it.batcher.stop(60) == 0
    assert audit(it.books.snapshot()) == []


def seconds(outcome: Outcome) -> int:
    assert isinstance(outcome, Decision), outcome
    return outcome.seconds


def test_a_request_does_not_wait_for_events() -> None:
    async def main() -> None:
        async with bench() as it:
            await it.open_calls(1, 2)
            events = it.submit(leg_ended(1, END_MS), leg_ended(2, END_MS), NodeHeard(NODE, END_MS))
            assert seconds(await it.batcher.submit(request(3))) == LONGEST_SECONDS
            assert it.log.done == [1]
            assert not any(event.done() for event in events)
        assert it.log.done == [1, 3]
        assert it.books.heard == {NODE: END_MS}

    asyncio.run(main())


def test_events_go_together_when_the_first_has_waited_long_enough() -> None:
    async def main() -> None:
        async with bench(event_delay=0.01) as it:
            await it.open_calls(1, 2)
            await asyncio.gather(*it.submit(leg_ended(1, END_MS), leg_ended(2, END_MS)))
            assert it.log.done == [2]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("money", "granted"),
    [(FULL_CALL, LONGEST_SECONDS - 5), (FULL_CALL * 3 // 2, LONGEST_SECONDS)],
    ids=["nothing-left", "half-left"],
)
def test_who_would_get_less_than_all_is_asked_again_behind_the_events(
    money: int, granted: int
) -> None:
    """The end of the first call gives back what it held; nothing stands in the books of the try."""

    async def main() -> None:
        async with bench(money) as it:
            await it.open_calls(1)
            ended, decided = it.submit(leg_ended(1, END_MS), request(2))
            assert seconds(await decided) == granted
            assert ended.done()
            assert set(it.books.cdrs) == {call_id(1), call_id(2)}

    asyncio.run(main())


def test_who_is_refused_for_what_no_event_can_change_is_told_at_once() -> None:
    async def main() -> None:
        async with bench() as it:
            await it.open_calls(1)
            ended, refused = it.submit(leg_ended(1, END_MS), request(2, "mallory"))
            assert seconds(await refused) == 0
            assert not ended.done()

    asyncio.run(main())


def test_of_one_client_those_who_came_first_get_the_money() -> None:
    """Asked alone, the second request of a client would leave the first one nothing."""

    async def main() -> None:
        async with bench(FULL_CALL * 2) as it:
            await it.open_calls(1)
            outcomes = await asyncio.gather(*it.submit(leg_ended(1, END_MS), *map(request, (2, 3))))
            assert [seconds(outcome) for outcome in outcomes[1:]] == [
                LONGEST_SECONDS,
                LONGEST_SECONDS - 5,
            ]

    asyncio.run(main())


def test_nothing_but_a_request_goes_ahead() -> None:
    """A report on a call that its listener heard answered is for the listener to end."""

    async def main() -> None:
        async with bench() as it:
            await it.batcher.submit(request(1))
            events = it.submit(answered(1), hangup(1), request(2), leg_ended(1, END_MS))
            await asyncio.gather(*events[:3])
            assert it.log.done == [1, 4]
            assert it.books.cdrs[call_id(1)].answered_at_ms is not None

    asyncio.run(main())


def test_nothing_goes_ahead_of_a_request() -> None:
    """A caller hangs up while the request is under way: the call that it becomes is released."""

    async def main() -> None:
        async with bench(event_delay=0.0) as it:
            it.books.gate = Gate()
            asked = it.batcher.submit(request(1))
            await it.books.gate.entered.wait()
            ended = it.batcher.submit(caller_ended(1))
            for _ in range(20):
                await asyncio.sleep(0)
            assert it.books.begun == 1
            it.books.gate.opened.set()
            assert seconds(await asked) == LONGEST_SECONDS
            await ended
            assert it.books.cdrs[call_id(1)].status == "failed"

    asyncio.run(main())


FAULTS = [None, Fault.TRANSIENT, Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT]


@pytest.mark.parametrize("faults", list(product(FAULTS, repeat=2)))
def test_whatever_breaks_meanwhile_all_is_booked_once(faults: Sequence[Fault | None]) -> None:
    async def main() -> None:
        async with bench(FULL_CALL * 2) as it:
            await it.open_calls(1)
            it.books.faults.extend(faults)
            asked = it.submit(leg_ended(1, END_MS), request(2), request(3), request(4))
            outcomes = await asyncio.gather(*asked)
            booked = [it.books.cdrs[call_id(number)] for number in (2, 3, 4)]
            for outcome, cdr in zip(outcomes[1:], booked, strict=True):
                assert isinstance(outcome, Decision)
                assert (outcome.seconds, outcome.reserved) == (cdr.seconds, cdr.reserved)
            assert [cdr.seconds for cdr in booked] == [LONGEST_SECONDS, LONGEST_SECONDS - 5, 0]

    asyncio.run(main())


KINDS: dict[str, Callable[[int], Operation]] = {
    "request": request,
    "answer": answered,
    "end": lambda number: leg_ended(number, END_MS),
    "report": hangup,
}


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Requests, and events of calls that may have been asked for before."""
    history: list[Operation] = []
    for number in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        history.append(KINDS[kind](number if kind == "request" else draw(st.integers(0, number))))
    return history


@given(histories())
def test_nobody_gets_less_than_in_the_order_in_which_they_came(history: list[Operation]) -> None:
    """The same operations, with events that wait and with none that does."""

    async def play(event_delay: float) -> list[int]:
        async with bench(FULL_CALL * 3, event_delay) as it:
            futures = []
            for operation in history:
                futures += it.submit(operation)
                await asyncio.sleep(0)
        outcomes = [future.result() for future in futures]
        return [outcome.seconds for outcome in outcomes if isinstance(outcome, Decision)]

    assert asyncio.run(play(HOUR)) == asyncio.run(play(0.0))
