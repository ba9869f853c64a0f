"""Routing plans in real calls: which carrier gets the call, as what, and what the CDR tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count

import pytest

from support.lab_config import WHOLESALE
from support.lab_scene import Row, Scene, slug
from support.ports import keep_port
from support.sipp import BUSY, OUT_OF_ORDER, Answer, CustomerScript, Invite, Outcome

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
CALLER = "442079460000"
_last = count(90)


@dataclass(frozen=True, slots=True)
class Stage:
    """A customer whose plan knows two carriers: `first` by the name that Asterisk has for it, and
    the dear `second` by its address alone."""

    scene: Scene
    name: str
    address: str
    port: int

    @property
    def first(self) -> str:
        return f"{self.name}-1"

    @property
    def second(self) -> str:
        return f"{self.name}-2"

    def call(self, seconds: float | None = 0, deadline_s: float = 30.0) -> Outcome:
        script = CustomerScript(NUMBER, hangup_after_s=seconds)
        return self.scene.lab.play(script, address=self.address, deadline_s=deadline_s)[0]

    def set_route(self, terminator: str, *options: str) -> None:
        self.scene.cli("route", "set", self.name, "44", terminator, *options)

    def settled(self) -> Row:
        """The one CDR of the customer, and no counter that is not zero."""
        (cdr,) = self.scene.settled(self.name, 1)
        assert self.scene.uses() == {}
        return cdr

    def route_of(self, terminator: str) -> int:
        rule = "SELECT id FROM astroute WHERE account_id = %s"
        return int(self.scene.query(rule, self.scene.id_of(terminator))[0]["id"])


@pytest.fixture
def stage(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(scene, slug(request), WHOLESALE.format(next(_last)), keep_port())
    by_address = ("--host", "127.0.0.1", "--port", str(made.port))
    scene.terminator(made.first, "--proxy", "carrier", rates="cheap")
    scene.terminator(made.second, *by_address, rates="dear")
    scene.cli("routing-plan", "add", made.name)
    scene.cli("route", "add", made.name, "44", made.first, "--priority", "1")
    scene.cli("route", "add", made.name, "44", made.second, "--priority", "2")
    ident = ("--ident-by", "ip", "--ident", made.address)
    scene.customer(made.name, *ident, "--routing-plan", made.name)
    yield made
    scene.lab.wait_idle()


def test_a_call_that_the_first_carrier_cannot_take_goes_to_the_second(stage: Stage) -> None:
    """One CDR, one reservation, its place among the first's calls given back; both carriers saw
    the same number and the same caller, and what is owed is owed to the second."""
    scene = stage.scene
    with (
        scene.lab.carrier(OUT_OF_ORDER) as first,
        scene.lab.carrier(Answer(), port=stage.port) as second,
    ):
        calls = scene.lab.start_calls(CustomerScript(NUMBER), address=stage.address)
        try:
            (up,) = scene.wait_answered(stage.name, 1)
            (reservation,) = scene.rows("astcreditres", stage.name)
            assert reservation["call_id"] == up["id"]
            assert reservation["route_id"] == stage.route_of(stage.second)
            assert used_by_terminators(scene) == {
                f"account:{scene.id_of(stage.second)}:term": 1,
                f"route:{stage.route_of(stage.second)}:term": 1,
            }
            scene.lab.console(f"channel request hangup {up['channel']}")
            assert calls.wait()[0].answered
        finally:
            calls.stop()
        assert first.calls() == second.calls() == [Invite(NUMBER, CALLER)]
    cdr = stage.settled()
    assert (cdr["status"], cdr["dialstatus"]) == ("completed", "ANSWER")
    assert cdr["tried"] == f"{stage.first} CONGESTION 34"
    assert cdr["route_id"] == stage.route_of(stage.second)
    assert cdr["term_account_id"] == scene.id_of(stage.second)
    assert cdr["price"] == Decimal(cdr["billsec"]) / 100 > 0
    assert cdr["ourcost"] == Decimal(cdr["billsec"]) / 200


def used_by_terminators(scene: Scene) -> dict[str, int]:
    """Accounts' and routes' counters of terminating calls that are not zero."""
    uses = scene.uses().items()
    return {
        key: calls
        for key, calls in uses
        if key.endswith(":term") and key.startswith(("account:", "route:"))
    }


def test_when_all_carriers_are_out_of_order_nothing_is_charged(stage: Stage) -> None:
    """The caller hears the last carrier's 503; money and places are back."""
    scene = stage.scene
    with (
        scene.lab.carrier(OUT_OF_ORDER) as first,
        scene.lab.carrier(OUT_OF_ORDER, port=stage.port) as second,
    ):
        assert stage.call().code == 503
        assert len(first.calls()) == len(second.calls()) == 1
    cdr = stage.settled()
    assert (cdr["status"], cdr["dialstatus"], cdr["hangupcause"]) == ("failed", "CONGESTION", 34)
    assert (cdr["price"], cdr["answered_at"]) == (0, None)
    assert cdr["tried"] == f"{stage.first} CONGESTION 34"
    assert cdr["term_account_id"] == scene.id_of(stage.second)
    (client,) = scene.query("SELECT * FROM astclient WHERE name = %s", stage.name)
    assert (client["balance"], client["reserved"], client["active_calls"]) == (1000, 0, 0)


