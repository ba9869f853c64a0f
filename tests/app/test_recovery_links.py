"""When recovery runs: after every time of silence, until it has succeeded, and never besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from astcredit.app import links as links_module
from astcredit.app.links import AmiLinks
from astcredit.app.metrics import Metrics
from astcredit.asterisk.ami import AmiTimes
from astcredit.domain.calls import ChannelEnded, LegAnswered
from astcredit.domain.states import CallState
from astcredit.service import recovery as recovery_module
from astcredit.service.errors import TransientError
from astcredit.service.operations import Gone, NodeHeard, Operation
from astcredit.service.ports import OpenOnNode
from astcredit.service.recovery import Recovery
from support.fake_ami import FakeAmi, Message, soon

NODE = "pbx1"
TIMES = AmiTimes(ping=0.0, reconnect=0.0, refused=0.0)
OVER = OpenOnNode("C1", "1.1", "1.1", "1.2", CallState.ANSWERED, 1_795_306_300_000, 60)
"""A call that is answered in the books; the fake Asterisk has no channels."""
OTHERS = [("Channel", "PJSIP/x-00000001"), ("Uniqueid", "9.1"), ("ChannelStateDesc", "Up")]


class Books:
    """Books with one open call, until somebody says that it is gone; keeps what is submitted."""

    def __init__(self) -> None:
        self.said: list[Operation] = []
        self.faults: list[Exception] = []
        self._news = asyncio.Condition()

    async def open_on(self, node: str) -> list[OpenOnNode]:
        if self.faults:
            raise self.faults.pop()
        return [] if self.gone else [OVER]

    def submit(self, operation: Operation) -> None:
        self.said.append(operation)
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            await soon(self._news.wait_for(condition))

    @property
    def gone(self) -> list[Gone]:
        return [operation for operation in self.said if isinstance(operation, Gone)]

    @property
    def heard(self) -> list[NodeHeard]:
        return [operation for operation in self.said if isinstance(operation, NodeHeard)]

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...


class Scene:
    def __init__(self, ami: FakeAmi, links: AmiLinks, books: Books) -> None:
        self.ami, self.links, self.books = ami, links, books

    async def recovered(self, times: int = 1) -> None:
        """Until recovery succeeded so often."""
        await self.books.until(lambda: len(self.books.heard) >= times)


@asynccontextmanager
async def scene(ami: FakeAmi) -> AsyncIterator[Scene]:
    """A fake Asterisk, not yet listened to, and a process that will."""
    books = Books()
    async with ami:
        links = AmiLinks([ami.node()], {}, Metrics(), TIMES)
        try:
            yield Scene(ami, links, books)
        finally:
            await links.stop()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "GONE_AFTER_SECONDS", 0)
    monkeypatch.setattr(links_module, "RECOVERY_RETRY_SECONDS", 0)


async def start(it: Scene) -> None:
    await it.links.start(it.books, Recovery(it.books, it.books.submit))


def test_what_was_missed_is_found_out_at_the_start() -> None:
    async def main() -> None:
        async with scene(FakeAmi()) as it:
            await start(it)
            await it.recovered()
            assert [type(said) for said in it.books.said[:2]] == [Gone, NodeHeard]

    asyncio.run(main())


def test_an_incomplete_list_concludes_nothing_and_is_asked_for_again() -> None:
    """The first list is the link's own, at its start; of the next two one lacks an item and one
    breaks with the connection."""
    ami = FakeAmi(channels=[OTHERS])
    lists: list[Callable[[Message], bytes | None]] = [
        lambda m: ami.channel_list(m, 1),
        lambda m: ami.channel_list(m, 2),
        lambda m: None,
    ]
    gone_before: list[int] = []

    async def main() -> None:
        async with scene(ami) as it:

            def answer(message: Message) -> bytes | None:
                gone_before.append(len(it.books.gone))
                return lists.pop(0)(message) if lists else ami.channel_list(message, 1)

            ami.instead["coreshowchannels"] = answer
            await start(it)
            await it.books.until(lambda: bool(it.books.gone))
            assert gone_before == [0] * 5
            assert ami.connections == 2
            assert isinstance(it.books.said[0], Gone)

    asyncio.run(main())


@pytest.mark.parametrize("fault", [TransientError("staged: down"), ZeroDivisionError("a fault")])
def test_recovery_that_fails_is_tried_again_on_the_same_connection(fault: Exception) -> None:
    async def main() -> None:
        async with scene(FakeAmi()) as it:
            it.books.faults = [fault, fault]
            await start(it)
            await it.books.until(lambda: bool(it.books.gone))
            assert it.ami.connections == 1

    asyncio.run(main())


def test_a_link_that_is_lost_while_it_is_waited_for_ends_concludes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its next connection begins anew."""
    pauses: list[float] = []

    async def main() -> None:
        async with scene(FakeAmi()) as it:

            async def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 1:
                    it.ami.cut()
                    await asyncio.Event().wait()

            monkeypatch.setattr(recovery_module, "sleep", pause)
            await start(it)
            await it.books.until(lambda: bool(it.books.gone))
            assert len(pauses) == 2
            assert it.ami.connections == 2
            assert isinstance(it.books.said[0], Gone)

    asyncio.run(main())


