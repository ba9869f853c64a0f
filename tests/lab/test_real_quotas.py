"""Quotas in real calls: cut at the second that a quota still pays, then refused, and told of."""

from __future__ import annotations

from decimal import Decimal

import pytest

from support.lab_config import WHOLESALE
from support.lab_scene import Scene, slug
from support.sipp import Answer, CustomerScript

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

NUMBER = "442071234567"
ADDRESS = WHOLESALE.format(64)
CUT_TOLERANCE_MS = 250  # Asterisk's own limit, on a machine that does other things as well


def test_a_call_is_cut_where_the_quota_ends_and_the_next_is_refused(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    """Two cents for a cent a second; there is money enough for a day of talk."""
    name = scene.customer(slug(request), "--ident-by", "ip", "--ident", ADDRESS)
    scene.cli("quota", "set", name, "--daily", "0.02")
    with scene.lab.carrier(Answer()) as carrier:
        (cut,) = scene.lab.play(CustomerScript(NUMBER), address=ADDRESS)
        assert (cut.answered, cut.ended_by) == (True, "far")
        scene.settled(name, 1)
        (refused,) = scene.lab.play(CustomerScript(NUMBER), address=ADDRESS)
        assert refused.code == 403
        assert len(carrier.calls()) == 1
    talked, denied = scene.settled(name, 2)
    assert (talked["seconds"], talked["price"]) == (2, Decimal("0.02"))
    assert 2000 <= int(talked["answeredtime"] * 1000) <= 2000 + CUT_TOLERANCE_MS
    assert (denied["status"], denied["denied"]) == ("denied", "QUOTA")
    day = denied["quota_day"]
    assert denied["reason"] == f"daily quota 0.02 EUR for {day}: 0.02 spent, 0.00 reserved"
    (usage,) = scene.query(
        "SELECT q.*, c.id FROM astquota q JOIN astclient c ON c.id = q.client_id"
        " WHERE c.name = %s AND q.period = %s",
        name,
        day,
    )
    assert (usage["spent"], usage["reserved"], usage["told"]) == (Decimal("0.02"), 0, 100)
    assert usage["blocked_at"] < denied["date_created"]  # since the first call's end
    told = scene.query("SELECT reference FROM astoutbox WHERE client_id = %s", usage["id"])
    assert {row["reference"] for row in told} == {
        f"quota:{usage['id']}:{day}:{threshold}:{who}"
        for threshold in (80, 100)
        for who in ("client", "admin")
    }
    scene.cli("quota", "set", name, "--daily", "1")
    with scene.lab.carrier(Answer()):
        assert scene.lab.play(CustomerScript(NUMBER, hangup_after_s=0), address=ADDRESS)[0].answered
    scene.settled(name, 3)