def test_a_burst_that_fails_over_fills_the_second_carrier_to_its_limit(stage: Stage) -> None:
    """Twenty calls at once, none of which the first can take: exactly five find room at the
    second, the others hear the first's 503 and keep no place anywhere."""
    scene, name = stage.scene, stage.name
    stage.set_route(stage.second, "--capacity", "5")
    script = CustomerScript(NUMBER, calls=20, calls_per_second=1000)
    with scene.lab.carrier(OUT_OF_ORDER), scene.lab.carrier(Answer(), port=stage.port) as second:
        calls = scene.lab.start_calls(script, address=stage.address)
        try:
            scene.wait_statuses(name, answered=5, failed=15)
            assert scene.uses()[f"route:{stage.route_of(stage.second)}:term"] == 5
            scene.lab.console("channel request hangup all")
            outcomes = calls.wait()
        finally:
            calls.stop()
        assert len(second.calls()) == 5
    assert Counter(outcome.code for outcome in outcomes) == Counter({200: 5, 503: 15})
    cdrs = scene.settled(name, 20)
    carried = {cdr["term_account_id"]: cdr["status"] for cdr in cdrs}
    assert carried == {
        scene.id_of(stage.first): "failed",
        scene.id_of(stage.second): "completed",
    }
    assert scene.uses() == {}


def test_the_callees_busy_is_not_tried_elsewhere(stage: Stage) -> None:
    lab = stage.scene.lab
    with lab.carrier(BUSY), lab.carrier(Answer(), port=stage.port) as second:
        assert stage.call().code == 486
        assert second.calls() == []
    cdr = stage.settled()
    assert (cdr["dialstatus"], cdr["tried"]) == ("BUSY", "")
    assert cdr["term_account_id"] == stage.scene.id_of(stage.first)


@pytest.mark.parametrize(
    "change",
    [
        ("route", "set", "PLAN", "44", "FIRST", "--capacity", "0"),
        ("route", "disable", "PLAN", "44", "FIRST"),
        ("account", "set", "FIRST", "--term-capacity", "0"),
        ("account", "disable", "FIRST", "--term"),
        ("route", "set", "PLAN", "44", "FIRST", "--min-margin", "0.50"),
    ],
    ids=["rule full", "rule off", "terminator full", "terminator off", "margin too small"],
)
def test_a_carrier_that_cannot_be_used_is_passed_over(
    stage: Stage, change: tuple[str, ...]
) -> None:
    """It never sees the call, and the CDR says nothing of an attempt. The change counts at once."""
    lab = stage.scene.lab
    names = {"PLAN": stage.name, "FIRST": stage.first}
    stage.scene.cli(*(names.get(word, word) for word in change))
    with lab.carrier(Answer()) as first, lab.carrier(Answer(), port=stage.port) as second:
        assert stage.call().answered
        assert first.calls() == []
        assert len(second.calls()) == 1
    cdr = stage.settled()
    assert cdr["tried"] == ""
    assert cdr["term_account_id"] == stage.scene.id_of(stage.second)


def test_a_rule_rewrites_the_number_for_its_carrier_alone(stage: Stage) -> None:
    """00 in place of 44 for the first; the second, tried after it, gets its own form."""
    stage.set_route(stage.first, "--strip", "2", "--prepend", "00")
    stage.set_route(stage.second, "--prepend", "9011")
    lab = stage.scene.lab
    with lab.carrier(OUT_OF_ORDER) as first, lab.carrier(Answer(), port=stage.port) as second:
        assert stage.call().answered
        assert first.calls() == [Invite(f"00{NUMBER[2:]}", CALLER)]
        assert second.calls() == [Invite(f"9011{NUMBER}", CALLER)]
    assert stage.settled()["callednum"] == NUMBER


def test_least_cost_takes_the_cheap_carrier_before_the_first_one(stage: Stage) -> None:
    """Though it stands behind the other by priority."""
    stage.set_route(stage.first, "--priority", "9")
    stage.scene.cli("routing-plan", "set", stage.name, "--order", "least-cost")
    lab = stage.scene.lab
    with lab.carrier(Answer()) as cheap, lab.carrier(Answer(), port=stage.port):
        assert stage.call().answered
        assert len(cheap.calls()) == 1
    cdr = stage.settled()
    assert cdr["term_account_id"] == stage.scene.id_of(stage.first)
    assert cdr["ourcost"] == Decimal(cdr["billsec"]) * Decimal("0.002")


def test_a_carrier_that_does_not_even_answer_is_given_up_for_the_next(stage: Stage) -> None:
    """Nobody is there: after Timer B of dialplan/pjsip.conf (6.4 s) the second gets the call."""
    with stage.scene.lab.carrier(Answer(), port=stage.port) as second:
        assert stage.call(deadline_s=60.0).answered
        assert len(second.calls()) == 1
    cdr = stage.settled()
    assert cdr["tried"] == f"{stage.first} CHANUNAVAIL 18"


def test_a_plan_without_a_rule_for_the_number_is_no_route(stage: Stage) -> None:
    """404, and never the dialplan's own trunk."""
    stage.scene.cli("route", "disable", stage.name, "44", stage.first)
    stage.scene.cli("route", "disable", stage.name, "44", stage.second)
    with stage.scene.lab.carrier(Answer()) as own:
        assert stage.call().code == 404
        assert own.calls() == []
    cdr = stage.settled()
    assert (cdr["status"], cdr["denied"]) == ("denied", "NOROUTE")
    assert stage.first in cdr["reason"]
