"""Several processes that are one server, as they are run: shared port, deaths, ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from astcredit.app.duties import duties
from astcredit.app.intercom import Intercom
from astcredit.app.settings import load
from astcredit.app.workers import Supervisor, Worker, settings_of
from astcredit.asterisk.simulator import SimulatedChannel
from astcredit.service.errors import RefusedError
from support.fake_ami import FakeAmi
from support.server import astcredit, astcredit_process
from support.workers import NODE, PATIENCE_SECONDS, Team, gone, leg_of, lives, prepare, team

ANSWERED = {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "30.500"}
BUSY = {"DIALSTATUS": "BUSY", "CDR(billsec,f)": "0", "HANGUPCAUSE": "17"}
DOWN = f"AMI link to {NODE} is down"


def funds(url: str) -> tuple[str, str]:
    """The client's balance, and what is reserved of it."""
    shown = json.loads(astcredit(url, "--format", "json", "balance", "acme").stdout)
    return shown["balance"], shown["reserved"]


def overdue(url: str) -> None:
    """Let all reservations be past their last second."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE astcreditres SET expires_at = date_created")


def play(
    scene: Callable[[Team, FakeAmi], Awaitable[None]], url: str, folder: Path, workers: int
) -> None:
    """Run a scene with an Asterisk server to which worker 0 listens, and with clean books after."""

    async def main() -> None:
        async with FakeAmi() as ami, team(url, folder, workers, ami) as it:
            await it.says(workers - 1, "ok")  # the link is up, and who answers knows
            await scene(it, ami)

    prepare(url, folder)
    asyncio.run(main())
    astcredit(url, "audit")


def test_a_call_that_one_process_authorized_is_settled_by_the_one_that_listens(
    database_url: str, tmp_path: Path
) -> None:
    """Its hangup script reports before: that is left to the listener, as in one process."""

    async def scene(it: Team, ami: FakeAmi) -> None:
        assert [it.answers(worker) for worker in (0, 1)] == [False, True]
        (call,) = await it.authorized("1000.1")
        assert call.variables["AC_STATUS"] == "ALLOWED"
        it.answer(call)
        await it.has("answered", call)
        call.variables |= ANSWERED
        await it.ask("hangup", call)
        assert (await it.cdr(call))["status"] == "answered"
        it.hang_up(call)
        await it.has("completed", call)
        assert (await it.cdr(call))["settled_by"] == "ami"

    play(scene, database_url, tmp_path, 2)


def test_a_report_that_one_process_took_is_known_to_the_one_that_listens(
    sqlite_url: str, tmp_path: Path
) -> None:
    """It missed the end, and is told of how long the call was."""

    async def scene(it: Team, ami: FakeAmi) -> None:
        (call,) = await it.authorized("1000.1")
        it.answer(call)
        await it.has("answered", call)
        call.variables |= ANSWERED
        await it.ask("hangup", call)
        ami.cut()  # and at the reconnect there is no channel
        await it.has("completed", call)
        cdr = await it.cdr(call)
        assert (cdr["settled_by"], cdr["answeredtime"]) == ("hangup", 30_500)

    play(scene, sqlite_url, tmp_path, 2)


def test_a_worker_that_dies_is_replaced_and_its_calls_go_on(
    mariadb_url: str, tmp_path: Path
) -> None:
    """Killed under questions, of which some get no answer; none of the calls is lost."""

    async def scene(it: Team, ami: FakeAmi) -> None:
        before = await it.authorized(*(f"1000.{n}" for n in range(20)))
        dead = it.pid_of(1)
        asking = asyncio.ensure_future(it.authorized(*(f"2000.{n}" for n in range(20))))
        await asyncio.sleep(0)
        os.kill(dead, signal.SIGKILL)
        meanwhile = await asking
        await it.are(3, without=dead)
        await it.says(1, "ok")
        assert it.logged("worker_died") == 1

        after = await it.authorized(*(f"3000.{n}" for n in range(20)))
        talking, ringing = before[:10] + after[:10], before[10:] + meanwhile + after[10:]
        assert {call.variables.get("AC_STATUS") for call in before + after} == {"ALLOWED"}
        for call in talking:
            it.answer(call)
        await it.has("answered", *talking)
        for call in talking:
            it.hang_up(call)
        for call in ringing:
            call.variables |= BUSY
        await it.ask("hangup", *ringing)  # Asterisk's `h` comes, whether there was an answer or not
        await it.has("completed", *talking)
        assert await asyncio.to_thread(funds, mariadb_url) == ("9980.000000", "0.000000")

    play(scene, mariadb_url, tmp_path, 3)


def test_while_the_listener_is_dead_reports_settle_and_its_successor_finds_what_was_missed(
    mariadb_url: str, tmp_path: Path
) -> None:
    async def scene(it: Team, ami: FakeAmi) -> None:
        calls = await it.authorized("1000.1", "1000.2", "1000.3")
        reported, unheard, living = calls
        for call in calls:
            it.answer(call)
        await it.has("answered", *calls)
        ami.channels = [_living(living)]
        ami.ignores.add("login")  # so that nobody listens for as long as the test wants
        os.kill(it.pid_of(0), signal.SIGKILL)
        await it.says(1, DOWN)
        reported.variables |= ANSWERED
        await it.ask("hangup", reported)
        assert (await it.cdr(reported))["settled_by"] == "hangup"

        ami.ignores.clear()
        ami.cut()
        await it.says(1, "ok")
        await it.has("completed", unheard)
        assert (await it.cdr(unheard))["settled_by"] == "recovery"
        assert (await it.cdr(living))["status"] == "answered"
        it.hang_up(living)
        await it.has("completed", living)
        assert (await it.cdr(living))["settled_by"] == "ami"
        assert it.logged("worker_died") == 1

    play(scene, mariadb_url, tmp_path, 2)


def test_a_dead_listener_hears_nothing() -> None:
    """Before its successor says so itself."""
    listener, answering = duties(2, [NODE])
    with Intercom([listener, answering]) as intercom:
        worker = Worker(listener, load(None, {}, {}))
        worker.process = get_context("fork").Process(target=intercom.mark, args=(NODE, True))
        worker.process.start()
        worker.process.join(PATIENCE_SECONDS)
        supervisor = Supervisor([worker], intercom, lambda: None)
        assert intercom.up(NODE)
        supervisor._look_after(worker)
        assert not intercom.up(NODE)
        assert worker.process is None


def test_one_process_keeps_house_for_all(sqlite_url: str, tmp_path: Path) -> None:
    """It closes what is past its time; the leg, should it live, is ended by whoever listens."""

    async def main() -> None:
        async with FakeAmi() as ami:
            async with team(sqlite_url, tmp_path, 2, ami) as it:
                await it.says(1, "ok")
                (call,) = await it.authorized("1000.1")
                it.answer(call)
                await it.has("answered", call)
            ami.channels = [_living(call)]
            await asyncio.to_thread(overdue, sqlite_url)
            async with team(sqlite_url, tmp_path, 2, ami) as it:
                await it.has("completed", call)
                assert (await it.cdr(call))["settled_by"] == "expiry"
                await ami.seen("Hangup")

    prepare(sqlite_url, tmp_path)
    asyncio.run(main())
    astcredit(sqlite_url, "audit")


def test_workers_do_not_outlive_their_supervisor(sqlite_url: str, tmp_path: Path) -> None:
    """Whatever became of it."""

    async def main() -> None:
        async with FakeAmi() as ami, team(sqlite_url, tmp_path, 3, ami) as it:
            pids = it.pids()
            assert len(pids) == 3
            it.process.kill()
            await it.process.wait()
            await gone(pids)
            assert it.logged("stopping") == 3

    prepare(sqlite_url, tmp_path)
    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_with_status_0(
    number: signal.Signals, sqlite_url: str, tmp_path: Path
) -> None:
    """They finish what is under way; nobody is left behind."""

    async def main() -> None:
        async with team(sqlite_url, tmp_path, 2) as it:
            pids = it.pids()
            it.process.send_signal(number)
            assert await it.process.wait() == 0
            assert not any(lives(pid) for pid in pids)
            assert it.logged("stopping") == 2
            assert it.logged("worker_died") == it.logged("worker_killed") == 0

    prepare(sqlite_url, tmp_path)
    asyncio.run(main())


def test_a_server_that_cannot_start_says_why_in_one_line(sqlite_url: str) -> None:
    """Whoever of the workers is the first to see it."""
    listen = {"fastagi_listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    done = astcredit_process(sqlite_url, "serve", "--workers", "3", **listen)
    assert done.status == 1
    assert "astcredit init" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_a_port_is_shared_with_nobody_else(sqlite_url: str, tmp_path: Path) -> None:
    """Neither FastAGI's, which workers share, nor the metrics' of one of them."""

    async def main() -> None:
        async with team(sqlite_url, tmp_path, 2) as it:
            for taken in (
                {"fastagi_listen": f"127.0.0.1:{it.port}", "metrics_listen": "127.0.0.1:0"},
                {
                    "fastagi_listen": "127.0.0.1:0",
                    "metrics_listen": f"127.0.0.1:{it.metrics_port - 1}",
                },
            ):
                done = await asyncio.to_thread(
                    astcredit_process, sqlite_url, "serve", "--workers", "2", **taken
                )
                assert done.status == 1
                assert "in use" in done.stderr
            assert len(it.pids()) == 2

    prepare(sqlite_url, tmp_path)
    asyncio.run(main())


def test_each_worker_has_a_metrics_port_of_its_own() -> None:
    def metrics(listen: str, number: int) -> object:
        settings = load(None, {"ASTCREDIT_METRICS_LISTEN": listen}, {})
        return settings_of(settings, number, 4573).metrics.listen

    assert metrics("127.0.0.1:9573", 2) == ("127.0.0.1", 9575)
    assert metrics("127.0.0.1:0", 2) == ("127.0.0.1", 0)
    assert metrics("", 2) is None
    with pytest.raises(RefusedError, match=r"metrics\.listen 127\.0\.0\.1:65535: .* worker 1"):
        metrics("127.0.0.1:65535", 1)


def _living(call: SimulatedChannel) -> list[tuple[str, str]]:
    leg = leg_of(call)
    return [
        ("Channel", f"PJSIP/{leg}-0000001a"),
        ("Uniqueid", leg),
        ("Linkedid", call.uniqueid),
        ("ChannelStateDesc", "Up"),
        ("Duration", "00:00:05"),
    ]
