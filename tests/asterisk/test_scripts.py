"""authorize and next-route: what is asked, what the dialplan gets, and that no reservation is left
behind an answer that nobody got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from astcredit.asterisk.agi import (
    AgiError,
    AgiHungUp,
    AgiPeerGone,
    AgiReply,
    AgiTooSlow,
)
from astcredit.asterisk.scripts import (
    ScriptFailed,
    Scripts,
    answer_variables,
)
from astcredit.asterisk.variables import ChannelVariables
from astcredit.domain.calls import Authorization, AuthStatus, CallRequest, RouteRequest
from support.agi_fakes import AC_VARIABLES, ALLOWED, SOURCE, FakeChannel, FakeControl
from support.script_play import NOW_MS, Commands, make_scripts, play, request

DENIED = Authorization(AuthStatus.NOCREDIT, "no credit", "", available=-5, cause=21)


# authorize


def test_authorize_asks_about_the_channel() -> None:
    control = FakeControl()
    play(control, request("authorize"), FakeChannel({"CHANNEL(linkedid)": "17.1"}))
    assert control.requests == [
        CallRequest(
            call_id="call-1",
            node="pbx1",
            uniqueid="1795292445.7",
            linkedid="17.1",
            channel="PJSIP/acme-00000007",
            accountcode="acme",
            callerid="030123456",
            number="442071234567",
            source=SOURCE,
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("442071234567", "", "pbx1", SOURCE)),
        (["00491"], ("00491", "", "pbx1", SOURCE)),
        (["00491", "other"], ("00491", "other", "pbx1", SOURCE)),
        (["00491", "other", "pbx2"], ("00491", "other", "pbx2", SOURCE)),
        (["", "other"], ("442071234567", "other", "pbx1", SOURCE)),
        (["", "", "pbx2"], ("442071234567", "", "pbx2", SOURCE)),
        (["", "", "", "10.0.0.5:5061"], ("442071234567", "", "pbx1", "10.0.0.5:5061")),
        (["1", "2", "bad node"], ("1", "2", "pbx1", SOURCE)),
        (["1", "2", "x" * 65], ("1", "2", "pbx1", SOURCE)),
    ],
)
def test_arguments_have_defaults(arguments: list[str], expected: tuple[str, ...]) -> None:
    """The accountcode stays beside the account that the dialplan names: it is Asterisk's word."""
    control = FakeControl()
    play(control, request("authorize", *arguments), FakeChannel())
    asked = control.requests[0]
    assert (asked.number, asked.account, asked.node, asked.source) == expected
    assert asked.accountcode == "acme"


@pytest.mark.parametrize(
    ("channel", "arguments", "source", "reads"),
    [
        ("PJSIP/acme-00000007", [], SOURCE, "CHANNEL(pjsip,remote_addr)"),
        ("PJSIP/acme-00000007", ["", "", "", "10.0.0.5"], "10.0.0.5", ""),
        ("SIP/acme-00000007", [], "", ""),
        ("Local/44@out-00000007;2", [], "", ""),
        ("XPJSIP/acme-00000007", [], "", ""),
        ("", [], "", ""),
    ],
)
def test_the_address_is_asked_of_pjsip_channels_only_and_where_it_is_not_told(
    channel: str, arguments: list[str], source: str, reads: str
) -> None:
    """Asterisk knows it of no other, and complains; and it is no header of the caller's."""
    control = FakeControl()
    fake = FakeChannel()
    play(control, request("authorize", *arguments, channel=channel), fake)
    assert control.requests[0].source == source
    assert [c for c in fake.commands if "remote_addr" in c] == [
        c for c in fake.commands[:1] if reads
    ]
    assert reads in fake.commands[0]


def test_a_pjsip_channel_without_an_address_has_no_source() -> None:
    control = FakeControl()
    play(control, request("authorize"), FakeChannel({"CHANNEL(pjsip,remote_addr)": ""}))
    assert control.requests[0].source == ""


def test_a_channel_without_linkedid_is_its_own() -> None:
    control = FakeControl()
    play(control, request("authorize"), FakeChannel({"CHANNEL(linkedid)": ""}))
    assert control.requests[0].linkedid == "1795292445.7"


@pytest.mark.parametrize("number", ["4420712\u0661", "'; DROP TABLE", "9" * 10_000, "${X}|,("])
def test_a_hostile_number_is_asked_as_it_is(number: str) -> None:
    """Whether it is a number is decided in one place, which is not here; nothing is cut off."""
    control = FakeControl()
    play(control, request("authorize", extension=number), FakeChannel())
    assert control.requests[0].number == number


