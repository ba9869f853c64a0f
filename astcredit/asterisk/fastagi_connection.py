"""One FastAGI connection: the request that comes, then one command at a time (`AgiCommands`).

A protocol of the event loop instead of a pair of streams: what arrives is parsed where it arrives,
and nothing waits for it but a command for its reply. It keeps no timer: `due` is the time at which
somebody must call `too_slow`, and the server looks for that, at all its connections at once.

Nothing is written here that could fill a buffer: a command has two thousand bytes at most, and the
next one waits for the reply. Nothing is read either: what comes when no reply is due is a `HANGUP`
line, or the end, and then no more is read.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from astcredit.asterisk.agi import (
    AgiClosedEarly,
    AgiError,
    AgiPeerGone,
    AgiProtocolError,
    AgiReply,
    AgiRequest,
    AgiTooSlow,
    HeaderParser,
    ReplyParser,
)


@dataclass(frozen=True, slots=True)
class Events:
    """Who is told what a connection does before it runs a script, and what it may take.

    opened: somebody has connected.
    asked: the request is complete.
    failed: there will be no request, for the reason that the error says. May come again.
    """

    opened: Callable[[AgiConnection], None]
    asked: Callable[[AgiConnection, AgiRequest], None]
    failed: Callable[[AgiConnection, AgiError], None]


class AgiConnection(asyncio.Protocol):
    """A peer, and what is known of it so far. Times are those of the loop, in seconds.

    `due` is when what it owes must be there, at the latest `ends_at`: a request, the reply to a
    command, the end of all. `script` is the name of the script that it asked for, `task` runs it.
    """

    __slots__ = (
        "_events",
        "_fault",
        "_headers",
        "_loop",
        "_replies",
        "_reply_seconds",
        "_transport",
        "_waiting",
        "due",
        "ends_at",
        "opened_at",
        "peer",
        "script",
        "task",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, events: Events, reply_seconds: float
    ) -> None:
        self._loop = loop
        self._events = events
        self._reply_seconds = reply_seconds
        self._transport: asyncio.Transport
        self._headers: HeaderParser | None = HeaderParser()
        self._replies = ReplyParser()
        self._waiting: asyncio.Future[AgiReply | None] | None = None
        self._fault: AgiError | None = None
        self.opened_at = self.due = self.ends_at = math.inf
        self.peer = self.script = ""
        self.task: asyncio.Task[None] | None = None

    # What the script does

    @property
    def hung_up(self) -> bool:
        """Asterisk has sent `HANGUP`."""
        return self._replies.hung_up

    async def command(self, line: str) -> AgiReply:
        """Send a command and wait for its reply. Raises AgiError."""
        if self._fault is not None:
            raise self._fault
        self._replies.expect_silence()
        self._transport.write(line.encode() + b"\n")
        self.due = min(self._loop.time() + self._reply_seconds, self.ends_at)
        self._waiting = self._loop.create_future()
        try:
            reply = await self._waiting
        finally:
            self._waiting = None
            self.due = self.ends_at
        if reply is None:
            raise cast(AgiError, self._fault)
        return reply

    # What the server does

    @property
    def peername(self) -> str:
        """The peer's address as the system writes it; empty if there is none."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) and peer else ""

    def too_slow(self) -> None:
        """What was due has not come in time."""
        if self._headers is not None:
            self._events.failed(self, AgiTooSlow("the request is not complete"))
        else:
            self._break(AgiTooSlow("no reply to a command"))

    def close(self) -> None:
        """The end, for both sides."""
        self._transport.close()

    # What the event loop does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._events.opened(self)

    def data_received(self, data: bytes) -> None:
        """A piece of a request or of a reply, or what nobody asked for."""
        if self._headers is not None:
            self._take_request(self._headers, data)
            return
        self._replies.feed(data)
        try:
            if self._waiting is None:
                self._replies.expect_silence()
            elif (reply := self._replies.next_reply()) is not None and not self._waiting.done():
                self._waiting.set_result(reply)
        except AgiProtocolError as error:
            self._transport.pause_reading()
            self._break(error)

    def eof_received(self) -> None:
        """The peer sends no more: nobody of AGI's would, and wait for something."""
        self._lose("the connection is closed")

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._lose("the connection is lost")

    def _take_request(self, headers: HeaderParser, data: bytes) -> None:
        try:
            request = headers.feed(data)
        except AgiError as error:
            self._events.failed(self, error)
            return
        if request is not None:
            self._headers = None
            self._replies.feed(headers.rest)
            self.due = self.ends_at
            self._events.asked(self, request)

    def _lose(self, how: str) -> None:
        if self._headers is not None:
            self._events.failed(self, AgiClosedEarly(how))
        else:
            self._break(AgiPeerGone(how))

    def _break(self, error: AgiError) -> None:
        """No command has a reply any more, neither the one that waits nor a later one."""
        if self._fault is None:
            self._fault = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
