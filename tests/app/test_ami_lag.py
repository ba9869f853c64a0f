"""How far a listener is behind, as the metrics tell it at the moment when they are read."""

from __future__ import annotations

import asyncio

from astcredit.app.links import AmiLinks
from astcredit.app.metrics import Metrics
from astcredit.asterisk.ami import AmiNode
from astcredit.domain.calls import ChannelEnded, LegAnswered
from astcredit.service.operations import Operation
from astcredit.service.ports import OpenOnNode
from astcredit.service.recovery import Recovery
from support.ami_scene import read
from support.fake_ami import FakeAmi, soon

HANGUP = b"Event: Hangup\r\nUniqueid: 1.7\r\n\r\n"
AWAY = AmiNode("pbx2", "127.0.0.1", 9, "astcredit", "s3cr3t")


class Books:
    """Books without calls."""

    async def open_on(self, node: str) -> list[OpenOnNode]:
        return []

    def submit(self, operation: Operation) -> None: ...

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...


def told(metrics: Metrics, name: str, node: str) -> float:
    text = metrics.text().decode()
    begin = f'astcredit_ami_{name}{{node="{node}"}} '
    (line,) = [line for line in text.splitlines() if line.startswith(begin)]
    return float(line.removeprefix(begin))


def test_the_metrics_tell_what_waits_and_for_how_long() -> None:
    async def scene() -> None:
        metrics, books = Metrics(), Books()
        async with FakeAmi() as ami:
            links = AmiLinks([ami.node(), AWAY], {}, metrics)
            links.show_lag()
            assert told(metrics, "behind_seconds", "pbx1") == 0
            await links.start(books, Recovery(books, books.submit))
            link = links._links["pbx1"]
            await soon(link.wait_up())
            assert told(metrics, "waiting_bytes", "pbx1") == 0
            read(link, HANGUP + b"Event: Hangup")
            assert told(metrics, "waiting_bytes", "pbx1") == len(HANGUP + b"Event: Hangup")
            first, second = (told(metrics, "behind_seconds", "pbx1") for _ in range(2))
            assert 0 < first < second
            assert told(metrics, "waiting_bytes", "pbx2") == 0
            await asyncio.sleep(0)
            assert told(metrics, "waiting_bytes", "pbx1") == 0
            assert told(metrics, "behind_seconds", "pbx1") == 0
            await links.stop()

    asyncio.run(scene())
