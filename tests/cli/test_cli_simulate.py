"""`astcredit simulate`: calls of each kind, and routes that fail, against a server that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from astcredit.app.simulation import SimulatedCall
from astcredit.asterisk.simulator import SimulatedChannel
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.schema import upgrade
from support.calls import ask, ms
from support.core import Clock, opened
from support.routed_calls import DID, LONDON, MIAMI, configure
from support.server import Done, RunningServer, astcredit, serving

BEGIN_MS = ms("2020-01-01 00:00:00.000")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the clients and routes of support.routed_calls."""
    address = f"sqlite:///{tmp_path_factory.mktemp('simulate') / 'astcredit.db'}"

    async def make() -> None:
        async with opened(address) as database:
            await upgrade(database)
            await configure(SqlAdministration(database), Clock(BEGIN_MS))

    asyncio.run(make())
    return address


@pytest.fixture(scope="module")
def server(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serving(url, tmp_path_factory.mktemp("server")) as running:
        yield running


def simulate(server: RunningServer, url: str, *arguments: str, status: int = 0) -> Done:
    listen = f"127.0.0.1:{server.port}"
    return astcredit(url, *arguments, status=status, fastagi_listen=listen)


def steps(
    server: RunningServer, url: str, *arguments: str, status: int = 0
) -> list[dict[str, Any]]:
    done = simulate(server, url, "--format", "json", "simulate", *arguments, status=status)
    found: list[dict[str, Any]] = json.loads(done.stdout)["steps"]
    return found


def cdr_of(url: str, step: dict[str, Any]) -> dict[str, Any]:
    (row,) = ask(url, f"SELECT * FROM v_cdr WHERE id = '{step['variables']['AC_CALL']}'")
    return row


@pytest.mark.parametrize(
    ("number", "options", "account", "said"),
    [
        (LONDON, ("--account", "anna-desk"), "anna-desk", "ALLOWED"),
        (LONDON, ("--endpoint", "dan"), "dan", "ALLOWED"),
        (f"77{LONDON}", ("--ip", "10.1.2.3:5060"), "anna-gw", "ALLOWED"),
        (f"77{LONDON}", ("--source", "10.1.2.3"), "anna-gw", "ALLOWED"),
        (MIAMI, ("--ani", "442079460000"), "anna-ani", "ALLOWED"),
        (f"77{LONDON}", ("--ip", "10.1.2.9", "--account", "anna-desk"), "anna-desk", "INVALID"),
        (LONDON, ("--ip", "10.1.2.3"), None, "NOACCOUNT"),
        (LONDON, (), None, "NOACCOUNT"),
    ],
    ids=["name", "endpoint", "ip", "source", "ani", "name alone", "no tech prefix", "nothing"],
)
def test_call_is_recognised_by_what_is_given(
    server: RunningServer,
    url: str,
    number: str,
    options: tuple[str, ...],
    account: str | None,
    said: str,
) -> None:
    """A name that is given counts alone: then the tech prefix is a part of the number."""
    authorized = steps(server, url, number, *options, status=int(said != "ALLOWED"))[0]
    assert authorized["variables"]["AC_STATUS"] == said
    assert cdr_of(url, authorized)["account"] == account


def test_number_that_is_presented_is_shown(server: RunningServer, url: str) -> None:
    """The account's only DID, in place of the caller's number."""
    authorized = steps(server, url, MIAMI, "--ani", "442079460000")[0]
    assert authorized["variables"]["AC_CALLERID"] == DID
    assert cdr_of(url, authorized)["ani"] == "442079460000"


def test_each_route_is_shown_until_one_is_reached(server: RunningServer, url: str) -> None:
    """As the dialplan does it: CHANUNAVAIL, next-route, the terminator after it."""
    arguments = (LONDON, "--account", "anna-desk", "--fail", "2", "--talk", "61")
    found = steps(server, url, *arguments)
    assert [step["script"] for step in found] == [
        "authorize",
        "next-route",
        "next-route",
        "hangup",
        "balance",
    ]
    dials = [step["variables"]["AC_DIAL"] for step in found[:3]]
    assert dials == [f"PJSIP/{LONDON}@{name}" for name in ("ca", "cb", "cc")]
    row = cdr_of(url, found[0])
    assert row["tried"] == "ca CHANUNAVAIL 20; cb CHANUNAVAIL 20"
    assert (row["status"], row["terminator"], row["dialstatus"]) == ("completed", "cc", "ANSWER")


def test_no_route_left_ends_the_call(server: RunningServer, url: str) -> None:
    """Everything that was reserved and counted is given back."""
    found = steps(server, url, LONDON, "--account", "anna-desk", "--fail", "3", status=1)
    assert [step["variables"].get("AC_STATUS") for step in found[:4]] == [
        "ALLOWED",
        "ALLOWED",
        "ALLOWED",
        "NOROUTE",
    ]
    row = cdr_of(url, found[0])
    assert (row["status"], row["dialstatus"]) == ("failed", "CHANUNAVAIL")
    assert ask(url, "SELECT * FROM v_active_calls") == []
    assert ask(url, "SELECT * FROM astcapacity WHERE calls <> 0") == []


def test_own_trunk_that_fails_has_no_next_route(server: RunningServer, url: str) -> None:
    found = steps(server, url, LONDON, "--account", "bert", "--fail", "1")
    assert [step["script"] for step in found] == ["authorize", "hangup", "balance"]
    assert cdr_of(url, found[0])["dialstatus"] == "CHANUNAVAIL"


def test_node_is_the_one_that_is_given(server: RunningServer, url: str) -> None:
    found = steps(server, url, LONDON, "--account", "bert", "--node", "pbx9")
    assert cdr_of(url, found[0])["node"] == "pbx9"


def test_text_shows_each_dial_string_and_the_books(server: RunningServer, url: str) -> None:
    arguments = (LONDON, "--account", "anna-desk", "--fail", "1", "--talk", "61", "--books")
    shown = simulate(server, url, "simulate", *arguments).stdout
    assert f"  AC_DIAL=PJSIP/{LONDON}@ca\n" in shown
    assert (
        f"next-route: PJSIP/{LONDON}@ca cannot be reached (CHANUNAVAIL), who else may take the"
        " call?\n"
    ) in shown
    assert f"  AC_DIAL=PJSIP/{LONDON}@cb\n" in shown
    assert "tried=ca CHANUNAVAIL 20  ourcost=0.060000" in shown


def test_balance_of_nobody_says_why(server: RunningServer, url: str) -> None:
    shown = simulate(server, url, "simulate", LONDON, "--ani", "1", status=1).stdout
    assert shown.splitlines()[-2].strip() == "AC_STATUS=NOACCOUNT"


@pytest.mark.parametrize(
    "wrong",
    [["--ip", "10.0.0.256"], ["--source", "pbx"], ["--fail", "-1"], ["--fail", "21"]],
)
def test_what_cannot_be_is_wrong_usage(url: str, wrong: list[str]) -> None:
    done = astcredit(url, "simulate", LONDON, *wrong, status=2)
    assert wrong[1] in done.stderr


def test_only_a_pjsip_channel_knows_where_its_signalling_comes_from() -> None:
    """As in Asterisk: another channel has no such function, whatever the simulation was told."""
    pjsip = SimulatedCall(LONDON, address="10.1.2.3:5060").channel("127.0.0.1", 1)
    assert pjsip.channel.startswith("PJSIP/anonymous-")
    command = 'GET FULL VARIABLE "${CHANNEL(linkedid)}|${CHANNEL(pjsip,remote_addr)}"'
    assert pjsip.reply(command) == "200 result=1 (|10.1.2.3:5060)"
    assert pjsip.reply("GET VARIABLE CHANNEL(pjsip,remote_addr)") == "200 result=1 (10.1.2.3:5060)"
    other = SimulatedChannel("127.0.0.1", 1, "1.1", "", LONDON, remote_address="10.1.2.3")
    assert other.reply(command) == "200 result=1 (|)"
    assert other.reply("GET VARIABLE CHANNEL(pjsip,remote_addr)") == "200 result=0"


def test_request_names_the_channel_and_its_kind() -> None:
    pjsip = SimulatedCall(LONDON, endpoint="alice", callerid="442079460000").channel("h", 1)
    lines = pjsip.request("authorize", ()).splitlines()
    assert f"agi_channel: {pjsip.channel}" in lines
    assert pjsip.channel.startswith("PJSIP/alice-")
    assert "agi_type: PJSIP" in lines
    assert "agi_callerid: 442079460000" in lines
    plain = SimulatedCall(LONDON).channel("h", 1)
    assert f"agi_channel: Simulated/{plain.uniqueid}" in plain.request("x", ()).splitlines()
