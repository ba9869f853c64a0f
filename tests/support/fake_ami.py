"""An Asterisk manager interface for tests: answers as Asterisk 22 does, misbehaves on demand.

    async with FakeAmi() as ami:
        link = AmiLink(ami.node(), …)
        await ami.seen("Login")                 # until the action has arrived
        ami.event({"Event": "Hangup", "Uniqueid": "1.1"})
        ami.cut()                               # the connection breaks

Nothing here waits on time; whatever a test waits for fails after PATIENCE_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from astcredit.asterisk.ami_node import AmiNode

PATIENCE_SECONDS: Final = 30.0
"""After this a test has failed; far above what the slowest machine needs."""

Message = dict[str, str]
"""An action as it arrived, names in lower case."""

HeaderList = Iterable[tuple[str, str]]


async def soon(awaitable: Awaitable[object]) -> None:
    """Wait for something that must happen."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await awaitable


def lines(*headers: str) -> bytes:
    return "".join(f"{header}\r\n" for header in (*headers, "")).encode()


@dataclass
class FakeAmi:
    """A server on a free port of the loopback. Fields are what it knows and how it behaves."""

    username: str = "astcredit"
    secret: str = "s3cr3t"
    version: str = "22.10.1"
    started: tuple[str, str] = ("2026-11-21", "20:19:27")
    uptime_seconds: int = 93
    channels: list[HeaderList] = field(default_factory=list)
    rejects: set[str] = field(default_factory=set)
    """Actions, in lower case, that are answered with Permission denied."""
    ignores: set[str] = field(default_factory=set)
    """Actions that are never answered."""
    instead: dict[str, Callable[[Message], bytes | None]] = field(default_factory=dict)
    """Actions with an answer of the test's own; None cuts the connection."""
    received: list[Message] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _talks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> FakeAmi:
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def listen(self) -> None:
        """Begin to accept; again on the same port after `close`."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut every connection and accept no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        self.cut()
        while self._talks:
            await soon(asyncio.wait(self._talks))

    def node(self, secret: str | None = None) -> AmiNode:
        return AmiNode("pbx1", "127.0.0.1", self.port, self.username, secret or self.secret)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def event(self, headers: dict[str, str]) -> None:
        self.raw(lines(*(f"{name}: {value}" for name, value in headers.items())))

    def raw(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    def actions(self) -> list[str]:
        return [message["action"] for message in self.received]

    async def seen(self, action: str, count: int = 1) -> None:
        """Until so many of an action have arrived."""
        async with self._arrived:
            await soon(self._arrived.wait_for(lambda: self.actions().count(action) >= count))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        if self._server is None:  # it came while `close` was under way
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        try:
            while True:
                block = await reader.readuntil(b"\r\n\r\n")
                pairs = (line.split(": ", 1) for line in block.decode().strip().split("\r\n"))
                message = {name.lower(): value for name, value in pairs}
                async with self._arrived:
                    self.received.append(message)
                    self._arrived.notify_all()
                answer = self._answer(message)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, message: Message) -> bytes | None:
        action = message["action"].lower()
        if action in self.ignores:
            return b""
        if action in self.instead:
            return self.instead[action](message)
        if action in self.rejects:
            return self.reply(message, "Message: Permission denied", response="Error")
        answer: Callable[[Message], bytes] = getattr(self, f"_on_{action}", self._on_other)
        return answer(message)

    @staticmethod
    def reply(message: Message, *headers: str, response: str = "Success") -> bytes:
        """An answer to an action, as Asterisk words it."""
        return lines(f"Response: {response}", f"ActionID: {message['actionid']}", *headers)

    def _on_other(self, message: Message) -> bytes:
        return self.reply(message, "Message: Invalid/unknown command", response="Error")

    def _on_login(self, message: Message) -> bytes:
        if (message["username"], message["secret"]) != (self.username, self.secret):
            return self.reply(message, "Message: Authentication failed", response="Error")
        booted = lines("Event: FullyBooted", f"Uptime: {self.uptime_seconds}")
        return self.reply(message, "Message: Authentication accepted") + booted

    def _on_ping(self, message: Message) -> bytes:
        return self.reply(message, "Ping: Pong")

    def _on_filter(self, message: Message) -> bytes:
        return self.reply(message, "Message: Success")

    def _on_coresettings(self, message: Message) -> bytes:
        return self.reply(message, f"AsteriskVersion: {self.version}", "SystemName: lab")

    def _on_corestatus(self, message: Message) -> bytes:
        date, time = self.started
        return self.reply(message, f"CoreStartupDate: {date}", f"CoreStartupTime: {time}")

    def _on_coreshowchannels(self, message: Message) -> bytes:
        return self.channel_list(message, len(self.channels))

    def channel_list(self, message: Message, said: int, end: str = "Complete") -> bytes:
        """The list of channels, with a number of items said that need not be true."""
        ours = f"ActionID: {message['actionid']}"
        listed = self.reply(message, "EventList: start", "Message: Channels will follow")
        for channel in self.channels:
            listed += lines("Event: CoreShowChannel", ours, *(f"{k}: {v}" for k, v in channel))
        last = ("Event: CoreShowChannelsComplete", ours, f"EventList: {end}", f"ListItems: {said}")
        return listed + lines(*last)

    def _on_hangup(self, message: Message) -> bytes:
        names = {value for channel in self.channels for key, value in channel if key == "Channel"}
        if message["channel"] not in names:
            return self.reply(message, "Message: No such channel", response="Error")
        return self.reply(message, "Message: Channel Hungup")
