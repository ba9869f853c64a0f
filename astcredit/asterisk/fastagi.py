"""The FastAGI server: many connections, of which none can disturb another.

It takes the place of panoramisk's `fast_agi.Application`, whose handler spins for ever, and the
event loop with it, when a client closes before the end of its request; it has no time-out and no
limit. Here each connection has a time for each step and for all of them, sizes are bounded
while they are read, and each end has a name that is counted (`Outcome`).

A connection costs one task and no thread. What it asks is not known here: `Scripts` does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from astcredit.asterisk.agi import (
    AgiClosedEarly,
    AgiError,
    AgiHungUp,
    AgiPeerGone,
    AgiProtocolError,
    AgiReply,
    AgiRequest,
    AgiTooLarge,
    AgiTooSlow,
    HeaderParser,
    ReplyParser,
)
from astcredit.asterisk.scripts import ScriptFailed, Scripts, UnknownScript
from astcredit.asterisk.variables import ChannelVariables
from astcredit.domain.text import printable

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)

READ_BYTES = 4_096
"""Read at once: a usual request block is 500 bytes, and memory is bounded by this for the rest."""

BACKLOG = 1_024
"""Connections that wait to be accepted: with fewer, a burst loses some, their callers' kernels try
again after one second, and Asterisk gives up after two."""

_log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a connection ended."""

    DONE = "done"
    FAILED = "failed"
    """An error of this program."""
    UNKNOWN_SCRIPT = "unknown_script"
    NOT_ALLOWED = "not_allowed"
    """Its address is in none of the allowed networks."""
    TOO_MANY = "too_many"
    CLOSED_EARLY = "closed_early"
    """Closed before the end of the request, as a health check does."""
    NOT_AGI = "not_agi"
    TOO_LARGE = "too_large"
    SLOW_REQUEST = "slow_request"
    SLOW_REPLY = "slow_reply"
    SLOW = "slow"
    """Each step in time, but not all together."""
    LOST = "lost"
    HUNG_UP = "hung_up"
    STOPPED = "stopped"
    """The server was stopped, and its grace was over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, and the number of connections.

    request_seconds: for the whole request block. Asterisk sends it at once; 5 s are for a packet
        that is lost twice.
    reply_seconds: for the reply to one command, 0.3 ms on a quiet machine. 5 s as above.
    total_seconds: for a whole connection: request, answer (2 s) and two replies, each at its limit.
    connections: at once. A call needs one for some milliseconds; more than these are an attack or
        a database that does not answer, and each costs a file descriptor.
    silent_seconds: how long a stop waits for connections that have not asked anything yet.
    """

    request_seconds: float = 5.0
    reply_seconds: float = 5.0
    total_seconds: float = 17.0
    connections: int = 4_096
    silent_seconds: float = 0.5


class Observer(Protocol):
    """Counts what happens; must not block."""

    def count(self, outcome: str, script: str, seconds: float) -> None:
        """A connection has ended. `script` is a name from `Scripts.NAMES`, else empty."""


class _NoObserver:
    def count(self, outcome: str, script: str, seconds: float) -> None:
        pass


