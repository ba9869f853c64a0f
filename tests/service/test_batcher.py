"""Batches: what goes together, what is tried again, what fails alone, and what is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import product

import pytest

from astcredit.domain.calls import CallRequest
from astcredit.domain.decisions import Decision
from astcredit.service import batcher as batcher_module
from astcredit.service.batcher import Batcher
from astcredit.service.errors import PoisonError, StorageError
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Changed, Outcome
from support.core import (
    LONGEST_SECONDS,
    NOW_MS,
    BatchLog,
    Clock,
    FixedCatalog,
    answered,
    call_id,
    leg_ended,
    no_orphan,
    policy,
    prepaid,
    request,
)
from support.memory_books import Fault, Gate, MemoryBooks, audit

FULL_CALL = LONGEST_SECONDS * 1_000
"""What the longest call of the small world holds."""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once: a test does not wait for the machine."""
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.0)


class Orphans:
    """Notes what is given back."""

    def __init__(self) -> None:
        self.given_back: list[str] = []

    def __call__(self, request: CallRequest, decision: Decision) -> None:
        self.given_back.append(request.call_id)


class Bench:
    """A batcher on books in memory."""

    def __init__(self, books: MemoryBooks, most_operations: int, orphans: Orphans | None) -> None:
        self.books = books
        self.clock = Clock()
        self.log = BatchLog()
        ledger = Ledger(books, FixedCatalog(), policy(), self.clock)
        self.batcher = Batcher(
            ledger.apply, orphans or no_orphan, self.log, most_operations=most_operations
        )

    def ask(self, numbers: Iterable[int]) -> list[asyncio.Future[Outcome]]:
        return [self.batcher.submit(request(number)) for number in numbers]

    def hold(self) -> Gate:
        """From now on transactions stop at COMMIT."""
        self.books.gate = Gate()
        return self.books.gate

    def let_go(self) -> None:
        assert self.books.gate is not None
        self.books.gate.opened.set()

    async def open_call(self, number: int) -> None:
        await self.batcher.submit(request(number))
        await self.batcher.submit(answered(number))


@asynccontextmanager
async def bench(
    calls_paid: int = 1_000, *, most_operations: int = 256, orphans: Orphans | None = None
) -> AsyncIterator[Bench]:
    """A running batcher for a client with money for so many calls; the books are right after."""
    books = MemoryBooks([prepaid(1, calls_paid * FULL_CALL), prepaid(2)])
    it = Bench(books, most_operations, orphans)
    it.batcher.start()
    yield it
    await it.batcher.stop(60)
    assert audit(books.snapshot()) == []


def decisions(outcomes: Iterable[object]) -> list[str]:
    """Statuses, and the names of exceptions."""
    return [o.status.value if isinstance(o, Decision) else type(o).__name__ for o in outcomes]


def test_one_at_a_time_each_is_a_batch_of_its_own() -> None:
    async def main() -> None:
        async with bench() as it:
            for number in range(3):
                await it.batcher.submit(request(number))
            assert it.log.done == [1, 1, 1]

    asyncio.run(main())


def test_while_one_is_under_way_the_others_wait_and_go_together() -> None:
    async def main() -> None:
        async with bench() as it:
            gate = it.hold()
            first = it.ask([0])
            await gate.entered.wait()
            others = it.ask(range(1, 6))
            await asyncio.sleep(0)
            assert it.books.begun == 1
            assert not any(future.done() for future in first)  # answers come after commit
            it.let_go()
            await asyncio.gather(*first, *others)
            assert it.log.done == [1, 5]

    asyncio.run(main())


def test_a_batch_has_its_limit() -> None:
    async def main() -> None:
        async with bench(most_operations=2) as it:
            await asyncio.gather(*it.ask(range(5)))
            assert it.log.done == [2, 2, 1]

    asyncio.run(main())


def test_those_who_came_first_get_the_money() -> None:
    async def main() -> None:
        async with bench(calls_paid=3, most_operations=2) as it:
            outcomes = await asyncio.gather(*it.ask(range(5)))
            assert decisions(outcomes) == ["ALLOWED"] * 3 + ["NOCREDIT"] * 2

    asyncio.run(main())


def test_a_deadlock_is_tried_again() -> None:
    async def main() -> None:
        async with bench() as it:
            it.books.faults.extend([Fault.TRANSIENT] * 3)
            outcomes = await asyncio.gather(*it.ask(range(4)))
            assert decisions(outcomes) == ["ALLOWED"] * 4
            assert (it.log.done, len(it.log.failed)) == ([4], 3)

    asyncio.run(main())


