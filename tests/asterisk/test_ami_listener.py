"""The link to Asterisk against a fake one: what it hears, and how it goes down and up again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from astcredit.asterisk import ami_session
from astcredit.asterisk.ami import EVENT_FILTERS, AmiLink, AmiLostError, AmiTimes, LinkPhase
from astcredit.domain.calls import ChannelEnded, LegAnswered
from support.ami_scene import NOW_MS, Heard, logged, play, read
from support.fake_ami import FakeAmi, Message, soon

HANGUP = {"Event": "Hangup", "Timestamp": "5.5", "Uniqueid": "1.7", "Cause": "16"}
BUSY_LEG = {"Event": "DialEnd", "Uniqueid": "1.6", "DestUniqueid": "1.7", "DialStatus": "BUSY"}


@pytest.fixture(autouse=True)
def _nothing_escapes_into_the_event_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio logs what is raised in a callback, or in a task that nobody looks at."""
    yield
    assert not [r for r in caplog.get_records("call") if not r.name.startswith("astcredit.")]


# --- up, and hearing ---------------------------------------------------------------------------


def test_a_link_logs_in_asks_who_is_there_and_is_up() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        assert (link.up, link.state.phase) == (False, LinkPhase.CONNECTING)
        await soon(link.wait_up())
        state = link.state
        assert (state.phase, state.since_ms, state.reason) == (LinkPhase.UP, NOW_MS, "")
        assert (state.version, state.system_name) == ("22.10.1", "lab")
        assert state.asterisk_started == "2026-11-21 20:19:27"
        assert state.asterisk_started_ms == NOW_MS - 93_000
        assert heard.phases == [LinkPhase.CONNECTING, LinkPhase.UP]

    play(scene)


def silent_login(message: Message) -> bytes:
    """An Asterisk that still boots does not say FullyBooted after the login."""
    return FakeAmi.reply(message, "Message: Authentication accepted")


def test_an_asterisk_that_still_boots_says_later_when_it_started() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        assert link.state.asterisk_started_ms is None
        ami.event({"Event": "FullyBooted", "Uptime": "2"})
        ami.event(HANGUP)
        await heard.until(lambda: bool(heard.events))
        assert link.state.asterisk_started_ms == NOW_MS - 2_000

    play(scene, FakeAmi(instead={"login": silent_login}))


def test_only_whole_dial_and_hangup_events_are_asked_for() -> None:
    """An event with an empty line in a caller's number could carry a second, forged one."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        asked = [(m["operation"], m["filter"]) for m in ami.received if m["action"] == "Filter"]
        assert asked == [("Add", text) for text in EVENT_FILTERS]

    play(scene)


def test_a_recorded_call_is_heard_in_order_however_it_is_cut_into_reads() -> None:
    text = (Path(__file__).parent / "events" / "answered.txt").read_text()
    stream = text.replace("\n", "\r\n").encode() + b"\r\n"

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        for n in range(len(stream)):
            read(link, stream[n : n + 1])
        await heard.until(lambda: len(heard.events) == 3)
        answered, leg, caller = heard.events
        assert isinstance(answered, LegAnswered)
        assert answered.call_id == "call-1795292429.6"
        assert isinstance(leg, ChannelEnded)
        assert isinstance(caller, ChannelEnded)
        assert (leg.uniqueid, caller.uniqueid) == (answered.leg_uniqueid, answered.caller_uniqueid)
        assert link.state.last_event_ms == NOW_MS

    play(scene)


@pytest.mark.parametrize("cut_at", range(4))
def test_a_letter_of_several_bytes_survives_being_cut_in_two(cut_at: int) -> None:
    """panoramisk by itself drops both halves: the name of the channel would be another."""
    name = "PJSIP/Zoë-00000001"
    event = f"Event: DialEnd\r\nUniqueid: 1\r\nDestUniqueid: 2\r\nDestChannel: {name}\r\n"
    data = (event + "DialStatus: ANSWER\r\n\r\n").encode()
    cut = data.index("ë".encode()) - 1 + cut_at

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        read(link, data[:cut])
        read(link, data[cut:])
        await heard.until(lambda: bool(heard.events))
        (answered,) = heard.events
        assert isinstance(answered, LegAnswered)
        assert answered.trunk == "PJSIP/Zoë"

    play(scene)


def test_an_invalid_byte_does_not_make_a_line_end() -> None:
    """panoramisk by itself drops it; then CR and LF around it would end the event."""
    forged = b"\r\xff\n\r\xff\nEvent: Hangup\r\xff\nUniqueid: 666\r\xff\n\r\xff\n"

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.raw(b"Event: Hangup\r\nCallerIDNum: 1" + forged + b"\r\nUniqueid: 1.7\r\n\r\n")
        await heard.until(lambda: bool(heard.events))
        assert [e.uniqueid for e in heard.events if isinstance(e, ChannelEnded)] == ["1.7"]

    play(scene)


def test_a_fault_of_the_listener_costs_neither_the_link_nor_the_next_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        heard.fault = RuntimeError("database on fire")
        ami.event(HANGUP)
        ami.event(HANGUP | {"Uniqueid": "1.8"})
        await heard.until(lambda: len(heard.events) == 2)
        assert link.up

    play(scene)
    assert logged(caplog).count("ami_event_fault") == 2


def test_a_forged_header_is_reported_and_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.raw(b"Event: Hangup\r\nCallerIDNum: 1\r\nUniqueid: 666\r\nUniqueid: 1.7\r\n\r\n")
        ami.event(HANGUP)
        await heard.until(lambda: bool(heard.events))
        assert [e.uniqueid for e in heard.events if isinstance(e, ChannelEnded)] == ["1.7"]

    play(scene)
    assert "ami_tampered" in logged(caplog)


def test_events_that_nobody_wants_are_passed_over() -> None:
    """Asterisk filters; an admin's other setting, or an older Asterisk, may not."""
    unwanted = HANGUP | {"Event": "HangupRequest", "Uniqueid": "1.6"}

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        for event in (unwanted, unwanted | {"Event": "Newchannel"}, HANGUP):
            ami.event(event)
        await heard.until(lambda: bool(heard.events))
        assert [e.uniqueid for e in heard.events if isinstance(e, ChannelEnded)] == ["1.7"]
        assert link._session is not None
        assert link._session.strays == 0

    play(scene)


