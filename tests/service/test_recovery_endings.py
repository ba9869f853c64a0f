"""What a call costs whose end nobody heard, and that an end that somebody heard comes first."""

from __future__ import annotations

import asyncio

import pytest

from astcredit.service import recovery as recovery_module
from astcredit.service.operations import Expire, NodeHeard
from astcredit.service.recovery import Recovered
from support.core import (
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    call_id,
    hangup,
    leg_ended,
)
from support.memory_books import Fault
from support.peers import FakePeer, leg
from support.recovery_stage import (
    ADOPTED,
    ASKED_MS,
    HEARD_MS,
    IN_BRIDGE,
    LEFT_SECONDS,
    stage,
)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "GONE_AFTER_SECONDS", 0)


def test_a_call_that_is_gone_is_charged_until_it_was_last_known_to_be_up() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.answered_call()
            await it.recover(FakePeer())
            cdr = it.cdr()
            assert (cdr.talk_ms, cdr.price, cdr.estimated) == (40_000, 40_000, True)
            assert (cdr.settled_by, cdr.ended_at_ms) == ("recovery", HEARD_MS)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("heard_ms", "answered_ms", "talk_ms"),
    [
        (None, NOW_MS, 0),
        (NOW_MS - 5_000, NOW_MS, 0),
        (ASKED_MS + 5_000, NOW_MS, 60_000),
        (ASKED_MS, ASKED_MS - 2 * LONGEST_SECONDS * 1000, LONGEST_SECONDS * 1000),
        (ASKED_MS, ASKED_MS + 700, 0),
    ],
    ids=["never heard", "not since its answer", "at most now", "at most its limit", "just now"],
)
def test_the_estimate_has_bounds(heard_ms: int | None, answered_ms: int, talk_ms: int) -> None:
    async def main() -> None:
        async with stage(heard_ms) as it:
            await it.answered_call(at_ms=answered_ms)
            await it.recover(FakePeer())
            assert (it.cdr().talk_ms, it.cdr().status) == (talk_ms, "completed")
            assert it.cdr().ended_at_ms == answered_ms + talk_ms

    asyncio.run(main())


def test_an_end_that_was_heard_before_the_list_comes_first() -> None:
    """It waits for the database, and Asterisk has no such channel any more."""

    async def main() -> None:
        async with stage() as it:
            await it.answered_call()
            it.books.faults.extend([Fault.TRANSIENT] * 3)
            it.controller.channel_ended(leg_ended(1, NOW_MS + 55_000))
            await it.recover(FakePeer())
            assert (it.cdr().talk_ms, it.cdr().settled_by) == (55_000, "ami")

    asyncio.run(main())


