"""hangup, balance and names that are no script: what is read from a channel, garbage and all."""

from __future__ import annotations

import asyncio

import pytest

from astcredit.asterisk.agi import (
    AgiRequest,
)
from astcredit.asterisk.dial_results import BILLSEC, HANGUP_VARIABLES, hangup_report
from astcredit.asterisk.scripts import ScriptFailed, UnknownScript
from astcredit.asterisk.variables import ChannelVariables
from astcredit.domain.calls import Funds, Origin
from astcredit.service.errors import TransientError
from support.agi_fakes import SOURCE, FakeChannel, FakeControl
from support.script_play import NOW_MS, Commands, make_scripts, play, request

# hangup

ANSWERED = {
    "AC_CALL": "c7",
    BILLSEC: "2.001800",
    "DIALEDTIME_MS": "3502",
    "HANGUPCAUSE": "16",
    "DIALSTATUS": "ANSWER",
    "ANSWEREDTIME_MS": "3965",
    "BLINDTRANSFER": "",
}


def test_hangup_reports_the_call_in_one_round_trip() -> None:
    control = FakeControl()
    channel = FakeChannel(ANSWERED)
    play(control, request("hangup", extension="h"), channel)
    report = control.reports[0]
    assert (report.node, report.uniqueid, report.call_id) == ("pbx1", "1795292445.7", "c7")
    assert report.ended_at_ms == NOW_MS
    assert (report.talk_ms, report.dialed_ms) == (2001, 3502)
    assert (report.dialstatus, report.hangupcause) == ("ANSWER", 16)
    assert report.blind_transfer == ""
    assert len(channel.commands) == 1


def test_hangup_is_read_from_a_channel_that_is_hung_up() -> None:
    control = FakeControl()
    commands = Commands(FakeChannel(ANSWERED))
    commands.parser.feed(b"HANGUP\n")
    session = ChannelVariables(commands)
    asyncio.run(make_scripts(control).run(request("hangup", "pbx2"), session, "pbx1"))
    assert [report.node for report in control.reports] == ["pbx2"]


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({BILLSEC: "0.000000"}, "talk_ms", 0),
        ({BILLSEC: "2"}, "talk_ms", 2000),
        ({BILLSEC: "2.5"}, "talk_ms", 2500),
        ({BILLSEC: "2.0009999"}, "talk_ms", 2000),
        ({BILLSEC: "9999999.999999", "ANSWEREDTIME_MS": ""}, "talk_ms", 9_999_999_999),
        ({BILLSEC: "100.25", "ANSWEREDTIME_MS": "10000"}, "talk_ms", 10_000),  # prompts before
        ({BILLSEC: "2.002", "ANSWEREDTIME_MS": "3965"}, "talk_ms", 2002),  # a warning was played
        ({BILLSEC: "2.002", "ANSWEREDTIME_MS": "0"}, "talk_ms", 2002),
        ({BILLSEC: ""}, "talk_ms", 3965),
        ({BILLSEC: "junk"}, "talk_ms", 3965),
        ({BILLSEC: "-1"}, "talk_ms", 3965),
        ({BILLSEC: "", "DIALSTATUS": "BUSY"}, "talk_ms", 0),
        ({BILLSEC: "", "ANSWEREDTIME_MS": "x"}, "talk_ms", 0),
        ({BILLSEC: "\u0661"}, "talk_ms", 3965),
        ({"DIALEDTIME_MS": ""}, "dialed_ms", None),
        ({"DIALEDTIME_MS": "1e9"}, "dialed_ms", None),
        ({"DIALEDTIME_MS": "9" * 400}, "dialed_ms", None),
        ({"HANGUPCAUSE": ""}, "hangupcause", 0),
        ({"HANGUPCAUSE": "127"}, "hangupcause", 127),
        ({"HANGUPCAUSE": "128"}, "hangupcause", 0),
        ({"HANGUPCAUSE": "x"}, "hangupcause", 0),
        ({"DIALSTATUS": "answer'"}, "dialstatus", ""),
        ({"AC_CALL": "a b"}, "call_id", ""),
        ({"BLINDTRANSFER": "PJSIP/a|b-01"}, "blind_transfer", "PJSIP/a|b-01"),
        ({"BLINDTRANSFER": "x" * 10_000}, "blind_transfer", "x" * 255),
    ],
)
def test_garbage_in_a_hangup_is_taken_for_absent(
    values: dict[str, str], field: str, expected: object
) -> None:
    report = hangup_report("pbx1", "17.1", NOW_MS, ANSWERED | values)
    assert getattr(report, field) == expected


