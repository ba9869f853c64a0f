"""dialplan/ in a real Asterisk: what reaches the carrier, what the caller hears, what is reported.

The controller is a stub, so that it can be told to refuse, to be silent or to be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.agi_stub import ALLOWED, AgiStub, Script, StubRequest
from support.lab import Lab, wait_until
from support.ports import free_port
from support.sipp import (
    BUSY,
    CALLER,
    OUT_OF_ORDER,
    Answer,
    Carrier,
    CustomerScript,
    Reject,
    Ring,
)

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"
LIMITED = {**ALLOWED, "AC_OPTS": "L(2000)", "AC_SECONDS": "2"}


def allow(_: StubRequest) -> Mapping[str, str]:
    return ALLOWED


def deny(status: str, cause: int) -> Script:
    refusal = {**ALLOWED, "AC_STATUS": status, "AC_OPTS": "", "AC_CAUSE": str(cause)}
    return lambda _: refusal


@pytest.fixture
def stub(lab: Lab) -> Iterator[AgiStub]:
    """The controller that the lab asks; it allows everything until told otherwise."""
    with AgiStub(allow) as server, lab.globals(AC_AGI=server.agi):
        yield server
        lab.wait_idle()


@pytest.fixture
def unreachable(lab: Lab) -> Iterator[None]:
    """The controller is not there: connections are refused."""
    with lab.globals(AC_AGI=f"agi://127.0.0.1:{free_port()}/"):
        yield


@pytest.fixture
def carrier(lab: Lab) -> Iterator[Carrier]:
    """A carrier that answers everything and leaves hanging up to the others."""
    with lab.carrier(Answer()) as carrier:
        yield carrier


# ---- calls that are allowed


@pytest.mark.parametrize(
    ("hangup_by_caller_s", "hangup_by_callee_s", "ended_by"),
    [(0.3, None, "near"), (None, 0.3, "far")],
    ids=["caller hangs up", "callee hangs up"],
)
def test_an_answered_call_is_reported_as_asterisk_recorded_it(
    lab: Lab,
    stub: AgiStub,
    hangup_by_caller_s: float | None,
    hangup_by_callee_s: float | None,
    ended_by: str,
) -> None:
    """The hangup handler reads a billsec that is final: the same as in Asterisk's CDR."""
    records = len(lab.asterisk_cdrs())
    with lab.carrier(Answer(hangup_after_s=hangup_by_callee_s)) as carrier:
        outcome = lab.customer_call(NUMBER, hangup_by_caller_s)
        report = stub.next("hangup").reported
        assert len(carrier.invites()) == 1
    assert outcome.answered
    assert outcome.ended_by == ended_by
    assert stub.scripts() == ["authorize", "hangup"]
    assert report["AC_CALL"] == "call-1"
    assert report["DIALSTATUS"] == "ANSWER"
    assert report["HANGUPCAUSE"] == "16"
    record = lab.asterisk_cdrs(at_least=records + 1)[-1]
    assert record.dst == NUMBER
    assert record.accountcode == "demo"
    assert record.disposition == "ANSWERED"
    # 1: the record's two times are rounded each for itself.
    assert abs(float(report["CDR(billsec,f)"]) * 1000 - record.billsec_ms) <= 1
    assert record.billsec_ms >= 300


