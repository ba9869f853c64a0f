"""Real faults on real parts, under a load of real calls: a few rounds. scripts/torture plays more.

And peers that are there and do not answer: the dialplan has its answer in time, and what happened
meanwhile is found out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from support.databases import MariaDb
from support.fault_rounds import NUMBER, Round
from support.fault_site import HEALED_SECONDS, RICH, FaultSite
from support.lab import wait_until
from support.sipp import Answer, CustomerScript

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

ANSWERED_MS = 2_500
"""The dialplan has its answer within two seconds; then Asterisk refuses the call."""
CALLS = 4


@pytest.fixture(scope="module")
def site(
    lab_tree: Path, mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultSite]:
    """An installation of the module's own, each part of which may be killed."""
    with FaultSite(tmp_path_factory.mktemp("faults"), lab_tree, mariadb) as running:
        yield running


@pytest.mark.parametrize(
    "faults",
    [
        ("server killed",),
        ("database killed",),
        ("asterisk killed",),
        ("ami stammers", "server killed"),
        ("agi cut", "database silent"),
    ],
    ids=" and ".join,
)
def test_whatever_breaks_the_books_are_right_afterwards(
    site: FaultSite, faults: tuple[str, ...]
) -> None:
    """The moments are other ones in each run."""
    seed = secrets.randbits(32)
    print(f"random moments of seed {seed}")
    result = Round(site, Random(seed)).play(*faults)
    print(result)
    assert result.statuses["completed"] > 0


def refused(site: FaultSite, number: str) -> bool:
    """Whether a call is refused; AssertionError if that takes too long by Asterisk's clock."""
    records = len(site.lab.asterisk_cdrs())
    outcome = site.lab.customer_call(number, 0.1, account=RICH)
    site.lab.wait_idle()
    (record,) = site.lab.asterisk_cdrs(records + 1)[records:]
    assert outcome.answered or record.end_ms - record.start_ms < ANSWERED_MS
    return not outcome.answered


def wait_settled(site: FaultSite) -> None:
    """Until nothing is reserved; then the books are right."""
    held = "SELECT * FROM astcreditres"
    wait_until(lambda: not site.scene.query(held), HEALED_SECONDS, "settlement", site.log_tail)
    site.scene.cli("audit")


def test_a_database_that_accepts_and_does_not_answer(site: FaultSite) -> None:
    """ERROR in time; an emergency passes, although the server is asked; then all is well again."""
    site.database.freeze()
    try:
        with site.lab.carrier(Answer()), site.lab.globals(AC_EMERGENCY=""):
            assert refused(site, NUMBER)
            assert "AC_STATUS=ERROR" in site.lab.log()
            assert not refused(site, "112")
    finally:
        site.database.thaw()
    site.heal()
    with site.lab.carrier(Answer()):
        wait_until(lambda: not refused(site, NUMBER), HEALED_SECONDS, "a call")
    wait_settled(site)


def test_a_manager_interface_that_falls_silent(site: FaultSite) -> None:
    """It is noticed, and the calls that ended meanwhile cost what their channels reported."""
    before = str(site.scene.query("SELECT COALESCE(MAX(id), '') AS id FROM astcdr")[0]["id"])
    down, recovered = site.logged("ami_down"), site.logged("recovered")
    with site.lab.carrier(Answer()):
        calls = site.lab.start_calls(CustomerScript(NUMBER, 3.0, calls=CALLS), account=RICH)
        try:
            answered = "SELECT 1 FROM astcdr WHERE status = 'answered' AND id > %s"
            wait_until(
                lambda: len(site.scene.query(answered, before)) == CALLS, HEALED_SECONDS, "answers"
            )
            site.ami.freeze()
            assert all(outcome.answered for outcome in calls.wait())
        finally:
            calls.stop()
        site.lab.wait_idle()
        assert len(site.scene.query("SELECT 1 FROM astcreditres")) == CALLS
        site.wait_logged("ami_down", down + 1)
        assert len(site.scene.query("SELECT 1 FROM astcreditres")) == CALLS
        site.ami.cut()
        site.ami.thaw()
        site.wait_logged("recovered", recovered + 1)
        site.heal()
    wait_settled(site)
    rows = site.scene.query("SELECT * FROM astcdr WHERE id > %s", before)
    assert {(row["status"], row["settled_by"], row["estimated"]) for row in rows} == {
        ("completed", "hangup", 0)
    }
    truth = {r.uniqueid: r.billsec_ms for r in site.lab.asterisk_cdrs() if r.answer_ms}
    assert all(abs(row["answeredtime"] * 1000 - truth[row["uniqueid"]]) < 1_000 for row in rows)