def test_garbage_in_a_hangup_is_logged_escaped(caplog: pytest.LogCaptureFixture) -> None:
    hangup_report("pbx1", "17.1", NOW_MS, ANSWERED | {"HANGUPCAUSE": "\x1b[2J"})
    record = next(r for r in caplog.records if getattr(r, "action", "") == "hangup_bad_number")
    assert "\x1b" not in str(vars(record)["value"])


def test_a_separator_in_a_channel_name_moves_nothing() -> None:
    control = FakeControl()
    play(control, request("hangup"), FakeChannel(ANSWERED | {"BLINDTRANSFER": "PJSIP/a|16|b"}))
    assert control.reports[0].blind_transfer == "PJSIP/a|16|b"
    assert control.reports[0].hangupcause == 16


def test_all_that_a_hangup_reads_is_asked_for() -> None:
    assert set(HANGUP_VARIABLES) == set(ANSWERED)


def test_a_report_that_takes_long_is_not_lost() -> None:
    async def scenario() -> None:
        control = FakeControl(gate=asyncio.Event())
        scripts = make_scripts(control, answer_seconds=0.01)
        session = ChannelVariables(Commands(FakeChannel(ANSWERED)))
        await scripts.run(request("hangup"), session, "pbx1")
        assert control.reports == []
        assert control.gate is not None
        control.gate.set()
        await scripts.drain(60)
        assert len(control.reports) == 1
        assert control.abandoned == []

    asyncio.run(scenario())


def test_a_report_that_fails_is_a_failed_script() -> None:
    with pytest.raises(ScriptFailed):
        play(FakeControl(error=RuntimeError("bug")), request("hangup"), FakeChannel(ANSWERED))


# balance and the rest


def test_balance_of_the_channels_account_or_another() -> None:
    control = FakeControl(account=Funds("Acme", "EUR", 12_340_000, -1))
    variables = play(control, request("balance"), FakeChannel({"AC_STATUS": "as it was"}))
    assert (variables["AC_BALANCE"], variables["AC_AVAILABLE"]) == ("12.340000", "-0.000001")
    assert variables["AC_STATUS"] == "as it was"
    play(control, request("balance", "other"), FakeChannel())
    assert control.origins == [
        Origin("pbx1", "", "acme", "acme", SOURCE, "030123456"),
        Origin("pbx1", "other", "acme", "acme", "", "030123456"),
    ]


def test_a_balance_of_another_channel_than_pjsip_asks_for_no_address() -> None:
    """Asterisk complains of the function on other channels."""
    control = FakeControl()
    channel = FakeChannel()
    play(control, request("balance", channel="IAX2/acme-7"), channel)
    assert control.origins == [Origin("pbx1", "", "acme", "", "", "030123456")]
    assert not [command for command in channel.commands if command.startswith("GET")]


@pytest.mark.parametrize(
    ("control", "status"),
    [
        (FakeControl(), "NOACCOUNT"),
        (FakeControl(error=TransientError("down")), "ERROR"),
        (FakeControl(error=TimeoutError()), "ERROR"),
    ],
)
def test_a_balance_that_is_not_known_is_empty(control: FakeControl, status: str) -> None:
    channel = FakeChannel({"AC_BALANCE": "left over", "AC_AVAILABLE": "left over"})
    variables = play(control, request("balance"), channel)
    assert (variables["AC_BALANCE"], variables["AC_AVAILABLE"]) == ("", "")
    assert variables["AC_STATUS"] == status


def test_a_balance_that_takes_long_is_empty() -> None:
    async def scenario() -> None:
        channel = FakeChannel()
        scripts = make_scripts(FakeControl(gate=asyncio.Event()), answer_seconds=0.01)
        await scripts.run(request("balance"), ChannelVariables(Commands(channel)), "pbx1")
        assert channel.variables["AC_STATUS"] == "ERROR"

    asyncio.run(scenario())


def test_a_balance_that_fails_is_empty() -> None:
    channel = FakeChannel({"AC_BALANCE": "left over"})
    with pytest.raises(ScriptFailed):
        play(FakeControl(error=RuntimeError("bug")), request("balance"), channel)
    assert channel.variables["AC_BALANCE"] == ""
    assert channel.variables["AC_STATUS"] == "ERROR"


@pytest.mark.parametrize("script", ["authorise", "", "AUTHORIZE", "../x", "a,b\n"])
def test_a_wrong_name_is_told_to_the_dialplan(script: str) -> None:
    channel = FakeChannel({"AC_STATUS": "ALLOWED"})
    session = ChannelVariables(Commands(channel))
    with pytest.raises(UnknownScript):
        asyncio.run(make_scripts(FakeControl()).run(AgiRequest(script), session, "pbx1"))
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert "no AGI script" in channel.variables["AC_REASON"]
    assert "next-route" in channel.variables["AC_REASON"]
