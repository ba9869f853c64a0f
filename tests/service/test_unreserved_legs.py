"""A leg that nobody pays for must not talk on, and one that rightly has no reservation must."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from astcredit.service.operations import Expire, Gone, NodeHeard, Operation, Undelivered
from support.core import (
    EMERGENCY,
    NODE,
    answered,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    request,
)
from support.recovery_stage import ASKED_MS, Stage, stage

CALL = call_id(1)
LATER_MS = ASKED_MS + 10 * 3_600_000
LEG = (NODE, "leg-1")


async def answer(it: Stage) -> None:
    """Its leg is answered, and all that follows is done."""
    it.controller.leg_answered(answered(1, ASKED_MS))
    await done(it)


async def done(it: Stage) -> None:
    """All that was said is booked, and what follows from it is done."""
    await it.have(NodeHeard("elsewhere", 0))
    while it.controller._background:
        await asyncio.gather(*it.controller._background)


@pytest.mark.parametrize(
    ("over", "is_ended"),
    [
        (Expire(CALL, LATER_MS), True),
        (Gone(CALL, ASKED_MS), True),
        (Undelivered(CALL, ASKED_MS), True),
        (caller_ended(1), False),
        (hangup(1, dialstatus="BUSY"), False),
    ],
    ids=["expired", "gone", "undelivered", "its caller ended", "reported as failed"],
)
def test_a_leg_that_is_answered_for_a_call_that_is_over(over: Operation, is_ended: bool) -> None:
    """Where Asterisk or the dialplan said that the call is over, they do as they please."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            it.clock.now_ms = LATER_MS
            await it.have(over)
            assert it.cdr().status == "failed"
            await answer(it)
            assert it.to_end == ([LEG] if is_ended else [])

    asyncio.run(main())


def test_a_leg_after_a_refusal_or_without_a_record_is_left_alone() -> None:
    async def main() -> None:
        async with stage() as it:
            await answer(it)
            await it.have(request(1, "nobody"))
            assert it.cdr().status == "denied"
            await answer(it)
            assert it.to_end == []

    asyncio.run(main())


def test_an_emergency_is_never_ended() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            await it.have(Undelivered(CALL, ASKED_MS))
            it.books.cdrs[CALL] = replace(it.cdr(), number=EMERGENCY)
            await answer(it)
            assert it.to_end == []

    asyncio.run(main())


def test_the_leg_of_a_call_past_its_last_second_is_ended() -> None:
    """And of no other call that was settled."""

    async def main() -> None:
        async with stage() as it:
            for number in (1, 2, 3):
                await it.answered_call(number)
            await it.have(leg_ended(3))
            it.clock.now_ms = LATER_MS
            assert await it.controller.expire() == 2
            await done(it)
            assert await it.controller.expire() == 0
            assert sorted(it.to_end) == [LEG, (NODE, "leg-2")]
            assert it.cdr(3).settled_by == "ami"

    asyncio.run(main())
