"""dialplan/ in a real Asterisk: what reaches the carrier, what the caller hears, what is reported.

The controller is a stub, so that it can be told to refuse, to be silent or to be gone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.agi_stub import ALLOWED, AgiStub, Script
from support.lab import Lab
from support.lab_config import WHOLESALE
from support.ports import free_port
from support.sipp import (
    CALLER,
    Answer,
    Carrier,
    CustomerScript,
    Invite,
)

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"
LIMITED = {**ALLOWED, "AC_OPTS": "L(2000)", "AC_SECONDS": "2"}


def deny(status: str, cause: int) -> Script:
    refusal = {**ALLOWED, "AC_STATUS": status, "AC_OPTS": "", "AC_CAUSE": str(cause)}
    return lambda _: refusal


@pytest.fixture
def unreachable(lab: Lab) -> Iterator[None]:
    """The controller is not there: connections are refused."""
    with lab.globals(AC_AGI=f"agi://127.0.0.1:{free_port()}/"):
        yield


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
    # The caller's answer comes a few milliseconds after the callee's.
    assert record.billsec_ms >= 250


def test_authorize_gets_the_number_and_may_be_told_account_node_and_source(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    told = {"AC_ACCOUNT": "other", "AC_NODE": "node7", "AC_SOURCE": "[2001:db8::1]:5060"}
    with lab.globals(**told):
        lab.customer_call(f"+{NUMBER}", 0)
    assert stub.requests[0].arguments[:4] == (f"+{NUMBER}", *told.values())


def test_what_is_not_told_is_left_to_the_controller(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    """The address and the linkedid are Asterisk's to know: asking for them is spared."""
    lab.play(CustomerScript(NUMBER, hangup_after_s=0), address=WHOLESALE.format(1))
    assert stub.requests[0].arguments[:3] == (NUMBER, "", "")
    source, linkedid = stub.requests[0].arguments[3:5]
    assert source.startswith(f"{WHOLESALE.format(1)}:")
    assert linkedid == stub.requests[0].environment["agi_uniqueid"]
    assert stub.requests[0].environment["agi_accountcode"] == ""
    assert stub.requests[0].environment["agi_channel"].startswith("PJSIP/wholesale-")


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


def test_a_carrier_known_by_its_address_alone_is_dialled_and_may_hang_up(
    lab: Lab, stub: AgiStub
) -> None:
    port = free_port()
    dial = f"PJSIP/astcredit-carrier/sip:{NUMBER}@127.0.0.1:{port}"
    stub.script = lambda _: {**ALLOWED, "AC_DIAL": dial}
    with lab.carrier(Answer(hangup_after_s=0.1), port=port) as carrier:
        outcome = lab.customer_call(NUMBER)
        assert (outcome.code, outcome.ended_by) == (200, "far")
        assert carrier.calls() == [Invite(NUMBER, ALLOWED["AC_CALLERID"])]


def test_the_own_trunk_gets_the_number_without_the_tech_prefix(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    stub.script = lambda _: {**ALLOWED, "AC_NUMBER": NUMBER}
    assert lab.customer_call(f"77{NUMBER}", 0).answered
    assert [call.dialled for call in carrier.calls()] == [NUMBER]
    assert stub.requests[0].arguments[0] == f"77{NUMBER}"


OTHER = "4466600066600"
"""So long that no tag or branch of a message has it by chance."""

HEARSAY = (
    f"P-Asserted-Identity: <sip:{OTHER}@127.0.0.1>",
    f"P-Preferred-Identity: <sip:{OTHER}@127.0.0.1>",
    f"Remote-Party-ID: <sip:{OTHER}@127.0.0.1>;party=calling",
    f"Diversion: <sip:{OTHER}@127.0.0.1>;reason=unconditional",
    f"History-Info: <sip:{OTHER}@127.0.0.1>;index=1",
    f"Referred-By: <sip:{OTHER}@127.0.0.1>",
)


def test_no_other_header_presents_a_number_to_the_carrier(
    lab: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    lab.play(CustomerScript(NUMBER, hangup_after_s=0, caller=OTHER, headers=HEARSAY))
    assert OTHER not in carrier.invites()[0]


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