def test_what_is_heard_is_noted_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Asterisk's clock, and not before what was missed has been found out."""
    monkeypatch.setattr(links_module, "HEARD_SECONDS", 0)
    seconds = iter(range(1_795_306_242, 1_795_400_000))

    async def main() -> None:
        async with scene(FakeAmi()) as it:
            it.ami.instead["ping"] = lambda m: it.ami.reply(m, f"Timestamp: {next(seconds)}.5")
            await start(it)
            await it.books.until(lambda: len({noted.until_ms for noted in it.books.heard}) >= 3)
            noted = [noted.until_ms for noted in it.books.heard]
            assert noted == sorted(noted)
            assert noted[0] >= 1_795_306_242_000
            assert noted[-1] < 1_795_400_000_000
            assert isinstance(it.books.said[0], Gone)

    asyncio.run(main())


def test_what_lives_is_looked_at_again_when_somebody_asks() -> None:
    """Without waiting for the next break of the link."""

    async def main() -> None:
        async with scene(FakeAmi()) as it:
            await start(it)
            await it.recovered()
            it.links.look(NODE)
            it.links.look("unknown")
            await it.recovered(2)
            assert it.ami.connections == 1

    asyncio.run(main())


def hangup_asked(ami: FakeAmi) -> list[str]:
    return [m["channel"] for m in ami.received if m["action"] == "Hangup"]


def test_a_leg_that_could_not_be_ended_is_ended_at_the_reconnect() -> None:
    """Nobody pays for it any more: a link that is down must not let it talk on."""

    async def main() -> None:
        async with scene(FakeAmi(channels=[OTHERS])) as it:
            await start(it)
            await it.recovered()
            await it.ami.close()
            await it.links.end(NODE, "9.1")
            assert hangup_asked(it.ami) == []
            await it.ami.listen()
            await it.ami.seen("Hangup")
            assert hangup_asked(it.ami) == ["PJSIP/x-00000001"]
            await it.recovered(2)
            it.ami.cut()
            await it.recovered(3)
            assert len(hangup_asked(it.ami)) == 1

    asyncio.run(main())


def test_a_leg_that_is_to_be_ended_before_the_links_are_started() -> None:
    """The first sweep after a restart finds what is past its time before Asterisk is connected."""

    async def main() -> None:
        async with scene(FakeAmi(channels=[OTHERS])) as it:
            await it.links.end(NODE, "9.1")
            await start(it)
            await it.recovered()
            assert hangup_asked(it.ami) == ["PJSIP/x-00000001"]

    asyncio.run(main())


@pytest.mark.parametrize("uniqueid", ["9.1", "9.2"], ids=["refused", "not there"])
def test_a_leg_that_asterisk_does_not_end_is_not_asked_for_again(uniqueid: str) -> None:
    async def main() -> None:
        async with scene(FakeAmi(channels=[OTHERS], rejects={"hangup"})) as it:
            await start(it)
            await it.recovered()
            await it.links.end(NODE, uniqueid)
            await it.links.end("unknown", uniqueid)
            asked = len(hangup_asked(it.ami))
            it.ami.cut()
            await it.recovered(2)
            assert len(hangup_asked(it.ami)) == asked == (uniqueid == "9.1")

    asyncio.run(main())
