"""A FastAGI server with a fake control behind it, and peers to talk to it over sockets."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from astcredit.asterisk.fastagi import FastAgiServer, Limits, Network
from astcredit.asterisk.scripts import ANSWER_SECONDS, Scripts
from support.agi_fakes import FakeChannel, FakeControl, header_block

PATIENT = Limits(request_seconds=60, reply_seconds=60, total_seconds=60)

LINKEDID_AND_SOURCE = b"200 result=1 (17.1|192.0.2.7:5060)\n"
"""The answer to what `authorize` asks of a PJSIP channel."""


@dataclass(slots=True)
class Counts:
    """An observer that counts, and lets a test wait for a count."""

    outcomes: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, outcome: str, script: str, seconds: float) -> None:
        assert seconds >= 0
        self.outcomes[outcome] += 1
        self.scripts[script] += 1
        self.changed.set()

    async def wait_for(self, outcome: str, number: int = 1) -> None:
        while self.outcomes[outcome] < number:
            self.changed.clear()
            await self.changed.wait()


@dataclass(slots=True)
class Served:
    """A server that listens, and what it is connected to."""

    server: FastAgiServer
    control: FakeControl
    counts: Counts

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        return Peer(reader, writer)

    async def call(self, script: str = "authorize", **variables: str) -> FakeChannel:
        """Play Asterisk for one script, to its end."""
        peer = await self.connect()
        peer.send(header_block(script))
        return await peer.play(FakeChannel(variables))


@dataclass(slots=True)
class Peer:
    """Asterisk's end of a connection, or an attacker's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def play(self, channel: FakeChannel) -> FakeChannel:
        """Answer commands until the server closes."""
        while line := await self.reader.readline():
            self.send(channel.answer(line.decode().removesuffix("\n")).encode())
        self.close()
        return channel

    async def closed(self) -> bytes:
        """What came until the server closed the connection, or cut it."""
        try:
            data = await self.reader.read()
        except ConnectionError:
            data = b""
        self.close()
        return data

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def serving(
    control: FakeControl | None = None,
    limits: Limits = PATIENT,
    allow: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),),
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[Served]:
    numbers = count(1)
    control = control or FakeControl()
    scripts = Scripts(
        control,
        new_call_id=lambda: f"call-{next(numbers)}",
        now_ms=lambda: 0,
        answer_seconds=answer_seconds,
    )
    counts = Counts()
    server = FastAgiServer(
        scripts,
        node_of={"127.0.0.1": "pbx1"}.__getitem__,
        allow=allow,
        limits=limits,
        observer=counts,
    )
    await server.start("127.0.0.1", 0)
    try:
        yield Served(server, control, counts)
    finally:
        await server.stop(0)


async def up_to_the_answer(served: Served) -> Peer:
    """A peer that has been told ALLOWED and has not acknowledged it."""
    peer = await served.connect()
    peer.send(header_block("authorize"))
    assert (await peer.reader.readline()).startswith(b"GET FULL VARIABLE")
    peer.send(LINKEDID_AND_SOURCE)
    assert b"AC_STATUS=ALLOWED" in await peer.reader.readline()
    return peer


class Writer:
    """The other half of such a stream."""

    closed = False
    written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        pass

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 40_000) if name == "peername" else None

    def close(self) -> None:
        self.closed = True
