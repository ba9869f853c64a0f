"""Who calls, in real calls: what the SIP side did, and what stands in the CDR.

Nothing that a caller writes into a SIP message decides who pays; the address from which the
message really came does.
"""

from __future__ import annotations

import pytest

from support.lab import wait_until
from support.lab_config import DESK, DESK_ADDRESS, WHOLESALE
from support.lab_scene import Scene, slug
from support.sipp import Answer, CustomerScript, Invite, Outcome

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
CALLER = "442079460000"


def by_ip(ident: str) -> tuple[str, ...]:
    return ("--ident-by", "ip", "--ident", ident)


def by_ani(ident: str) -> tuple[str, ...]:
    return ("--ident-by", "ani", "--ident", ident)


def call(scene: Scene, address: str, number: str = NUMBER, caller: str = CALLER) -> Outcome:
    """One short call from that address."""
    script = CustomerScript(number, hangup_after_s=0, caller=caller)
    return scene.lab.play(script, address=address)[0]


def test_each_source_address_is_its_own_account(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """Two addresses and a network around them: the most specific one is who calls."""
    name = slug(request)
    addresses = {"first": WHOLESALE.format(17), "second": WHOLESALE.format(18)}
    for account, address in addresses.items():
        scene.customer(f"{name}-{account}", *by_ip(address))
    scene.customer(f"{name}-others", *by_ip(WHOLESALE.format("16/28")))
    addresses["others"] = WHOLESALE.format(19)
    with scene.lab.carrier(Answer()):
        for address in addresses.values():
            assert call(scene, address).answered
    for account, address in addresses.items():
        (cdr,) = scene.settled(f"{name}-{account}", 1)
        assert (cdr["ident_by"], cdr["ani"], cdr["callerid"]) == ("ip", CALLER, CALLER)
        assert cdr["source"].startswith(f"{address}:")
        assert cdr["price"] > 0


def test_several_addresses_may_be_one_account(scene: Scene, request: pytest.FixtureRequest) -> None:
    name, addresses = slug(request), [WHOLESALE.format(last) for last in (33, 34)]
    scene.customer(name, *by_ip(";".join(addresses)))
    with scene.lab.carrier(Answer()):
        assert all(call(scene, address).answered for address in addresses)
    assert len(scene.settled(name, 2)) == 2


@pytest.mark.parametrize("routed", [False, True], ids=["own trunk", "routing plan"])
def test_tech_prefixes_tell_the_clients_of_one_address_apart(
    scene: Scene, request: pytest.FixtureRequest, routed: bool
) -> None:
    """The longest counts; it is neither rated nor sent to the carrier; without one nobody calls."""
    name, address = slug(request), WHOLESALE.format(36 + routed)
    plan: tuple[str, ...] = ()
    if routed:
        scene.cli("routing-plan", "add", name)
        scene.terminator(f"{name}-carrier", "--proxy", "carrier")
        scene.cli("route", "add", name, "44", f"{name}-carrier")
        plan = ("--routing-plan", name)
    for prefix in ("77", "778"):
        scene.customer(f"{name}-{prefix}", *by_ip(address), "--tech-prefix", prefix, *plan)
    with scene.lab.carrier(Answer()) as carrier:
        assert call(scene, address, f"77{NUMBER}").answered
        assert call(scene, address, f"778{NUMBER}").answered
        assert call(scene, address, NUMBER).code == 403
        assert carrier.calls() == [Invite(NUMBER, CALLER)] * 2
    for prefix in ("77", "778"):
        (cdr,) = scene.settled(f"{name}-{prefix}", 1)
        assert (cdr["dialednum"], cdr["callednum"]) == (f"{prefix}{NUMBER}", NUMBER)
        assert (cdr["tech_prefix"], cdr["prefix"]) == (prefix, "44")
    (refused,) = scene.denied_from(address)
    assert (refused["denied"], refused["account_id"]) == ("NOACCOUNT", None)


def test_an_emergency_number_behind_a_tech_prefix_reaches_help(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """Though the account has no money left; the carrier gets the number alone."""
    name, address = slug(request), WHOLESALE.format(39)
    scene.cli("client", "add", name, "--rate-table", "retail")
    scene.cli("account", "add", name, name, *by_ip(address), "--tech-prefix", "77")
    with scene.lab.carrier(Answer()) as carrier:
        assert call(scene, address, "77112").answered
        assert [call.dialled for call in carrier.calls()] == ["112"]
    (cdr,) = scene.settled(name, 1)
    assert (cdr["callednum"], cdr["price"]) == ("112", 0)


def test_a_callers_number_is_recognised_whole_before_its_prefix(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """From an address that nobody has; a caller with another number is refused."""
    name, address = slug(request), WHOLESALE.format(40)
    scene.customer(f"{name}-whole", *by_ani("441632960123"))
    scene.customer(f"{name}-prefix", *by_ani("44163296*"))
    with scene.lab.carrier(Answer()) as carrier:
        for caller in ("441632960123", "+441632960123", "441632960999"):
            assert call(scene, address, caller=caller).answered
        assert call(scene, address, caller="441632950123").code == 403
        assert [invite.presented for invite in carrier.calls()] == [
            "441632960123",
            "+441632960123",
            "441632960999",
        ]
    whole = scene.settled(f"{name}-whole", 2)
    assert {(cdr["ident_by"], cdr["ani"]) for cdr in whole} == {
        ("ani", "441632960123"),
        ("ani", "+441632960123"),
    }
    (prefix,) = scene.settled(f"{name}-prefix", 1)
    assert (prefix["ident_by"], prefix["ani"]) == ("ani", "441632960999")
    (refused,) = scene.denied_from(address)
    assert (refused["denied"], refused["ani"]) == ("NOACCOUNT", "441632950123")


@pytest.mark.parametrize(
    ("ident", "address"),
    [("second", "127.0.0.2"), (DESK, DESK_ADDRESS)],
    ids=["accountcode", "PJSIP endpoint"],
)
def test_an_account_is_recognised_by_name(
    scene: Scene, request: pytest.FixtureRequest, ident: str, address: str
) -> None:
    """The name that Asterisk gives the caller comes before an account of that very address."""
    name = slug(request)
    scene.customer(name, "--ident-by", "name", "--ident", ident)
    scene.customer(f"{name}-ip", *by_ip(address))
    with scene.lab.carrier(Answer()):
        assert call(scene, address).answered
    (cdr,) = scene.settled(name, 1)
    assert (cdr["ident_by"], cdr["accountcode"]) == ("name", "second" if ident == "second" else "")
    assert scene.rows("astcdr", f"{name}-ip") == []


def test_nothing_that_a_caller_writes_changes_who_pays(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """From, Via, Contact and whatever other header name another customer: the poor one pays, and
    a stranger stays a stranger."""
    name = slug(request)
    rich, poor, stranger = (WHOLESALE.format(last) for last in (44, 45, 46))
    scene.customer(f"{name}-rich", *by_ip(rich))
    scene.customer(f"{name}-poor", *by_ip(poor))
    forged = CustomerScript(
        NUMBER,
        hangup_after_s=0,
        claimed=rich,
        display=f"{name}-rich",
        headers=(
            f"X-Accountcode: {name}-rich",
            f"X-AC-Account: {name}-rich",
            f"X-AC-Source: {rich}",
            f"X-Forwarded-For: {rich}",
            f"P-Asserted-Identity: <sip:{name}-rich@{rich}>",
            f"Remote-Party-ID: <sip:{name}-rich@{rich}>",
            f"Diversion: <sip:{name}-rich@{rich}>;reason=unconditional",
            f"Record-Route: <sip:{rich};lr>",
        ),
    )
    with scene.lab.carrier(Answer()) as carrier:
        assert scene.lab.play(forged, address=poor)[0].answered
        assert scene.lab.play(forged, address=stranger)[0].code == 403
        (invite,) = carrier.invites()
        assert rich not in invite
        assert "rich" not in invite
    (cdr,) = scene.settled(f"{name}-poor", 1)
    assert cdr["source"].startswith(f"{poor}:")
    assert scene.rows("astcdr", f"{name}-rich") == []


def test_a_stranger_is_refused_and_recorded(scene: Scene) -> None:
    address = WHOLESALE.format(48)
    with scene.lab.carrier(Answer()) as carrier:
        assert call(scene, address).code == 403
        assert carrier.calls() == []
    (cdr,) = scene.denied_from(address)
    assert (cdr["denied"], cdr["client_id"], cdr["ani"]) == ("NOACCOUNT", None, CALLER)
    assert address in cdr["reason"]
    assert CALLER in cdr["reason"]


def test_an_address_that_the_dialplan_names_takes_the_place_of_the_packets(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """AC_SOURCE: behind a proxy that is trusted to tell it."""
    name, told, real = slug(request), "192.0.2.77", WHOLESALE.format(50)
    scene.customer(name, *by_ip(told))
    with scene.lab.carrier(Answer()), scene.lab.globals(AC_SOURCE=f"{told}:5062"):
        assert call(scene, real).answered
    (cdr,) = scene.settled(name, 1)
    assert cdr["source"] == f"{told}:5062"


def test_an_originator_that_is_switched_off_is_refused_at_once(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """Its running call goes on; switched on again it calls again."""
    name, address = slug(request), WHOLESALE.format(52)
    scene.customer(name, *by_ip(address))
    with scene.lab.carrier(Answer()):
        running = scene.lab.start_calls(CustomerScript(NUMBER), address=address)
        try:
            (up,) = scene.wait_answered(name, 1)
            scene.cli("account", "disable", name, "--orig")
            assert call(scene, address).code == 403
            assert [cdr["id"] for cdr in scene.wait_answered(name, 1)] == [up["id"]]
            scene.cli("account", "enable", name, "--orig")
            assert call(scene, address).answered
            scene.lab.console(f"channel request hangup {up['channel']}")
            assert running.wait()[0].ended_by == "far"
        finally:
            running.stop()
    wait_until(lambda: not scene.lab.channels(), 10, "channels to end")
    statuses = [(cdr["status"], cdr["denied"]) for cdr in scene.settled(name, 3)]
    assert sorted(statuses) == [("completed", ""), ("completed", ""), ("denied", "DISABLED")]
