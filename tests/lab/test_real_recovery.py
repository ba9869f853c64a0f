"""Recovery with the real Asterisk: what it says of legs, and calls that went on unheard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from astcredit.asterisk.ami import AmiLink, LiveChannel, parse_ami_url
from astcredit.domain.calls import ChannelEnded, LegAnswered
from support.agi_stub import AgiStub
from support.databases import MariaDb
from support.fake_ami import soon
from support.fault_site import CHOOSY, POOR, RICH, FaultSite
from support.lab import Lab, wait_until
from support.lab_scene import Row
from support.sipp import OUT_OF_ORDER, Answer, Carrier, CustomerCalls, CustomerScript

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
PREANSWERED = "4477"
"""Calls to numbers that begin so hear an announcement first."""
REDIALLED = "4478"
"""A dialplan that calls a colleague when the call is refused."""
AWAY = "away"
"""A place to which a leg can be transferred, where it dials nobody."""
DIALPLAN = f"""
[from-customers](+)
exten => _{PREANSWERED}.,1,Answer()
 same => n,Wait(1)
 same => n,Gosub(astcredit,${{EXTEN}},1)
exten => _{REDIALLED}.,1,Gosub(astcredit,${{EXTEN}},1)
 same => n,Dial(PJSIP/100@carrier)
[{AWAY}]
exten => s,1,Wait(60)
"""
SECONDS = 20.0
LIMIT_S = 4.0
SAME_MS = 20
"""Between two of Asterisk's own words on one instant."""
SLACK_MS = 3_000
"""From a limit that recovery sets, which is a little late on purpose, to the hangup."""


@pytest.fixture(scope="module")
def site(
    lab_tree: Path, mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultSite]:
    """An installation of the module's own, whose server may be killed."""
    with FaultSite(tmp_path_factory.mktemp("recovery"), lab_tree, mariadb) as running:
        running.lab.add_dialplan(DIALPLAN)
        yield running


class Parties(NamedTuple):
    """Who talks in a call."""

    customer: CustomerCalls
    carrier: Carrier


@contextmanager
def calling(
    site: FaultSite,
    number: str = NUMBER,
    account: str = RICH,
    *,
    asleep: bool = False,
    talk_s: float | None = None,
) -> Iterator[Parties]:
    """A call that has begun; at the end of the block it is over and nothing is left of it. A
    carrier that is `asleep` answers when it is woken."""
    lab = site.lab
    with lab.carrier(Answer()) as carrier, lab.carrier(OUT_OF_ORDER, backup=True):
        if asleep:
            carrier.sleep()
        call = lab.start_calls(CustomerScript(number, talk_s), account=account)
        try:
            yield Parties(call, carrier)
        finally:
            carrier.wake()
            call.stop()
            lab.console("channel request hangup all")
            lab.wait_idle()


def wait_status(site: FaultSite, status: str, after: str = "") -> Row:
    """The newest call, once it has that status; one that came after the call `after`."""
    statement = "SELECT * FROM astcdr WHERE id > %s ORDER BY id DESC LIMIT 1"

    def rows() -> list[Row]:
        return site.scene.query(statement, after)

    wait_until(
        lambda: [row["status"] for row in rows()] == [status],
        SECONDS,
        status,
        lambda: f"{rows()}\n{site.log_tail()}",
    )
    return rows()[0]


def last_id(site: FaultSite) -> str:
    return str(site.scene.query("SELECT COALESCE(MAX(id), '') AS id FROM astcdr")[0]["id"])


def restart(site: FaultSite) -> None:
    """Start a server that was killed, and wait until it has looked at the calls."""
    recovered = site.logged("recovered")
    site.start_server()
    site.wait_logged("recovered", recovered + 1)


def wait_channels(site: FaultSite, count: int) -> None:
    """Until so many channels are up and talk, by Asterisk's console."""

    def up() -> int:
        lines = site.lab.console("core show channels concise").splitlines()
        return sum(line.split("!")[4:5] == ["Up"] for line in lines)

    wait_until(lambda: up() == count, SECONDS, f"{count} channels up")


def talk_ms(row: Row) -> int:
    return int(row["answeredtime"] * 1000)