def test_the_dialplan_gets_all_of_an_allowed_call() -> None:
    channel = FakeChannel()
    play(FakeControl(), request("authorize"), channel)
    assert {name: channel.variables[name] for name in AC_VARIABLES} == {
        "AC_STATUS": "ALLOWED",
        "AC_REASON": "",
        "AC_SECONDS": "754",
        "AC_OPTS": "L(754000:60000:30000)",
        "AC_DIAL": "PJSIP/442071234567@carrier",
        "AC_CALLERID": "+4930123456",
        "AC_NUMBER": "442071234567",
        "AC_PAYER": "acme office",
        "AC_RATE": "0.012000",
        "AC_RESERVED": "0.150800",
        "AC_AVAILABLE": "9.849200",
        "AC_CALL": "call-1",
        "AC_CAUSE": "0",
    }
    assert len(channel.commands) == 2, "one round trip to read, one to write"


@pytest.mark.parametrize("status", list(AuthStatus))
def test_every_answer_sets_every_variable(status: AuthStatus) -> None:
    """What an earlier call left in the channel can allow nothing."""
    answer = replace(ALLOWED, status=status, call_id="c9", cause=21)
    channel = FakeChannel(dict.fromkeys(AC_VARIABLES, "left over"))
    variables = play(FakeControl(answer), request("authorize"), channel)
    assert "left over" not in [variables[name] for name in AC_VARIABLES]
    assert variables["AC_STATUS"] == status.value
    assert variables["AC_CALL"] == "c9"
    if status is not AuthStatus.ALLOWED:
        assert variables["AC_SECONDS"] == "0"
        assert variables["AC_OPTS"] == variables["AC_DIAL"] == ""


def test_a_hostile_reason_and_caller_id_add_no_variable() -> None:
    answer = replace(
        DENIED,
        reason='x,AC_STATUS=ALLOWED"\n(',
        callerid="1,AC_STATUS=ALLOWED",
        number="2,AC_STATUS=ALLOWED&SIP/x",
    )
    variables = play(FakeControl(answer), request("authorize"), FakeChannel())
    assert variables["AC_STATUS"] == "NOCREDIT"
    assert variables["AC_REASON"] == "x AC_STATUS=ALLOWED"
    assert variables["AC_CALLERID"] == "1AC_STATUSALLOWED"
    assert variables["AC_NUMBER"] == "2AC_STATUSALLOWEDSIPx"


def test_negative_amounts_are_written() -> None:
    assert answer_variables(DENIED)["AC_AVAILABLE"] == "-0.000005"


@pytest.mark.parametrize("script", ["authorize", "next-route"])
@pytest.mark.parametrize(
    "change", [{"dial": "PJSIP/1,30"}, {"options": "L(1"}, {"dial": "PJSIP/${X}"}]
)
def test_an_answer_that_cannot_be_sent_unchanged_allows_nothing(
    script: str, change: dict[str, str]
) -> None:
    control = FakeControl(replace(ALLOWED, **change))  # type: ignore[arg-type]
    channel = FakeChannel({"AC_CALL": "call-1"})
    with pytest.raises(ScriptFailed):
        play(control, request(script), channel)
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert channel.variables["AC_OPTS"] == ""
    assert control.abandoned == ["call-1"]


# An allowed call whose answer nobody got


def gone(command: str) -> None:
    raise AgiPeerGone("closed")


def slow(command: str) -> None:
    raise AgiTooSlow("no reply")


def at_mset(then: Callable[[str], None]) -> Callable[[str], None]:
    return lambda command: then(command) if command.startswith("EXEC") else None


@pytest.mark.parametrize("script", ["authorize", "next-route"])
@pytest.mark.parametrize(
    ("fault", "answer", "abandoned"),
    [
        (gone, ALLOWED, ["call-1"]),
        (gone, DENIED, []),
        (slow, ALLOWED, []),
        (slow, DENIED, []),
    ],
)
def test_an_answer_that_was_not_taken_is_taken_back_once(
    script: str, fault: Callable[[str], None], answer: Authorization, abandoned: list[str]
) -> None:
    """Where it may have been taken, the call may be made: its money stays reserved."""
    control = FakeControl(answer)
    session = ChannelVariables(Commands(FakeChannel({"AC_CALL": "call-1"}), at_mset(fault)))
    with pytest.raises(AgiError):
        asyncio.run(make_scripts(control).run(request(script), session, "pbx1"))
    assert control.abandoned == abandoned


