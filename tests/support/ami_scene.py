"""A link to a fake Asterisk, and what a test of it needs: a scene is played with both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from astcredit.asterisk.ami import AmiLink, AmiTimes, LinkPhase
from astcredit.domain.calls import ChannelEnded, LegAnswered
from support.fake_ami import FakeAmi, soon

NOW_MS = 1_795_292_400_000
QUICK = AmiTimes(reconnect=0.0, refused=0.0)
"""No pauses; all deadlines as in production, which no test waits for."""


class Heard:
    """The service's side: keeps what it is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[LegAnswered | ChannelEnded] = []
        self.phases: list[LinkPhase] = []
        self.reasons: list[str] = []
        self.fault: Exception | None = None
        self._news = asyncio.Condition()

    def leg_answered(self, event: LegAnswered) -> None:
        self._take(event)

    def channel_ended(self, event: ChannelEnded) -> None:
        self._take(event)

    def changed(self, link: AmiLink) -> None:
        self.phases.append(link.state.phase)
        self.reasons.append(link.state.reason)
        self._tell()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            await soon(self._news.wait_for(condition))

    async def phase(self, phase: LinkPhase, count: int = 1) -> None:
        await self.until(lambda: self.phases.count(phase) >= count)

    def _take(self, event: LegAnswered | ChannelEnded) -> None:
        self.events.append(event)
        self._tell()
        if self.fault is not None:
            raise self.fault

    def _tell(self) -> None:
        self._telling = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()


Scene = Callable[[FakeAmi, AmiLink, Heard], Awaitable[None]]


def play(
    scene: Scene, ami: FakeAmi | None = None, times: AmiTimes = QUICK, secret: str | None = None
) -> None:
    """Run a scene with a fake Asterisk and a link that was just started."""

    async def run() -> None:
        heard = Heard()
        async with ami or FakeAmi() as server:
            node = server.node(secret)
            link = AmiLink(node, heard, lambda: NOW_MS, times=times, on_change=heard.changed)
            await link.start()
            try:
                await scene(server, link, heard)
            finally:
                await link.stop()

    asyncio.run(run())


def read(link: AmiLink, data: bytes) -> None:
    """What happens when the socket gives just these bytes in one read."""
    assert link._session is not None
    assert link._session._manager is not None
    link._session._manager.protocol.data_received(data)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The actions of this package's log events."""
    return [record.__dict__["action"] for record in caplog.records]
