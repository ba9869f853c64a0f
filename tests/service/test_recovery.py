"""What recovery concludes from a list of live channels, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from astcredit.service import recovery as recovery_module
from astcredit.service.errors import AstcreditError, TransientError
from astcredit.service.operations import NodeHeard, Operation
from astcredit.service.ports import LiveChannel, OpenOnNode
from astcredit.service.recovery import LIMIT_SLACK_SECONDS, Recovered, Recovery
from support.core import (
    LONGEST_SECONDS,
    NODE,
    NOW_MS,
    call_id,
    caller_ended,
    hangup,
    leg_ended,
    request,
)
from support.peers import FakePeer, caller, channel, leg
from support.recovery_stage import (
    ADOPTED,
    ASKED_MS,
    GONE,
    HEARD_MS,
    IN_BRIDGE,
    LEFT_SECONDS,
    UNHEARD,
    WAITING,
    stage,
)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "GONE_AFTER_SECONDS", 0)


FORWARDED = channel("local-1", "caller-1", name="Local/44@x-0000000a;1")
STRANGER = channel("other", "somebody", seconds=500)


@pytest.mark.parametrize(
    ("heard", "live", "found", "status"),
    [
        pytest.param(True, IN_BRIDGE, ADOPTED, "answered", id="answered, still talking"),
        pytest.param(True, (leg(),), ADOPTED, "answered", id="answered, transferred"),
        pytest.param(True, (caller(),), GONE, "completed", id="answered, only its caller lives"),
        pytest.param(True, (STRANGER,), GONE, "completed", id="answered, nothing lives"),
        pytest.param(False, (caller(state="Ring"),), WAITING, "open", id="open, dialling"),
        pytest.param(
            False,
            (caller(state="Ring"), leg(state="Ringing")),
            WAITING,
            "open",
            id="open, it rings",
        ),
        pytest.param(
            False,
            (caller(bridge="b"), leg(bridge="c")),
            WAITING,
            "open",
            id="open, a channel of its story talks with another",
        ),
        pytest.param(False, IN_BRIDGE, UNHEARD, "answered", id="open, talking"),
        pytest.param(
            False,
            (caller(state="Ring"), leg()),
            UNHEARD,
            "answered",
            id="open, answered in this moment and in no bridge yet",
        ),
        pytest.param(False, (leg(bridge="c"),), UNHEARD, "answered", id="open, transferred"),
        pytest.param(
            False, (FORWARDED, leg()), UNHEARD, "answered", id="open, a Local channel is no leg"
        ),
        pytest.param(False, (FORWARDED,), GONE, "failed", id="open, only a Local channel lives"),
        pytest.param(False, (STRANGER,), GONE, "failed", id="open, nothing of it lives"),
        pytest.param(False, (), GONE, "failed", id="open, Asterisk was restarted"),
    ],
)
def test_what_a_complete_list_says_of_a_call(
    heard: bool, live: Sequence[LiveChannel], found: Recovered, status: str
) -> None:
    """Every line of the table in recovery.py."""

    async def main() -> None:
        async with stage() as it:
            await (it.answered_call() if heard else it.open_call())
            peer = FakePeer(live, answers={"leg-1": NOW_MS})
            assert await it.recover(peer) == found
            assert it.cdr().status == status
            assert it.cdr().estimated == (found is GONE)
            adopted = found in (ADOPTED, UNHEARD)
            assert peer.limits == ({"leg-1": LEFT_SECONDS} if adopted else {})
            assert it.books.heard[NODE] == ASKED_MS
            if adopted:
                assert it.books.calls[call_id(1)].leg_uniqueid == "leg-1"
                await it.have(leg_ended(1, NOW_MS + 90_000))
                assert (it.cdr().talk_ms, it.cdr().estimated) == (90_000, False)

    asyncio.run(main())


def test_the_answer_of_a_leg_that_asterisk_does_not_know_any_more_is_taken_from_its_age() -> None:
    """A transferred leg has a new CDR. Its ringing is counted, but it is not free."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            await it.recover(FakePeer([leg(seconds=50)]))
            assert it.cdr().answered_at_ms == ASKED_MS - 50_000

    asyncio.run(main())


