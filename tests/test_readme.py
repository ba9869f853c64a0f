"""The README is true: what it tells to type works, what it shows is what comes."""

from __future__ import annotations

import re
import shlex

import pytest
from click.testing import CliRunner

from astcredit.cli.main import COMMANDS, main
from astcredit.domain.calls import AuthStatus
from astcredit.domain.decisions import CAUSES
from astcredit.service.demo import RATES
from support.calls import ask
from support.project import ROOT
from support.server import astcredit

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The commands of the admin's guide, without the program's name."""
    block = next(b for b in README.split("```") if "\nastcredit init\n" in b)
    lines = [line for line in block.splitlines() if line.startswith("astcredit ")]
    return [shlex.split(line)[1:] for line in lines]


def test_the_admins_commands_work_as_they_stand(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert len(commands()) > 10
    for command in commands():
        astcredit(database_url, *command)
    query = re.search(r"```sql\n(.*?)```", README, re.DOTALL)
    assert query is not None
    ask(database_url, query[1].strip().rstrip(";"))


def test_the_call_that_scripts_run_plays_is_the_one_shown() -> None:
    """66 seconds of the demo's rate for the United Kingdom, rounded as the README says."""
    uk = next(rate for rate in RATES if rate.prefix == "44")
    assert (uk.rate_per_minute, uk.first_increment, uk.next_increment) == (18_000, 30, 6)
    shown = [f"rate table demo with {len(RATES)} rates", "price=0.019800", "billsec=66"]
    assert all(text in README for text in shown)


@pytest.mark.parametrize("status", AuthStatus)
def test_every_status_stands_in_the_table_with_its_cause(status: AuthStatus) -> None:
    row = re.search(rf"^\| `{status}` \|[^|]*\| (\d+) \|", README, re.MULTILINE)
    assert row is not None, f"no row for {status}"
    assert int(row[1]) == CAUSES[status]


def test_every_command_has_help_with_an_example() -> None:
    for name in COMMANDS:
        shown = CliRunner().invoke(main, [name, "--help"])
        assert shown.exit_code == 0
        if "Commands:" not in shown.stdout:
            assert "Example" in shown.stdout, name