def test_events_between_answers_are_heard_and_answers_between_events() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        for number in range(20):
            ami.event(HANGUP | {"Uniqueid": f"1.{number}"})
            assert await link.channels() == []
        assert [e.uniqueid for e in heard.events if isinstance(e, ChannelEnded)] == [
            f"1.{number}" for number in range(20)
        ]

    play(scene)


# --- down, and up again ------------------------------------------------------------------------


def test_a_link_that_is_cut_says_so_and_comes_back() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.cut()
        await heard.phase(LinkPhase.UP, 2)
        assert heard.phases[1:4] == [LinkPhase.UP, LinkPhase.DOWN, LinkPhase.UP]
        ami.event(HANGUP)
        await heard.until(lambda: bool(heard.events))

    play(scene)


def hangups(count: int) -> bytes:
    return b"".join(b"Event: Hangup\r\nUniqueid: 1.%d\r\n\r\n" % n for n in range(count))


def test_what_was_said_before_a_link_broke_is_heard_before_it_is_down() -> None:
    """Thousands of endings may wait to be handled when the connection ends: none is lost."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        assert link._session is not None
        assert link._session._manager is not None
        read(link, hangups(3_000))
        assert link.waiting_bytes == len(hangups(3_000))
        link._session._manager.protocol.connection_lost(None)
        assert link.up
        assert not heard.events
        await heard.phase(LinkPhase.DOWN)
        assert len(heard.events) == 3_000
        assert (link.waiting_bytes, link.behind_seconds) == (0, 0.0)

    play(scene)


def test_what_was_said_before_a_link_is_stopped_is_heard() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        read(link, hangups(3_000))
        await link.stop()
        assert len(heard.events) == 3_000

    play(scene)


def test_an_asterisk_that_is_away_is_tried_until_it_is_there() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        await ami.close()
        await heard.phase(LinkPhase.DOWN)
        assert not link.up
        with pytest.raises(AmiLostError):
            await link.channels()
        ami.started = ("2026-11-22", "08:00:00")
        ami.instead["login"] = silent_login
        await ami.listen()
        await heard.phase(LinkPhase.UP, 2)
        assert link.state.asterisk_started_ms is None  # not that of the Asterisk before
        assert link.state.asterisk_started == "2026-11-22 08:00:00"

    play(scene)


def test_asterisk_going_down_in_order_is_the_reason_given() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.event({"Event": "Shutdown", "Shutdown": "Uncleanly", "Restart": "False"})
        await heard.phase(LinkPhase.UP, 2)
        assert heard.reasons == ["", "", "Asterisk shuts down", ""]

    play(scene)


def test_a_silent_peer_on_an_open_socket_is_noticed() -> None:
    """It keeps the connection and answers nothing: panoramisk would never notice."""
    times = AmiTimes(ping=0.0, ping_reply=0.05, reconnect=0.0)

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        before = ami.connections
        ami.ignores = {"ping"}
        await heard.phase(LinkPhase.DOWN)
        ami.ignores = set()
        await heard.until(lambda: link.up)
        assert ami.connections > before

    play(scene, times=times)


def test_a_peer_that_lives_is_asked_again_and_again() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await ami.seen("Ping", 5)
        assert ami.connections == 1
        assert link.up

    play(scene, times=AmiTimes(ping=0.0))


def test_a_wrong_secret_is_said_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "astcredit")

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await ami.seen("Login", 3)
        assert link.state.phase is LinkPhase.DOWN
        assert link.state.reason == "login refused: Authentication failed"
        ami.secret = "wr0ng"  # an admin mends it
        await soon(link.wait_up())

    play(scene, secret="wr0ng")
    down = [r for r in caplog.records if r.__dict__.get("action") == "ami_down"]
    assert len(down) == 2  # once when it was refused, once when stopped: not for every attempt
    assert all("wr0ng" not in str(record.__dict__) for record in caplog.records)


def test_a_peer_that_never_answers_the_login_is_given_up() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await heard.phase(LinkPhase.DOWN)
        assert link.state.reason == "no answer to Login in time"

    play(scene, FakeAmi(ignores={"login"}), AmiTimes(login=0.01))


def test_a_message_without_an_end_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ami_session, "MAX_MESSAGE_BYTES", 10_000)

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.raw(b"Event: Hangup\r\nX: " + b"y" * 20_000)
        await heard.phase(LinkPhase.UP, 2)

    play(scene)
    assert "ami_message_too_long" in logged(caplog)


def test_a_message_that_panoramisk_cannot_read_costs_the_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def odd(message: Message) -> bytes:
        return FakeAmi.reply(message, "ActionID: another")

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.instead["coreshowchannels"] = odd
        with pytest.raises(AmiLostError):
            await link.channels()
        del ami.instead["coreshowchannels"]
        await heard.phase(LinkPhase.UP, 2)

    play(scene)
    assert "ami_message_broken" in logged(caplog)


def test_what_follows_a_message_that_cannot_be_read_is_not_believed() -> None:
    """Where the one ends and the other begins is not known; recovery finds out what is true."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.raw(b"Response: x\r\nActionID: 1\r\nActionID: 2\r\n\r\n" + hangups(3))
        await heard.phase(LinkPhase.UP, 2)
        assert not heard.events

    play(scene)


