"""The manager sessions of the simulated Asterisk servers, under the real `AmiLink`.

`SimulatedSession` stands in for `astcredit.asterisk.ami_session.AmiSession`: what comes from
Asterisk, events and answers alike, comes in one stream, in order, some time later. The stream can
be slow, freeze for a while, or break at any point, also in the middle of a list.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from astcredit.asterisk.ami_node import AmiNode
from astcredit.asterisk.ami_session import (
    AmiIncompleteError,
    AmiLostError,
    AmiRejectedError,
    AmiTimeoutError,
    AmiTimes,
)
from simulation.asterisk import Asterisk, Chan, Event
from simulation.chance import Chance

T = TypeVar("T")
AGAIN_SECONDS = 30.0
"""After this everything is heard again: reconnecting, asking, and trying once more."""

Item: TypeAlias = Callable[[], object]
Headers: TypeAlias = Mapping[str, str]
"""Of actions, and of answers to them."""


@dataclass(slots=True)
class AmiWeather:
    """How often what happens on the manager sessions, and which servers cannot be reached now."""

    cut: float = 0.0
    """Of an event: the link breaks instead of delivering it."""
    late: float = 0.0
    twice: float = 0.0
    list_cut: float = 0.0
    list_incomplete: float = 0.0
    slow: float = 0.0
    """Of a request: it takes seconds."""
    rejected: float = 0.0


class Process(Protocol):
    """The controller that holds sessions."""

    alive: bool
    idle_at: float

    @property
    def name(self) -> str: ...


class Ear(Protocol):
    """Who is told what a controller got to hear."""

    def heard(self, process: Process, event: Event) -> None: ...

    def disturbed(self, what: str, seconds: float, node: str = "") -> None: ...

    def note(self, *words: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Network:
    """What the sessions of one controller need to know of the world."""

    process: Process
    servers: Mapping[str, Asterisk]
    weather: AmiWeather
    chance: Chance
    ear: Ear


NETWORK: ContextVar[Network] = ContextVar("network")
"""The network of the process whose task runs."""


class SimulatedSession:
    """One connection of one controller to one Asterisk."""

    def __init__(self, node: AmiNode, on_event: Callable[[Event], None], times: AmiTimes) -> None:
        self._network = NETWORK.get()
        self._context = contextvars.copy_context()
        self._server = self._network.servers[node.name]
        self._chance = self._network.chance
        self._on_event = on_event
        self._times = times
        self._last = 0.0
        self._frozen = False
        self._unplugged = False
        self._kept: deque[Item] = deque()
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self.closed = asyncio.Event()
        self.reason = ""
        self.strays = 0

    @property
    def process(self) -> Process:
        """Whose session it is."""
        return self._network.process

    async def open(self) -> None:
        """Connect and log in. Raises AmiLostError."""
        await asyncio.sleep(self._chance.between(0.0005, 0.01))
        server = self._server
        if not server.running:
            self.closed.set()
            raise AmiLostError("simulated: cannot connect")
        server.sessions.append(self)
        uptime = int(asyncio.get_running_loop().time() - server.started)
        self.hear({"Event": "FullyBooted", "Uptime": str(uptime)})

    def hear(self, event: Event) -> None:
        """An event sets out."""
        if self.closed.is_set():
            return
        weather, chance = self._network.weather, self._chance
        if chance.happens(weather.cut):
            self._disturbed("link cut")
            self.lose("simulated: cut")
            return
        self._send(lambda: self._deliver(event))
        if chance.happens(weather.twice):
            self._send(lambda: self._deliver(event))

    def lose(self, reason: str) -> None:
        """The connection breaks; what is under way is lost."""
        if self.closed.is_set():
            return
        self.reason = reason
        self.closed.set()
        self._kept.clear()
        if self in self._server.sessions:
            self._server.sessions.remove(self)
        self._network.ear.note(self._network.process.name, "link", self._server.name, reason)
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(AmiLostError(reason))

    def close(self) -> None:
        """The controller ends the connection."""
        self.lose("closed")

    def unplug(self) -> None:
        """The server is gone without a word: nothing ever comes again, and nobody says so."""
        self._unplugged = True

    def freeze(self) -> None:
        """Nothing gets through any more, in either direction."""
        self._frozen = True

    def thaw(self) -> None:
        """What has waited gets through."""
        self._frozen = False
        while self._kept and not self._frozen:
            self._context.run(self._kept.popleft())

    async def request(
        self, action: str, headers: Headers | None = None, seconds: float | None = None
    ) -> Headers:
        """Send an action; its answer. Raises AmiLostError, AmiRejectedError."""
        network = self._network
        if self._chance.happens(network.weather.rejected) and action == "Getvar":
            raise AmiRejectedError("Permission denied")
        found: Headers = await self._ask(
            lambda: self._answer(action, headers or {}), seconds or self._times.reply
        )
        if found.get("Response") == "Error":
            raise AmiRejectedError(found["Message"])
        return found

    async def request_list(self, action: str) -> Sequence[Event]:
        """All channels. Raises AmiLostError, AmiIncompleteError."""
        network, chance = self._network, self._chance
        assert action == "CoreShowChannels"
        items: Sequence[Event] = await self._ask(self._server.listed, self._times.listing)
        if chance.happens(network.weather.list_cut):
            self._disturbed("list cut")
            self.lose("simulated: cut in the middle of a list")
            raise AmiLostError("simulated: cut in the middle of a list")
        if chance.happens(network.weather.list_incomplete):
            self._disturbed("list incomplete")
            raise AmiIncompleteError("simulated: a list that is not complete")
        return items

    async def _ask(self, answer: Callable[[], T], seconds: float) -> T:
        """Ask, and wait for the answer, which comes in the stream of everything."""
        if self.closed.is_set():
            raise AmiLostError(self.reason or "not connected")
        loop, chance = asyncio.get_running_loop(), self._chance
        future: asyncio.Future[T] = loop.create_future()
        slow = chance.happens(self._network.weather.slow)
        if slow:
            self._disturbed("link slow")

        def arrives() -> None:
            if self._frozen:
                self._kept.append(arrives)
            elif not self.closed.is_set() and not self._unplugged:
                found = answer()
                self._send(lambda: _answer(future, found), slow=slow)

        loop.call_later(chance.between(0.0002, 0.002), arrives, context=self._context)
        self._waiting[future] = None
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise AmiTimeoutError("simulated: no answer in time") from None
        finally:
            self._waiting.pop(future, None)

    def _answer(self, action: str, headers: Headers) -> Headers:
        """What Asterisk answers at the moment when the action reaches it."""
        server = self._server
        match action:
            case "CoreStatus":
                return {"CoreStartupDate": "2026-11-30", "CoreStartupTime": f"boot {server.boots}"}
            case "CoreSettings":
                return {"AsteriskVersion": "22.10.0", "SystemName": server.name}
            case "Ping":
                ms = server.now_ms
                return {"Ping": "Pong", "Timestamp": f"{ms // 1000}.{ms % 1000:03}000"}
            case "Getvar" | "Hangup" | "AbsoluteTimeout":
                chan = server.found(headers["Channel"])
                if chan is None:
                    return {"Response": "Error", "Message": "No such channel"}
                return self._act(action, headers, chan)
        return {"Response": "Success"}

    def _act(self, action: str, headers: Headers, chan: Chan) -> Headers:
        if action == "Hangup":
            self._server.soft_hangup(chan, int(headers.get("Cause", "16")))
        elif action == "AbsoluteTimeout":
            chan.set_timer("absolute", float(headers["Timeout"]))
        else:
            what = "start" if headers["Variable"] == "CDR(start,u)" else "answer"
            return {"Value": chan.cdr_instant(what)}
        return {"Response": "Success"}

    def _send(self, item: Item, *, slow: bool = False) -> None:
        """Put something into the stream; it arrives after what was put there before."""
        loop, chance = asyncio.get_running_loop(), self._chance
        delay = chance.between(0.0002, 0.002)
        if slow:
            delay += chance.about(4)
        elif chance.happens(self._network.weather.late):
            delay += chance.about(0.5)
        self._last = max(self._last + 1e-6, loop.time() + delay)
        loop.call_at(self._last, self._arrive, item, context=self._context)

    def _arrive(self, item: Item) -> None:
        if self.closed.is_set() or self._unplugged or not self._network.process.alive:
            return
        if self._frozen:
            self._kept.append(item)
        else:
            item()

    def _disturbed(self, what: str) -> None:
        self._network.ear.disturbed(what, AGAIN_SECONDS, self._server.name)

    def _deliver(self, event: Event) -> None:
        self._network.ear.heard(self._network.process, event)
        self._on_event(event)


def _answer(future: asyncio.Future[T], found: T) -> None:
    if not future.done():
        future.set_result(found)
