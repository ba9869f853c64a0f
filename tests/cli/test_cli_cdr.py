"""`astcredit cdr`: lists, exports that are whole or not there, and the sum behind a price."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from astcredit.cli import cdr
from astcredit.cli.main import main
from support.calls import CALLS, HOSTILE_CALLERID, ask, call_id, filled
from support.project import ROOT

NEWEST_FIRST = [call_id(made) for made in reversed(CALLS)]
HOSTILE = next(made for made in CALLS if made.end == "hangup")


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled(request.param, request) as found:
        yield found


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--database", url, *arguments])


def listed(url: str, *arguments: str) -> list[str]:
    result = run(url, "--format", "json", "cdr", "list", *arguments)
    assert result.exit_code == 0, result.stderr
    return [row["id"] for row in json.loads(result.stdout)]


def test_list_is_newest_first_and_limited(url: str) -> None:
    assert listed(url) == NEWEST_FIRST
    assert listed(url, "--limit", "3") == NEWEST_FIRST[:3]


def test_filters(url: str) -> None:
    assert listed(url, "--client", "cara", "--status", "denied") == [call_id(CALLS[6])]
    november = [call_id(made) for made in reversed(CALLS) if made.month == "2026-11"]
    assert listed(url, "--from", "2026-11-01", "--to", "2026-12-01") == november
    late = listed(url, "--from", "2026-12-01T00:59:59.999+01:00", "--to", "2026-12-01T00:00:00Z")
    assert late == [call_id(CALLS[14])]


def test_rows_have_the_columns_and_values_of_the_view(url: str) -> None:
    """Apart from the margin, which is a sum, and the two ids, which are numbers for programs."""
    rows = json.loads(run(url, "--format", "json", "cdr", "list").stdout)
    shown = {row["id"]: row for row in rows}
    view = ask(url, "SELECT * FROM v_cdr")
    assert set(view[0]) - set(rows[0]) == {"margin", "client_id", "account_id"}
    for expected in view:
        for name, value in shown[expected["id"]].items():
            wanted = expected[name]
            if isinstance(wanted, Decimal):
                assert Decimal(value) == wanted, name
            else:
                assert value == wanted, name


def test_table_for_people_is_short(url: str) -> None:
    lines = run(url, "cdr", "list", "--client", "bert").stdout.splitlines()
    assert lines[0].split() == list(cdr.FOR_PEOPLE)
    assert len(lines) == 1 + sum(made.client == "bert" for made in CALLS)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--client", "ana"], 1, "there is no client 'ana'; the nearest is 'anna'"),
        (["--from", "yesterday"], 2, "expected a date"),
        (["--from", "2026-12-01", "--to", "2026-11-01"], 2, "--from must be before --to"),
        (["--status", "gone"], 2, "gone"),
        (["--limit", "0"], 2, "0"),
    ],
)
def test_wrong_filters_are_refused(url: str, arguments: list[str], code: int, said: str) -> None:
    result = run(url, "cdr", "list", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_export_is_csv_oldest_first(url: str) -> None:
    text = run(url, "cdr", "export").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == NEWEST_FIRST[::-1]
    assert rows[0]["price"] == "0.120000"
    assert rows[0]["answeredtime"] == "61.000"
    assert rows[-1]["price"] == ""


def test_no_caller_gets_a_formula_into_a_spreadsheet(url: str) -> None:
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(run(url, "cdr", "export").stdout))}
    callerid = rows[call_id(HOSTILE)]["callerid"]
    assert callerid.startswith("'=cmd|")
    assert HOSTILE_CALLERID.startswith("=cmd|")


def test_no_caller_gets_a_sequence_to_a_terminal(url: str) -> None:
    shown = run(url, "cdr", "show", call_id(HOSTILE)).stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


def test_export_as_json_lines(url: str, tmp_path: Path) -> None:
    """The same objects as a list in JSON has, one a line."""
    lines = run(url, "cdr", "export", "--jsonl", "--client", "anna").stdout.splitlines()
    assert (
        lines
        == run(url, "--format", "json", "cdr", "export", "--client", "anna").stdout.splitlines()
    )
    newest_first = json.loads(
        run(url, "--format", "json", "cdr", "list", "--client", "anna").stdout
    )
    assert [json.loads(line) for line in lines] == newest_first[::-1]
    assert len(lines) == sum(made.client == "anna" for made in CALLS)


def test_export_to_a_file(url: str, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    result = run(url, "cdr", "export", str(file))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"{len(CALLS)} CDRs" in result.stderr
    assert file.read_text(encoding="utf-8") == run(url, "cdr", "export").stdout
    assert os.listdir(tmp_path) == ["out.csv"]


def test_export_of_nothing_has_a_header(url: str) -> None:
    lines = run(url, "cdr", "export", "--from", "2030-01-01").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("id,date_created,")


def test_broken_off_export_leaves_the_old_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a month in a file looks like a whole one."""
    file = tmp_path / "out.csv"
    file.write_text("the last one")
    cells = cdr._cells

    def stumbling(columns: object, record: object) -> object:
        if record.id == call_id(CALLS[5]):  # type: ignore[attr-defined]
            raise OSError("No space left on device")
        return cells(columns, record)  # type: ignore[arg-type]

    monkeypatch.setattr(cdr, "_cells", stumbling)
    result = run(url, "cdr", "export", str(file))
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert file.read_text() == "the last one"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_export_to_a_folder_that_is_not_there(url: str, tmp_path: Path) -> None:
    result = run(url, "cdr", "export", str(tmp_path / "no" / "out.csv"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_export_to_a_pipe_that_closes_is_quiet(url: str) -> None:
    """`astcredit cdr export | head -1`."""
    command = [sys.executable, "-m", "astcredit", "--database", url, "cdr", "export"]
    script = '"$@" | head -c 10; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script, "-", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "id,date_cr"
    assert done.stderr == ""


def test_show_prints_the_sum(url: str) -> None:
    """The 31 seconds to Germany, 30/6 with a fee of 0.02: what a customer asks about."""
    shown = run(url, "cdr", "show", call_id(CALLS[1])).stdout
    assert shown.rstrip().splitlines()[-6:] == [
        "rate 0.03 a minute for prefix 49",
        "talked 31 s, billed 36 s (first 30 s, then every 6 s begun)",
        "connect fee 0.02",
        "talk 36 s * 0.03 / 60 s = 0.018",
        "price 0.038",
        "settled by ami",
    ]
    assert "ourcost" not in shown  # what is not known is not shown as anything


def test_show_in_json_has_the_sum_too(url: str) -> None:
    found = json.loads(run(url, "--format", "json", "cdr", "show", call_id(CALLS[1])).stdout)
    assert found["price"] == "0.038000"
    assert found["ourcost"] is None
    assert "price 0.038" in found["explanation"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (5, "allowed 120 s, cut 40 ms late: those are not charged"),
        (12, "estimated, the end was not seen"),
        (6, "denied: NOCREDIT"),
        (3, "not answered, nothing charged"),
        (17, "still up: 1.82 EUR reserved"),
    ],
)
def test_show_says_what_is_special(url: str, number: int, said: str) -> None:
    assert said in run(url, "cdr", "show", call_id(CALLS[number])).stdout


def test_show_unknown_call(url: str) -> None:
    result = run(url, "cdr", "show", "no\x1b[2Jthing")
    assert result.exit_code == 1
    assert "there is no call" in result.stderr
    assert "\x1b" not in result.stderr