class StreamCommands:
    """AGI on a pair of streams: the request, then one command at a time (`AgiCommands`)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._replies = ReplyParser()

    @property
    def hung_up(self) -> bool:
        """Asterisk has sent `HANGUP`."""
        return self._replies.hung_up

    async def request(self) -> AgiRequest:
        """The request. Raises AgiError."""
        parser = HeaderParser()
        request = None
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                while request is None:
                    request = parser.feed(await self._received(AgiClosedEarly))
        except TimeoutError:
            raise AgiTooSlow("the request is not complete") from None
        self._replies.feed(parser.rest)
        return request

    async def command(self, line: str) -> AgiReply:
        """Send a command and wait for its reply. Raises AgiError."""
        self._replies.feed(await self._already_received())
        self._replies.expect_silence()
        try:
            async with asyncio.timeout(self._limits.reply_seconds):
                await self._send(line)
                while (reply := self._replies.next_reply()) is None:
                    self._replies.feed(await self._received(AgiPeerGone))
        except TimeoutError:
            raise AgiTooSlow("no reply to a command") from None
        return reply

    async def _send(self, line: str) -> None:
        try:
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise AgiPeerGone("the connection is lost") from error

    async def _received(self, when_closed: type[AgiPeerGone]) -> bytes:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            raise when_closed("the connection is lost") from error
        if not data:
            raise when_closed("the connection is closed")
        return data

    async def _already_received(self) -> bytes:
        """What has come without being asked for, without waiting for more."""
        try:
            async with asyncio.timeout(0):
                return await self._received(AgiPeerGone)
        except TimeoutError:
            return b""


class FastAgiServer:
    """Serves `scripts` to the addresses in `allow`.

    `node_of` gives the name of the node (the Asterisk server) that has an address; `observer`
    is told the end of each connection.
    """

    def __init__(
        self,
        scripts: Scripts,
        *,
        node_of: Callable[[str], str],
        allow: Sequence[Network] = LOOPBACK,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._scripts = scripts
        self._node_of = node_of
        self._allow = tuple(allow)
        self._limits = limits or Limits()
        self._observer = observer or _NoObserver()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""
        self._server = await asyncio.start_server(
            self._accept, host, port, limit=READ_BYTES, backlog=BACKLOG
        )

    @property
    def port(self) -> int:
        """The port that it listens on. Raises RuntimeError before start and after stop."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the FastAGI server does not listen")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    async def stop(self, grace_seconds: float) -> None:
        """Stop accepting, let what is under way finish, after `grace_seconds` cancel the rest.

        Connections that have asked nothing are given a moment only. Questions that were given up
        are waited for within the same time; what is allowed after that is abandoned.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        if self._server is not None:
            self._server.close()
        await self._wait(min(grace_seconds, self._limits.silent_seconds))
        for silent in self._silent:
            silent.cancel()
        await self._wait(deadline - loop.time())
        for connection in self._open:
            connection.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._scripts.drain(max(deadline - loop.time(), 0))

    async def _wait(self, seconds: float) -> None:
        if self._open:
            await asyncio.wait(set(self._open), timeout=max(seconds, 0))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.get_running_loop().create_task(self.handle(reader, writer))
        self._open.add(connection)
        self._silent.add(connection)
        connection.add_done_callback(self._open.discard)
        connection.add_done_callback(self._silent.discard)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. Raises nothing but CancelledError."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        visit = _Visit(_address_of(writer))
        outcome = Outcome.STOPPED
        try:
            outcome = await self._serve(reader, writer, visit)
        except Exception as error:
            outcome = Outcome.FAILED
            extra = {"action": "agi_connection_failed", "peer": visit.peer}
            _log.error("AGI connection failed", extra=extra, exc_info=error)
        finally:
            writer.close()
            self._observer.count(outcome.value, visit.script, loop.time() - started)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: _Visit
    ) -> Outcome:
        refused = self._refused(visit.peer)
        if refused is not None:
            return _ended(refused, visit, None)
        try:
            async with asyncio.timeout(self._limits.total_seconds):
                await self._run(StreamCommands(reader, writer, self._limits), visit)
        except TimeoutError:
            return _ended(Outcome.SLOW, visit, None)
        except ScriptFailed:
            return Outcome.FAILED  # logged where it happened
        except UnknownScript as error:
            return _ended(Outcome.UNKNOWN_SCRIPT, visit, error)
        except AgiError as error:
            return _ended(_outcome_of(error, visit), visit, error)
        return Outcome.DONE

    async def _run(self, commands: StreamCommands, visit: _Visit) -> None:
        request = await commands.request()
        if (connection := asyncio.current_task()) is not None:
            self._silent.discard(connection)
        visit.asked = True
        if request.script in Scripts.NAMES:
            visit.script = request.script
        await self._scripts.run(request, ChannelVariables(commands), self._node_of(visit.peer))

    def _refused(self, peer: str) -> Outcome | None:
        if not is_allowed(peer, self._allow):
            return Outcome.NOT_ALLOWED
        return Outcome.TOO_MANY if len(self._open) > self._limits.connections else None


@dataclass(slots=True)
class _Visit:
    """What is known of a connection so far."""

    peer: str
    script: str = ""
    asked: bool = False


def is_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether the text of an address lies in one of the networks; what is no address does not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def _address_of(writer: asyncio.StreamWriter) -> str:
    """The peer's address as text, IPv4 within IPv6 as IPv4; empty if there is none."""
    peer = writer.get_extra_info("peername")
    text = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else ""
    try:
        mapped = ipaddress.IPv6Address(text).ipv4_mapped
    except ValueError:
        return text
    return text if mapped is None else str(mapped)


def _outcome_of(error: AgiError, visit: _Visit) -> Outcome:
    match error:
        case AgiTooLarge():
            return Outcome.TOO_LARGE
        case AgiProtocolError():
            return Outcome.NOT_AGI
        case AgiTooSlow():
            return Outcome.SLOW_REPLY if visit.asked else Outcome.SLOW_REQUEST
        case AgiClosedEarly():
            return Outcome.CLOSED_EARLY
        case AgiHungUp():
            return Outcome.HUNG_UP
        case _:
            return Outcome.LOST


_QUIET = frozenset({Outcome.CLOSED_EARLY, Outcome.HUNG_UP})
"""Ends that are everyday: a health check, a caller who gave up."""


def _ended(outcome: Outcome, visit: _Visit, error: Exception | None) -> Outcome:
    extra = {
        "action": "agi_connection_ended",
        "outcome": outcome.value,
        "peer": visit.peer,
        "script": visit.script,
        "error": printable(str(error), most=200) if error else "",
    }
    level = logging.DEBUG if outcome in _QUIET else logging.WARNING
    _log.log(level, "AGI connection ended", extra=extra)
    return outcome
