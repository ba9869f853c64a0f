"""What the dialplan is answered, what Asterisk's events do, and both when the database is slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from astcredit.domain.calls import Authorization, AuthStatus, HangupReport, Origin
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.settlement import Settlement
from astcredit.service import controller as controller_module
from astcredit.service.batcher import Batcher
from astcredit.service.controller import UNLIMITED, AnswerPolicy, Controller
from astcredit.service.errors import TransientError
from astcredit.service.ledger import Ledger
from astcredit.service.operations import Operation, Outcome, Undelivered
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    BatchLog,
    Clock,
    FixedCatalog,
    account,
    answered,
    call_id,
    caller_ended,
    catalog_of,
    hangup,
    leg_ended,
    no_orphan,
    policy,
    postpaid,
    prepaid,
    request,
    settings,
)
from support.memory_books import CdrRow, Fault, Gate, MemoryBooks, audit
from support.plans import next_route, routed

FUNDS = 10_000_000
LONG_DEADLINE = 3_600.0
"""No test comes near it."""


class NodeLinks:
    """AMI links as a test wants them."""

    def __init__(self, configured: bool = False, up: bool = False) -> None:
        self._configured, self._up = configured, up

    def configured(self, node: str) -> bool:
        return self._configured

    def up(self, node: str) -> bool:
        return self._up


class CallLog:
    """Notes what becomes of calls."""

    def __init__(self) -> None:
        self.answers: list[AuthStatus] = []
        self.settled_calls: list[Settlement] = []

    def authorized(self, status: AuthStatus, seconds: float) -> None:
        self.answers.append(status)

    def settled(self, settlement: Settlement) -> None:
        self.settled_calls.append(settlement)


class Desk:
    """A controller with everything behind it, on books in memory."""

    def __init__(self, links: NodeLinks, deadline_seconds: float, catalog: Catalog | None) -> None:
        self.books = MemoryBooks([prepaid(1, FUNDS), postpaid(2, -5_000_000)])
        self.clock = Clock()
        self.log = CallLog()
        self.catalog = FixedCatalog(catalog)
        ledger = Ledger(self.books, self.catalog, policy(), self.clock, links=links)
        self.batcher = Batcher(
            ledger.apply,
            lambda request, decision: self.controller.orphaned(request, decision),
            BatchLog(),
            most_operations=256,
        )
        self.controller = Controller(
            self.batcher,
            self.books,
            self.catalog,
            policy(),
            AnswerPolicy(deadline_seconds, warn_seconds=60, repeat_seconds=30),
            self.clock,
            self.log,
        )

    def hold(self) -> Gate:
        self.books.gate = Gate()
        return self.books.gate

    async def drain(self) -> None:
        """Until everything that was said is in the books."""
        await self.batcher.stop(60)
        assert audit(self.books.snapshot()) == []

    def cdr(self, number: int = 1) -> CdrRow:
        return self.books.cdrs[call_id(number)]


@asynccontextmanager
async def desk(
    links: NodeLinks | None = None,
    deadline_seconds: float = LONG_DEADLINE,
    catalog: Catalog | None = None,
) -> AsyncIterator[Desk]:
    it = Desk(links or NodeLinks(), deadline_seconds, catalog)
    it.batcher.start()
    yield it
    if it.books.gate is not None:
        it.books.gate.opened.set()
    await it.drain()


def test_an_allowed_call_is_told_all_that_the_dialplan_needs() -> None:
    async def main() -> None:
        async with desk() as it:
            assert await it.controller.authorize(request(1)) == Authorization(
                status=AuthStatus.ALLOWED,
                reason="",
                call_id=call_id(1),
                seconds=3_600,
                options="L(3600000:60000:30000)",
                dial="",
                callerid="100",
                rate=60_000,
                reserved=3_600_000,
                available=FUNDS - 3_600_000,
                cause=0,
                number="442071234567",
                payer="alice",
            )
            assert it.cdr().status == "open"
            assert it.log.answers == [AuthStatus.ALLOWED]

    asyncio.run(main())


def test_a_refused_call_gets_no_time_and_a_cause() -> None:
    async def main() -> None:
        async with desk() as it:
            answers = [await it.controller.authorize(request(n)) for n in range(1, 5)]
            refused = answers[-1]
            assert [a.seconds for a in answers] == [3_600, 3_600, 2_800, 0]
            assert (refused.status, refused.options, refused.cause) == ("NOCREDIT", "", 21)
            assert (refused.reserved, refused.available, refused.rate) == (0, 0, 60_000)
            assert "does not pay" in refused.reason

    asyncio.run(main())


def test_a_client_without_limit_has_a_number_available() -> None:
    async def main() -> None:
        async with desk() as it:
            answer = await it.controller.authorize(request(1, "bob"))
            assert (answer.seconds, answer.available) == (LONGEST_SECONDS, UNLIMITED)

    asyncio.run(main())


def test_no_answer_before_the_commit() -> None:
    async def main() -> None:
        async with desk() as it:
            gate = it.hold()
            asked = asyncio.create_task(it.controller.authorize(request(1)))
            await gate.entered.wait()
            await asyncio.sleep(0)
            assert not asked.done()
            gate.opened.set()
            assert (await asked).allowed

    asyncio.run(main())


@pytest.mark.parametrize(
    ("dialled", "status", "seconds", "cause"),
    [("442071234567", "ERROR", 0, 38), (EMERGENCY, "ALLOWED", LONGEST_SECONDS, 0)],
)
def test_a_silent_database_refuses_in_time_and_lets_emergency_calls_pass(
    dialled: str, status: str, seconds: int, cause: int
) -> None:
    async def main() -> None:
        async with desk(deadline_seconds=0) as it:
            it.hold()
            answer = await it.controller.authorize(request(1, dialled=dialled))
            assert (answer.status, answer.seconds, answer.cause) == (status, seconds, cause)
            assert bool(answer.options) == answer.allowed
            assert it.log.answers == [AuthStatus(status)]

    asyncio.run(main())


def test_a_fault_of_the_program_refuses_the_call_and_lets_emergency_calls_pass() -> None:
    async def main() -> None:
        async with desk() as it:
            for dialled, status in (("442071234567", "ERROR"), (EMERGENCY, "ALLOWED")):
                it.books.faults.append(Fault.BROKEN)
                answer = await it.controller.authorize(request(1, dialled=dialled))
                assert answer.status == status
            it.books.poison = {call_id(2)}
            assert (await it.controller.authorize(request(2))).status == "ERROR"
            assert it.books.calls == {}

    asyncio.run(main())


def test_a_call_that_was_committed_after_its_asker_left_is_given_back() -> None:
    async def main() -> None:
        async with desk() as it:
            gate = it.hold()
            asked = asyncio.create_task(it.controller.authorize(request(1)))
            await gate.entered.wait()
            asked.cancel()
            gate.opened.set()
            await it.drain()
            assert (it.cdr().status, it.cdr().settled_by) == ("failed", "undelivered")
            assert it.books.clients[1].reserved == 0

    asyncio.run(main())


class CommitsAtTheDeadline(Batcher):
    """Answers at the very moment at which the deadline is over, before the asker can run."""

    def __init__(self) -> None:
        super().__init__(self._never, no_orphan, BatchLog(), most_operations=1)
        self.submitted: list[Operation] = []

    async def _never(self, *_: object) -> None:
        raise AssertionError

    def submit(self, operation: Operation) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self.submitted.append(operation)
        if len(self.submitted) == 1:
            decision = Decision(AuthStatus.ALLOWED, "", None, prepaid(1), seconds=60, reserved=1)
            loop.call_soon(future.set_result, decision)
        return future


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_an_answer_that_comes_with_the_deadline_is_given_or_given_back(how: str) -> None:
    """Committed, but the asker is told ERROR or is gone: money must not stay held for an hour."""

    async def main() -> None:
        batcher = CommitsAtTheDeadline()
        books = MemoryBooks([prepaid(1)])
        answers = AnswerPolicy(0 if how == "deadline" else LONG_DEADLINE, 0, 0)
        it = Controller(batcher, books, FixedCatalog(), policy(), answers, Clock(), CallLog())
        asked = asyncio.create_task(it.authorize(request(1)))
        if how == "cancelled":
            await asyncio.sleep(0)  # the request is submitted; its answer is the next callback
            asyncio.get_running_loop().call_soon(asked.cancel)
        (answer,) = await asyncio.gather(asked, return_exceptions=True)
        allowed = isinstance(answer, Authorization) and answer.allowed
        given_back = any(isinstance(o, Undelivered) for o in batcher.submitted)
        assert allowed or given_back

    asyncio.run(main())


def test_an_answer_that_could_not_be_delivered_is_given_back() -> None:
    async def main() -> None:
        async with desk() as it:
            await it.controller.authorize(request(1))
            it.controller.abandon(call_id(1))
            await it.drain()
            assert (it.cdr().status, it.books.clients[1].reserved) == ("failed", 0)

    asyncio.run(main())


def test_events_of_asterisk_are_taken_at_once_and_in_order() -> None:
    async def main() -> None:
        async with desk() as it:
            await it.controller.authorize(request(1))
            gate = it.hold()
            it.controller.leg_answered(answered(1))
            await gate.entered.wait()
            it.controller.channel_ended(caller_ended(1))
            it.controller.channel_ended(leg_ended(1, NOW_MS + 7_000))
            gate.opened.set()
            await it.drain()
            assert (it.cdr().price, it.cdr().settled_by) == (7_000, "ami")
            assert [s.price for s in it.log.settled_calls] == [7_000]

    asyncio.run(main())


REPORT = hangup(talk_ms=5_000)
TRANSFERRED = hangup(talk_ms=5_000, transfer="PJSIP/bob-1")


@pytest.mark.parametrize(
    ("links", "report", "status"),
    [
        (NodeLinks(configured=False), REPORT, "completed"),
        (NodeLinks(configured=False), TRANSFERRED, "completed"),
        (NodeLinks(configured=True, up=True), REPORT, "completed"),  # its answer was missed
        (NodeLinks(configured=True, up=True), hangup(dialstatus=""), "open"),  # not known
        (NodeLinks(configured=True, up=False), REPORT, "completed"),
        # The leg is still up; now it is known when it was answered.
        (NodeLinks(configured=True, up=True), TRANSFERRED, "answered"),
        (NodeLinks(configured=True, up=False), TRANSFERRED, "answered"),
    ],
)
def test_the_hangup_report_settles_where_no_link_will(
    links: NodeLinks, report: HangupReport, status: str
) -> None:
    async def main() -> None:
        async with desk(links) as it:
            await it.controller.authorize(request(1))
            await it.controller.report_hangup(report)
            assert it.cdr().status == status

    asyncio.run(main())


def test_a_leg_that_the_listener_heard_is_the_listeners() -> None:
    """It may still be up, whatever the calling channel reports."""

    async def main() -> None:
        async with desk(NodeLinks(configured=True, up=True)) as it:
            await it.controller.authorize(request(1))
            await it.batcher.submit(answered(1))
            await it.controller.report_hangup(REPORT)
            assert it.cdr().status == "answered"

    asyncio.run(main())


def test_a_busy_callee_costs_nothing_on_a_channel_that_was_answered_before() -> None:
    """CDR(billsec) counts the prompts that the caller heard before Dial."""

    async def main() -> None:
        async with desk(NodeLinks(configured=False)) as it:
            await it.controller.authorize(request(1))
            await it.controller.report_hangup(hangup(dialstatus="BUSY", talk_ms=30_000))
            assert (it.cdr().status, it.cdr().price) == ("failed", 0)

    asyncio.run(main())


@pytest.mark.parametrize("dialstatus", ["BUSY", "NOANSWER", "CANCEL", "CONGESTION", "CHANUNAVAIL"])
@pytest.mark.parametrize("transfer", ["", "PJSIP/bob-1"])
def test_a_failed_attempt_is_released_by_its_report_beside_a_link(
    dialstatus: str, transfer: str
) -> None:
    """A caller who goes on to voicemail holds no money; an answered leg is not touched."""

    async def main() -> None:
        async with desk(NodeLinks(configured=True, up=True)) as it:
            for number in (1, 2):
                await it.controller.authorize(request(number))
            await it.batcher.submit(answered(2))
            for number in (1, 2):
                report = hangup(number, dialstatus=dialstatus, transfer=transfer)
                await it.controller.report_hangup(report)
            assert (it.cdr(1).status, it.cdr(2).status) == ("failed", "answered")

    asyncio.run(main())


def test_a_hangup_report_waits_no_longer_than_the_deadline_and_is_booked_all_the_same() -> None:
    async def main() -> None:
        async with desk(deadline_seconds=0) as it:
            await it.batcher.submit(request(1))
            gate = it.hold()
            await it.controller.report_hangup(REPORT)
            assert it.cdr().status == "open"
            gate.opened.set()
            await it.drain()
            assert it.cdr().status == "completed"

    asyncio.run(main())


def test_a_sweep_closes_what_is_past_its_time_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller_module, "EXPIRED_AT_ONCE", 2)

    async def main() -> None:
        async with desk() as it:
            for number in range(1, 4):
                await it.controller.authorize(request(number, "bob"))
            assert await it.controller.expire() == 0
            it.clock.now_ms = max(call.expires_at_ms for call in it.books.calls.values())
            assert await it.controller.expire() == 2
            await it.batcher.submit(answered(9))  # after the two
            assert [it.cdr(n).status for n in (1, 2, 3)] == ["failed", "failed", "open"]
            assert await it.controller.expire() == 1
            await it.drain()
            assert it.cdr(3).estimated

    asyncio.run(main())


def named(accountcode: str) -> Origin:
    return Origin(NODE, accountcode=accountcode)


def test_funds() -> None:
    async def main() -> None:
        async with desk() as it:
            await it.controller.authorize(request(1))
            alan = await it.controller.funds(named("alan"))  # the same client's other account
            bob = await it.controller.funds(named("bob"))
            assert alan is not None
            assert bob is not None
            assert (alan.client, alan.currency, alan.balance) == ("client1", "EUR", FUNDS)
            assert alan.available == FUNDS - 3_600_000
            assert (bob.balance, bob.available) == (-5_000_000, UNLIMITED)
            assert await it.controller.funds(named("mallory")) is None
            found = await it.controller.funds(replace(named("alan"), account="bob"))
            assert found == bob

    asyncio.run(main())


class SilentCatalog(FixedCatalog):
    """A catalog that never comes."""

    async def at_least(self, version: int) -> Catalog:
        await asyncio.Event().wait()
        raise AssertionError


def test_funds_of_a_silent_database_are_not_waited_for() -> None:
    async def main() -> None:
        books, catalog = MemoryBooks([prepaid(1)]), SilentCatalog()
        ledger = Ledger(books, catalog, policy(), Clock())
        batcher = Batcher(ledger.apply, no_orphan, BatchLog(), most_operations=1)
        answers = AnswerPolicy(0, 0, 0)
        it = Controller(batcher, books, catalog, policy(), answers, Clock(), CallLog())
        with pytest.raises(TransientError, match="did not answer in time"):
            await it.funds(named("alice"))

    asyncio.run(main())


def test_there_is_no_next_route_without_a_plan() -> None:
    async def main() -> None:
        async with desk() as it:
            for number in (1, 2):
                answer = await it.controller.next_route(next_route(number))
                assert (answer.status, answer.seconds, answer.cause) == ("NOROUTE", 0, 3)
                assert (answer.call_id, answer.dial) == (call_id(number), "")
                await it.controller.authorize(request(2))  # with a reservation and without
            assert answer.reason == "the client has no routing plan"

    asyncio.run(main())


def test_a_routed_call_is_told_its_dial_string_and_the_next_one() -> None:
    """The same reservation and the same seconds; what is asked once more is once more the next."""

    async def main() -> None:
        async with desk(catalog=routed()) as it:
            first = await it.controller.authorize(request(1))
            assert (first.status, first.dial) == ("ALLOWED", "PJSIP/442071234567@c1")
            second = await it.controller.next_route(next_route(1, "ask-1"))
            assert second == replace(first, dial="PJSIP/442071234567@c2", number="", payer="")
            third = await it.controller.next_route(next_route(1, "ask-2"))
            assert third.dial == "PJSIP/442071234567@c3"
            last = await it.controller.next_route(next_route(1, "ask-3"))
            assert (last.status, last.dial, last.options) == ("NOROUTE", "", "")
            assert last.reason == "routing plan 'plan1' has no further route"
            assert it.books.clients[1].reserved == first.reserved

    asyncio.run(main())


def test_a_next_route_that_does_not_come_in_time_is_an_error() -> None:
    """The dialplan has its reservation still: `h` or the listener releases it."""

    async def main() -> None:
        async with desk(catalog=routed(), deadline_seconds=0) as it:
            await it.batcher.submit(request(1))
            it.hold()
            answer = await it.controller.next_route(next_route(1))
            assert (answer.status, answer.cause, answer.dial) == ("ERROR", 38, "")

    asyncio.run(main())


def test_a_next_route_that_the_database_refuses_is_an_error() -> None:
    async def main() -> None:
        async with desk(catalog=routed()) as it:
            await it.controller.authorize(request(1))
            it.books.poison = {call_id(1)}
            assert (await it.controller.next_route(next_route(1))).status == "ERROR"
            assert it.books.calls[call_id(1)].occupancy.route_id == 21

    asyncio.run(main())


@pytest.mark.parametrize(
    ("tech_prefix", "dialled", "number"),
    [
        ("", "442071234567", "442071234567"),
        ("", "+44 20 7123 4567", "+44 20 7123 4567"),
        ("77", "77442071234567", "442071234567"),
        ("77", "77+442071234567", "+442071234567"),
        ("77", "7700442071234567", "00442071234567"),
        ("77", "77112", "112"),
        ("1", "112", "112"),  # a tech prefix does not eat the beginning of an emergency number
        ("", "+112", "112"),
        ("77", "112", "112"),  # by nobody's account
    ],
)
def test_the_number_for_the_dialplans_own_trunk_is_without_the_tech_prefix(
    tech_prefix: str, dialled: str, number: str
) -> None:
    async def main() -> None:
        gate = replace(account("alice"), tech_prefix=tech_prefix)
        async with desk(catalog=catalog_of([settings(1)], [gate])) as it:
            answer = await it.controller.authorize(request(1, dialled=dialled))
            assert (answer.status, answer.number) == ("ALLOWED", number)

    asyncio.run(main())


def test_logs_are_events_and_never_show_a_callers_text_as_a_format(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "astcredit")

    async def main() -> None:
        async with desk() as it:
            it.books.faults.append(Fault.BROKEN)
            await it.controller.authorize(request(1, "%s%n", "{0}%d"))
            await it.controller.authorize(request(2))
            it.controller.channel_ended(caller_ended(2))

    asyncio.run(main())
    actions = {getattr(record, "action", "") for record in caplog.records}
    assert actions >= {"batch_failed", "operation_refused", "authorize_error", "released"}
    assert all(record.args in ((), None) for record in caplog.records if record.name != "asyncio")