@pytest.mark.parametrize("number", [NUMBER, PREANSWERED + "7123456"], ids=["plain", "announced"])
def test_a_call_that_is_answered_while_no_server_runs_is_billed_from_its_legs_answer(
    site: FaultSite, number: str
) -> None:
    """The calling channel may have been answered long before it. The witness is a second listener,
    who was there all the time."""

    def call() -> Row:
        before = last_id(site)
        with calling(site, number, asleep=True) as parties:
            wait_status(site, "open", before)
            site.kill_server()
            parties.carrier.wake()
            wait_channels(site, 2)
            restart(site)
            wait_status(site, "answered", before)
        return wait_status(site, "completed", before)

    async def scene(link: AmiLink, ears: Ears) -> None:
        row = await asyncio.to_thread(call)
        answered = await asyncio.wait_for(ears.answered.get(), SECONDS)
        ended = await asyncio.wait_for(ears.end_of(answered.leg_uniqueid), SECONDS)
        assert (row["settled_by"], row["estimated"]) == ("ami", 0)
        assert abs(talk_ms(row) - (ended.ended_at_ms - answered.answered_at_ms)) <= SAME_MS

    with_link(site.lab, scene)
    site.scene.cli("audit")


def test_a_call_that_ends_while_no_server_runs_is_charged_until_it_was_heard_of(
    site: FaultSite,
) -> None:
    before = last_id(site)
    with calling(site):
        wait_status(site, "answered", before)
        site.kill_server()
        restart(site)
        (node,) = site.scene.query("SELECT heard_until FROM astnode")
        site.kill_server()
    restart(site)
    row = wait_status(site, "completed", before)
    assert (row["settled_by"], row["estimated"]) == ("recovery", 1)
    assert row["ended_at"] >= node["heard_until"]
    (leg,) = [r for r in site.lab.asterisk_cdrs(1) if r.uniqueid == row["uniqueid"]]
    assert 0 < talk_ms(row) <= leg.billsec_ms + SAME_MS
    site.scene.cli("audit")


def test_a_call_of_a_crashed_asterisk_is_over(site: FaultSite) -> None:
    before = last_id(site)
    with calling(site, account=CHOOSY):
        row = wait_status(site, "answered", before)
        site.lab.crash()
        wait_until(lambda: site.logged("ami_down") > 0, SECONDS, "the link to break")
        assert wait_status(site, "answered", before) == row
        site.start_asterisk()
        row = wait_status(site, "completed", before)
        assert (row["settled_by"], row["estimated"]) == ("recovery", 1)
    site.lab.add_dialplan(DIALPLAN)
    site.scene.cli("audit")


def test_the_limit_of_an_adopted_call_holds_after_a_transfer_that_nobody_heard(
    site: FaultSite,
) -> None:
    """Its caller leaves, and with the bridge the limit that Dial had set; the leg would talk on."""
    site.scene.cli("topup", POOR, "0.06")
    before = last_id(site)
    with calling(site, account=POOR):
        row = wait_status(site, "answered", before)
        site.kill_server()
        transfer(site.lab, row["uniqueid"])
        wait_channels(site, 1)
        restart(site)
        adopted = site.log_tail().rpartition("action=recovered")[2]
        assert "adopted=1" in adopted
        row = wait_status(site, "completed", before)
    assert (row["settled_by"], row["estimated"]) == ("ami", 0)
    assert row["seconds"] * 1000 <= talk_ms(row) <= row["seconds"] * 1000 + SLACK_MS
    assert row["price"] == row["reservedamount"]
    site.scene.cli("audit")


# A leg that nobody pays for


def past_its_time(site: FaultSite, call_id: str) -> None:
    """The last second of a reservation is over, and a server begins to look for such."""
    site.kill_server()
    statement = f"UPDATE astcreditres SET expires_at = '2020-01-01' WHERE call_id = '{call_id}'"
    site.mariadb.execute(statement, site.url.rpartition("/")[2])
    site.start_server()


def test_a_leg_that_is_answered_after_its_reservation_is_gone_is_ended(site: FaultSite) -> None:
    before = last_id(site)
    with calling(site, asleep=True) as parties:
        past_its_time(site, wait_status(site, "open", before)["id"])
        row = wait_status(site, "failed", before)
        assert row["settled_by"] == "expiry"
        parties.carrier.wake()
        (outcome,) = parties.customer.wait()
        assert outcome.ended_by == "far"
    site.wait_logged("answered_unreserved")
    site.wait_logged("leg_ended")


def test_the_leg_of_a_call_past_its_last_second_is_ended(site: FaultSite) -> None:
    """The server finds it before it has a link to Asterisk."""
    before, ended = last_id(site), site.logged("leg_ended")
    with calling(site) as parties:
        past_its_time(site, wait_status(site, "answered", before)["id"])
        (outcome,) = parties.customer.wait()
        assert outcome.ended_by == "far"
    row = wait_status(site, "completed", before)
    assert (row["settled_by"], row["estimated"]) == ("expiry", 1)
    site.wait_logged("leg_ended", ended + 1)
    site.scene.cli("audit")


