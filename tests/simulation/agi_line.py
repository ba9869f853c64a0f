"""The AGI connections of a simulated Asterisk: what its dialplan asks the controllers.

A connection runs the real scripts with a session in the place of its socket. It can be refused, be
cut before, in the middle of and after the answer, or stall; the report in `h` can also be lost,
late, or come twice.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from astcredit.asterisk.agi import AgiPeerGone, AgiRequest, AgiTooSlow
from simulation.asterisk import Chan
from simulation.chance import Chance

REPLY_SECONDS = 5.0
"""As the server waits for the reply to a command."""
PROMISED_SECONDS = 2.01
"""A dialplan has its answer in two seconds, and some milliseconds of travel."""


class Fate(Enum):
    """What becomes of a connection."""

    GOOD = auto()
    REFUSED = auto()
    CUT_ASKING = auto()
    CUT_UNTAKEN = auto()
    """Cut before Asterisk has taken the answer."""
    CUT_TAKEN = auto()
    """Cut when Asterisk has taken the answer and its acknowledgement is on the way."""
    STALL_UNTAKEN = auto()
    STALL_TAKEN = auto()


@dataclass(slots=True)
class LineWeather:
    """How often what happens to a connection."""

    refused: float = 0.0
    cut_asking: float = 0.0
    cut_untaken: float = 0.0
    cut_taken: float = 0.0
    stall: float = 0.0
    report_lost: float = 0.0
    report_late: float = 0.0
    report_twice: float = 0.0

    def draw(self, chance: Chance) -> Fate:
        """The fate of one connection."""
        for fate, probability in (
            (Fate.REFUSED, self.refused),
            (Fate.CUT_ASKING, self.cut_asking),
            (Fate.CUT_UNTAKEN, self.cut_untaken),
            (Fate.CUT_TAKEN, self.cut_taken),
            (Fate.STALL_UNTAKEN, self.stall),
            (Fate.STALL_TAKEN, self.stall),
        ):
            if chance.happens(probability):
                return fate
        return Fate.GOOD


class Session:
    """A channel as a script sees it. Implements `astcredit.asterisk.scripts.AgiSession`."""

    def __init__(self, chan: Chan, fate: Fate, chance: Chance) -> None:
        self._chan = chan
        self._fate = fate
        self._chance = chance
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def hung_up(self) -> bool:
        return self._chan.ended

    def close(self) -> None:
        """The connection ends, for both sides."""
        if not self.closed.done():
            self.closed.set_result(None)

    async def get_variables(self, names: Sequence[str]) -> dict[str, str]:
        await self._travel()
        if self._fate is Fate.CUT_ASKING:
            self._break()
        known = {**self._chan.variables, "CHANNEL(linkedid)": self._chan.linkedid}
        return {name: known.get(name, "") for name in names}

    async def set_variables(self, values: Mapping[str, str]) -> None:
        await self._travel()
        if self._fate is Fate.CUT_UNTAKEN:
            self._break()
        if self._fate is Fate.STALL_UNTAKEN:
            await self._stall()
        self._chan.variables.update(values)
        if self._fate is Fate.CUT_TAKEN:
            self._break()
        if self._fate is Fate.STALL_TAKEN:
            await self._stall()
        await self._travel()

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.between(0.0001, 0.0005))
        if self.closed.done():
            raise AgiPeerGone("simulated: the connection is closed")

    def _break(self) -> None:
        self.close()
        raise AgiPeerGone("simulated: the connection is cut")

    async def _stall(self) -> None:
        await asyncio.sleep(REPLY_SECONDS)
        self.close()
        raise AgiTooSlow("simulated: no reply")


class Server(Protocol):
    """A process that serves AGI."""

    alive: bool

    def serve(self, request: AgiRequest, session: Session, node: str) -> None:
        """Run the script; closes the session when it is over."""


class Judge(Protocol):
    """Who is told of what must not be."""

    def wrong(self, what: str) -> None: ...

    def tear(self, call_id: str) -> None: ...

    def disturbed(self, what: str, seconds: float, node: str = "") -> None: ...

    def note(self, *words: object) -> None: ...


class AgiLine:
    """Where the dialplans of all servers turn to: one of the controllers that are alive."""

    def __init__(
        self, servers: Sequence[Server], weather: LineWeather, chance: Chance, judge: Judge
    ) -> None:
        self._servers = servers
        self._weather = weather
        self._chance = chance
        self._judge = judge

    async def ask(self, chan: Chan, script: str, *arguments: str) -> None:
        """Run `authorize` or `next-route`; what it says stands in the channel's variables."""
        fate = self._weather.draw(self._chance)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._run(chan, fate, script, arguments)
        took = loop.time() - began
        patient = fate in (Fate.STALL_TAKEN, Fate.STALL_UNTAKEN)
        if took > PROMISED_SECONDS and not patient:
            self._judge.wrong(f"{script} took {took:.3f} seconds on {chan.name}")

    async def report(self, chan: Chan) -> None:
        """Run `hangup`."""
        weather, chance = self._weather, self._chance
        if chance.happens(weather.report_lost):
            self._judge.disturbed("report", 1.0, chan.node.name)
            return
        if chance.happens(weather.report_late):
            await asyncio.sleep(chance.about(3))
        if chance.happens(weather.report_twice):
            chan.node.spawn(self._again(_copy(chan)))
        await self._run(chan, weather.draw(chance), "hangup", (chan.node.name,))

    async def _again(self, ghost: Chan) -> None:
        if self._chance.happens(0.5):
            await asyncio.sleep(self._chance.about(10))
        await self._run(ghost, Fate.GOOD, "hangup", (ghost.node.name,))

    async def _run(self, chan: Chan, fate: Fate, script: str, arguments: tuple[str, ...]) -> None:
        server = self._server()
        if fate is not Fate.GOOD or server is None:
            self._judge.disturbed("report", 10.0, chan.node.name)
        if fate is Fate.REFUSED or server is None:
            await asyncio.sleep(self._chance.pick((0.0, 0.001, 1.99)))
            return
        session = Session(chan, fate, self._chance)
        request = AgiRequest(
            script,
            arguments,
            uniqueid=chan.uniqueid,
            channel=chan.name,
            callerid="100",
            accountcode=chan.account,
        )
        try:
            server.serve(request, session, chan.node.name)
            await session.closed
        finally:
            session.close()
        if not server.alive:  # what it was told went with it
            self._judge.disturbed("report", 10.0, chan.node.name)
        if fate is Fate.CUT_TAKEN:
            self._judge.tear(chan.variables["AC_CALL"])
        self._judge.note("agi", script, chan.uniqueid, fate.name, _answer(chan))

    def _server(self) -> Server | None:
        alive = [server for server in self._servers if server.alive]
        return self._chance.pick(alive) if alive else None


def _copy(chan: Chan) -> Chan:
    ghost = copy.copy(chan)
    ghost.variables = dict(chan.variables)
    return ghost


def _answer(chan: Chan) -> str:
    values = chan.variables
    return f"{values.get('AC_STATUS', '')} {values.get('AC_CALL', '')} {values.get('AC_REASON')}"