@pytest.mark.parametrize("action", ["filter", "coresettings", "corestatus", "coreshowchannels"])
def test_a_manager_user_with_fewer_rights_still_hears(
    action: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.event(HANGUP)
        await heard.until(lambda: bool(heard.events))

    caplog.set_level(logging.INFO, "astcredit")
    play(scene, FakeAmi(rejects={action}))
    expected = "ami_filter_rejected" if action == "filter" else "ami_rejected"
    assert expected in logged(caplog)


def test_what_was_known_of_channels_that_are_gone_is_forgotten_on_reconnect() -> None:
    """Their hangups were missed. Those that still live keep what is known of them."""

    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.event(BUSY_LEG)
        ami.event(BUSY_LEG | {"Uniqueid": "1.8", "DestUniqueid": "1.9"})
        ami.event(HANGUP | {"Uniqueid": "0"})
        await heard.until(lambda: bool(heard.events))
        assert link._tracker.known() == {"1.6", "1.7", "1.8", "1.9"}
        ami.channels = [[("Channel", "PJSIP/customer-1"), ("Uniqueid", "1.6")]]
        ami.cut()
        await heard.phase(LinkPhase.UP, 2)
        assert link._tracker.known() == {"1.6"}

    play(scene)


def test_stop_ends_the_connection_and_what_waits_for_an_answer() -> None:
    async def scene(ami: FakeAmi, link: AmiLink, heard: Heard) -> None:
        await soon(link.wait_up())
        ami.ignores = {"coreshowchannels"}
        asked = asyncio.create_task(link.channels())
        await ami.seen("CoreShowChannels", 2)
        await link.stop()
        with pytest.raises(AmiLostError):
            await asked
        assert (link.up, link.state.reason) == (False, "stopped")

    play(scene)
