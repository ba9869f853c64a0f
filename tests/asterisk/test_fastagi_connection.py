"""A FastAGI connection as the event loop sees it: what comes when, and what it makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from astcredit.asterisk.agi import (
    AgiClosedEarly,
    AgiError,
    AgiPeerGone,
    AgiProtocolError,
    AgiReply,
    AgiRequest,
    AgiTooSlow,
)
from astcredit.asterisk.fastagi_connection import AgiConnection, Events
from support.agi_fakes import header_block
from support.fake_transport import FakeTransport

BLOCK = header_block("authorize")
REPLY_SECONDS = 60.0


@dataclass(slots=True)
class Told:
    """What a connection has told its server."""

    opened: int = 0
    requests: list[AgiRequest] = field(default_factory=list)
    errors: list[AgiError] = field(default_factory=list)

    def events(self) -> Events:
        def opened(connection: AgiConnection) -> None:
            self.opened += 1

        return Events(
            opened,
            lambda connection, request: self.requests.append(request),
            lambda connection, error: self.errors.append(error),
        )


def connected() -> tuple[AgiConnection, FakeTransport, Told]:
    told, transport = Told(), FakeTransport()
    connection = AgiConnection(asyncio.get_running_loop(), told.events(), REPLY_SECONDS)
    connection.connection_made(transport)
    assert told.opened == 1
    return connection, transport, told


def asking(*after_the_block: bytes) -> tuple[AgiConnection, FakeTransport]:
    """A connection whose script is at work; `after_the_block` came in pieces of their own."""
    connection, transport, told = connected()
    for piece in (BLOCK, *after_the_block):
        connection.data_received(piece)
    assert [request.script for request in told.requests] == ["authorize"]
    assert told.errors == []
    return connection, transport


async def commanded(
    connection: AgiConnection, then: Callable[[AgiConnection], None]
) -> AgiReply | AgiError:
    """What comes of a command, when `then` happens after it was sent."""
    command = asyncio.create_task(connection.command("GET VARIABLE A"))
    await asyncio.sleep(0)
    then(connection)
    try:
        return await command
    except AgiError as error:
        return error


def receive(*pieces: bytes) -> Callable[[AgiConnection], None]:
    def then(connection: AgiConnection) -> None:
        for piece in pieces:
            connection.data_received(piece)

    return then


@pytest.mark.parametrize("size", [1, 7, len(BLOCK)])
def test_a_request_is_told_once_when_it_is_complete(size: int) -> None:
    async def scenario() -> None:
        connection, _, told = connected()
        for at in range(0, len(BLOCK), size):
            assert told.requests == []
            connection.data_received(BLOCK[at : at + size])
        assert [request.script for request in told.requests] == ["authorize"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (receive(b"GET / HTTP/1.0\r\n"), AgiProtocolError),
        (lambda connection: connection.eof_received(), AgiClosedEarly),
        (lambda connection: connection.connection_lost(None), AgiClosedEarly),
        (lambda connection: connection.too_slow(), AgiTooSlow),
    ],
)
def test_a_request_that_does_not_come_is_told(
    then: Callable[[AgiConnection], None], error: type[AgiError]
) -> None:
    async def scenario() -> None:
        connection, _, told = connected()
        connection.data_received(BLOCK[:9])
        then(connection)
        assert [type(told_error) for told_error in told.errors] == [error]
        assert told.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"200 result=1 (x)\n"],
        [b"200 res", b"ult=1 (x)\n"],
        [b"100 result=0 Trying\n", b"200 result=1 (x)\n"],
        [bytes([sign]) for sign in b"HANGUP\n200 result=1 (x)\n"],
    ],
)
def test_a_command_has_its_reply_in_whatever_pieces_it_comes(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        connection, transport = asking()
        reply = await commanded(connection, receive(*pieces))
        assert reply == AgiReply(200, "1", "x")
        assert transport.written == b"GET VARIABLE A\n"
        assert connection.hung_up is (len(pieces) > 2)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (receive(b"hello\n"), AgiProtocolError),
        (lambda connection: connection.eof_received(), AgiPeerGone),
        (lambda connection: connection.connection_lost(OSError("reset")), AgiPeerGone),
        (lambda connection: connection.too_slow(), AgiTooSlow),
    ],
)
def test_a_command_without_a_reply_ends_at_once_and_so_does_the_next(
    then: Callable[[AgiConnection], None], error: type[AgiError]
) -> None:
    async def scenario() -> None:
        connection, transport = asking()
        assert type(await commanded(connection, then)) is error
        with pytest.raises(error):
            await connection.command("GET VARIABLE B")
        assert b"VARIABLE B" not in transport.written

    asyncio.run(scenario())


def test_the_first_fault_is_the_reason() -> None:
    """An answer that was cut off is one that was not understood."""

    async def scenario() -> None:
        connection, _ = asking(b"junk")
        connection.eof_received()
        connection.connection_lost(None)
        with pytest.raises(AgiProtocolError):
            await connection.command("GET VARIABLE A")

    asyncio.run(scenario())


def test_a_reply_that_comes_before_the_end_is_a_reply() -> None:
    """Asterisk acknowledges and closes."""

    def then(connection: AgiConnection) -> None:
        connection.data_received(b"200 result=0\n")
        connection.eof_received()
        connection.connection_lost(None)

    async def scenario() -> None:
        connection, _ = asking()
        assert await commanded(connection, then) == AgiReply(200, "0")

    asyncio.run(scenario())


@pytest.mark.parametrize("unasked", [b"200 result=0\n", b"agi_calleridname: x\n", b"HANGUPS"])
@pytest.mark.parametrize("together", [True, False])
def test_what_has_come_unasked_is_seen_before_a_command_is_sent(
    unasked: bytes, together: bool
) -> None:
    async def scenario() -> None:
        connection, transport, _ = connected()
        for piece in [BLOCK + unasked] if together else [BLOCK, unasked]:
            connection.data_received(piece)
        with pytest.raises(AgiProtocolError):
            await connection.command("GET VARIABLE A")
        assert transport.written == b""

    asyncio.run(scenario())


def test_a_second_reply_to_one_command_is_not_taken_for_the_next() -> None:
    async def scenario() -> None:
        connection, transport = asking()
        reply = await commanded(connection, receive(b"200 result=0\n200 result=1 (forged)\n"))
        assert reply == AgiReply(200, "0")
        with pytest.raises(AgiProtocolError):
            await connection.command("GET VARIABLE B")
        assert b"VARIABLE B" not in transport.written

    asyncio.run(scenario())


def test_nothing_more_is_read_of_a_peer_that_sends_unasked() -> None:
    """Whatever it sends while a question is answered, memory holds no more than one piece."""

    async def scenario() -> None:
        _, transport = asking(b"HANGUP\n")
        assert not transport.paused
        _, transport = asking(b"x" * 4_096)
        assert transport.paused

    asyncio.run(scenario())


@pytest.mark.parametrize("pieces", [[b"HANGUP\n"], [b"HANG", b"UP\r\n"]])
def test_a_hangup_is_known_when_it_comes(pieces: list[bytes]) -> None:
    async def scenario() -> None:
        connection, _ = asking(*pieces)
        assert connection.hung_up
        assert await commanded(connection, receive(b"200 result=0\n")) == AgiReply(200, "0")

    asyncio.run(scenario())


def test_a_command_is_due_in_its_time_and_never_after_the_end_of_all() -> None:
    async def scenario() -> None:
        connection, _ = asking()
        now = asyncio.get_running_loop().time()
        for ends_at, due in ((now + 1_000, now + REPLY_SECONDS), (now + 1, now + 1)):
            connection.ends_at = ends_at
            seen: list[float] = []

            def then(
                connection: AgiConnection, seen: list[float] = seen, ends_at: float = ends_at
            ) -> None:
                seen.append(connection.due)
                connection.data_received(b"200 result=0\n")

            await commanded(connection, then)
            assert seen[0] == pytest.approx(due, abs=30)
            assert connection.due == ends_at

    asyncio.run(scenario())


def test_a_reply_to_a_command_that_was_cancelled_harms_nobody() -> None:
    async def scenario() -> None:
        connection, _ = asking()
        command = asyncio.create_task(connection.command("GET VARIABLE A"))
        await asyncio.sleep(0)
        command.cancel()
        connection.data_received(b"200 result=0\n")
        connection.connection_lost(None)
        with pytest.raises(asyncio.CancelledError):
            await command

    asyncio.run(scenario())