@pytest.mark.parametrize("poisoned", [[0], [3], [7], [0, 7], [3, 4], [1, 2, 6], list(range(8))])
def test_only_what_the_database_refuses_fails_and_the_order_is_kept(poisoned: list[int]) -> None:
    """There is money for four: the first four that are not refused get it."""

    async def main() -> None:
        async with bench(calls_paid=4) as it:
            it.books.poison = {call_id(number) for number in poisoned}
            outcomes = await asyncio.gather(*it.ask(range(8)), return_exceptions=True)
            expected, money = [], 4
            for number in range(8):
                if number in poisoned:
                    expected.append("PoisonError")
                else:
                    expected.append("ALLOWED" if money > 0 else "NOCREDIT")
                    money -= 1
            # What is asked when there is no money left is written too, and refused as well.
            assert decisions(outcomes) == expected

    asyncio.run(main())


def test_an_ending_beside_poison_is_settled() -> None:
    async def main() -> None:
        async with bench() as it:
            await it.open_call(1)
            it.books.poison = {call_id(2)}
            ending = it.batcher.submit(leg_ended(1, NOW_MS + 5_000))
            bad = it.ask([2])[0]
            outcome = await ending
            assert isinstance(outcome, Changed)
            assert outcome.settled[0].price == 5_000
            with pytest.raises(PoisonError):
                await bad

    asyncio.run(main())


def test_a_fault_of_the_program_that_passes_costs_nobody_the_answer() -> None:
    async def main() -> None:
        async with bench() as it:
            it.books.faults.append(Fault.BROKEN)
            outcomes = await asyncio.gather(*it.ask(range(5)))
            assert decisions(outcomes) == ["ALLOWED"] * 5

    asyncio.run(main())


def test_a_fault_that_stays_fails_the_one_and_the_batcher_lives_on() -> None:
    async def main() -> None:
        async with bench() as it:
            it.books.faults.append(Fault.BROKEN)
            with pytest.raises(RuntimeError, match="a fault of the program"):
                await it.ask([1])[0]
            assert decisions([await it.ask([2])[0]]) == ["ALLOWED"]

    asyncio.run(main())


