"""The FastAGI server: many connections, of which none can disturb another.

It takes the place of panoramisk's `fast_agi.Application`, whose handler spins for ever, and the
event loop with it, when a client closes before the end of its request; it has no time-out and no
limit. Here each connection has a time for each step and for all of them, sizes are bounded
while they are read, and each end has a name that is counted (`Outcome`).

A connection costs one small object (`AgiConnection`), and a task once it has asked something. Time
limits cost nothing: a sweep over all connections finds those that are over. What a connection
asks is not known here: `Scripts` does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import Protocol, TypeAlias

from astcredit.asterisk.agi import (
    AgiClosedEarly,
    AgiError,
    AgiHungUp,
    AgiProtocolError,
    AgiRequest,
    AgiTooLarge,
    AgiTooSlow,
)
from astcredit.asterisk.fastagi_connection import AgiConnection, Events
from astcredit.asterisk.scripts import ScriptFailed, Scripts, UnknownScript
from astcredit.asterisk.variables import ChannelVariables
from astcredit.domain.text import printable

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)

BACKLOG = 1_024
"""Connections that wait to be accepted: with fewer, a burst loses some, their callers' kernels try
again after one second, and Asterisk gives up after two."""

SWEEP_SECONDS = 0.25
"""Between two looks for connections whose time is over: by so much a limit may be exceeded. All
limits are seconds, and a look at 4,096 connections takes a fifth of a millisecond."""

SWEEPS = 4
"""Looks at least within the shortest limit, where one is shorter than a second."""

MOST_ADDRESSES = 1_024
"""Addresses of which is remembered whether they may come in: each is an Asterisk server, or a
scanner, which must not fill the memory."""

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
    """Times in seconds, kept to within SWEEP_SECONDS, and the number of connections.

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
        self._limits = limits or Limits()
        self._observer = observer or _NoObserver()
        self._events = Events(self._opened, self._asked, self._failed)
        self._guard = lru_cache(MOST_ADDRESSES)(partial(_examined, tuple(allow)))
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._open: set[AgiConnection] = set()
        self._emptied: asyncio.Future[None] | None = None

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> None:
        """Listen; port 0 takes a free one. With `reuse_port` several servers, each with it, share a
        port, and the kernel its connections among them. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self.accept, host, port, backlog=BACKLOG, reuse_port=reuse_port or None
        )
        self._sweep(loop)

    def accept(self) -> AgiConnection:
        """What the event loop is to make of somebody who connects."""
        loop = asyncio.get_running_loop()
        return AgiConnection(loop, self._events, self._limits.reply_seconds)

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
        for connection in [silent for silent in self._open if silent.task is None]:
            self._end(connection, Outcome.STOPPED)
        await self._wait(deadline - loop.time())
        await self._cancel_all()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._scripts.drain(max(deadline - loop.time(), 0))

    async def _wait(self, seconds: float) -> None:
        """Until no connection is open, and no longer than `seconds`."""
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._emptied}, timeout=max(seconds, 0))

    async def _cancel_all(self) -> None:
        tasks = [connection.task for connection in self._open if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in tuple(self._open):  # whose task had not run at all
            self._end(connection, Outcome.STOPPED)

    # What connections do

    def _opened(self, connection: AgiConnection) -> None:
        now = asyncio.get_running_loop().time()
        limits = self._limits
        connection.opened_at = now
        connection.ends_at = now + limits.total_seconds
        connection.due = now + min(limits.request_seconds, limits.total_seconds)
        connection.peer, allowed = self._guard(connection.peername)
        self._open.add(connection)
        if not allowed:
            self._end_logged(connection, Outcome.NOT_ALLOWED)
        elif len(self._open) > limits.connections:
            self._end_logged(connection, Outcome.TOO_MANY)

    def _failed(self, connection: AgiConnection, error: AgiError) -> None:
        if connection in self._open:
            self._end_logged(connection, _outcome_of(error, Outcome.SLOW_REQUEST), error)

    def _asked(self, connection: AgiConnection, request: AgiRequest) -> None:
        if request.script in Scripts.NAMES:
            connection.script = request.script
        loop = asyncio.get_running_loop()
        connection.task = loop.create_task(self._serve(connection, request))

    async def _serve(self, connection: AgiConnection, request: AgiRequest) -> None:
        """Run the script, and end the connection. Raises nothing but CancelledError."""
        outcome = Outcome.STOPPED
        try:
            node = self._node_of(connection.peer)
            await self._scripts.run(request, ChannelVariables(connection), node)
            outcome = Outcome.DONE
        except ScriptFailed:
            outcome = Outcome.FAILED  # logged where it happened
        except UnknownScript as error:
            outcome = _logged(connection, Outcome.UNKNOWN_SCRIPT, error)
        except AgiError as error:
            outcome = _logged(connection, _outcome_of(error, Outcome.SLOW_REPLY), error)
        except Exception as error:
            outcome = Outcome.FAILED
            extra = {"action": "agi_connection_failed", "peer": connection.peer}
            _log.error("AGI connection failed", extra=extra, exc_info=error)
        finally:
            self._end(connection, outcome)

    def _end_logged(
        self, connection: AgiConnection, outcome: Outcome, error: AgiError | None = None
    ) -> None:
        self._end(connection, _logged(connection, outcome, error))

    def _end(self, connection: AgiConnection, outcome: Outcome) -> None:
        """The one way out, taken once by each connection."""
        if connection not in self._open:
            return
        self._open.discard(connection)
        connection.close()
        seconds = asyncio.get_running_loop().time() - connection.opened_at
        self._observer.count(outcome.value, connection.script, seconds)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    # Time limits

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is over, now and again and again."""
        now = loop.time()
        for connection in [over for over in self._open if over.due <= now]:
            if connection.ends_at > now:
                connection.too_slow()
            else:
                self._end_slow(connection)
        limits = self._limits
        shortest = min(limits.request_seconds, limits.reply_seconds, limits.total_seconds)
        seconds = min(SWEEP_SECONDS, shortest / SWEEPS)
        self._sweeping = loop.call_later(seconds, self._sweep, loop)

    def _end_slow(self, connection: AgiConnection) -> None:
        """Each step was in time, but not all together. The script stops as it does at a stop of
        the server: a question that it has asked is watched, not cancelled."""
        connection.due = math.inf
        self._end_logged(connection, Outcome.SLOW)
        if connection.task is not None:
            connection.task.cancel()


