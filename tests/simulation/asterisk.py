"""A simulated Asterisk server: its channels, its clock, and what it tells whoever is logged in.

It does what a real one was seen to do, in the same order; the dialplan that runs on it is in
`dialplan`. What happens here is the truth that the auditor compares the books with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from astcredit.asterisk.legs import HeaderValue
from simulation.chance import Chance

BASE_MS = 1_796_083_140_000
"""The clock at the start of a run: 2026-11-30 23:59:00 UTC. A day and a month end in the run."""

Event: TypeAlias = Mapping[str, HeaderValue]

NORMAL, BUSY, NO_ANSWER, CONGESTION, LOST = 16, 17, 19, 34, 27
"""Q.850 causes."""


class Hearer(Protocol):
    """A manager session that is told of events."""

    @property
    def process(self) -> object: ...

    def unplug(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def hear(self, event: Event) -> None: ...

    def lose(self, reason: str) -> None: ...


class Witness(Protocol):
    """Who is told what truly happens on the channels."""

    def leg_answered(self, leg: Chan, call_id: str, seconds: int) -> None: ...

    def leg_ended(self, leg: Chan) -> None: ...

    def note(self, *words: object) -> None: ...


@dataclass(slots=True, eq=False)
class Chan:
    """A channel. `hung`: whoever runs it has to end it; `up`: it was answered."""

    node: Asterisk
    uniqueid: str
    name: str
    linkedid: str
    account: str
    created: float
    runs_dialplan: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    answered_ms: int | None = None
    cdr_begun_ms: int = 0
    """When its present CDR began; a transfer begins one that counts as answered."""
    alive: bool = True
    hung: bool = False
    transferred: bool = False
    bridge: str = ""
    call_id: str = ""
    """The call whose outbound leg it is, once it was answered."""
    waiter: asyncio.Future[None] | None = None
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.hung or not self.alive

    @property
    def shown_variables(self) -> list[str]:
        """Those that events and lists show: manager.conf has channelvars=AC_CALL,AC_LEG."""
        return [f"{name}={self.variables.get(name, '')}" for name in ("AC_CALL", "AC_LEG")]

    def cdr_instant(self, what: str) -> str:
        """CDR(start,u) or CDR(answer,u)."""
        begun = f"{self.cdr_begun_ms // 1000}.{self.cdr_begun_ms % 1000:03}000"
        ms = self.answered_ms
        if what == "start" or (ms is not None and ms < self.cdr_begun_ms):
            return begun
        return "0.000000" if ms is None else f"{ms // 1000}.{ms % 1000:03}500"

    def wake(self) -> None:
        """Something happened to the channel."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def set_timer(self, name: str, seconds: float, cause: int = NORMAL) -> None:
        """Hang up after so many seconds; takes the place of an earlier timer of that name."""
        self.stop_timer(name)
        loop = asyncio.get_running_loop()
        self.timers[name] = loop.call_later(seconds, self.node.soft_hangup, self, cause)

    def stop_timer(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()


class Asterisk:
    """One server. `offset_ms` is by how much its clock is wrong."""

    def __init__(self, name: str, chance: Chance, witness: Witness, offset_ms: int = 0) -> None:
        self.name = name
        self.chance = chance
        self.witness = witness
        self.offset_ms = offset_ms
        self.running = True
        self.boots = 0
        self.started = 0.0
        self.channels: dict[str, Chan] = {}
        self.sessions: list[Hearer] = []
        self._serial = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    @property
    def now_ms(self) -> int:
        """The server's clock."""
        return BASE_MS + self.offset_ms + int(asyncio.get_running_loop().time() * 1000)

    @property
    def busy(self) -> bool:
        """Whether anything goes on."""
        return bool(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something as a part of this server: it ends with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            raise RuntimeError("the simulated Asterisk failed") from task.exception()

    def create(self, peer: str, account: str = "", linkedid: str = "") -> Chan:
        """A new channel of a peer, `PJSIP/alice`."""
        self._serial += 1
        uniqueid = f"{self.name}-{self.now_ms // 1000}.{self._serial}"
        name = f"{peer}-{self._serial:08x}"
        now = asyncio.get_running_loop().time()
        chan = Chan(self, uniqueid, name, linkedid or uniqueid, account, now)
        chan.cdr_begun_ms = self.now_ms
        self.channels[uniqueid] = chan
        return chan

    def emit(self, event: str, **headers: HeaderValue) -> None:
        """Tell every manager session."""
        ms = self.now_ms
        told = {"Event": event, "Timestamp": f"{ms // 1000}.{ms % 1000:03}000", **headers}
        self.witness.note(self.name, event, *_steps(headers))
        for session in tuple(self.sessions):
            session.hear(told)

    def emit_dial(self, event: str, caller: Chan, leg: Chan, **headers: str) -> None:
        """DialBegin or DialEnd."""
        self.emit(
            event,
            Uniqueid=caller.uniqueid,
            Channel=caller.name,
            ChanVariable=caller.shown_variables,
            DestUniqueid=leg.uniqueid,
            DestChannel=leg.name,
            DestChanVariable=leg.shown_variables,
            **headers,
        )

    def answer(self, caller: Chan, leg: Chan, seconds: int) -> None:
        """An outbound leg is answered."""
        leg.answered_ms = self.now_ms
        leg.call_id = caller.variables.get("AC_CALL", "")
        self.witness.leg_answered(leg, leg.call_id, seconds)
        self.emit_dial("DialEnd", caller, leg, DialStatus="ANSWER")

    def join(self, caller: Chan, leg: Chan) -> None:
        """The Gosub on the answered leg (Dial's U()) is over: it is marked, and bridged."""
        leg.variables["AC_LEG"] = f"{leg.call_id}/{leg.cdr_instant('answer')}"
        caller.bridge = leg.bridge = f"b{leg.uniqueid}"

    def soft_hangup(self, chan: Chan, cause: int = NORMAL) -> None:
        """Ask for the end of a channel: at once, unless it has a dialplan to come to an end."""
        if not chan.alive:
            return
        if chan.runs_dialplan:
            chan.hung = True
            chan.wake()
        else:
            self.end(chan, cause)

    def end(self, chan: Chan, cause: int = NORMAL) -> None:
        """The end of a channel."""
        if not chan.alive:
            return
        self._bury(chan)
        self.emit(
            "Hangup",
            Uniqueid=chan.uniqueid,
            Channel=chan.name,
            Cause=str(cause),
            ChanVariable=chan.shown_variables,
        )
        chan.wake()

    def _bury(self, chan: Chan) -> None:
        chan.alive = False
        del self.channels[chan.uniqueid]
        for name in tuple(chan.timers):
            chan.stop_timer(name)
        self.witness.leg_ended(chan)

    async def until(self, chans: Iterable[Chan], seconds: float) -> None:
        """Wait until one of the channels is (to be) hung up, at most so long."""
        chans = tuple(chans)
        if any(chan.ended for chan in chans):
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        for chan in chans:
            chan.waiter = waiter
        timer = loop.call_later(seconds, _release, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            for chan in chans:
                if chan.waiter is waiter:
                    chan.waiter = None

    def crash(self, *, silent: bool) -> None:
        """Everything is gone at once; `silent`: so suddenly that nobody's connection is closed."""
        self.running = False
        for task in tuple(self._tasks):
            task.cancel()
        for chan in tuple(self.channels.values()):
            self._bury(chan)
        sessions, self.sessions = self.sessions, []
        for session in sessions:
            if silent:
                session.unplug()
            else:
                session.lose("connection lost")

    def boot(self) -> None:
        """Start again, with nothing left of before."""
        self.running = True
        self.boots += 1
        self._serial = 0
        self.started = asyncio.get_running_loop().time()

    def listed(self) -> list[Event]:
        """What CoreShowChannels says."""
        now = asyncio.get_running_loop().time()
        return [_listed(chan, int(now - chan.created)) for chan in self.channels.values()]

    def found(self, name: str) -> Chan | None:
        """A channel by its unique id or its name."""
        named = (c for c in self.channels.values() if c.name == name)
        return self.channels.get(name) or next(named, None)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _steps(headers: Event) -> Iterable[HeaderValue]:
    """What of an event a person looks for in the log."""
    for name in ("Uniqueid", "DestUniqueid", "DialStatus", "Cause"):
        if name in headers:
            yield headers[name]
    yield headers["ChanVariable"][0].removeprefix("AC_CALL=")


def _listed(chan: Chan, age: int) -> Event:
    return {
        "Channel": chan.name,
        "Uniqueid": chan.uniqueid,
        "Linkedid": chan.linkedid,
        "AccountCode": chan.account,
        "ChannelStateDesc": "Ring" if chan.answered_ms is None else "Up",
        "Duration": f"{age // 3600:02}:{age // 60 % 60:02}:{age % 60:02}",
        "BridgeId": chan.bridge,
        "ChanVariable": chan.shown_variables,
    }