class NoRow(MemoryBooks):
    """Books whose tables are being restored at the first two looks."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:  # type: ignore[override]
        if self.begun < 2:
            self.begun += 1
            raise StorageError("astcatalog has no row")
        async with super().transaction() as transaction:
            yield transaction


def test_a_database_without_its_rows_is_not_taken_for_poison() -> None:
    async def main() -> None:
        it = Bench(NoRow([prepaid(1)]), 256, None)
        it.batcher.start()
        assert decisions(await asyncio.gather(*it.ask([1, 2]))) == ["ALLOWED", "NOCREDIT"]
        await it.batcher.stop(60)

    asyncio.run(main())


UNKNOWN = [Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT, Fault.TRANSIENT]


@pytest.mark.parametrize("faults", [f for n in (1, 2, 3) for f in product(UNKNOWN, repeat=n)])
def test_whatever_became_of_a_commit_each_call_is_booked_once(faults: tuple[Fault, ...]) -> None:
    """Money for one call and a half. Each answer is what stands in the books: decided anew, a
    request that was committed would get less than its reservation."""

    async def main() -> None:
        books = MemoryBooks([prepaid(1, FULL_CALL * 3 // 2), prepaid(2)])
        it = Bench(books, 256, None)
        it.batcher.start()
        books.faults.extend(faults)
        asked = [request(1), request(2), request(3), request(4, "mallory")]
        outcomes = await asyncio.gather(*map(it.batcher.submit, asked))
        assert decisions(outcomes) == ["ALLOWED", "ALLOWED", "NOCREDIT", "NOACCOUNT"]
        for ask, outcome in zip(asked, outcomes, strict=True):
            assert isinstance(outcome, Decision)
            cdr = books.snapshot().cdr(ask.call_id)
            assert (cdr.seconds, cdr.reserved) == (outcome.seconds, outcome.reserved)
        assert [row.reserved for row in books.snapshot().reservations] == [
            FULL_CALL,
            FULL_CALL // 2,
        ]
        assert audit(books.snapshot()) == []
        await it.batcher.stop(60)

    asyncio.run(main())


@pytest.mark.parametrize("faults", [f for n in (1, 2, 3) for f in product(UNKNOWN, repeat=n)])
def test_whatever_became_of_a_commit_each_ending_is_charged_once(faults: tuple[Fault, ...]) -> None:
    async def main() -> None:
        async with bench() as it:
            await asyncio.gather(*(it.open_call(number) for number in (1, 2)))
            it.books.faults.extend(faults)
            ends = [leg_ended(n, NOW_MS + 5_000) for n in (1, 2, 1)]
            await asyncio.gather(*map(it.batcher.submit, ends))
            assert [it.books.cdrs[call_id(n)].price for n in (1, 2)] == [5_000, 5_000]
            assert it.books.clients[1].balance == 1_000 * FULL_CALL - 10_000

    asyncio.run(main())


def test_a_commit_of_which_nothing_is_known_is_asked_about_in_halves_too() -> None:
    """The lost batch is committed; then a fault splits it: none of it is booked again."""

    async def main() -> None:
        async with bench(calls_paid=2) as it:
            it.books.faults.extend([Fault.COMMITTED_UNHEARD, Fault.BROKEN])
            outcomes = await asyncio.gather(*it.ask(range(4)))
            assert decisions(outcomes) == ["ALLOWED", "ALLOWED", "NOCREDIT", "NOCREDIT"]
            assert it.log.done == [2, 2]

    asyncio.run(main())


def test_poison_in_a_batch_whose_commit_was_lost() -> None:
    async def main() -> None:
        async with bench() as it:
            it.books.faults.append(Fault.LOST_AT_COMMIT)
            waiting = it.ask(range(4))
            await it.log.first_failure.wait()
            it.books.poison = {call_id(2)}
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert decisions(outcomes) == ["ALLOWED", "ALLOWED", "PoisonError", "ALLOWED"]

    asyncio.run(main())


def test_a_request_that_nobody_waits_for_is_not_made() -> None:
    async def main() -> None:
        async with bench() as it:
            gate = it.hold()
            first = it.ask([1])
            await gate.entered.wait()
            gone, stays = it.ask([2, 3])
            gone.cancel()
            it.let_go()
            await asyncio.gather(*first, stays)
            assert set(it.books.cdrs) == {call_id(1), call_id(3)}

    asyncio.run(main())


def test_a_request_that_nobody_waits_for_is_not_tried_again() -> None:
    async def main() -> None:
        async with bench() as it:
            it.books.faults.append(Fault.TRANSIENT)
            gone, stays = it.ask([1, 2])
            await it.log.first_failure.wait()
            gone.cancel()
            await stays
            assert set(it.books.cdrs) == {call_id(2)}

    asyncio.run(main())


@pytest.mark.parametrize(
    "fault", [None, Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT], ids=["heard", "unheard", "lost"]
)
def test_what_was_committed_after_its_waiter_left_is_given_back_once(fault: Fault | None) -> None:
    orphans = Orphans()

    async def main() -> None:
        async with bench(orphans=orphans) as it:
            it.books.faults.append(fault)
            gate = it.hold()
            gone, stays = it.ask([1, 2])
            await gate.entered.wait()
            gone.cancel()
            it.let_go()
            assert decisions([await stays]) == ["ALLOWED"]
            await it.batcher.stop(60)
            booked = call_id(1) in it.books.cdrs
            assert orphans.given_back == ([call_id(1)] if booked else [])
            assert booked or fault is Fault.LOST_AT_COMMIT

    asyncio.run(main())


def test_an_ending_is_done_whether_somebody_waits_or_not() -> None:
    async def main() -> None:
        async with bench() as it:
            await it.open_call(1)
            gate = it.hold()
            it.ask([2])
            await gate.entered.wait()
            it.batcher.submit(leg_ended(1, NOW_MS + 5_000)).cancel()
            it.let_go()
            await it.batcher.stop(60)
            assert it.books.cdrs[call_id(1)].price == 5_000

    asyncio.run(main())


def test_an_ending_outlives_any_number_of_failures() -> None:
    async def main() -> None:
        async with bench() as it:
            await it.open_call(1)
            it.books.faults.extend([Fault.TRANSIENT, Fault.LOST_AT_COMMIT] * 250)
            await it.batcher.submit(leg_ended(1, NOW_MS + 5_000))
            assert it.books.cdrs[call_id(1)].price == 5_000
            assert len(it.log.failed) == 500

    asyncio.run(main())


def test_the_pauses_between_tries_grow_to_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher_module, "LONGEST_PAUSE_SECONDS", 0.5)
    pauses: list[float] = []
    really = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await really(0)

    async def main() -> None:
        async with bench() as it:
            it.books.faults.extend([Fault.TRANSIENT] * 10)
            monkeypatch.setattr(asyncio, "sleep", noted)
            await it.ask([1])[0]
            monkeypatch.setattr(asyncio, "sleep", really)

    asyncio.run(main())
    assert pauses == [0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]


def test_stopping_does_what_waits() -> None:
    async def main() -> None:
        async with bench(most_operations=2) as it:
            waiting = it.ask(range(5))
            assert await it.batcher.stop(60) == 0
            assert decisions(future.result() for future in waiting) == ["ALLOWED"] * 5

    asyncio.run(main())


def test_stopping_in_front_of_a_database_that_never_answers_counts_what_is_left() -> None:
    async def main() -> None:
        it = Bench(MemoryBooks([prepaid(1)]), 2, None)
        it.batcher.start()
        gate = it.hold()
        waiting = it.ask(range(5))
        await gate.entered.wait()
        waiting[4].cancel()  # nobody waits for it: it is not left undone
        assert await it.batcher.stop(0) == 4

    asyncio.run(main())


def test_stopping_a_batcher_that_has_nothing_to_do_or_never_began() -> None:
    async def main() -> None:
        async with bench() as it:
            assert await it.batcher.stop(60) == 0
        never = Bench(MemoryBooks([prepaid(1)]), 2, None)
        never.ask([1])
        assert await never.batcher.stop(0) == 1

    asyncio.run(main())
