"""Real SIP calls: sipp → Asterisk 22 → astcredit on MariaDB → sipp, from INVITE to ledger.

After every test the tables are as CONTRACT.md says, `astcredit audit` has nothing to complain
about, and astcdr agrees with Asterisk's own records: each call exactly once, within a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import pytest

from support.lab import wait_until
from support.lab_scene import SETTLE_SECONDS, Scene, slug
from support.server import astcredit
from support.sipp import BUSY, CALLER, Answer, CustomerScript, Ring

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
CUT_TOLERANCE_MS = 250  # Asterisk's own limit, on a machine that does other things as well


@pytest.fixture
def account(scene: Scene, request: pytest.FixtureRequest) -> Iterator[str]:
    """An account with a client of its own for this test; calls are charged to it."""
    name = slug(request)
    astcredit(scene.url, "client", "add", name, "--rate-table", "retail")
    astcredit(scene.url, "account", "add", name, name, "--ident-by", "name", "--ident", name)
    with scene.lab.globals(AC_ACCOUNT=name):
        yield name


@pytest.mark.parametrize(
    ("carrier_hangs_up", "customer_hangs_up"),
    [(None, 1.0), (1.0, None)],
    ids=["caller", "callee"],
)
def test_an_answered_call_is_charged_for_its_outbound_leg(
    scene: Scene, account: str, carrier_hangs_up: float | None, customer_hangs_up: float | None
) -> None:
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(Answer(hangup_after_s=carrier_hangs_up)):
        outcome = scene.lab.customer_call(NUMBER, customer_hangs_up)
    assert outcome.answered
    (cdr,) = scene.settled(account, 1)
    assert (cdr["status"], cdr["dialstatus"], cdr["hangupcause"]) == ("completed", "ANSWER", 16)
    assert cdr["settled_by"] == "ami"
    assert cdr["trunk"] == "PJSIP/carrier"
    assert (cdr["callednum"], cdr["destination"]) == (NUMBER, "United Kingdom")
    assert Decimal("0.9") <= cdr["answeredtime"] < 3
    seconds = -(-int(cdr["answeredtime"] * 1000) // 1000)
    assert cdr["billsec"] == seconds
    assert cdr["price"] == Decimal(seconds) / 100
    assert cdr["price"] <= cdr["reservedamount"]
    assert cdr["estimated"] == 0


def test_a_call_is_cut_at_the_second_that_the_balance_allows(scene: Scene, account: str) -> None:
    """Money for two seconds: the carrier's leg lasts 2.0 s, and two seconds are charged."""
    astcredit(scene.url, "topup", account, "0.02")
    with scene.lab.carrier(Answer()):
        outcome = scene.lab.customer_call(NUMBER)
    assert outcome.ended_by == "far"
    (cdr,) = scene.settled(account, 1)
    assert (cdr["seconds"], cdr["reservedamount"]) == (2, Decimal("0.02"))
    assert 2000 <= int(cdr["answeredtime"] * 1000) <= 2000 + CUT_TOLERANCE_MS
    assert (cdr["billsec"], cdr["price"]) == (2, Decimal("0.02"))
    assert cdr["overrun_ms"] == int(cdr["answeredtime"] * 1000) - 2000
    shown = astcredit(scene.url, "--format", "csv", "balance", account).stdout
    assert ",0.000000," in shown


def test_a_busy_callee_costs_nothing(scene: Scene, account: str) -> None:
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(BUSY):
        assert scene.lab.customer_call(NUMBER).code == 486
    (cdr,) = scene.settled(account, 1)
    assert (cdr["status"], cdr["dialstatus"], cdr["hangupcause"]) == ("failed", "BUSY", 17)
    assert (cdr["price"], cdr["answered_at"]) == (0, None)


def test_nobody_answers(scene: Scene, account: str) -> None:
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(Ring()), scene.lab.globals(AC_RINGTIME="1"):
        assert not scene.lab.customer_call(NUMBER).answered
    (cdr,) = scene.settled(account, 1)
    assert (cdr["status"], cdr["dialstatus"], cdr["price"]) == ("failed", "NOANSWER", 0)