def _examined(allow: Sequence[Network], peername: str) -> tuple[str, bool]:
    """The address that the system writes in this way, and whether it may come in."""
    address = plain_address(peername)
    return address, is_allowed(address, allow)


def is_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether the text of an address lies in one of the networks; what is no address does not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def plain_address(peername: str) -> str:
    """The text of an address without a zone, IPv4 within IPv6 as IPv4; what is none as it is."""
    text = peername.partition("%")[0]
    try:
        mapped = ipaddress.IPv6Address(text).ipv4_mapped
    except ValueError:
        return text
    return text if mapped is None else str(mapped)


def _outcome_of(error: AgiError, when_slow: Outcome) -> Outcome:
    match error:
        case AgiTooLarge():
            return Outcome.TOO_LARGE
        case AgiProtocolError():
            return Outcome.NOT_AGI
        case AgiTooSlow():
            return when_slow
        case AgiClosedEarly():
            return Outcome.CLOSED_EARLY
        case AgiHungUp():
            return Outcome.HUNG_UP
        case _:
            return Outcome.LOST


_QUIET = frozenset({Outcome.CLOSED_EARLY, Outcome.HUNG_UP})
"""Ends that are everyday: a health check, a caller who gave up."""


def _logged(connection: AgiConnection, outcome: Outcome, error: Exception | None) -> Outcome:
    level = logging.DEBUG if outcome in _QUIET else logging.WARNING
    if _log.isEnabledFor(level):
        extra = {
            "action": "agi_connection_ended",
            "outcome": outcome.value,
            "peer": connection.peer,
            "script": connection.script,
            "error": printable(str(error), most=200) if error else "",
        }
        _log.log(level, "AGI connection ended", extra=extra)
    return outcome