def test_an_answer_between_the_question_and_the_list_is_what_asterisk_says() -> None:
    """The instant of the question is known as well as the line is fast."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            await it.recover(FakePeer(IN_BRIDGE, answers={"leg-1": ASKED_MS + 700}))
            assert it.cdr().answered_at_ms == ASKED_MS + 700

    asyncio.run(main())


def test_a_call_past_its_end_is_ended_at_once() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.answered_call(at_ms=ASKED_MS - (LONGEST_SECONDS + 100) * 1000)
            peer = FakePeer(IN_BRIDGE)
            await it.recover(peer)
            assert peer.limits == {"leg-1": LIMIT_SLACK_SECONDS}

    asyncio.run(main())


@pytest.mark.parametrize("heard", [True, False])
def test_a_leg_that_ends_after_it_was_listed_is_not_overlooked(heard: bool) -> None:
    """Its end came before it was known whose leg it is, and nobody will tell of it again."""

    async def main() -> None:
        async with stage() as it:
            await (it.answered_call() if heard else it.open_call())
            await it.answered_call(2)
            await it.answered_call(3)
            peer = FakePeer([leg(1), leg(2)], answers={"leg-1": NOW_MS}, refused={"leg-1"})
            it.controller.channel_ended(leg_ended(1, ASKED_MS) if not heard else leg_ended(9))
            await it.recover(peer)
            assert peer.limits == {"leg-2": LEFT_SECONDS}
            assert (it.cdr(1).status, it.cdr(1).talk_ms) == ("completed", 60_000)
            assert (it.cdr(3).status, it.cdr(3).talk_ms) == ("completed", 40_000)
            assert it.cdr(2).status == "answered"

    asyncio.run(main())


@pytest.mark.parametrize("what", ["now_ms", "channels", "limit", "answered_at_ms"])
def test_a_link_that_breaks_in_the_middle_releases_nothing(what: str) -> None:
    """Call 1 lives and is adopted; 2 is over; 3 was answered unheard. The next time tells."""

    async def main() -> None:
        async with stage() as it:
            for number in (1, 2):
                await it.answered_call(number)
            await it.open_call(3)
            peer = FakePeer([leg(1), leg(3)], answers={"leg-3": NOW_MS})
            peer.faults[what] = AstcreditError("staged: the link is lost")
            with pytest.raises(AstcreditError):
                await it.recover(peer)
            await it.have(NodeHeard("elsewhere", 0))
            assert (it.cdr(1).status, it.cdr(2).status) == ("answered", "answered")
            assert it.books.heard[NODE] == HEARD_MS
            assert await it.recover(peer) == Recovered(adopted=1, answered=1, gone=1)
            assert (it.cdr(2).status, it.cdr(2).talk_ms) == ("completed", 40_000)
            assert it.cdr(3).status == "answered"

    asyncio.run(main())


def test_books_that_cannot_be_read_conclude_nothing() -> None:
    class Unreadable:
        async def open_on(self, node: str) -> Sequence[OpenOnNode]:
            raise TransientError("staged: the database is down")

    async def main() -> None:
        said: list[Operation] = []
        with pytest.raises(TransientError):
            await Recovery(Unreadable(), said.append).recover(NODE, FakePeer())
        assert said == []

    asyncio.run(main())


def test_a_call_that_was_authorized_after_the_books_were_read_is_left_alone() -> None:
    """Its channel is not in the list: the list was on its way already."""

    async def main() -> None:
        async with stage() as it:
            await it.answered_call(1)
            peer = FakePeer(on_list=lambda: it.answered_call(2, ASKED_MS))
            assert await it.recover(peer) == GONE
            assert (it.cdr(1).status, it.cdr(2).status) == ("completed", "answered")

    asyncio.run(main())


def test_calls_of_another_server_are_left_alone() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.have(request(1, node="pbx2"))
            assert await it.recover(FakePeer()) == Recovered()
            assert it.cdr().status == "open"

    asyncio.run(main())


TRANSFERRED = hangup(1, NOW_MS + 30_000, talk_ms=30_000, transfer="PJSIP/carrier-0000001a")


@pytest.mark.parametrize("heard", [True, False], ids=["answer heard", "answer missed"])
@pytest.mark.parametrize("lives", [True, False], ids=["lives on", "ended unheard"])
def test_a_leg_that_was_transferred_while_nobody_listened(heard: bool, lives: bool) -> None:
    """Its caller has gone and says so; the leg is billed on, and found at the reconnect. The
    dialplan at its new place made a call of it, which is a call of its own."""

    async def main() -> None:
        async with stage() as it:
            it.links.is_up = False
            await (it.answered_call() if heard else it.open_call())
            await it.controller.report_hangup(TRANSFERRED)
            assert it.cdr().status == "answered"
            await it.open_call(2, channel="leg-1", story="caller-1")
            it.links.is_up = True
            second = leg(2, story="caller-1", state="Ringing", seconds=5)
            peer = FakePeer([leg(1), second] if lives else [])
            await it.recover(peer)
            if lives:
                assert peer.limits == {"leg-1": LEFT_SECONDS}
                await it.have(leg_ended(1, NOW_MS + 95_000))
            talk_ms = 95_000 if lives else 40_000
            assert (it.cdr().talk_ms, it.cdr().estimated) == (talk_ms, not lives)
            assert it.cdr(2).status == "failed"

    asyncio.run(main())


@pytest.mark.parametrize("is_up", [True, False])
@pytest.mark.parametrize("transferred", [True, False])
def test_a_caller_ends_whose_call_nobody_heard_being_dialled(
    transferred: bool, is_up: bool
) -> None:
    """Its leg may live on: that is not released but looked at, now or at the reconnect."""

    async def main() -> None:
        async with stage() as it:
            it.links.is_up = is_up
            await it.open_call()
            it.controller.channel_ended(caller_ended(1, dialstatus=""))
            await it.have(NodeHeard("elsewhere", 0))
            assert (it.looks, it.cdr().status) == ([NODE], "open")
            live = [leg(bridge="b")] if transferred else []
            await it.recover(FakePeer(live, answers={"leg-1": NOW_MS}))
            assert it.cdr().status == ("answered" if transferred else "failed")

    asyncio.run(main())


@pytest.mark.parametrize(("is_configured", "dialstatus"), [(False, ""), (True, "CANCEL")])
def test_what_is_clear_or_cannot_be_asked_is_not_looked_at(
    is_configured: bool, dialstatus: str
) -> None:
    async def main() -> None:
        async with stage() as it:
            it.links.is_configured = is_configured
            await it.open_call()
            it.controller.channel_ended(caller_ended(1, dialstatus=dialstatus))
            await it.have(NodeHeard("elsewhere", 0))
            assert (it.looks, it.cdr().status) == ([], "failed")

    asyncio.run(main())


STORY = "caller-1"
SECOND = leg(2, bridge="b", story=STORY, seconds=20)


@pytest.mark.parametrize(
    ("live", "legs"),
    [
        pytest.param((leg(1, bridge="b"), SECOND), {1: "leg-1", 2: "leg-2"}, id="both live"),
        pytest.param((leg(1),), {1: "leg-1"}, id="the second rings"),
        pytest.param((SECOND,), {1: "leg-2"}, id="only one is left, and of one call it is"),
    ],
)
def test_a_leg_is_of_one_call(live: Sequence[LiveChannel], legs: dict[int, str]) -> None:
    """A leg that was transferred made a call itself; of neither was an answer heard."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call(1)
            await it.open_call(2, channel="leg-1", story=STORY)
            await it.recover(FakePeer(live))
            found = {n: it.cdr(n).leg_uniqueid for n in (1, 2) if it.cdr(n).leg_uniqueid}
            assert found == legs

    asyncio.run(main())


