"""The server as it is run: processes, sockets, both databases."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from astcredit.asterisk.simulator import SimulatedChannel
from astcredit.storage.database import open_database
from astcredit.storage.inspection import rows_of_call
from astcredit.storage.tables import astcdr, astcreditres, astledger
from support.databases import MariaDb
from support.server import (
    COMMAND,
    RunningServer,
    astcredit,
    astcredit_process,
    environment,
    serving,
)

NUMBER = "00442071234567"
DECK = "prefix,rate_per_minute,first_increment,next_increment\n44,1.00,60,60\n"


def prepare(database_url: str, folder: Path, balance: str) -> None:
    """One prepaid client with so much money; a minute costs 1.00, in whole minutes."""
    deck = folder / "deck.csv"
    deck.write_text(DECK)
    for command in (
        ("init",),
        ("rate-table", "add", "retail"),
        ("rates", "import", "retail", str(deck)),
        ("client", "add", "acme", "--rate-table", "retail"),
        ("account", "add", "acme", "pbx", "--ident-by", "name", "--ident", "pbx"),
        ("topup", "acme", balance),
    ):
        astcredit(database_url, *command)


def channel(server: RunningServer, uniqueid: str, number: str = NUMBER) -> SimulatedChannel:
    return SimulatedChannel("127.0.0.1", server.port, uniqueid, "pbx", number)


def ask(channels: Iterable[SimulatedChannel], script: str) -> None:
    """Run a script on all channels at the same instant."""

    async def together() -> None:
        await asyncio.gather(*(channel.run(script) for channel in channels))

    asyncio.run(together())


def statuses(channels: Iterable[SimulatedChannel]) -> Counter[str]:
    return Counter(channel.variables["AC_STATUS"] for channel in channels)


def balance(database_url: str) -> dict[str, str]:
    shown = astcredit(database_url, "--format", "json", "balance", "acme").stdout
    found: dict[str, str] = json.loads(shown)
    return found


def health(server: RunningServer) -> tuple[int, str]:
    try:
        url = f"http://127.0.0.1:{server.metrics_port}/healthz"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()


def test_two_servers_grant_exactly_what_the_balance_covers(
    database_url: str, tmp_path: Path
) -> None:
    """200 questions at the same instant, money for seven: seven calls, whichever server asked."""
    prepare(database_url, tmp_path, "7.99")
    with (
        serving(database_url, tmp_path, call_max_seconds="60") as one,
        serving(database_url, tmp_path, call_max_seconds="60") as two,
    ):
        channels = [channel((one, two)[n % 2], f"1000.{n}") for n in range(200)]
        ask(channels, "authorize")
        assert statuses(channels) == {"ALLOWED": 7, "NOCREDIT": 193}
        assert balance(database_url)["reserved"] == "7.000000"
        astcredit(database_url, "audit")

        allowed = [c for c in channels if c.variables["AC_STATUS"] == "ALLOWED"]
        for call in allowed:
            call.variables |= {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "30.500"}
        ask(allowed, "hangup")
        ask(allowed, "hangup")  # once more: nothing is charged twice
        after = balance(database_url)
        assert (after["balance"], after["reserved"]) == ("0.990000", "0.000000")
        astcredit(database_url, "audit")


def test_a_call_from_question_to_ledger(database_url: str, tmp_path: Path) -> None:
    """The rows that CONTRACT promises, after the answer and after the end."""
    prepare(database_url, tmp_path, "2.50")

    async def rows(call_id: str) -> dict[str, dict[str, object]]:
        database = open_database(database_url)
        try:
            found = await rows_of_call(database, call_id)
            return {table.name: dict(row) for table, row in found.items()}
        finally:
            await database.close()

    with serving(database_url, tmp_path) as server:
        call = channel(server, "1000.1")
        ask([call], "authorize")
        answer = call.variables
        assert (answer["AC_SECONDS"], answer["AC_OPTS"]) == ("120", "L(120000:60000:30000)")
        assert (answer["AC_RESERVED"], answer["AC_AVAILABLE"]) == ("2.000000", "0.500000")
        begun = asyncio.run(rows(answer["AC_CALL"]))
        assert begun[astcreditres.name]["reservedamount"] == 2_000_000
        assert begun[astcdr.name]["status"] == "open"
        assert astledger.name not in begun

        call.variables |= {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "61.2", "HANGUPCAUSE": "16"}
        ask([call], "hangup")
        ended = asyncio.run(rows(answer["AC_CALL"]))
        assert astcreditres.name not in ended
        cdr = ended[astcdr.name]
        assert (cdr["status"], cdr["billsec"], cdr["price"]) == ("completed", 120, 2_000_000)
        assert cdr["answeredtime"] == 61_200
        assert ended[astledger.name]["amount"] == -2_000_000


def test_a_call_that_nobody_answers_costs_nothing(database_url: str, tmp_path: Path) -> None:
    prepare(database_url, tmp_path, "2.50")
    with serving(database_url, tmp_path) as server:
        call = channel(server, "1000.1")
        ask([call], "authorize")
        call.variables |= {"DIALSTATUS": "BUSY", "CDR(billsec,f)": "0", "HANGUPCAUSE": "17"}
        ask([call], "hangup")
        shown = balance(database_url)
        assert (shown["balance"], shown["reserved"]) == ("2.500000", "0.000000")


def test_a_change_on_the_command_line_is_in_force_for_the_next_call(
    database_url: str, tmp_path: Path
) -> None:
    prepare(database_url, tmp_path, "5")
    with serving(database_url, tmp_path) as server:
        first, second, third = (channel(server, f"1000.{n}") for n in range(3))
        ask([first], "authorize")
        astcredit(database_url, "account", "disable", "pbx")
        ask([second], "authorize")
        astcredit(database_url, "account", "enable", "pbx")
        ask([third], "authorize")
        answers = [c.variables["AC_STATUS"] for c in (first, second, third)]
        assert answers == ["ALLOWED", "DISABLED", "NOCREDIT"]  # the first holds all the money


def test_sigterm_ends_the_server_with_status_0(sqlite_url: str, tmp_path: Path) -> None:
    prepare(sqlite_url, tmp_path, "5")
    with serving(sqlite_url, tmp_path) as server:
        assert health(server) == (200, "ok")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_a_server_without_tables_says_what_to_do(sqlite_url: str) -> None:
    done = astcredit_process(sqlite_url, "serve", fastagi_listen="127.0.0.1:0")
    assert done.status == 1
    assert "astcredit init" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_dialplan_has_its_answer_while_the_database_is_down(
    mariadb: MariaDb, mariadb_url: str, tmp_path: Path
) -> None:
    """ERROR for a call, passage for an emergency; and what ended meanwhile is charged after."""
    prepare(mariadb_url, tmp_path, "5")
    with serving(mariadb_url, tmp_path, call_answer_deadline_ms="500") as server:
        talking = channel(server, "1000.1")
        ask([talking], "authorize")
        mariadb.kill()
        try:
            refused, emergency = channel(server, "1000.2"), channel(server, "1000.3", "112")
            ask([refused, emergency], "authorize")
            talking.variables |= {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "30"}
            ask([talking], "hangup")
            status, reason = health(server)
        finally:
            mariadb.restart()
        assert refused.variables["AC_STATUS"] == "ERROR"
        assert emergency.variables["AC_STATUS"] == "ALLOWED"
        assert (status, reason.startswith("database: ")) == (503, True)

        again = channel(server, "1000.4")
        while again.variables.get("AC_STATUS", "ERROR") == "ERROR":
            ask([again], "authorize")  # waits for its deadline each time
        assert balance(mariadb_url)["balance"] == "4.000000"
        astcredit(mariadb_url, "audit")


@pytest.mark.parametrize(("number", "status"), [(NUMBER, "ALLOWED"), ("0033123456", "INVALID")])
def test_classic_agi_answers_as_fastagi_does(
    sqlite_url: str, tmp_path: Path, number: str, status: str
) -> None:
    prepare(sqlite_url, tmp_path, "5")
    channel = SimulatedChannel("", 0, "1000.1", "pbx", number)
    request = channel.request("", ())
    with subprocess.Popen(
        [*COMMAND, "agi", "authorize", number],
        env=environment(sqlite_url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        for line in process.stdout:
            process.stdin.write(channel.reply(line.rstrip()) + "\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert channel.variables["AC_STATUS"] == status
