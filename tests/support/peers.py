"""An Asterisk server for tests of recovery: its live channels, its clock, and what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from astcredit.service.ports import LiveChannel
from support.core import NOW_MS


def caller(
    number: int = 1, *, bridge: str = "", state: str = "Up", seconds: int = 60
) -> LiveChannel:
    """The calling channel of the `number`th call."""
    return channel(f"caller-{number}", f"caller-{number}", bridge, state, seconds)


def leg(
    number: int = 1,
    *,
    bridge: str = "",
    state: str = "Up",
    seconds: int = 50,
    story: str = "",
    name: str = "PJSIP/carrier-0000001a",
) -> LiveChannel:
    """The outbound leg of the `number`th call; `story` is its linkedid, if not its caller's."""
    return channel(f"leg-{number}", story or f"caller-{number}", bridge, state, seconds, name)


def channel(
    uniqueid: str,
    linkedid: str,
    bridge: str = "",
    state: str = "Up",
    seconds: int | None = 60,
    name: str = "PJSIP/x-00000001",
) -> LiveChannel:
    return LiveChannel(name, uniqueid, linkedid, "", state, seconds, "", bridge)


@dataclass
class FakePeer:
    """Implements `astcredit.service.ports.Peer`.

    `fault` is raised by the question of that name; `on_list` runs when the channels are asked for,
    before they are listed; `answers` says when legs were answered.
    """

    live: Sequence[LiveChannel] = ()
    clock_ms: int = NOW_MS + 60_000
    answers: dict[str, int] = field(default_factory=dict)
    faults: dict[str, Exception] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Channels that end before they can be limited."""
    on_list: Callable[[], Awaitable[object]] | None = None
    limits: dict[str, float] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    async def now_ms(self) -> int:
        self._fail("now_ms")
        return self.clock_ms

    async def channels(self) -> Sequence[LiveChannel]:
        if self.on_list is not None:
            await self.on_list()
        self._fail("channels")
        return self.live

    async def answered_at_ms(self, leg: LiveChannel) -> int | None:
        self._fail("answered_at_ms")
        return self.answers.get(leg.uniqueid)

    async def limit(self, channel: LiveChannel, seconds: float) -> bool:
        self._fail("limit")
        if channel.uniqueid in self.refused:
            return False
        self.limits[channel.uniqueid] = seconds
        return True

    async def hangup(self, uniqueid: str) -> bool:
        self.ended.append(uniqueid)
        return any(channel.uniqueid == uniqueid for channel in self.live)

    def _fail(self, what: str) -> None:
        if what in self.faults:
            raise self.faults.pop(what)
