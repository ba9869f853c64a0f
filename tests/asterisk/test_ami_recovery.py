"""What the link asks of Asterisk for recovery: its time, a leg's answer, and to limit a leg."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from astcredit.asterisk.ami import AmiLink, AmiLostError, AmiTimes, LinkPhase
from support.ami_scene import NOW_MS, Heard, play
from support.fake_ami import FakeAmi, Message, soon
from support.peers import channel

LEG = channel("1795306440.1", "1795306440.0", name="PJSIP/carrier-00000001")
BUSY = AmiTimes(ping=0.0, reconnect=0.0, refused=0.0)
"""Asks without a pause whether Asterisk still lives."""


def told(text: str) -> Callable[[Message], bytes]:
    """Ping is answered with that time."""
    return lambda message: FakeAmi.reply(message, "Ping: Pong", f"Timestamp: {text}")


@pytest.mark.parametrize(
    ("timestamp", "expected_ms"),
    [("1795306242.032603", 1_795_306_242_032), ("1795306242.5", 1_795_306_242_500)],
)
def test_the_time_by_asterisks_clock_is_that_of_the_question(
    timestamp: str, expected_ms: int
) -> None:
    """Less the time of the round trip: what was sent until then is here."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["ping"] = told(timestamp)
        before = asyncio.get_running_loop().time()
        now_ms = await link.now_ms()
        took_ms = (asyncio.get_running_loop().time() - before) * 1000
        assert expected_ms - took_ms - 1 <= now_ms < expected_ms

    play(scene)


@pytest.mark.parametrize("timestamp", ["", "soon", "-1.5", "1795306242"])
def test_an_asterisk_that_names_no_time_is_taken_to_have_ours(timestamp: str) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["ping"] = told(timestamp)
        assert await link.now_ms() == NOW_MS

    play(scene)


def test_what_was_heard_is_noted_with_every_answer() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["ping"] = told("1795306242.032603")
        await ami.seen("Ping", ami.actions().count("Ping") + 2)
        until_ms = link.state.heard_until_ms
        assert until_ms is not None
        assert until_ms < 1_795_306_242_032

    play(scene, times=BUSY)


def test_nothing_was_heard_on_a_connection_that_is_new() -> None:
    """What the last one heard says nothing of the time between the two."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        await ami.seen("Ping", 2)
        assert link.state.heard_until_ms == NOW_MS
        ami.ignores.add("ping")
        ami.cut()
        await heard.phase(LinkPhase.UP, 2)
        assert link.state.heard_until_ms is None

    play(scene, times=BUSY)


CDR = {"start": "1795306440.613421", "answer": "1795306441.939326"}


@pytest.mark.parametrize(
    ("cdr", "expected_ms"),
    [
        (CDR, 1_795_306_441_939),
        ({**CDR, "answer": "1795306441.9"}, 1_795_306_441_900),
        ({**CDR, "answer": ""}, None),
        ({**CDR, "answer": "0.000000"}, None),
        ({**CDR, "start": CDR["answer"]}, None),
        ({**CDR, "start": ""}, None),
        ({}, None),
    ],
    ids=["to the ms", "short", "none", "not answered", "transferred", "no start", "no such leg"],
)
def test_a_legs_answer_is_that_of_its_own_cdr(cdr: dict[str, str], expected_ms: int | None) -> None:
    """A transferred leg has a new CDR, which began as answered: its answer is not known."""

    def answer(message: Message) -> bytes:
        assert message["channel"] == LEG.uniqueid
        what = message["variable"].removeprefix("CDR(").removesuffix(",u)")
        if not cdr:
            return FakeAmi.reply(message, "Message: No such channel", response="Error")
        return FakeAmi.reply(message, f"Variable: {message['variable']}", f"Value: {cdr[what]}")

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["getvar"] = answer
        assert await link.answered_at_ms(LEG) == expected_ms

    play(scene)


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (["AC_LEG=1M8QEEAC/1795306441.939326"], ("1M8QEEAC", 1_795_306_441_939)),
        (["AC_CALL=", "AC_LEG=C1/1795306441.939326", "X=1"], ("C1", 1_795_306_441_939)),
        (["AC_LEG=C1/"], ("C1", None)),
        (["AC_LEG=C1/soon"], ("", None)),
        (["AC_LEG="], ("", None)),
        ([], ("", None)),
    ],
)
def test_what_the_dialplan_noted_on_a_leg_is_in_the_list(
    noted: list[str], expected: tuple[str, int | None]
) -> None:
    variables = [("ChanVariable", text) for text in noted]
    channels = [("Channel", "PJSIP/carrier-00000001"), ("Uniqueid", "1.1"), *variables]

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.channels = [channels]
        (listed,) = await link.channels()
        assert (listed.leg_of, listed.answered_at_ms) == expected

    play(scene)


@pytest.mark.parametrize(
    ("seconds", "sent"), [(754.25, "754.250"), (2.0, "2.000"), (0.0, "0.100"), (-3.0, "0.100")]
)
def test_a_limit_is_set_by_unique_id_and_is_never_none(seconds: float, sent: str) -> None:
    """Asterisk takes 0 for no limit."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["absolutetimeout"] = lambda m: ami.reply(m, "Message: Timeout Set")
        assert await link.limit(LEG, seconds)
        asked = ami.received[-1]
        assert (asked["channel"], asked["timeout"]) == (LEG.uniqueid, sent)

    play(scene)


@pytest.mark.parametrize(
    ("reason", "is_there"), [("No such channel", False), ("Permission denied", True)]
)
def test_a_limit_that_asterisk_refuses(reason: str, is_there: bool) -> None:
    """A leg is not gone because somebody may not ask."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["absolutetimeout"] = lambda m: ami.reply(
            m, f"Message: {reason}", response="Error"
        )
        assert await link.limit(LEG, 2.0) == is_there

    play(scene)


def test_a_link_that_is_down_answers_nothing() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        await ami.close()
        await heard.phase(LinkPhase.DOWN)
        for question in (link.now_ms(), link.answered_at_ms(LEG), link.limit(LEG, 1.0)):
            with pytest.raises(AmiLostError):
                await question

    play(scene)
