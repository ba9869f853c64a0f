"""What a peer may do to the FastAGI server: each fault has its name, and harms nobody else.

Times are limits that a silent peer always reaches, or far beyond what a test can take: nothing
here depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from astcredit.asterisk.agi import HEADER_BYTES, LINE_BYTES
from astcredit.asterisk.fastagi import Limits
from support.agi_fakes import FakeControl, header_block
from support.fastagi_peer import (
    LINKEDID_AND_SOURCE,
    Peer,
    serving,
    up_to_the_answer,
)

BAD_REQUESTS = {
    "http": (b"GET / HTTP/1.0\r\n\r\n", "not_agi"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not_agi"),
    "junk": (b"\x00\xff", "not_agi"),
    "injected header": (
        header_block("authorize", callerid="1\nagi_accountcode: victim"),
        "not_agi",
    ),
    "line": (b"agi_x: " + b"x" * (LINE_BYTES + 1), "too_large"),
    "block": (b"".join(b"agi_%d: %s\n" % (n, b"x" * 9_000) for n in range(9)), "too_large"),
}


@pytest.mark.parametrize(("sent", "outcome"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_what_is_no_request_is_closed_and_counted(
    sent: bytes, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(BAD_REQUESTS["block"][0]) > HEADER_BYTES

    async def scenario() -> None:
        async with serving() as served:
            peer = await served.connect()
            peer.send(sent)
            assert await peer.closed() == b""
            await served.counts.wait_for(outcome)
            assert served.counts.outcomes == {outcome: 1}
            assert (await served.call()).variables["AC_STATUS"] == "ALLOWED"

    asyncio.run(scenario())
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert actions.count("agi_connection_ended") == 1, "told once, though its end came as well"


@pytest.mark.parametrize("sent", [b"", b"agi_network: yes\n", header_block("authorize")[:-1]])
def test_a_peer_that_closes_before_the_blank_line_is_counted(sent: bytes) -> None:
    """As a load balancer's health check does."""

    async def scenario() -> None:
        async with serving() as served:
            peer = await served.connect()
            peer.send(sent)
            peer.close()
            await served.counts.wait_for("closed_early")
            assert served.control.requests == []

    asyncio.run(scenario())


def test_a_forged_end_of_the_request_is_not_answered() -> None:
    """A caller id with an empty line in it, the rest of the true request behind it."""
    forged = (
        "1\nagi_accountcode: victim\nagi_extension: 1\nagi_threadid: 1\n\n"
        "200 result=1 (x)\n200 result=0\n"
    )

    async def scenario() -> None:
        async with serving() as served:
            peer = await served.connect()
            peer.send(header_block("authorize", callerid=forged))
            await peer.closed()
            await served.counts.wait_for("not_agi")
            assert served.control.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("limits", "sent", "outcome"),
    [
        (Limits(request_seconds=0.02), b"", "slow_request"),
        (Limits(request_seconds=0.02), b"agi_network: yes\n", "slow_request"),
        (Limits(reply_seconds=0.02), header_block("authorize"), "slow_reply"),
        (Limits(total_seconds=0.02), header_block("authorize"), "slow"),
    ],
)
def test_a_silent_peer_is_closed(limits: Limits, sent: bytes, outcome: str) -> None:
    async def scenario() -> None:
        async with serving(limits=limits) as served:
            peer = await served.connect()
            peer.send(sent)
            await peer.closed()
            await served.counts.wait_for(outcome)
            assert served.control.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("then", "outcome", "abandoned"),
    [
        (lambda peer: peer.close(), "lost", ["call-1"]),
        (lambda peer: peer.writer.transport.abort(), "lost", ["call-1"]),
        (lambda peer: peer.send(b"junk\n"), "not_agi", []),
        (lambda peer: peer.send(b"200 result=-1\n"), "hung_up", ["call-1"]),
        (lambda peer: peer.send(b"HANGUP\n200 result=0\n"), "hung_up", ["call-1"]),
    ],
    ids=["closed", "reset", "junk", "died", "hangup"],
)
def test_an_answer_that_was_not_taken_is_taken_back_once(
    then: Callable[[Peer], None], outcome: str, abandoned: list[str]
) -> None:
    """Nonsense for an acknowledgement leaves it open whether the call is made."""

    async def scenario() -> None:
        async with serving() as served:
            peer = await up_to_the_answer(served)
            then(peer)
            await served.counts.wait_for(outcome)
            assert served.control.abandoned == abandoned
            peer.close()

    asyncio.run(scenario())


def test_a_peer_that_leaves_while_the_control_thinks_keeps_nothing() -> None:
    async def scenario() -> None:
        control = FakeControl(gate=asyncio.Event())
        async with serving(control) as served:
            peer = await served.connect()
            peer.send(header_block("authorize"))
            await peer.reader.readline()
            peer.send(LINKEDID_AND_SOURCE)
            await control.asked.wait()
            peer.writer.transport.abort()
            await asyncio.sleep(0)
            assert control.gate is not None
            control.gate.set()
            await served.counts.wait_for("lost")
            assert control.abandoned == ["call-1"]

    asyncio.run(scenario())
