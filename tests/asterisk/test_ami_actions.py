"""What the link asks of Asterisk: the channels that live, and to hang one up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from astcredit.asterisk.ami import (
    AmiError,
    AmiIncompleteError,
    AmiLink,
    AmiLostError,
    AmiRejectedError,
    AmiTimeoutError,
    AmiTimes,
    LinkPhase,
    LiveChannel,
)
from support.ami_scene import Heard, logged, play
from support.fake_ami import FakeAmi, Message, soon

CHANNEL = [
    ("Channel", "PJSIP/c-ok-00000007"),
    ("ChannelStateDesc", "Up"),
    ("AccountCode", "alice"),
    ("Uniqueid", "1.7"),
    ("Linkedid", "1.6"),
    ("ChanVariable", "X=1"),
    ("ChanVariable", "AC_CALL=call-1"),
    ("Duration", "01:02:03"),
    ("BridgeId", "b-1"),
]


def test_the_list_of_live_channels() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        assert await link.channels() == []
        ami.channels = [CHANNEL, [("Channel", "x"), ("Uniqueid", "1.8")]]
        assert await link.channels() == [
            LiveChannel("PJSIP/c-ok-00000007", "1.7", "1.6", "alice", "Up", 3723, "call-1", "b-1"),
            LiveChannel("x", "1.8", "", "", "", None, "", ""),
        ]

    play(scene)


FORGED = [("Channel", "x"), ("CallerIDNum", "1"), ("Uniqueid", "1.8"), ("Uniqueid", "1.7")]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(
            lambda ami, message: ami.channel_list(message, 1)[:-40] and None,
            AmiLostError,
            id="cut before it began",
        ),
        pytest.param(lambda ami, m: ami.channel_list(m, 2), AmiIncompleteError, id="one missing"),
        pytest.param(
            lambda ami, m: ami.channel_list(m, 1, end="cancelled"),
            AmiIncompleteError,
            id="cancelled",
        ),
        pytest.param(lambda ami, m: ami.reply(m), AmiIncompleteError, id="no list"),
        pytest.param(
            lambda ami, m: ami.reply(m, "Message: Permission denied", response="Error"),
            AmiRejectedError,
            id="not allowed",
        ),
        pytest.param(
            lambda ami, m: FakeAmi(channels=[FORGED]).channel_list(m, 1),
            AmiIncompleteError,
            id="a channel with two ids",
        ),
        pytest.param(
            lambda ami, m: FakeAmi(channels=[FORGED[:2]]).channel_list(m, 1),
            AmiIncompleteError,
            id="a channel without an id",
        ),
    ],
)
def test_a_list_that_is_not_complete_is_no_list(
    answer: Callable[[FakeAmi, Message], bytes | None], error: type[AmiError]
) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [CHANNEL]
        ami.instead["coreshowchannels"] = lambda message: answer(ami, message)
        with pytest.raises(error):
            await link.channels()

    play(scene)


def test_a_list_that_is_cut_in_the_middle_is_no_list() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [CHANNEL, CHANNEL]
        ami.instead["coreshowchannels"] = lambda m: ami.channel_list(m, 2)[:-120]
        asked = asyncio.create_task(link.channels())
        await ami.seen("CoreShowChannels", 2)
        ami.cut()
        with pytest.raises(AmiLostError):
            await asked

    play(scene)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param("1\r\nUniqueid: 666\r\n\r\nEvent: Hangup\r\nX: ", id="an event in the list"),
        pytest.param("1\r\nActionID: 1", id="the id of an answer"),
        pytest.param("1\r\nevent: CoreShowChannelsComplete", id="an end of the list"),
        pytest.param("1\r\nUniqueid: 666\r\n\r\nEvent: Foo\r\nX: ", id="one that nobody wants"),
        pytest.param("1\r\nUniqueid: 666\r\n\r\nX: ", id="what is left of a channel cut in two"),
    ],
)
def test_a_callers_number_can_neither_hide_a_channel_nor_end_one(
    number: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Asterisk 22 writes the line breaks of `sip:1%0d%0a…@host` raw into each list. The number
    of items is right; the channel 1.7 has become 666, and a Hangup of 1.7 follows."""
    forged = [("Channel", "PJSIP/customer-1"), ("CallerIDNum", number), ("Uniqueid", "1.7")]

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [forged, CHANNEL]
        with pytest.raises(AmiIncompleteError):
            await link.channels()
        assert not heard.events
        ami.channels = [CHANNEL]
        assert len(await link.channels()) == 1

    play(scene)
    assert "ami_tampered" in logged(caplog)