@pytest.mark.parametrize(
    ("number", "account"), [("112", RICH), (REDIALLED + "7123456", POOR)], ids=["help", "colleague"]
)
def test_a_leg_that_rightly_has_no_reservation_is_left_alone(
    site: FaultSite, number: str, account: str
) -> None:
    """An emergency, asked of the server; and what a dialplan dials after a refusal."""
    ended = site.logged("leg_ended")
    with site.lab.globals(AC_EMERGENCY=""), calling(site, number, account, talk_s=2.0) as parties:
        (outcome,) = parties.customer.wait()
        assert (outcome.code, outcome.ended_by) == (200, "near")
    assert site.logged("leg_ended") == ended


# What Asterisk says of a leg


class Ears:
    """Hears the link's events."""

    def __init__(self) -> None:
        self.answered: asyncio.Queue[LegAnswered] = asyncio.Queue()
        self.ended: asyncio.Queue[ChannelEnded] = asyncio.Queue()

    def leg_answered(self, event: LegAnswered) -> None:
        self.answered.put_nowait(event)

    def channel_ended(self, event: ChannelEnded) -> None:
        self.ended.put_nowait(event)

    async def end_of(self, uniqueid: str) -> ChannelEnded:
        while (event := await self.ended.get()).uniqueid != uniqueid:
            pass
        return event


def with_link(lab: Lab, scene: Callable[[AmiLink, Ears], Awaitable[None]]) -> None:
    async def run() -> None:
        ears = Ears()
        now_ms = 1  # whatever comes from a clock that is decades off must come from Asterisk's
        link = AmiLink(parse_ami_url(lab.ami.url), ears, lambda: now_ms)
        await link.start()
        try:
            await soon(link.wait_up())
            await scene(link, ears)
        finally:
            await link.stop()

    asyncio.run(run())


def transfer(lab: Lab, uniqueid: str) -> None:
    """Whoever talks with that channel is transferred away by it (AMI BlindTransfer)."""

    async def scene(link: AmiLink, ears: Ears) -> None:
        (caller,) = [c for c in await link.channels() if c.uniqueid == uniqueid]
        away = {"Channel": caller.name, "Context": AWAY, "Exten": "s"}
        await link._live_session().request("BlindTransfer", away)

    with_link(lab, scene)


async def leg_of(link: AmiLink, answered: LegAnswered) -> LiveChannel:
    (leg,) = [c for c in await link.channels() if c.uniqueid == answered.leg_uniqueid]
    return leg


@pytest.mark.parametrize("number", [NUMBER, PREANSWERED + "7123456"], ids=["plain", "announced"])
def test_asterisk_tells_the_answer_of_a_leg_to_the_millisecond(
    lab: Lab, stub: AgiStub, number: str
) -> None:
    """By the leg's own CDR, also if the calling channel was answered before it dialled; until it is
    transferred. And Asterisk tells its time."""
    lab.add_dialplan(DIALPLAN)

    async def scene(link: AmiLink, ears: Ears) -> None:
        calls = lab.start_calls(CustomerScript(number))
        try:
            answered = await asyncio.wait_for(ears.answered.get(), SECONDS)
            leg = await leg_of(link, answered)
            told = await link.answered_at_ms(leg)
            assert told is not None
            assert abs(told - answered.answered_at_ms) <= SAME_MS
            assert abs(await link.now_ms() - time.time() * 1000) < 1_000
        finally:
            calls.stop()

    with lab.globals(AC_AGI=stub.agi), lab.carrier(Answer(ring_s=0.5)):
        with_link(lab, scene)
        lab.console("channel request hangup all")


def test_a_limit_on_a_leg_ends_it_can_be_moved_and_survives_a_transfer(
    lab: Lab, stub: AgiStub
) -> None:
    lab.add_dialplan(DIALPLAN)

    async def scene(link: AmiLink, ears: Ears) -> None:
        calls = lab.start_calls(CustomerScript(NUMBER))
        try:
            answered = await asyncio.wait_for(ears.answered.get(), SECONDS)
            leg = await leg_of(link, answered)
            assert await link.limit(leg, SECONDS)
            asked_ms = await link.now_ms()
            assert await link.limit(leg, LIMIT_S)
            await asyncio.to_thread(transfer, lab, answered.caller_uniqueid)
            async with asyncio.timeout(SECONDS):
                while await link.answered_at_ms(leg) is not None:
                    pass  # the new CDR comes a moment later
            end = await asyncio.wait_for(ears.end_of(leg.uniqueid), SECONDS)
            # Not before, and by the second limit: the first would have come much later.
            assert LIMIT_S - 0.1 <= (end.ended_at_ms - asked_ms) / 1_000 < SECONDS - LIMIT_S
            assert not await link.limit(leg, 1.0)
            assert await link.answered_at_ms(leg) is None
        finally:
            calls.stop()

    with lab.globals(AC_AGI=stub.agi), lab.carrier(Answer()):
        with_link(lab, scene)
