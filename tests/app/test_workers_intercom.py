"""What the processes of one server tell each other, without processes: two ends in one loop."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator

import pytest

from astcredit.app import intercom as intercom_module
from astcredit.app.duties import duties
from astcredit.app.intercom import Intercom
from astcredit.app.links import AmiLinks, SharedLinks
from astcredit.app.metrics import Metrics
from astcredit.asterisk.ami import AmiTimes
from astcredit.domain.calls import ChannelEnded, HangupReport, LegAnswered
from astcredit.service.operations import Operation
from astcredit.service.ports import OpenOnNode
from astcredit.service.recovery import Recovery
from support.core import hangup
from support.fake_ami import FakeAmi, soon
from support.recovery_stage import stage

PLACES = duties(4, ["pbx1", "pbx2"])
"""0 listens to pbx1, 1 to pbx2, the others answer."""

HOSTILE = 'x"\n\\${SHELL(id)}\udcff\x00' + "é" * 5_000


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self._news = asyncio.Condition()

    async def end(self, node: str, uniqueid: str) -> None:
        self._note(("end", node, uniqueid))

    def look(self, node: str) -> None:
        self._note(("look", node))

    def keep(self, report: HangupReport) -> None:
        self._note(report)

    def _note(self, told: object) -> None:
        self.told.append(told)
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            await soon(self._news.wait_for(condition))


async def heard(intercom: Intercom, number: int, count: int) -> list[object]:
    """What process `number` hears when it begins to listen, once it is so many things."""
    listener = Listener()
    with intercom.listening(number, listener, listener.keep):
        await listener.until(lambda: len(listener.told) >= count)
    return listener.told


@pytest.fixture
def intercom() -> Iterator[Intercom]:
    with Intercom(PLACES) as made:
        yield made


def actions(records: Iterable[logging.LogRecord]) -> list[str]:
    return [record.__dict__["action"] for record in records]


def test_each_listener_hears_what_concerns_its_nodes(intercom: Intercom) -> None:
    """In the order in which it was told, and as it was told, whatever a caller put into it; a node
    that nobody listens to is nobody's."""
    report = hangup(1, talk_ms=9_000, dialstatus=HOSTILE)
    intercom.end("pbx2", "9.2")
    intercom.look("pbx1")
    intercom.end("default", "9.9")
    intercom.look("default")
    intercom.report(report)
    intercom.end("pbx1", HOSTILE)

    async def main() -> None:
        assert await heard(intercom, 1, 1) == [("end", "pbx2", "9.2")]
        told = await heard(intercom, 0, 3)
        assert told == [("look", "pbx1"), report, ("end", "pbx1", HOSTILE)]

    asyncio.run(main())


def test_a_successor_hears_what_its_predecessor_was_told(intercom: Intercom) -> None:
    async def main() -> None:
        intercom.look("pbx1")
        assert await heard(intercom, 0, 1) == [("look", "pbx1")]
        intercom.end("pbx1", "9.1")  # nobody listens
        assert await heard(intercom, 0, 1) == [("end", "pbx1", "9.1")]

    asyncio.run(main())


def test_a_process_that_only_answers_is_told_nothing(intercom: Intercom) -> None:
    async def main() -> None:
        listener = Listener()
        intercom.look("pbx1")
        with intercom.listening(3, listener, listener.keep):
            await asyncio.sleep(0)
        assert not listener.told

    asyncio.run(main())