def test_authorize_gets_the_number_and_may_be_told_account_and_node(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    with lab.globals(AC_ACCOUNT="other", AC_NODE="node7"):
        lab.customer_call(f"+{NUMBER}", 0)
    assert stub.requests[0].arguments[:3] == (f"+{NUMBER}", "other", "node7")


def test_the_limit_cuts_the_call(lab: Lab, stub: AgiStub, carrier: Carrier) -> None:
    stub.script = lambda _: LIMITED
    outcome = lab.customer_call(NUMBER)
    assert outcome.ended_by == "far"
    report = stub.next("hangup").reported
    assert 2.0 <= float(report["CDR(billsec,f)"]) < 4.0


def test_the_caller_id_is_the_controllers_and_the_name_stays_here(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    stub.script = lambda _: {**ALLOWED, "AC_CALLERID": "441632960001"}
    script = CustomerScript(NUMBER, hangup_after_s=0, caller="666", display="Director")
    lab.start_calls(script).wait()
    invite = carrier.invites()[0]
    assert "From: <sip:441632960001@" in invite
    assert "P-Asserted-Identity: <sip:441632960001@" in invite
    assert "sip:666@" not in invite
    assert "Director" not in invite


def test_the_clients_route_is_dialled_rather_than_the_own_trunk(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    stub.script = lambda _: {**ALLOWED, "AC_DIAL": f"PJSIP/00{NUMBER}@backup"}
    with lab.carrier(Answer(), backup=True) as backup:
        assert lab.customer_call(NUMBER, 0).answered
        assert carrier.invites() == []
        assert f"sip:00{NUMBER}@" in backup.invites()[0].splitlines()[0]


def test_twenty_calls_at_once_are_twenty_questions_and_twenty_reports(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    script = CustomerScript(NUMBER, hangup_after_s=0.5, calls=20)
    outcomes = lab.start_calls(script).wait()
    assert [outcome.code for outcome in outcomes] == [200] * 20
    lab.wait_idle()
    assert sorted(stub.scripts()) == ["authorize"] * 20 + ["hangup"] * 20
    assert len(carrier.invites()) == 20


# ---- calls that are refused

# As chan_pjsip of Asterisk 22 answers; a cause that it does not know becomes 603.
SIP_CODE_OF_CAUSE = {
    1: 404,
    3: 404,
    17: 486,
    21: 403,
    27: 502,
    28: 484,
    34: 503,
    38: 500,
    42: 503,
    50: 603,
    52: 603,
    57: 603,
    65: 603,
}


@pytest.mark.parametrize(("cause", "code"), SIP_CODE_OF_CAUSE.items())
def test_the_refusals_cause_becomes_the_callers_sip_code(
    lab: Lab, stub: AgiStub, carrier: Carrier, cause: int, code: int
) -> None:
    stub.script = deny("BLOCKED", cause)
    assert lab.customer_call(NUMBER).code == code
    assert carrier.invites() == []


@pytest.mark.parametrize(
    "status",
    ["NOACCOUNT", "DISABLED", "BLOCKED", "INVALID", "NOROUTE", "CAPACITY", "ERROR", "allowed"],
)
def test_whatever_is_not_allowed_is_not_dialled_nor_reported(
    lab: Lab, stub: AgiStub, carrier: Carrier, status: str
) -> None:
    stub.script = deny(status, 21)
    assert lab.customer_call(NUMBER).code == 403
    lab.wait_idle()
    assert carrier.invites() == []
    assert stub.scripts() == ["authorize"]


def test_lack_of_credit_is_402(lab: Lab, stub: AgiStub, carrier: Carrier) -> None:
    stub.script = deny("NOCREDIT", 21)
    assert lab.customer_call(NUMBER).code == 402
    assert carrier.invites() == []


def test_allowed_without_a_limit_is_refused_and_given_back(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    stub.script = lambda _: {**ALLOWED, "AC_OPTS": ""}
    assert lab.customer_call(NUMBER).code == 500
    assert stub.next("hangup").reported["AC_CALL"] == "call-1"
    assert carrier.invites() == []


def test_without_route_and_trunk_the_call_is_refused_and_given_back(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    with lab.globals(AC_TRUNK=""):
        assert lab.customer_call(NUMBER).code == 404
    assert stub.next("hangup").reported["AC_CALL"] == "call-1"
    assert carrier.invites() == []


LEFT_OVER = """
[from-customers]
exten => _990.,1,MSet(AC_STATUS=ALLOWED,AC_OPTS=L(9000000),AC_DIAL=PJSIP/1@carrier,AC_CALL=old)
 same => n,Gosub(astcredit,${FILTER(0-9+,${EXTEN})},1)
 same => n,Hangup(${AC_CAUSE})
"""


def test_what_an_earlier_call_left_in_the_variables_does_not_authorize(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    lab.add_dialplan(LEFT_OVER)
    stub.script = lambda _: None
    with lab.globals(AC_STATUS="ALLOWED", AC_OPTS="L(9000000)", AC_AGI=stub.agi):
        assert lab.customer_call(f"990{NUMBER}").code == 500
    lab.wait_idle()
    assert carrier.invites() == []
    assert stub.scripts() == ["authorize"]


# ---- when the controller is away


def test_without_a_controller_calls_are_refused_and_the_log_says_why(
    lab: Lab, unreachable: None, carrier: Carrier
) -> None:
    assert lab.customer_call(NUMBER).code == 500
    assert carrier.invites() == []
    assert "no answer from the controller (AGI FAILURE): call refused" in lab.log()


@pytest.mark.parametrize("number", ["112", "911"])
def test_emergency_calls_pass_without_a_controller(
    lab: Lab, unreachable: None, carrier: Carrier, number: str
) -> None:
    assert lab.customer_call(number, 0).answered
    assert f"sip:{number}@" in carrier.invites()[0]


def test_emergency_calls_ask_nobody_and_may_have_a_trunk_of_their_own(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    stub.script = deny("DISABLED", 21)
    with (
        lab.globals(AC_EMERGENCY_TRUNK="PJSIP/NUMBER@backup"),
        lab.carrier(Answer(), backup=True) as backup,
    ):
        assert lab.customer_call("112", 0).answered
        assert len(backup.invites()) == 1
    assert carrier.invites() == []
    assert stub.scripts() == []


@pytest.mark.parametrize("number", ["1120", "11", "0112", "+112", "112911", "91"])
def test_what_is_not_exactly_an_emergency_number_is_none(
    lab: Lab, unreachable: None, carrier: Carrier, number: str
) -> None:
    assert lab.customer_call(number).code == 500
    assert carrier.invites() == []


def test_no_emergency_numbers_set_means_none(lab: Lab, unreachable: None, carrier: Carrier) -> None:
    with lab.globals(AC_EMERGENCY=""):
        assert lab.customer_call("112").code == 500
    assert carrier.invites() == []


CLASSIC = """#!/bin/sh
# As a classic AGI program: the request on stdin up to an empty line, then commands on stdout.
while read -r line && [ -n "$line" ]; do echo "$line" >>/lab/db/classic; done
case $1 in
authorize)
  echo 'EXEC MSet "AC_STATUS=ALLOWED,AC_OPTS=L(3600000),AC_CALL=classic-1"'
  read -r answer ;;
hangup) echo "hangup $AC_CALL" >>/lab/db/classic ;;
esac
"""


def test_the_same_files_run_the_classic_agi_program(lab: Lab, carrier: Carrier) -> None:
    lab.add_agi_script("astcredit-agi", CLASSIC)
    with lab.globals(AC_AGI="astcredit-agi,"):
        assert lab.customer_call(NUMBER, 0).answered
        lab.wait_idle()
    said = (lab.directory / "db" / "classic").read_text().splitlines()
    assert "agi_arg_1: authorize" in said
    assert f"agi_arg_2: {NUMBER}" in said
    assert "agi_arg_1: hangup" in said


# ---- calls that nobody answers


@dataclass(frozen=True, slots=True)
class Failure:
    behaviour: Reject | Ring
    dialstatus: str
    cause: str
    code: int


FAILURES = {
    "busy": Failure(BUSY, "BUSY", "17", 486),
    "out of order": Failure(OUT_OF_ORDER, "CONGESTION", "34", 503),
    "unknown number": Failure(Reject(404), "CHANUNAVAIL", "1", 404),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_attempt_is_reported_once_and_its_cause_passed_on(
    lab: Lab, stub: AgiStub, name: str
) -> None:
    failure = FAILURES[name]
    with lab.carrier(failure.behaviour):
        assert lab.customer_call(NUMBER).code == failure.code
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]
    report = stub.next("hangup").reported
    assert report["DIALSTATUS"] == failure.dialstatus
    assert report["HANGUPCAUSE"] == failure.cause
    assert float(report["CDR(billsec,f)"]) == 0


VOICEMAIL = """
[from-customers]
exten => _991.,1,Gosub(astcredit,${FILTER(0-9+,${EXTEN})},1)
 same => n,Answer()
 same => n,WaitExten(3600)
"""


def test_no_answer_gives_the_money_back_before_the_channel_ends(lab: Lab, stub: AgiStub) -> None:
    """The customer goes on to a voicemail; nothing may stay reserved for that time."""
    lab.add_dialplan(VOICEMAIL)
    with lab.carrier(Ring()), lab.globals(AC_RINGTIME="1", AC_AGI=stub.agi):
        calls = lab.start_calls(CustomerScript(f"991{NUMBER}", hangup_after_s=0.2))
        assert stub.next("hangup").reported["DIALSTATUS"] == "NOANSWER"
        assert lab.channels() != []
        assert calls.wait()[0].ended_by == "near"
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]


def test_a_call_cancelled_while_ringing_is_reported(lab: Lab, stub: AgiStub) -> None:
    with lab.carrier(Ring()):
        assert lab.customer_call(NUMBER, cancel_after_s=0.2).code == 487
    report = stub.next("hangup").reported
    assert report["DIALSTATUS"] == "CANCEL"
    assert report["AC_CALL"] == "call-1"


def routes(*answers: Mapping[str, str]) -> Script:
    """authorize gives the first, each next-route the next one."""
    left = list(answers)
    return lambda _: left.pop(0)


FIRST = {**ALLOWED, "AC_DIAL": f"PJSIP/{NUMBER}@carrier"}
SECOND = {**ALLOWED, "AC_DIAL": f"PJSIP/{NUMBER}@backup"}
NO_MORE = {"AC_STATUS": "NOROUTE", "AC_DIAL": "", "AC_CAUSE": "3"}


def test_the_next_route_takes_over_from_a_carrier_out_of_order(lab: Lab, stub: AgiStub) -> None:
    stub.script = routes(FIRST, SECOND)
    with lab.carrier(OUT_OF_ORDER) as first, lab.carrier(Answer(), backup=True) as second:
        assert lab.customer_call(NUMBER, 0).answered
        assert (len(first.invites()), len(second.invites())) == (1, 1)
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "next-route", "hangup"]
    assert stub.next("hangup").reported["DIALSTATUS"] == "ANSWER"


def test_after_the_last_route_the_carriers_own_cause_is_passed_on(lab: Lab, stub: AgiStub) -> None:
    stub.script = routes(FIRST, SECOND, NO_MORE)
    with lab.carrier(OUT_OF_ORDER), lab.carrier(Reject(502), backup=True):
        assert lab.customer_call(NUMBER).code == 502
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "next-route", "next-route", "hangup"]


def test_a_busy_callee_is_not_tried_by_another_route(lab: Lab, stub: AgiStub) -> None:
    stub.script = routes(FIRST)
    with lab.carrier(BUSY):
        assert lab.customer_call(NUMBER).code == 486
    assert "next-route" not in stub.scripts()


def test_a_controller_that_never_runs_out_of_routes_is_left_after_twenty(
    lab: Lab, stub: AgiStub
) -> None:
    stub.script = lambda _: FIRST
    with lab.carrier(OUT_OF_ORDER) as carrier:
        assert lab.customer_call(NUMBER).code == 503
        assert len(carrier.invites()) == 20


def test_a_controller_lost_between_two_routes_ends_the_call(lab: Lab, stub: AgiStub) -> None:
    answers: list[Mapping[str, str] | None] = [FIRST, None]
    stub.script = lambda _: answers.pop(0)
    with lab.carrier(OUT_OF_ORDER) as carrier:
        assert lab.customer_call(NUMBER).code == 503
        assert len(carrier.invites()) == 1


# ---- who pays


def test_the_account_is_the_endpoints_and_no_header_changes_it(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    claims = ("X-Accountcode: second", "P-Asserted-Identity: <sip:second@127.0.0.1>")
    lab.start_calls(CustomerScript(NUMBER, hangup_after_s=0, headers=claims)).wait()
    lab.customer_call(NUMBER, 0, account="second")
    asked = [request for request in stub.requests if request.script == "authorize"]
    assert [request.environment["agi_accountcode"] for request in asked] == ["demo", "second"]
    assert asked[0].environment["agi_callerid"] == CALLER


# ---- strangers' texts

CANARY = "touch /lab/db/canary"


def quoted(number: str) -> str:
    """In a SIP URI: what is no letter or digit goes as %XX, and Asterisk undoes that."""
    return "".join(sign if sign.isalnum() else f"%{ord(sign):02X}" for sign in number)


HOSTILE_NUMBERS = [
    f"44${{SHELL({CANARY})}}",
    f"44$[${{SHELL({CANARY})}}]",
    f"44`{CANARY}`",
    f"44$({CANARY})",
    f"44;{CANARY}",
    '44"',
    "44'",
    "44\\",
    "44,PJSIP/1@carrier",
    "44&PJSIP/1@carrier",
    "44|1",
    "44,2(",
    "44,dial(",
    "44,help(",
    "44)",
    "44(x",
    "44):0",
    "44):0:2",
    "44@carrier",
    "44 & 1",
    "44}${EXTEN",
    "44?dial:dial",
    "112;",
    "112,help(",
    "44%0d%0aX: y",
    "4" * 41,
]

CARELESS = """
[from-customers]
exten => _0088.,1,Gosub(astcredit,${EXTEN:4},1)
 same => n,Hangup(${AC_CAUSE})
"""


@pytest.fixture
def canary(lab: Lab) -> Iterator[Path]:
    """A file that only exists when a caller's text was executed; Asterisk may write there."""
    path = lab.directory / "db" / "canary"
    path.unlink(missing_ok=True)
    yield path
    assert not path.exists(), "a caller's text was executed"


@pytest.mark.parametrize("prefix", ["", "0088"], ids=["customers.conf", "careless dialplan"])
@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_a_hostile_number_reaches_nobody(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, number: str, prefix: str
) -> None:
    """Even where the FILTER was forgotten (`careless`): refused, not dialled, not asked for."""
    if prefix:
        lab.add_dialplan(CARELESS)
    records = len(lab.asterisk_cdrs())
    script = CustomerScript(quoted(prefix + number), hangup_after_s=0)
    outcome = lab.start_calls(script).wait()[0]
    assert not outcome.answered
    lab.wait_idle()
    assert lab.asterisk_cdrs(at_least=records + 1)[-1].disposition != "ANSWERED"
    assert carrier.invites() == []
    assert stub.scripts() == []


HOSTILE_NAMES = {
    "evaluation": f"${{SHELL({CANARY})}}$[1+1]",
    "separators": f"a,b&c|d;{CANARY};e(f)g?h:i=j",
    "quotes": f"\\\" '`{CANARY}` \\\\",
    "ten kilobytes": "x" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_display_name_changes_nothing(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, name: str
) -> None:
    script = CustomerScript(NUMBER, hangup_after_s=0, display=HOSTILE_NAMES[name])
    assert lab.start_calls(script).wait()[0].answered
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]
    assert stub.requests[0].arguments[0] == NUMBER
    invite = carrier.invites()[0]
    assert "SHELL" not in invite
    assert "canary" not in invite
    assert len(invite) < 2_000


@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_a_hostile_caller_number_changes_nothing(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, number: str
) -> None:
    script = CustomerScript(NUMBER, hangup_after_s=0, caller=quoted(number))
    assert lab.start_calls(script).wait()[0].answered
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]
    assert "canary" not in carrier.invites()[0]


EVALUATES = """
[from-customers]
exten => _992.,1,Set(X=${EVAL(${CALLERID(name)})})
 same => n,Hangup(21)
"""


def test_the_canary_would_sing(lab: Lab) -> None:
    """The tests above prove something only if an evaluated text does write that file."""
    lab.add_dialplan(EVALUATES)
    path = lab.directory / "db" / "canary"
    script = replace(CustomerScript("9921"), display=HOSTILE_NAMES["evaluation"])
    assert lab.start_calls(script).wait()[0].code == 403
    wait_until(path.exists, 5, "the canary")
    path.unlink()