NOTED = replace(leg(1, story="other"), leg_of=call_id(1), answered_at_ms=NOW_MS + 700)


@pytest.mark.parametrize(
    "live",
    [(NOTED,), (leg(2, story=STORY), NOTED), (caller(bridge="b"), NOTED)],
    ids=["in another story", "another is older", "not with its caller"],
)
def test_a_leg_on_which_the_dialplan_noted_its_call(live: Sequence[LiveChannel]) -> None:
    """An attended transfer gives it the linkedid of an older story. The note tells its answer."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            await it.recover(FakePeer(live, answers={"leg-1": NOW_MS}))
            assert (it.cdr().leg_uniqueid, it.cdr().answered_at_ms) == ("leg-1", NOW_MS + 700)

    asyncio.run(main())


def test_a_leg_that_is_noted_as_another_calls_is_not_taken() -> None:
    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            another = replace(leg(1), leg_of=call_id(7))
            assert await it.recover(FakePeer([another])) == GONE

    asyncio.run(main())


@pytest.mark.parametrize(
    ("named", "current"), [(call_id(1), 1), (call_id(2), 2), ("", 2)], ids=["1", "2", "none"]
)
def test_a_caller_that_made_two_calls_talks_in_the_one_that_it_names(
    named: str, current: int
) -> None:
    """That the other one had failed was not heard. If it names none it is the newest."""

    async def main() -> None:
        async with stage() as it:
            for number in (1, 2):
                await it.open_call(number, channel="caller-1")
            calling = replace(caller(bridge="b"), call_id=named)
            await it.recover(FakePeer([calling, leg(bridge="b")], answers={"leg-1": NOW_MS}))
            legs = [it.cdr(number).leg_uniqueid for number in (1, 2)]
            assert legs.index("leg-1") == current - 1
            assert sorted(it.cdr(number).status for number in (1, 2)) == ["answered", "open"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answers", "answered_ms"),
    [({"leg-1": NOW_MS + 50}, NOW_MS + 50), ({}, NOW_MS)],
    ids=["Asterisk knows", "Asterisk does not know"],
)
def test_the_answer_of_a_transferred_leg_is_asterisks_where_it_is_known(
    answers: dict[str, int], answered_ms: int
) -> None:
    """Its caller's report is by the clock of this machine."""

    async def main() -> None:
        async with stage() as it:
            await it.open_call()
            it.links.is_up = False
            await it.controller.report_hangup(TRANSFERRED)
            assert it.cdr().answered_at_ms == NOW_MS
            await it.recover(FakePeer([leg()], answers=answers))
            assert it.cdr().answered_at_ms == answered_ms

    asyncio.run(main())