def test_an_event_in_a_list_is_forged_whatever_else_was_asked() -> None:
    number = "1\r\nUniqueid: 666\r\n\r\nEvent: Hangup\r\nX: "
    forged = [("Channel", "PJSIP/customer-1"), ("CallerIDNum", number), ("Uniqueid", "1.7")]

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels, ami.ignores = [forged], {"ping"}
        asked = asyncio.create_task(link.now_ms())
        await ami.seen("Ping")
        with pytest.raises(AmiIncompleteError):
            await link.channels()
        assert not heard.events
        asked.cancel()

    play(scene)


def test_hangup_finds_the_channel_by_its_unique_id() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [CHANNEL]
        assert await link.hangup("1.7", 31)
        assert not await link.hangup("1.99")
        sent = [(m["channel"], m["cause"]) for m in ami.received if m["action"] == "Hangup"]
        assert sent == [("PJSIP/c-ok-00000007", "31")]

    play(scene)


def test_hangup_of_a_channel_that_ends_meanwhile() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [CHANNEL]
        gone = "Message: No such channel"
        ami.instead["hangup"] = lambda m: FakeAmi.reply(m, gone, response="Error")
        assert not await link.hangup("1.7")
        ami.rejects, ami.instead = {"hangup"}, {}
        with pytest.raises(AmiRejectedError, match="Permission denied"):
            await link.hangup("1.7")

    play(scene)


@pytest.mark.parametrize("name", ["/.*/", "PJSIP/x\r\nAction: Originate"])
def test_a_channels_name_never_is_a_pattern_or_a_second_action(name: str) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        channel = LiveChannel(name, "1.7", "", "", "", None, "", "")
        with pytest.MonkeyPatch.context() as patch:

            async def listed(_: object) -> list[LiveChannel]:
                return [channel]

            patch.setattr("astcredit.asterisk.ami._live_channels", listed)
            if name.startswith("/"):
                assert not await link.hangup("1.7")
            else:
                with pytest.raises(ValueError, match="control character"):
                    await link.hangup("1.7")
        assert {"Hangup", "Originate"}.isdisjoint(ami.actions())

    play(scene)


def test_an_action_that_was_not_answered_is_not_sent_again() -> None:
    """panoramisk by itself keeps it for the next connection: a hangup minutes too late."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels, ami.ignores = [CHANNEL], {"hangup"}
        asked = asyncio.create_task(link.hangup("1.7"))
        await ami.seen("Hangup")
        ami.cut()
        with pytest.raises(AmiLostError):
            await asked
        ami.ignores = set()
        await heard.phase(LinkPhase.UP, 2)
        await link.channels()  # a round trip: whatever was to be sent before it, was
        assert ami.actions().count("Hangup") == 1

    play(scene)


def test_an_action_that_is_never_answered_is_given_up_and_forgotten() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.ignores = {"coreshowchannels"}
        with pytest.raises(AmiTimeoutError):
            await link.channels()
        assert link._session is not None
        assert link._session._manager is not None
        assert not link._session._manager.protocol.responses
        assert not link._session._pending

    ami = FakeAmi(rejects={"coreshowchannels"})

    async def allow(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        ami.rejects = set()
        await scene(ami, link, heard)

    play(allow, ami, AmiTimes(listing=0.05))
