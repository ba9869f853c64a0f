"""`astcredit reconcile`: Asterisk's own files, what is printed, and the exit statuses."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from astcredit.cli.context import App
from support.calls import ask
from support.core import call_id, opened
from support.master_csv import write
from support.outage import LATER_MS, Outage, line, prepared
from support.server import Done, astcredit


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is long after the outage."""
    monkeypatch.setattr(App, "now_ms", lambda self: LATER_MS)


def story(url: str, told: Callable[[Outage], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(url) as database:
            await told(await prepared(database))

    asyncio.run(run())


async def usual(world: Outage) -> None:
    """Calls 1 and 2 are estimated: an hour was charged, and nothing; 3 is open; 4 was heard."""
    await world.talking(1)
    await world.ringing(2, 3)
    await world.over(4, 10_000)
    await world.expired(1, 2)


LINES = (line(1, 5_000, 65_000), line(2, 2_000, 12_000), line(3, 4_000, 34_000))


def calls(done: Done) -> dict[str, tuple[str, str]]:
    """By number of the call, what was done and by how much the balance changed."""
    rows = json.loads(done.stdout)["calls"]
    return {str(int(row["id"][1:])): (row["done"], row["amount"]) for row in rows}


@pytest.mark.usefixtures("late")
def test_both_kinds_of_file_say_the_same(database_url: str, tmp_path: Path) -> None:
    story(database_url, usual)
    exact = write(tmp_path / "astcredit.csv", *(one.custom() for one in LINES))
    local = write(tmp_path / "Master.csv", *(one.master("Asia/Kathmandu") for one in LINES))
    options = ("--format", "json", "reconcile", "--node", "pbx1")
    foreseen = astcredit(database_url, *options, "--dry-run", "--asterisk-cdr", exact)
    zone = ("--timezone", "Asia/Kathmandu")
    blurred = astcredit(database_url, *options, "--asterisk-cdr", local, *zone)
    assert calls(foreseen) == calls(blurred) == {
        "1": ("refunded", "3.540000"), "2": ("charged", "-0.010000"), "3": ("closed", "-0.030000")
    }  # fmt: skip
    document = json.loads(blurred.stdout)
    assert (document["looked_at"], document["changed"], document["dry_run"]) == (3, 3, False)
    assert document["counts"] == {"charged": 1, "closed": 1, "refunded": 1}
    assert json.loads(foreseen.stdout)["changed"] == 0
    again = astcredit(database_url, *options, "--asterisk-cdr", exact)
    assert (calls(again), json.loads(again.stdout)["changed"]) == ({}, 0)
    astcredit(database_url, "audit")


@pytest.mark.usefixtures("late")
def test_a_wrong_time_zone_changes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    story(sqlite_url, usual)
    path = write(tmp_path / "Master.csv", *(one.master("Asia/Kathmandu") for one in LINES))
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path)
    assert "is --timezone right?" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing to change: 3 calls open or estimated: 3 left"
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path, "--timezone", "X/Y", status=1)
    assert "time zone 'X/Y'" in done.stderr


@pytest.mark.usefixtures("late")
def test_the_table_is_for_people(sqlite_url: str, tmp_path: Path) -> None:
    story(sqlite_url, usual)
    path = write(tmp_path / "Master.csv", LINES[0].custom())
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path)
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "id", "node", "uniqueid", "client", "was", "now", "amount", "currency", "done", "note"
    ]  # fmt: skip
    assert lines[1].startswith(f"{call_id(1)}  pbx1  caller-1  client1")
    for shown in ("completed, 3600 s, 3.60, estimated", "completed, 60 s, 0.06", "refunded"):
        assert shown in lines[1]
    assert "Asterisk's records have nothing of it" in lines[2]
    assert lines[-1] == "done: 3 calls open or estimated: 1 left, 1 refunded"
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path)
    assert done.stdout.splitlines()[-1] == "nothing to change: 2 calls open or estimated: 1 left"


@pytest.mark.usefixtures("late")
def test_csv_has_one_line_for_each_call(sqlite_url: str, tmp_path: Path) -> None:
    story(sqlite_url, usual)
    path = write(tmp_path / "Master.csv", *(one.custom() for one in LINES))
    done = astcredit(sqlite_url, "--format", "csv", "reconcile", "--asterisk-cdr", path)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["done"] for row in rows] == ["refunded", "charged", "closed"]


@pytest.mark.usefixtures("late")
def test_a_bad_line_is_named_and_nothing_is_done_unless_it_is_passed_over(
    sqlite_url: str, tmp_path: Path
) -> None:
    story(sqlite_url, usual)
    bad = LINES[0].custom().replace("ANSWERED", "\x1b[2J")
    path = write(tmp_path / "Master.csv", *(one.custom() for one in LINES), bad)
    before = ask(sqlite_url, "SELECT * FROM astcdr")
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path, status=1)
    assert f"{path}: line 4, column disposition: '\\x1b[2J': expected one of" in done.stderr
    assert "1 bad line, nothing was done" in done.stderr
    assert done.stdout == ""
    assert ask(sqlite_url, "SELECT * FROM astcdr") == before
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", path, "--skip-bad")
    assert "line 4, column disposition" in done.stderr
    assert "1 charged, 1 closed, 1 refunded" in done.stdout


@pytest.mark.usefixtures("late")
def test_several_files_of_one_server(sqlite_url: str, tmp_path: Path) -> None:
    """Files that were rotated; what stands in two of them counts once."""
    story(sqlite_url, usual)
    files = [write(tmp_path / str(n), *(one.custom() for one in LINES[n:])) for n in (0, 1)]
    options = [part for file in files for part in ("--asterisk-cdr", file)]
    done = astcredit(sqlite_url, "reconcile", *options)
    assert "1 charged, 1 closed, 1 refunded" in done.stdout


def test_without_a_file_it_says_what_waits(sqlite_url: str, late: None) -> None:
    story(sqlite_url, usual)
    done = astcredit(sqlite_url, "--format", "json", "reconcile", "--dry-run", status=1)
    assert calls(done) == {
        "1": ("left", "0.000000"), "2": ("left", "0.000000"), "3": ("expired", "0.000000")
    }  # fmt: skip
    done = astcredit(sqlite_url, "reconcile", status=1)
    assert "reconcile --asterisk-cdr Master.csv --node pbx1" in done.stdout
    assert done.stdout.splitlines()[-1] == "3 calls open or estimated: 1 expired, 2 left"
    done = astcredit(sqlite_url, "reconcile", "--node", "pbx9")
    assert done.stdout == "no call is estimated or past its time; open or estimated: 0\n"
    assert ask(sqlite_url, "SELECT * FROM astcreditres") == []


def test_usage(sqlite_url: str, tmp_path: Path) -> None:
    astcredit(sqlite_url, "init")
    missing = str(tmp_path / "none.csv")
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", missing, status=2)
    assert "none.csv" in done.stderr
    assert astcredit(sqlite_url, "reconcile").stdout.startswith("no call is estimated")


@pytest.mark.usefixtures("late")
def test_a_hundred_thousand_lines_are_no_matter(sqlite_url: str, tmp_path: Path) -> None:
    """Most are of calls that nobody doubts. What is quadratic would meet the time-out."""
    story(sqlite_url, usual)
    path = tmp_path / "Master.csv"
    with path.open("w") as file:
        for thousand in range(100):
            file.write(line(5 + thousand, 1_000, 9_000).master() * 1_000)
        file.writelines(one.custom() for one in LINES)
    done = astcredit(sqlite_url, "reconcile", "--asterisk-cdr", str(path))
    assert "1 charged, 1 closed, 1 refunded" in done.stdout
