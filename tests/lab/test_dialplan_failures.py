"""dialplan/ in a real Asterisk: calls that nobody answers, and the way from route to route.

The controller is a stub; the routes are what it is told to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from support.agi_stub import ALLOWED, AgiStub, Script
from support.lab import Lab
from support.sipp import BUSY, CALLER, OUT_OF_ORDER, Answer, CustomerScript, Invite, Reject, Ring

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"
PRESENTED = "441632960001"
FIRST = {**ALLOWED, "AC_DIAL": f"PJSIP/{NUMBER}@carrier", "AC_CALLERID": PRESENTED}
SECOND = {**FIRST, "AC_DIAL": f"PJSIP/{NUMBER}@backup"}
NO_MORE = {"AC_STATUS": "NOROUTE", "AC_DIAL": "", "AC_CAUSE": "3"}
FULL = {"AC_STATUS": "CAPACITY", "AC_DIAL": "", "AC_CAUSE": "34"}


def routes(*answers: Mapping[str, str]) -> Script:
    """authorize gives the first, each next-route the next one."""
    left = list(answers)
    return lambda _: left.pop(0)


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


# What the README of dialplan/ says of a carrier's answers.
NEXT = {404: True, 408: True, 480: False, 486: False, 500: True, 503: True, 600: False, 603: True}


@pytest.mark.parametrize(("code", "goes_on"), NEXT.items())
def test_what_a_carrier_says_decides_whether_another_is_tried(
    lab: Lab, stub: AgiStub, code: int, goes_on: bool
) -> None:
    """What the callee says does not: busy, not available now."""
    stub.script = routes(FIRST, SECOND)
    with lab.carrier(Reject(code)), lab.carrier(Answer(), backup=True) as second:
        assert lab.customer_call(NUMBER, 0).answered is goes_on
        assert len(second.calls()) == goes_on


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


def test_the_next_route_takes_over_from_a_carrier_out_of_order(lab: Lab, stub: AgiStub) -> None:
    stub.script = routes(FIRST, SECOND)
    with lab.carrier(OUT_OF_ORDER) as first, lab.carrier(Answer(), backup=True) as second:
        assert lab.customer_call(NUMBER, 0.2).answered
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "next-route", "hangup"]
    report = stub.next("hangup").reported
    assert report["DIALSTATUS"] == "ANSWER"
    assert 0.2 <= float(report["CDR(billsec,f)"]) < 2.0
    # The caller's number was set once, for both.
    assert first.calls() == second.calls() == [Invite(NUMBER, PRESENTED)]


@pytest.mark.parametrize("end", [NO_MORE, FULL], ids=["no more", "the rest is full"])
def test_after_the_last_route_the_carriers_own_cause_is_passed_on(
    lab: Lab, stub: AgiStub, end: Mapping[str, str]
) -> None:
    stub.script = routes(FIRST, SECOND, end)
    with lab.carrier(OUT_OF_ORDER), lab.carrier(Reject(502), backup=True):
        assert lab.customer_call(NUMBER).code == 502
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "next-route", "next-route", "hangup"]


SECOND_NUMBER = """
[from-customers]
exten => _993.,1,Gosub(astcredit,${FILTER(0-9+,${EXTEN})},1)
 same => n,Gosub(astcredit,${FILTER(0-9+,${EXTEN:3})},1)
 same => n,Hangup(${AC_CAUSE})
"""


def test_after_a_failed_call_the_caller_is_who_they_were(lab: Lab, stub: AgiStub) -> None:
    """A context that tries another number then asks as the same caller, not as the number that
    was presented in its place: an account may be recognised by it."""
    lab.add_dialplan(SECOND_NUMBER)
    stub.script = lambda _: {**FIRST, "AC_DIAL": ""}
    with lab.carrier(BUSY) as carrier, lab.globals(AC_AGI=stub.agi):
        assert lab.customer_call(f"993{NUMBER}").code == 486
        assert [call.presented for call in carrier.calls()] == [PRESENTED] * 2
    lab.wait_idle()
    asked = [request for request in stub.requests if request.script == "authorize"]
    assert [request.environment["agi_callerid"] for request in asked] == [CALLER] * 2


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
