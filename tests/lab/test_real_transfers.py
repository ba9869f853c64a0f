"""Transfers and forwards, from REFER or 302 to the ledger: each carrier's leg is charged once, from
its answer to its own end, to the call that it belongs to.

How long a leg lasted is compared with what the carrier's own exchange (sipp) saw: Asterisk's
records end with the caller's channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import count

import pytest

from support.lab_config import WHOLESALE
from support.lab_scene import Row, Scene, slug
from support.sipp import BUSY, Answer, CustomerScript, Redirect, TransferScript
from support.sipp_trace import Talk

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER, SECOND = "442071234567", "442079999999"
BALANCE = Decimal(1000)
# Between the carrier's 200 OK, or BYE, and Asterisk's event of it: milliseconds, but machines are
# slow at times. As much as is allowed between our records and Asterisk's.
SEEN_APART_MS = 1000
_last = count(200)

CONTEXTS = """
[from-carriers]
; a 302 leads here: the new number is dialled without asking, or asks for itself
exten => _81X.,1,Dial(PJSIP/${EXTEN:2}@carrier)
exten => _82X.,1,Set(AC_TRUNK=PJSIP/NUMBER@carrier)
 same => n,Gosub(astcredit,${EXTEN:2},1)
 same => n,Hangup(${AC_CAUSE})
