"""The number that a customer presents, in real calls: what the carrier sees, what the CDR keeps."""

from __future__ import annotations

from itertools import count

import pytest

from support.lab_config import WHOLESALE
from support.lab_scene import Scene, slug
from support.sipp import Answer, CustomerScript

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
DIDS = ("441632960001", "441632960002")
FOREIGN = "441632999999"
# Enough that one of two numbers drawn at random is missing once in a million runs.
DRAWS = 20
_last = count(80)


@pytest.fixture
def address() -> str:
    """Where the test's customer calls from."""
    return WHOLESALE.format(next(_last))


def customer(scene: Scene, request: pytest.FixtureRequest, address: str, policy: str) -> str:
    """A customer with two numbers and that policy."""
    dids = (option for did in DIDS for option in ("--did", did))
    ident = ("--ident-by", "ip", "--ident", address)
    return scene.customer(slug(request), *ident, "--src-policy", policy, *dids)


def test_allow_any_presents_what_the_caller_says(
    scene: Scene, request: pytest.FixtureRequest, address: str
) -> None:
    name = customer(scene, request, address, "allow-any")
    with scene.lab.carrier(Answer()) as carrier:
        script = CustomerScript(NUMBER, hangup_after_s=0, caller=FOREIGN)
        assert scene.lab.play(script, address=address)[0].answered
        assert [call.presented for call in carrier.calls()] == [FOREIGN]
    (cdr,) = scene.settled(name, 1)
    assert (cdr["callerid"], cdr["ani"]) == (FOREIGN, FOREIGN)


def test_reject_lets_only_own_numbers_through(
    scene: Scene, request: pytest.FixtureRequest, address: str
) -> None:
    """Neither a foreign one nor a longer one nor none: the carrier sees nothing of those."""
    name = customer(scene, request, address, "reject")
    with scene.lab.carrier(Answer()) as carrier:
        for caller in (FOREIGN, f"{DIDS[0]}0", "anonymous"):
            script = CustomerScript(NUMBER, caller=caller)
            assert scene.lab.play(script, address=address)[0].code == 403
        scene.lab.wait_idle()
        assert carrier.calls() == []
        for caller in (DIDS[1], f"+{DIDS[0]}"):
            script = CustomerScript(NUMBER, hangup_after_s=0, caller=caller)
            assert scene.lab.play(script, address=address)[0].answered
        assert [call.presented for call in carrier.calls()] == [DIDS[1], f"+{DIDS[0]}"]
    cdrs = scene.settled(name, 5)
    refused = [cdr for cdr in cdrs if cdr["status"] == "denied"]
    assert [cdr["denied"] for cdr in refused] == ["SRCREJECT"] * 3
    assert [cdr["ani"] for cdr in refused] == [FOREIGN, f"{DIDS[0]}0", "anonymous"]
    assert FOREIGN in refused[0]["reason"]


def test_overwrite_presents_one_of_the_own_numbers_in_place_of_a_foreign_one(
    scene: Scene, request: pytest.FixtureRequest, address: str
) -> None:
    """Of the foreign number nothing leaves the house, whatever header says it; the CDR has both."""
    name = customer(scene, request, address, "overwrite")
    claims = (
        f"P-Asserted-Identity: <sip:{FOREIGN}@127.0.0.1>",
        f"Remote-Party-ID: <sip:{FOREIGN}@127.0.0.1>;party=calling",
        f"Diversion: <sip:{FOREIGN}@127.0.0.1>;reason=unconditional",
    )
    script = CustomerScript(
        NUMBER, hangup_after_s=0, caller=FOREIGN, display=FOREIGN, headers=claims, calls=DRAWS
    )
    with scene.lab.carrier(Answer()) as carrier:
        outcomes = scene.lab.play(script, address=address)
        assert all(outcome.answered for outcome in outcomes)
        invites = carrier.invites()
        presented = [call.presented for call in carrier.calls()]
    assert not any(FOREIGN in invite for invite in invites)
    assert set(presented) == set(DIDS)
    cdrs = scene.settled(name, DRAWS)
    assert {cdr["ani"] for cdr in cdrs} == {FOREIGN}
    assert sorted(cdr["callerid"] for cdr in cdrs) == sorted(presented)


def test_overwrite_leaves_an_own_number_alone(
    scene: Scene, request: pytest.FixtureRequest, address: str
) -> None:
    name = customer(scene, request, address, "overwrite")
    script = CustomerScript(NUMBER, hangup_after_s=0, caller=DIDS[1], calls=5)
    with scene.lab.carrier(Answer()) as carrier:
        scene.lab.play(script, address=address)
        assert [call.presented for call in carrier.calls()] == [DIDS[1]] * 5
    cdrs = scene.settled(name, 5)
    assert {(cdr["callerid"], cdr["ani"]) for cdr in cdrs} == {(DIDS[1], DIDS[1])}
