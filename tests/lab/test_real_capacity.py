"""How many calls at once, in real calls: at every level that a call passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from support.lab import wait_until
from support.lab_config import WHOLESALE
from support.lab_scene import ANSWER_SECONDS, Row, Scene, slug
from support.sipp import Answer, CustomerCalls, CustomerScript

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
ADDRESS = WHOLESALE.format(60)
CUSTOMER, CARRIER = "capacity-customer", "capacity-carrier"
RETAIL, UPSTREAM = "capacity-retail", "capacity-upstream"
PLAN = "capacity-plan"
LIMIT = 3
# A place is to be free again this long after the call that had it has ended.
FREE_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Level:
    """A limit: the command that sets it, and how a refusal names it."""

    command: tuple[str, ...]
    named: str


LEVELS = {
    "reseller": Level(
        ("reseller", "set", RETAIL, "--orig-capacity"),
        f"reseller '{RETAIL}' has 3 of 3 originating",
    ),
    "client": Level(
        ("client", "set", CUSTOMER, "--orig-capacity"),
        f"client '{CUSTOMER}' has 3 of 3 originating",
    ),
    "account": Level(
        ("account", "set", CUSTOMER, "--orig-capacity"),
        f"account '{CUSTOMER}' has 3 of 3 originating",
    ),
    "route": Level(
        ("route", "set", PLAN, "44", CARRIER, "--capacity"),
        f"route '{PLAN} 44 {CARRIER}' has 3 of 3 terminating",
    ),
    "terminator's account": Level(
        ("account", "set", CARRIER, "--term-capacity"),
        f"account '{CARRIER}' has 3 of 3 terminating",
    ),
    "terminator's client": Level(
        ("client", "set", CARRIER, "--term-capacity"), f"client '{CARRIER}' has 3 of 3 terminating"
    ),
    "terminator's reseller": Level(
        ("reseller", "set", UPSTREAM, "--term-capacity"),
        f"reseller '{UPSTREAM}' has 3 of 3 terminating",
    ),
}


@pytest.fixture(scope="module")
def stage(scene: Scene) -> Scene:
    """A customer of one reseller whose calls a plan routes to a carrier of another."""
    for reseller in (RETAIL, UPSTREAM):
        scene.cli("reseller", "add", reseller)
    scene.customer(CUSTOMER, "--ident-by", "ip", "--ident", ADDRESS)
    scene.terminator(CARRIER, "--proxy", "carrier")
    scene.cli("routing-plan", "add", PLAN)
    scene.cli("route", "add", PLAN, "44", CARRIER)
    scene.cli("client", "set", CUSTOMER, "--reseller", RETAIL, "--routing-plan", PLAN)
    scene.cli("client", "set", CARRIER, "--reseller", UPSTREAM)
    return scene


@pytest.fixture
def three_up(stage: Scene) -> Iterator[CustomerCalls]:
    """Three calls that are up until somebody ends them."""
    before = len(stage.rows("astcdr", CUSTOMER))
    with stage.lab.carrier(Answer()):
        calls = stage.lab.start_calls(CustomerScript(NUMBER, calls=LIMIT), address=ADDRESS)
        try:
            stage.wait_answered(CUSTOMER, LIMIT)
            assert len(stage.rows("astcdr", CUSTOMER)) == before + LIMIT
            yield calls
        finally:
            stage.lab.console("channel request hangup all")
            calls.stop()


def one_more(stage: Scene, seconds: float = 0) -> int:
    """The SIP answer to one call more."""
    script = CustomerScript(NUMBER, hangup_after_s=seconds)
    return stage.lab.play(script, address=ADDRESS)[0].code


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_fourth_of_three_calls_is_refused_until_one_has_ended(
    stage: Scene, three_up: CustomerCalls, level: Level
) -> None:
    """Refused with the level's name, its limit and its use; a place that gets free is one again
    within a second."""
    stage.cli(*level.command, str(LIMIT))
    try:
        assert one_more(stage) == 503
        refused = stage.rows("astcdr", CUSTOMER)[-1]
        assert (refused["status"], refused["denied"]) == ("denied", "CAPACITY")
        assert level.named in refused["reason"]
        ended = end_one(stage)
        while one_more(stage) == 503:
            late = stage.rows("astcdr", CUSTOMER)[-1]
            assert late["date_created"] < ended["ended_at"] + FREE_AGAIN, (late, ended)
    finally:
        stage.cli(*level.command, "")
    last = stage.rows("astcdr", CUSTOMER)[-1]
    assert (last["denied"], last["term_account_id"]) == ("", stage.id_of(CARRIER))
    stage.lab.console("channel request hangup all")
    assert [outcome.answered for outcome in three_up.wait()] == [True] * LIMIT
    stage.settled(CUSTOMER, len(stage.rows("astcdr", CUSTOMER)))
    assert stage.uses() == {}


def end_one(stage: Scene) -> Row:
    """End the oldest of the calls that are up; its CDR when Asterisk says it has ended."""
    oldest = stage.wait_answered(CUSTOMER, LIMIT)[0]
    stage.lab.console(f"channel request hangup {oldest['channel']}")

    def found() -> Row:
        return stage.query("SELECT * FROM astcdr WHERE id = %s", oldest["id"])[0]

    wait_until(lambda: found()["ended_at"] is not None, ANSWER_SECONDS, "the call to end")
    return found()


def test_a_limit_below_the_use_leaves_the_running_calls(
    stage: Scene, three_up: CustomerCalls
) -> None:
    command = LEVELS["account"].command
    stage.cli(*command, "1")
    try:
        assert one_more(stage) == 503
        reason = stage.rows("astcdr", CUSTOMER)[-1]["reason"]
        assert f"account '{CUSTOMER}' has 3 of 1 originating calls up" in reason
        assert len(stage.wait_answered(CUSTOMER, LIMIT)) == LIMIT
    finally:
        stage.cli(*command, "")
    assert one_more(stage) == 200


def test_a_burst_of_a_hundred_calls_against_a_limit_of_ten_is_exactly_ten(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """All hundred are decided while none has ended; the other ninety hear 503 and cost nothing."""
    name, address = slug(request), WHOLESALE.format(62)
    ident = ("--ident-by", "ip", "--ident", address)
    scene.customer(name, *ident, "--orig-capacity", "10")
    script = CustomerScript(NUMBER, calls=100, calls_per_second=1000)
    with scene.lab.carrier(Answer()) as carrier:
        calls = scene.lab.start_calls(script, address=address)
        try:
            wait_until(lambda: len(scene.rows("astcdr", name)) == 100, 60, "a hundred decisions")
            assert len(scene.rows("astcreditres", name)) == 10
            scene.wait_answered(name, 10)
            assert scene.uses() == {f"account:{scene.id_of(name)}:orig": 10}
            scene.lab.console("channel request hangup all")
            outcomes = calls.wait(60)
        finally:
            calls.stop()
        assert len(carrier.calls()) == 10
    assert Counter(outcome.code for outcome in outcomes) == Counter({200: 10, 503: 90})
    cdrs = scene.settled(name, 100)
    statuses = Counter((cdr["status"], cdr["denied"]) for cdr in cdrs)
    assert statuses == Counter({("completed", ""): 10, ("denied", "CAPACITY"): 90})
    assert scene.uses() == {}