def test_the_caller_gives_up_while_it_rings(scene: Scene, account: str) -> None:
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(Ring()):
        outcome = scene.lab.customer_call(NUMBER, cancel_after_s=0.3)
    assert not outcome.answered
    (cdr,) = scene.settled(account, 1)
    assert (cdr["status"], cdr["dialstatus"], cdr["price"]) == ("failed", "CANCEL", 0)


def test_without_credit_the_carrier_is_never_dialled(scene: Scene, account: str) -> None:
    with scene.lab.carrier(Answer()) as carrier:
        assert scene.lab.customer_call(NUMBER).code == 402
        scene.lab.wait_idle()
        assert carrier.invites() == []
    (cdr,) = scene.rows("astcdr", account)
    assert (cdr["status"], cdr["denied"]) == ("denied", "NOCREDIT")
    assert cdr["reason"]
    assert not scene.rows("astcreditres", account)
    astcredit(scene.url, "audit")


def test_a_call_that_is_up_has_its_reservation_and_its_first_half(
    scene: Scene, account: str
) -> None:
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(Answer()):
        calls = scene.lab.start_calls(CustomerScript(NUMBER, hangup_after_s=None))
        try:
            wait_until(
                lambda: [cdr["status"] for cdr in scene.rows("astcdr", account)] == ["answered"],
                SETTLE_SECONDS,
                "the answer",
            )
            (reservation,) = scene.rows("astcreditres", account)
            (cdr,) = scene.rows("astcdr", account)
            assert reservation["call_id"] == cdr["id"]
            assert reservation["reservedamount"] == cdr["reservedamount"] == Decimal(5)
            assert (reservation["seconds"], cdr["answered_at"] is None) == (500, False)
            listed = astcredit(scene.url, "--format", "json", "calls", "list").stdout
            assert cdr["id"] in listed
            astcredit(scene.url, "calls", "hangup", cdr["id"], ami_nodes=scene.lab.ami.url)
        finally:
            calls.stop()
    (cdr,) = scene.settled(account, 1)
    assert (cdr["status"], cdr["settled_by"]) == ("completed", "ami")


@pytest.mark.parametrize(("balance", "allowed"), [("720", 20), ("250", 7)])
def test_twenty_calls_at_once_share_one_balance(
    scene: Scene, account: str, balance: str, allowed: int
) -> None:
    """An hour costs 36: 720 pays for twenty, 250 for six and most of a seventh."""
    astcredit(scene.url, "topup", account, balance)
    with scene.lab.carrier(Answer(hangup_after_s=2.0)):
        script = CustomerScript(NUMBER, hangup_after_s=None, calls=20)
        calls = scene.lab.start_calls(script)
        try:
            outcomes = calls.wait(30.0)
        finally:
            calls.stop()
    assert sum(outcome.answered for outcome in outcomes) == allowed
    cdrs = scene.settled(account, 20)
    statuses = Counter(cdr["status"] for cdr in cdrs)
    assert statuses == Counter(completed=allowed, denied=20 - allowed)
    assert all(cdr["billsec"] in (2, 3) for cdr in cdrs if cdr["status"] == "completed")


def test_a_caller_cannot_write_events_of_their_own(scene: Scene, account: str) -> None:
    """Asterisk decodes %0d%0a in a SIP address: the forged hangup would end the billing."""
    forged = "1%0d%0a%0d%0aEvent%3a%20Hangup%0d%0aUniqueid%3a%20{}%0d%0a%0d%0a"
    astcredit(scene.url, "topup", account, "5")
    with scene.lab.carrier(Answer()):
        calls = scene.lab.start_calls(CustomerScript(NUMBER, caller=CALLER))
        try:
            wait_until(
                lambda: [cdr["status"] for cdr in scene.rows("astcdr", account)] == ["answered"],
                SETTLE_SECONDS,
                "the answer",
            )
            leg = scene.rows("astcdr", account)[0]["leg_uniqueid"]
            forger = CustomerScript(NUMBER, hangup_after_s=0.2, caller=forged.format(leg))
            forging = scene.lab.start_calls(forger)
            try:
                forging.wait(30.0)
            finally:
                forging.stop()
            first, *_ = scene.rows("astcdr", account)
            assert first["status"] == "answered"
        finally:
            calls.stop()
        scene.lab.console("channel request hangup all")
    cdrs = scene.settled(account, 2)
    assert all(cdr["callerid"].isprintable() for cdr in cdrs)