def test_what_cannot_be_understood_does_not_keep_the_rest_from_being_heard(
    intercom: Intercom, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        line = intercom._lines[0]
        for message in (b"\xff", b"{}", b'["end","pbx1"]', b'["report",{"node":"pbx1"}]', b""):
            line.send(message)
        intercom.look("pbx1")
        assert await heard(intercom, 0, 1) == [("look", "pbx1")]

    asyncio.run(main())
    assert actions(caplog.records) == ["message_not_understood"] * 5


def test_nobody_waits_for_a_listener_that_does_not_listen(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no room is lost. That is said once, and again when it is over."""
    monkeypatch.setattr(intercom_module, "WAITING_BYTES", 64 * 1024)

    async def main(intercom: Intercom) -> None:
        for _ in range(5_000):
            intercom.look("pbx1")
        assert actions(caplog.records) == ["listener_not_told"]
        told = await heard(intercom, 0, 50)
        assert told == [("look", "pbx1")] * len(told)
        intercom.end("pbx1", "9.1")
        assert ("end", "pbx1", "9.1") in await heard(intercom, 0, 1)

    with Intercom(PLACES) as small:
        asyncio.run(main(small))
    assert actions(caplog.records) == ["listener_not_told", "listener_told"]
    assert caplog.records[-1].__dict__["messages"] > 1_000


def test_a_second_of_calls_has_room_on_the_line(
    intercom: Intercom, caplog: pytest.LogCaptureFixture
) -> None:
    """That is what waits while a listener that died is started again."""
    for number in range(1_000):
        intercom.report(hangup(number, talk_ms=9_000))
    assert not caplog.records
    assert len(asyncio.run(heard(intercom, 0, 1_000))) == 1_000


def test_the_state_of_a_link_is_known_to_every_process(intercom: Intercom) -> None:
    """Written by another process, read here; a dead listener's is written by whoever saw it die."""
    assert intercom.down == ["pbx1", "pbx2"]
    listener = multiprocessing.get_context("fork").Process(
        target=intercom.mark, args=("pbx2", True)
    )
    listener.start()
    listener.join(60)
    assert (intercom.up("pbx1"), intercom.up("pbx2"), intercom.up("default")) == (
        False,
        True,
        False,
    )
    assert intercom.down == ["pbx1"]
    intercom.silence(["pbx2"])
    assert intercom.down == ["pbx1", "pbx2"]


class Books(Listener):
    """Books without calls; notes what recovery says each time when it has looked."""

    async def open_on(self, node: str) -> list[OpenOnNode]:
        return []

    def submit(self, operation: Operation) -> None:
        self._note(operation)

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...


def test_a_process_without_a_link_ends_a_leg_through_the_listener(intercom: Intercom) -> None:
    """And knows of each node whether it is configured, and whether its link is up."""
    alone = [("Channel", "PJSIP/x-00000001"), ("Uniqueid", "9.1"), ("ChannelStateDesc", "Up")]
    quick = AmiTimes(ping=0.0, reconnect=0.0, refused=0.0)

    async def main() -> None:
        async with FakeAmi(channels=[alone]) as ami:
            node, books = ami.node(), Books()
            own = AmiLinks([node], {}, Metrics(), quick, on_state=intercom.mark)
            listening = SharedLinks([node], {}, own, intercom)
            answering = SharedLinks([node], {}, AmiLinks([], {}, Metrics()), intercom)

            def states() -> list[tuple[bool, bool]]:
                return [(it.configured("pbx1"), it.up("pbx1")) for it in (listening, answering)]

            assert states() == [(True, False)] * 2
            with intercom.listening(0, own, lambda report: None):
                await own.start(books, Recovery(books, books.submit))
                await books.until(lambda: len(books.told) == 1)
                assert states() == [(True, True)] * 2
                assert answering.down == ["pbx2"]
                await answering.end("pbx1", "9.1")
                await ami.seen("Hangup")
                answering.look("pbx1")
                await books.until(lambda: len(books.told) == 2)
                await listening.end("pbx1", "9.1")
                await ami.seen("Hangup", 2)
                await own.stop()
            assert states() == [(True, False)] * 2
            assert answering.down == ["pbx1", "pbx2"]

    asyncio.run(main())


def test_a_report_that_was_left_to_the_listener_goes_where_it_is() -> None:
    """A controller keeps it for itself unless another process listens."""
    elsewhere: list[HangupReport] = []

    async def main() -> None:
        async with stage() as it:
            it.controller.leave_reports_to(elsewhere.append)
            await it.answered_call()
            report = hangup(1, talk_ms=9_000)
            await it.controller.report_hangup(report)
            assert elsewhere == [report]
            assert not it.controller._reports
            it.controller.keep_report(report)
            assert list(it.controller._reports.values()) == [report]

    asyncio.run(main())


def test_where_nobody_listens_nobody_is_told() -> None:
    with Intercom(duties(2, [])) as intercom:
        assert (intercom.up("pbx1"), intercom.down) == (False, [])
        intercom.end("pbx1", "9.1")