def test_nothing_is_asked_for_a_channel_that_cannot_be_read() -> None:
    control = FakeControl()
    session = ChannelVariables(Commands(FakeChannel(), gone))
    with pytest.raises(AgiPeerGone):
        asyncio.run(make_scripts(control).run(request("authorize"), session, "pbx1"))
    assert control.requests == []
    assert control.abandoned == []


@pytest.mark.parametrize("at", ["GET", "EXEC"], ids=["before", "during"])
def test_a_caller_who_hung_up_keeps_no_reservation(at: str) -> None:
    control = FakeControl()
    commands = Commands(FakeChannel())

    def hang_up(command: str) -> None:
        if command.startswith(at):
            commands.parser.feed(b"HANGUP\n")

    commands.before = hang_up
    with pytest.raises(AgiHungUp):
        asyncio.run(make_scripts(control).run(request("authorize"), ChannelVariables(commands), ""))
    assert control.abandoned == ["call-1"]


@pytest.mark.parametrize(
    ("answer", "error", "abandoned"),
    [
        (ALLOWED, None, ["call-1"]),
        (DENIED, None, []),
        (ALLOWED, RuntimeError("after commit?"), ["call-1"]),
    ],
    ids=["allowed", "denied", "failed"],
)
def test_a_control_that_hangs_delays_no_caller(
    answer: Authorization, error: Exception | None, abandoned: list[str]
) -> None:
    """The dialplan has ERROR while the control still thinks; what it then allows is abandoned."""

    async def scenario() -> None:
        control = FakeControl(answer, error, asyncio.Event())
        scripts = make_scripts(control, answer_seconds=0.01)
        channel = FakeChannel()
        session = ChannelVariables(Commands(channel))
        await scripts.run(request("authorize"), session, "pbx1")
        assert channel.variables["AC_STATUS"] == "ERROR"
        assert channel.variables["AC_CALL"] == "call-1"
        assert channel.variables["AC_CAUSE"] == "38"
        assert control.abandoned == []
        assert scripts.late == 1
        assert control.gate is not None
        control.gate.set()
        await scripts.drain(60)
        assert control.abandoned == abandoned
        assert scripts.late == 0

    asyncio.run(scenario())


def test_a_control_that_never_answers_is_abandoned_at_the_end() -> None:
    async def scenario() -> None:
        control = FakeControl(gate=asyncio.Event())
        scripts = make_scripts(control, answer_seconds=0.01)
        await scripts.run(request("authorize"), ChannelVariables(Commands(FakeChannel())), "pbx1")
        await scripts.drain(0)
        assert control.abandoned == ["call-1"]
        assert scripts.late == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("committed", [True, False])
def test_a_script_cancelled_while_it_asks_keeps_nothing(committed: bool) -> None:
    async def scenario() -> None:
        control = FakeControl(ALLOWED if committed else DENIED, gate=asyncio.Event())
        scripts = make_scripts(control)
        session = ChannelVariables(Commands(FakeChannel()))
        running = asyncio.create_task(scripts.run(request("authorize"), session, "pbx1"))
        await control.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert control.gate is not None
        control.gate.set()
        await scripts.drain(60)
        assert control.abandoned == (["call-1"] if committed else [])

    asyncio.run(scenario())


def test_a_script_cancelled_while_it_answers_keeps_the_money_reserved() -> None:
    """The answer was sent: Asterisk may make the call."""

    async def scenario() -> None:
        control = FakeControl()
        answering = asyncio.Event()

        class NeverAnswers(Commands):
            async def command(self, line: str) -> AgiReply:
                if line.startswith("EXEC"):
                    answering.set()
                    await asyncio.Event().wait()
                return await super().command(line)

        session = ChannelVariables(NeverAnswers(FakeChannel()))
        running = asyncio.create_task(
            make_scripts(control).run(request("authorize"), session, "pbx1")
        )
        await answering.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert control.abandoned == []

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()])
@pytest.mark.parametrize(("script", "call"), [("authorize", "call-1"), ("next-route", "c7")])
def test_a_control_that_fails_is_an_error_for_the_dialplan(
    error: BaseException, script: str, call: str
) -> None:
    """What it did before it failed is not known, so the call is abandoned as well."""
    control = FakeControl(error=error)
    channel = FakeChannel({"AC_CALL": "c7", "AC_STATUS": "ALLOWED"})
    with pytest.raises(ScriptFailed):
        play(control, request(script), channel)
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert channel.variables["AC_CALL"] == call
    assert control.abandoned == [call]