@pytest.mark.parametrize("who", ["this link", "the dialplan", "another controller"])
def test_an_end_that_is_heard_after_the_list_is_exact(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call ends while the list is made: what is told a moment later is waited for."""

    async def main() -> None:
        async with stage() as it:
            await it.answered_call()
            pauses = []

            async def meanwhile(seconds: float) -> None:
                pauses.append(seconds)
                if who == "this link":
                    it.controller.channel_ended(leg_ended(1, NOW_MS + 59_950))
                elif who == "the dialplan":
                    await it.controller.report_hangup(hangup(1, talk_ms=59_950))
                else:
                    await it.have(leg_ended(1, NOW_MS + 59_950))

            monkeypatch.setattr(recovery_module, "sleep", meanwhile)
            await it.recover(FakePeer())
            assert pauses == [recovery_module.GONE_AFTER_SECONDS]
            assert (it.cdr().talk_ms, it.cdr().estimated) == (59_950, False)

    asyncio.run(main())


def test_nobody_waits_where_no_call_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError

    async def main() -> None:
        async with stage() as it:
            monkeypatch.setattr(recovery_module, "sleep", never)
            assert await it.recover(FakePeer()) == Recovered()
            await it.answered_call()
            assert await it.recover(FakePeer(IN_BRIDGE)) == ADOPTED

    asyncio.run(main())


def test_what_was_heard_is_noted_after_the_calls_of_the_gap() -> None:
    """Else they would be charged for the whole gap. The database fails in between."""

    async def main() -> None:
        async with stage() as it:
            for number in range(1, 6):
                await it.answered_call(number)
            it.books.faults.extend([Fault.COMMITTED_UNHEARD, Fault.LOST_AT_COMMIT, Fault.TRANSIENT])
            await it.recover(FakePeer())
            assert {it.cdr(number).talk_ms for number in range(1, 6)} == {40_000}
            assert it.books.heard[NODE] == ASKED_MS

    asyncio.run(main())


def test_a_gap_after_a_recovery_is_counted_from_its_end() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.answered_call()
            await it.recover(FakePeer([leg()]))
            await it.recover(FakePeer(clock_ms=ASKED_MS + 90_000))
            assert it.cdr().talk_ms == 60_000

    asyncio.run(main())


@pytest.mark.parametrize("minutes", [-5, 5])
def test_the_clock_of_this_machine_does_not_matter(minutes: int) -> None:
    """Calls are answered and end by Asterisk's clock."""

    async def main() -> None:
        async with stage() as it:
            it.clock.now_ms += minutes * 60_000
            for number in (1, 2):
                await it.answered_call(number)
            peer = FakePeer([leg(1)])
            await it.recover(peer)
            assert peer.limits == {"leg-1": LEFT_SECONDS}
            assert it.cdr(2).talk_ms == 40_000
            assert it.books.heard[NODE] == ASKED_MS

    asyncio.run(main())


REPORTED = hangup(1, NOW_MS + 52_000, talk_ms=52_000)


@pytest.mark.parametrize(
    ("heard_ms", "talk_ms", "by"),
    [(HEARD_MS, 52_000, "hangup"), (NOW_MS + 58_000, 58_000, "recovery")],
    ids=["the report tells more", "its leg lived on"],
)
def test_a_report_that_was_left_to_a_deaf_listener_is_not_forgotten(
    heard_ms: int, talk_ms: int, by: str
) -> None:
    """The link was silent and not yet known to be. An attended transfer ends the calling channel
    before its leg: then what was heard of the leg counts."""

    async def main() -> None:
        async with stage(heard_ms) as it:
            await it.answered_call()
            await it.controller.report_hangup(REPORTED)
            assert it.cdr().status == "answered"
            await it.recover(FakePeer())
            cdr = it.cdr()
            assert (cdr.talk_ms, cdr.settled_by) == (talk_ms, by)
            assert cdr.estimated == (by == "recovery")

    asyncio.run(main())


def test_reports_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with stage() as it:
            for number in (1, 2, 3):
                await it.answered_call(number)
                await it.controller.report_hangup(hangup(number, talk_ms=9_000))
            assert list(it.controller._reports) == [call_id(2), call_id(3)]
            await it.have(leg_ended(2))
            it.controller.channel_ended(leg_ended(3))
            await it.have(NodeHeard("elsewhere", 0))
            assert list(it.controller._reports) == [call_id(2)]

    monkeypatch.setattr("astcredit.service.controller.MOST_REPORTS", 2)
    asyncio.run(main())


@pytest.mark.parametrize(
    ("heard_ms", "seconds"),
    [(None, LONGEST_SECONDS), (HEARD_MS, 40), (NOW_MS + 5 * 3_600_000, LONGEST_SECONDS)],
    ids=["nobody listens there", "listened to for 40 s", "listened to all the time"],
)
def test_a_call_past_its_last_second(heard_ms: int | None, seconds: int) -> None:
    """It is charged for as long as it was known to be up, not for all that it might have lasted."""

    async def main() -> None:
        async with stage(heard_ms) as it:
            await it.answered_call()
            it.clock.now_ms = NOW_MS + 6 * 3_600_000
            await it.have(Expire(call_id(1), it.clock.now_ms))
            cdr = it.cdr()
            assert (cdr.settled_by, cdr.billsec, cdr.estimated) == ("expiry", seconds, True)

    asyncio.run(main())