; a second Local channel on the way
exten => _83X.,1,Dial(Local/81${EXTEN:2}@from-carriers)
"""


@pytest.fixture(scope="module", autouse=True)
def dialplan(controller: Scene) -> None:
    """Before any test changes a global variable: reading the dialplan again resets them."""
    controller.lab.add_dialplan(CONTEXTS)


@pytest.fixture
def account(scene: Scene, request: pytest.FixtureRequest) -> Iterator[str]:
    """An account with a client of its own; all calls are charged to it."""
    name = slug(request)
    scene.customer(name, "--ident-by", "name", "--ident", name, balance=str(BALANCE))
    with scene.lab.globals(AC_ACCOUNT=name):
        yield name


@pytest.fixture
def by_address(scene: Scene, request: pytest.FixtureRequest) -> tuple[str, str]:
    """An account that is known by its address alone, and that address. Another client's account has
    its name as an ident: no command makes such a pair, but a database may hold one."""
    name, address = slug(request), WHOLESALE.format(next(_last))
    scene.customer(name, "--ident-by", "ip", "--ident", address, balance=str(BALANCE))
    other = scene.customer(f"{name}-other", "--ident-by", "name", "--ident", "nobodys")
    ident = f"UPDATE astaccount SET ident = '{name}' WHERE name = '{other}'"
    for statement in (ident, "UPDATE astcatalog SET version = version + 1"):
        scene.mariadb.execute(statement, scene.url.rpartition("/")[2])
    return name, address


def charged_as_seen(cdrs: Sequence[Row], talks: Sequence[Talk]) -> None:
    """One charged call for each leg that the carrier saw, as long as it saw it."""
    by_number = {talk.dialled: talk for talk in talks}
    assert sorted(by_number) == sorted(cdr["callednum"] for cdr in cdrs)
    for cdr in cdrs:
        talk_ms = int(cdr["answeredtime"] * 1000)
        assert abs(talk_ms - by_number[cdr["callednum"]].ms) <= SEEN_APART_MS, (cdr, talks)
        assert (cdr["status"], cdr["settled_by"], cdr["estimated"]) == ("completed", "ami", 0)
        assert cdr["billsec"] == -(-talk_ms // 1000)
        assert cdr["price"] == Decimal(cdr["billsec"]) / 100


def paid(scene: Scene, account: str) -> Decimal:
    """What the client has paid; nothing is reserved any more, and no call is open."""
    (client,) = scene.query("SELECT * FROM astclient WHERE name = %s", account)
    assert (client["reserved"], client["active_calls"]) == (0, 0)
    assert scene.uses() == {}
    balance: Decimal = client["balance"]
    return BALANCE - balance


def test_after_a_blind_transfer_both_legs_are_charged_to_their_ends(
    scene: Scene, account: str
) -> None:
    """The caller is gone after a quarter of a second; the callee, sent on, stays on the line."""
    with scene.lab.carrier(Answer(hangup_after_s=2.5)) as carrier:
        scene.lab.play(TransferScript(NUMBER, SECOND, talk_s=0.25))
        cdrs = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen(cdrs, talks)
    first, second = cdrs
    assert (first["callednum"], second["callednum"]) == (NUMBER, SECOND)
    assert first["answeredtime"] >= 2
    assert second["channel"].startswith("PJSIP/carrier-")
    assert second["uniqueid"] != first["uniqueid"]
    assert paid(scene, account) == first["price"] + second["price"]


def test_a_transferred_leg_is_paid_by_who_transferred_it(
    scene: Scene, by_address: tuple[str, str]
) -> None:
    """The leg names the account that made the first call, as AC_PAYER said it."""
    account, address = by_address
    with scene.lab.carrier(Answer(hangup_after_s=2.5)) as carrier:
        scene.lab.play(TransferScript(NUMBER, SECOND, talk_s=0.25), address=address)
        cdrs = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen(cdrs, talks)
    assert [cdr["accountcode"] for cdr in cdrs] == ["", account]
    assert paid(scene, account) == sum(cdr["price"] for cdr in cdrs) > 0
    assert not scene.rows("astcdr", f"{account}-other")


def test_a_forwarded_call_is_paid_by_who_made_the_first(
    scene: Scene, by_address: tuple[str, str]
) -> None:
    account, address = by_address
    with (
        scene.lab.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
        scene.lab.carrier(Redirect(f"82{SECOND}"), backup=True),
        scene.lab.carrier(Answer()) as carrier,
        scene.lab.voices(),
    ):
        scene.lab.play(CustomerScript(NUMBER, hangup_after_s=1.2), address=address)
        caller, forwarded = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen([forwarded], talks)
    assert (caller["dialstatus"], caller["price"]) == ("FORWARDED", 0)
    assert paid(scene, account) == forwarded["price"] > 0
    assert not scene.rows("astcdr", f"{account}-other")


def test_after_an_attended_transfer_both_legs_are_charged_to_their_ends(
    scene: Scene, account: str
) -> None:
    """The caller has made two calls and put them together: two callees talk, nobody else does."""
    with scene.lab.carrier(Answer(hangup_after_s=2.5)) as carrier:
        scene.lab.play(TransferScript(NUMBER, SECOND, talk_s=0.25, attended=True))
        cdrs = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen(cdrs, talks)
    assert all(cdr["answeredtime"] >= Decimal("1.5") for cdr in cdrs)
    assert paid(scene, account) == sum(cdr["price"] for cdr in cdrs)


def test_a_transfer_that_is_refused_costs_what_was_talked(scene: Scene, account: str) -> None:
    """The callee is sent to a number without a rate: that call is denied, and its own leg ends."""
    with scene.lab.carrier(Answer()) as carrier:
        scene.lab.play(TransferScript(NUMBER, "98123456", talk_s=0.25))
        first, denied = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen([first], talks)
    assert (denied["status"], denied["denied"]) == ("denied", "INVALID")
    assert paid(scene, account) == first["price"] > 0


@pytest.mark.parametrize("prefix", ["81", "83"], ids=["one Local channel", "two in a row"])
def test_a_forwarded_call_that_did_not_ask_is_the_callers(
    scene: Scene, account: str, prefix: str
) -> None:
    """302: the leg of the new number is the caller's call's. The Local channels are gone after a
    fifth of a second, and the charge goes on."""
    with (
        scene.lab.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
        scene.lab.carrier(Redirect(f"{prefix}{SECOND}"), backup=True),
        scene.lab.carrier(Answer()) as carrier,
        scene.lab.voices(),
    ):
        scene.lab.customer_call(NUMBER, 1.2)
        (cdr,) = scene.settled(account, 1, transferred=True)
        (talk,) = carrier.talks()
    assert talk.dialled == SECOND
    charged_as_seen([cdr], [Talk(NUMBER, talk.answered_ms, talk.ended_ms)])
    assert cdr["trunk"] == "PJSIP/carrier"
    assert paid(scene, account) == cdr["price"] >= Decimal("0.02")


def test_a_forwarded_call_that_asked_pays_and_the_callers_does_not(
    scene: Scene, account: str
) -> None:
    """302: the new number asked for itself. Two reservations, one carrier's leg, one charge."""
    with (
        scene.lab.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
        scene.lab.carrier(Redirect(f"82{SECOND}"), backup=True),
        scene.lab.carrier(Answer()) as carrier,
        scene.lab.voices(),
    ):
        scene.lab.customer_call(NUMBER, 1.2)
        caller, forwarded = scene.settled(account, 2, transferred=True)
        talks = carrier.talks()
    charged_as_seen([forwarded], talks)
    assert forwarded["channel"].startswith("Local/")
    assert (caller["callednum"], caller["status"]) == (NUMBER, "failed")
    assert (caller["dialstatus"], caller["price"]) == ("FORWARDED", 0)
    assert paid(scene, account) == forwarded["price"] >= Decimal("0.02")


def test_a_forwarded_call_that_is_busy_costs_nothing(scene: Scene, account: str) -> None:
    """Neither call reached anybody; the caller's tells why."""
    with (
        scene.lab.globals(AC_TRUNK="PJSIP/NUMBER@backup"),
        scene.lab.carrier(Redirect(f"81{SECOND}"), backup=True),
        scene.lab.carrier(BUSY),
    ):
        assert scene.lab.customer_call(NUMBER).code == 486
        (cdr,) = scene.settled(account, 1, transferred=True)
    assert (cdr["status"], cdr["dialstatus"]) == ("failed", "BUSY")
    assert paid(scene, account) == 0
