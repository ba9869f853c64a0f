"""dialplan/ in a real Asterisk when calls are transferred or forwarded: the limit stays on the
carrier's leg, the right account is asked for, the end is reported as what it was.

The controller is a stub. How long a leg lasted is what the carrier's own telephone exchange (sipp)
saw. Transfers are REFER and REFER with Replaces, forwarding is a 302 from the carrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from support.agi_stub import ALLOWED, AgiStub, Script
from support.lab import Lab
from support.sipp import Answer, Carrier, CustomerScript, Redirect, TransferScript

pytestmark = pytest.mark.asterisk

NUMBER, SECOND = "442071234567", "442079999999"
# What [astcredit-leg] gives the carrier's leg beyond the limit of AC_OPTS.
LEG_SLACK_MS = 500
# Asterisk hangs up some milliseconds late, on a machine that does other things as well.
CUT_TOLERANCE_MS = 400
LATE_MS = 1000
WARNED, PLAIN = "L(1000:500:250)", "L(1000)"

CONTEXTS = """
[from-customers]
; where a call may be transferred to, at no charge and without asking
exten => _70X.,1,Answer()
 same => n,Wait(60)
; asks as the caller, and dials a Local channel without /n
exten => _71X.,1,Set(AC_TRUNK=Local/NUMBER@silent)
 same => n,Goto(from-customers,${EXTEN:2},1)
exten => _72X.,1,Set(AC_TRUNK=Local/NUMBER@asking)
 same => n,Goto(from-customers,${EXTEN:2},1)
; AC_ACCOUNT for one call, as a dialplan may set it; 74: and another accountcode for its legs
exten => _73X.,1,Set(AC_ACCOUNT=told)
 same => n,Goto(from-customers,${EXTEN:2},1)
exten => _74X.,1,Set(CHANNEL(accountcode)=other)
 same => n,Goto(from-customers,${EXTEN:2},1)

[silent]
exten => _X.,1,Dial(PJSIP/${EXTEN}@carrier)

[asking]
exten => _X.,1,Set(AC_TRUNK=PJSIP/NUMBER@carrier)
 same => n,Gosub(astcredit,${EXTEN},1)
 same => n,Hangup(${AC_CAUSE})

; where 302 leads to: the context of the carrier's endpoint
[from-carriers]
exten => _71X.,1,Goto(silent,${EXTEN:2},1)
exten => _72X.,1,Goto(asking,${EXTEN:2},1)
"""


def allowing(options: str, seconds: str = "1") -> Script:
    """Each call has an id of its own, and this limit."""
    calls = count(1)
    return lambda _: {
        **ALLOWED,
        "AC_CALL": f"call-{next(calls)}",
        "AC_OPTS": options,
        "AC_SECONDS": seconds,
    }


@pytest.fixture(scope="module", autouse=True)
def dialplan(lab: Lab) -> None:
    """Before any test changes a global variable: reading the dialplan again resets them."""
    lab.add_dialplan(CONTEXTS)


@pytest.fixture
def contexts(lab: Lab, stub: AgiStub) -> Iterator[Lab]:
    stub.script = allowing(PLAIN)
    yield lab
    lab.wait_idle()


def talked(carrier: Carrier) -> list[int]:
    """How long each answered call of the carrier's lasted, in ms."""
    return [talk.ms for talk in carrier.talks()]


# ---- the limit


@pytest.mark.parametrize("options", [WARNED, PLAIN])
def test_an_ordinary_call_is_cut_by_its_own_limit(
    contexts: Lab, stub: AgiStub, carrier: Carrier, options: str
) -> None:
    """The leg's own time-out does not come first."""
    stub.script = allowing(options)
    assert contexts.customer_call(NUMBER).ended_by == "far"
    (ms,) = talked(carrier)
    assert 1000 <= ms <= 1000 + CUT_TOLERANCE_MS


@pytest.mark.parametrize("options", [WARNED, PLAIN])
def test_the_limit_stays_after_a_blind_transfer(
    contexts: Lab, stub: AgiStub, carrier: Carrier, options: str
) -> None:
    """The callee is put on an announcement that lasts a minute; its leg ends all the same."""
    stub.script = allowing(options)
    contexts.play(TransferScript(NUMBER, "7099", talk_s=0.3))
    contexts.wait_idle()
    (ms,) = talked(carrier)
    assert 1000 <= ms <= 1000 + LEG_SLACK_MS + LATE_MS
    assert stub.scripts() == ["authorize", "hangup"]


@pytest.mark.parametrize("options", [WARNED, PLAIN])
def test_the_limit_stays_after_an_attended_transfer(
    contexts: Lab, stub: AgiStub, carrier: Carrier, options: str
) -> None:
    """Two callees talk to one another: the first leg's limit ends both."""
    stub.script = allowing(options)
    contexts.play(TransferScript(NUMBER, SECOND, talk_s=0.3, attended=True))
    contexts.wait_idle()
    first, second = carrier.talks()
    assert (first.dialled, second.dialled) == (NUMBER, SECOND)
    assert 1000 <= first.ms <= 1000 + LEG_SLACK_MS + LATE_MS
    assert abs(first.ended_ms - second.ended_ms) <= LATE_MS


