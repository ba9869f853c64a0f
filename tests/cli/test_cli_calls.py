"""`astcredit calls`: what is up, and ending a call through a fake Asterisk's manager interface."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from astcredit.cli.context import App
from astcredit.cli.main import main
from support.calls import CALLS, GERMANY, NOW, UK, ask, call_id, filled, ms
from support.core import opened
from support.fake_ami import FakeAmi, HeaderList

TALKING, RINGING = CALLS[-2], CALLS[-1]
OVER = CALLS[0]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def filled_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled(request.param, request) as found:
        yield found


@pytest.fixture
def url(filled_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which two calls are up and none was ended by hand; it is NOW."""

    async def clean() -> None:
        async with opened(filled_url) as database, database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM astaudit WHERE action = 'hangup'")

    asyncio.run(clean())
    monkeypatch.setattr(App, "now_ms", lambda self: ms(NOW))
    return filled_url


def run(url: str, *arguments: str, ami: FakeAmi | None = None, secret: str = "s3cr3t") -> Result:
    environ = {}
    if ami is not None:
        environ["ASTCREDIT_AMI_NODES"] = f"ami://astcredit:{secret}@127.0.0.1:{ami.port}/pbx1"
    return CliRunner().invoke(main, ["--database", url, *arguments], env=environ)


def channel(name: str, uniqueid: str) -> HeaderList:
    return [("Channel", name), ("Uniqueid", uniqueid), ("Linkedid", uniqueid)]


@contextmanager
def asterisk(*channels: HeaderList) -> Iterator[FakeAmi]:
    """A fake Asterisk with these channels, in a loop of its own: the command has its own too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    ami = FakeAmi(channels=list(channels))
    try:
        do(ami.listen())
        yield ami
    finally:
        do(ami.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def hangups(ami: FakeAmi) -> list[tuple[str, str]]:
    return [(m["channel"], m["cause"]) for m in ami.received if m["action"] == "Hangup"]


def audited(url: str) -> list[dict[str, Any]]:
    return ask(url, "SELECT object_kind, object_name, actor FROM astaudit WHERE action = 'hangup'")


def test_list_shows_what_is_up_and_its_cost_so_far(url: str) -> None:
    found = json.loads(run(url, "--format", "json", "calls", "list").stdout)
    seconds = (ms(NOW) - ms(TALKING.at)) // 1000 - 5
    assert [(call["id"], call["state"], call["seconds"]) for call in found] == [
        (call_id(TALKING), "answered", seconds),
        (call_id(RINGING), "open", 0),
    ]
    assert [call["cost"] for call in found] == [f"{UK.price(seconds):.6f}", "0.000000"]
    assert found[1]["reserved"] == f"{GERMANY.price(3600):.6f}"
    assert (found[0]["client"], found[0]["account"], found[0]["node"]) == (
        "anna",
        "anna-desk",
        "pbx1",
    )
    assert found[0]["answered_at"] == "2026-12-01 09:00:05.000"


def test_list_as_table_and_csv(url: str) -> None:
    table = run(url, "calls", "list").stdout
    assert "seconds_allowed" in table
    assert call_id(TALKING) in table
    rows = list(csv.DictReader(io.StringIO(run(url, "calls", "list", "--format", "csv").stdout)))
    assert [row["number"] for row in rows] == [TALKING.number, RINGING.number]


@pytest.mark.parametrize(
    ("made", "uniqueid"),
    [(TALKING, f"leg-{call_id(TALKING)}"), (RINGING, f"caller-{call_id(RINGING)}")],
    ids=["answered", "ringing"],
)
def test_hangup_ends_what_is_billed_and_is_recorded(url: str, made: Any, uniqueid: str) -> None:
    """The answered leg, before the answer the caller. Settling is left to who listens."""
    channels = [channel("PJSIP/other-1", "other"), channel("PJSIP/it-2", uniqueid)]
    with asterisk(*channels) as ami:
        result = run(url, "calls", "hangup", call_id(made), ami=ami)
        assert (result.exit_code, result.stderr) == (0, "")
        assert hangups(ami) == [("PJSIP/it-2", "16")]
    assert "the server that listens there settles it" in result.stdout
    (row,) = audited(url)
    assert (row["object_kind"], row["object_name"]) == ("call", call_id(made))
    assert "@" in row["actor"]
    assert len(ask(url, "SELECT * FROM v_active_calls")) == 2


def test_hangup_in_json_is_the_call(url: str) -> None:
    with asterisk(channel("PJSIP/it-2", f"leg-{call_id(TALKING)}")) as ami:
        result = run(url, "--format", "json", "calls", "hangup", call_id(TALKING), ami=ami)
    assert json.loads(result.stdout)["id"] == call_id(TALKING)


@pytest.mark.parametrize(
    ("id", "said"),
    [
        (call_id(OVER), "is not up: it is completed"),
        ("01JNOSUCHCALL0000000", "does not exist"),
        ("'; DROP TABLE astcdr; --", "does not exist"),
    ],
)
def test_call_that_is_not_up_is_refused(url: str, id: str, said: str) -> None:
    with asterisk() as ami:
        result = run(url, "calls", "hangup", id, ami=ami)
        assert ami.connections == 0
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert audited(url) == []


def test_node_without_ami_link_is_named(url: str) -> None:
    result = run(url, "calls", "hangup", call_id(TALKING))
    assert result.exit_code == 1
    assert "no AMI link to node 'pbx1'" in result.stderr
    assert "ami.nodes" in result.stderr
    assert audited(url) == []


def test_channel_that_has_gone_is_said_so(url: str) -> None:
    """Who asked stays on record."""
    with asterisk(channel("PJSIP/other-1", "other")) as ami:
        result = run(url, "calls", "hangup", call_id(TALKING), ami=ami)
        assert hangups(ami) == []
    assert result.exit_code == 1
    assert "has no channel on pbx1 any more" in result.stderr
    assert len(audited(url)) == 1


def test_asterisk_that_refuses_the_login_is_reported_without_the_secret(url: str) -> None:
    with asterisk() as ami:
        result = run(url, "calls", "hangup", call_id(TALKING), ami=ami, secret="0ther-secret")
    assert result.exit_code == 1
    assert "the AMI link to pbx1 cannot be made" in result.stderr
    assert "0ther-secret" not in result.stderr


def test_asterisk_that_is_not_there_is_reported(url: str) -> None:
    with asterisk() as ami:
        pass
    result = run(url, "calls", "hangup", call_id(TALKING), ami=ami)
    assert result.exit_code == 1
    assert "the AMI link to pbx1 cannot be made" in result.stderr