def test_an_error_of_the_script_itself_is_an_error_for_the_dialplan() -> None:
    def no_id() -> str:
        raise RuntimeError("no id")

    scripts = Scripts(FakeControl(), new_call_id=no_id, now_ms=lambda: NOW_MS)
    channel = FakeChannel({"AC_STATUS": "ALLOWED", "AC_CALL": "old"})
    with pytest.raises(ScriptFailed):
        asyncio.run(scripts.run(request("authorize"), ChannelVariables(Commands(channel)), "pbx1"))
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert channel.variables["AC_CALL"] == ""


def test_an_error_of_next_route_leaves_the_call_to_its_hangup() -> None:
    def bug(command: str) -> None:
        if command.startswith("GET"):
            raise RuntimeError("bug")

    channel = FakeChannel({"AC_STATUS": "ALLOWED", "AC_CALL": "c7"})
    session = ChannelVariables(Commands(channel, bug))
    with pytest.raises(ScriptFailed):
        asyncio.run(make_scripts(FakeControl()).run(request("next-route"), session, "pbx1"))
    assert channel.variables["AC_STATUS"] == "ERROR"
    assert channel.variables["AC_CALL"] == "c7"


# next-route


def test_next_route_asks_for_the_call_of_the_channel() -> None:
    control = FakeControl(replace(ALLOWED, dial="PJSIP/44@second"))
    variables = play(control, request("next-route"), FakeChannel({"AC_CALL": "c7"}))
    assert control.routes == [RouteRequest("c7", "pbx1", "1795292445.7", "call-1")]
    assert variables["AC_DIAL"] == "PJSIP/44@second"
    assert variables["AC_CALL"] == "c7"


@pytest.mark.parametrize(
    ("dialstatus", "cause", "told"),
    [
        ("CONGESTION", "34", ("CONGESTION", 34)),
        ("", "", ("", 0)),
        ("busy'", "128", ("", 0)),
        ("BUSY", "x", ("BUSY", 0)),
        ("A" * 21, "127", ("", 127)),
    ],
)
def test_next_route_tells_how_the_attempt_ended(
    dialstatus: str, cause: str, told: tuple[str, int]
) -> None:
    """What is no word or no number of Asterisk's is not told."""
    control = FakeControl()
    values = {"AC_CALL": "c7", "DIALSTATUS": dialstatus, "HANGUPCAUSE": cause}
    play(control, request("next-route"), FakeChannel(values))
    assert [(asked.dialstatus, asked.hangupcause) for asked in control.routes] == [told]


def test_each_question_for_a_route_is_one_of_its_own() -> None:
    """A question that is asked again after a lost answer keeps its id; a new one has another."""
    control = FakeControl()
    scripts = make_scripts(control)

    async def scenario() -> None:
        for _ in range(2):
            session = ChannelVariables(Commands(FakeChannel({"AC_CALL": "c7"})))
            await scripts.run(request("next-route", "pbx2"), session, "pbx1")

    asyncio.run(scenario())
    first, second = control.routes
    assert (first.call_id, first.node) == (second.call_id, second.node) == ("c7", "pbx2")
    assert first.ask_id != second.ask_id


def test_no_further_route_leaves_the_call_to_its_hangup() -> None:
    answer = Authorization(AuthStatus.NOROUTE, "no further route", "", cause=34)
    channel = FakeChannel({"AC_CALL": "c7", "AC_DIAL": "PJSIP/44@first"})
    variables = play(FakeControl(answer), request("next-route", "pbx2"), channel)
    assert variables["AC_STATUS"] == "NOROUTE"
    assert variables["AC_DIAL"] == ""
    assert variables["AC_CALL"] == "c7"


@pytest.mark.parametrize("call", ["", "a b", "x" * 65, "1'--", "c|d"])
def test_what_is_no_call_id_is_none(call: str) -> None:
    control = FakeControl()
    play(control, request("next-route"), FakeChannel({"AC_CALL": call}))
    assert [asked.call_id for asked in control.routes] == [""]


def test_a_name_that_asterisk_would_change_is_not_told() -> None:
    """Half a name would be another account, or none: the dialplan goes by the accountcode then."""
    for name in ("acme, office", "acme  office", 'acme"', "${acme}"):
        assert answer_variables(replace(ALLOWED, payer=name))["AC_PAYER"] == ""