def test_a_trunk_of_local_channels_is_not_taken_out_of_the_way(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    with contexts.voices():
        assert contexts.customer_call(f"71{NUMBER}").ended_by == "far"
    (ms,) = talked(carrier)
    assert 1000 <= ms <= 1000 + LATE_MS


@pytest.mark.parametrize("options", [WARNED, PLAIN])
def test_the_limit_stays_when_the_carrier_forwards_to_who_does_not_ask(
    contexts: Lab, stub: AgiStub, carrier: Carrier, options: str
) -> None:
    """Asterisk dials a Local channel by itself, and takes it and its limit out of the way."""
    stub.script = allowing(options)
    with (
        contexts.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
        contexts.carrier(Redirect(f"71{SECOND}"), backup=True),
        contexts.voices(),
    ):
        assert contexts.customer_call(NUMBER).ended_by == "far"
    (ms,) = talked(carrier)
    assert 1000 <= ms <= 1000 + LEG_SLACK_MS + LATE_MS


def test_a_call_without_seconds_has_the_limit_of_its_options_alone(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    """What is no number never becomes a time-out."""
    stub.script = allowing(PLAIN, seconds="0)g")
    assert contexts.customer_call(NUMBER, 0.5).ended_by == "near"
    stub.script = allowing(PLAIN, seconds="")
    assert contexts.customer_call(NUMBER, 0.5).ended_by == "near"


# ---- who pays


def test_a_transferred_leg_asks_for_the_account_of_the_call(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    """AC_ACCOUNT was set on the caller's channel, which is gone. The leg has its accountcode."""
    contexts.play(TransferScript(f"73{NUMBER}", SECOND, talk_s=0.1))
    first, second = (request for request in stub.requests if request.script == "authorize")
    assert first.arguments[:2] == (NUMBER, "told")
    assert second.arguments[:2] == (SECOND, "told")
    assert second.environment["agi_channel"].startswith("PJSIP/carrier-")
    assert second.environment["agi_accountcode"] == "demo"


def test_a_leg_with_another_accountcode_asks_for_itself(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    contexts.play(TransferScript(f"73{NUMBER}", f"74{SECOND}", talk_s=0.1))
    first, second = (request for request in stub.requests if request.script == "authorize")
    assert first.arguments[1] == "told"
    assert second.arguments[1] == ""
    assert second.environment["agi_accountcode"] == "other"


def test_the_account_that_the_controller_names_is_that_of_the_legs(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    """A customer known by the address alone: the leg's own address is the carrier's."""
    stub.script = lambda _: {**ALLOWED, "AC_OPTS": "L(500)", "AC_PAYER": "wholesaler"}
    contexts.play(TransferScript(NUMBER, SECOND, talk_s=0.1))
    asked = [request.arguments[1] for request in stub.requests if request.script == "authorize"]
    assert asked == ["", "wholesaler"]


# ---- what is reported


def reports(stub: AgiStub) -> dict[str, dict[str, str]]:
    """What the hangup scripts reported, by call."""
    made = (request.reported for request in stub.requests if request.script == "hangup")
    return {report["AC_CALL"]: dict(report) for report in made}


def test_legs_that_outlive_their_callers_are_reported_as_transferred(
    contexts: Lab, stub: AgiStub, carrier: Carrier
) -> None:
    """Asterisk sets BLINDTRANSFER after blind transfers only; an attended one has the same end."""
    contexts.play(TransferScript(NUMBER, SECOND, talk_s=0.1, attended=True))
    contexts.wait_idle()
    found = reports(stub)
    assert {call: report["DIALSTATUS"] for call, report in found.items()} == {
        "call-1": "ANSWER",
        "call-2": "ANSWER",
    }
    assert all(report["BLINDTRANSFER"].startswith("PJSIP/carrier-") for report in found.values())


def test_an_ordinary_end_is_not_taken_for_a_transfer(contexts: Lab, stub: AgiStub) -> None:
    """Whoever hangs up: the two channels end at the same time, in threads of their own."""
    for far, near in ((None, 0.1), (0.1, None)):
        with contexts.carrier(Answer(hangup_after_s=far)):
            contexts.play(CustomerScript(NUMBER, hangup_after_s=near, calls=10))
            contexts.wait_idle()
    found = reports(stub)
    assert len(found) == 20
    assert {report["BLINDTRANSFER"] for report in found.values()} == {""}
    assert {report["DIALSTATUS"] for report in found.values()} == {"ANSWER"}


@pytest.mark.parametrize("way", ["trunk", "302"])
def test_a_call_whose_far_end_asked_for_itself_is_reported_as_forwarded(
    contexts: Lab, stub: AgiStub, carrier: Carrier, way: str
) -> None:
    """Two calls, one carrier's leg: the second pays for it."""
    _call_through(contexts, way, "72")
    found = reports(stub)
    assert {call: report["DIALSTATUS"] for call, report in found.items()} == {
        "call-1": "FORWARDED",
        "call-2": "ANSWER",
    }
    asked = [request for request in stub.requests if request.script == "authorize"]
    assert asked[1].environment["agi_channel"].startswith("Local/")
    # With 302 the Local channel is out of the way long before its call ends.
    assert (found["call-2"]["BLINDTRANSFER"] != "") == (way == "302")


@pytest.mark.parametrize("way", ["trunk", "302"])
def test_a_call_through_a_local_channel_leaves_its_length_to_the_listener(
    contexts: Lab, stub: AgiStub, carrier: Carrier, way: str
) -> None:
    """Dial says ANSWER of a Local channel; whether a carrier answered is not for it to know."""
    _call_through(contexts, way, "71")
    assert [report["DIALSTATUS"] for report in reports(stub).values()] == [""]


def _call_through(lab: Lab, way: str, prefix: str) -> None:
    """A call of half a second in which people talk, by Local channels of the context's own or
    of a carrier's 302."""
    if way == "trunk":
        with lab.voices():
            lab.customer_call(f"{prefix}{NUMBER}", 0.5)
    else:
        with (
            lab.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
            lab.carrier(Redirect(f"{prefix}{SECOND}"), backup=True),
            lab.voices(),
        ):
            lab.customer_call(NUMBER, 0.5)
    lab.wait_idle()
