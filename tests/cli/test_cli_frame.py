"""The frame of the command line: options, exit statuses, errors in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from astcredit import __version__
from astcredit.cli.context import App, Command
from astcredit.cli.main import BROKEN_PIPE, INTERRUPTED, main
from support.project import ROOT


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def environment(unbuffered: str) -> dict[str, str]:
    """Whether a failing write is met at once, or when what was gathered is flushed at the end."""
    return {**os.environ, "PYTHONUNBUFFERED": unbuffered}


def process(*arguments: str, unbuffered: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "astcredit", *arguments],
        cwd=ROOT,
        env=environment(unbuffered),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def demo(sqlite_url: str) -> str:
    assert run("--database", sqlite_url, "init", "--demo").exit_code == 0
    return sqlite_url


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None, name
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from commands(command, *path, name)


def test_every_command_is_there_and_its_help_has_an_example() -> None:
    for path, command in commands(main):
        assert "Example" in (command.help or ""), path
        shown = run(*path, "--help")
        assert shown.exit_code == 0
        assert "Example" in shown.output, path


def test_the_list_of_commands_says_a_whole_sentence_about_each_of_administrations() -> None:
    shown = run("--help").output
    assert "_ASTCREDIT_COMPLETE" in shown
    for name in ("init", "client", "account", "rate-table", "rates", "topup", "adjust", "balance"):
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [name])
        assert line.endswith("."), line
        assert not line.endswith("..."), line


def test_starting_loads_neither_database_nor_tables() -> None:
    """`astcredit agi` is a process for each call: what it does not need it does not load."""
    script = (
        "import sys, astcredit.cli.main; heavy = {'sqlalchemy', 'rich', 'panoramisk', 'aiomysql',"
        " 'prometheus_client'} & set(sys.modules); sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_and_unknown_commands() -> None:
    assert run("--version").output == f"astcredit, version {__version__}\n"
    for wrong in (["nope"], ["client", "nope"], ["topup", "x"], ["--nope"], ["topup", "x", "y"]):
        result = run(*wrong)
        assert result.exit_code == 2, wrong
        assert "Error: " in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["client", "show", "no\x1b[2J\nbody"],
        ["topup", "nobody", "5"],
        ["--config", "/nonexistent/x.toml", "client", "list"],
        ["--database", "postgres://u:hunter2@h/x", "client", "list"],
        ["--database", "sqlite:////nonexistent/x.db", "client", "list"],
        ["--database", "sqlite:////nonexistent/x.db", "init"],
        ["--database", "mysql://u:hunter2@127.0.0.1:1/x", "client", "list"],
    ],
)
def test_a_refusal_is_one_printable_line_without_secrets(demo: str, arguments: list[str]) -> None:
    result = run(*arguments, env={"ASTCREDIT_DATABASE_URL": demo})
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.isprintable()
    assert "hunter2" not in line
    assert "internal" not in line
    assert result.stdout == ""


def test_verbose_shows_where_an_error_came_from(demo: str) -> None:
    result = run("-v", "--database", demo, "client", "show", "nobody")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: there is no client 'nobody'")


def test_a_fault_of_the_program_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command(cls=Command)
    def broken() -> None:
        raise KeyError("x\ny")

    monkeypatch.setattr(type(main), "get_command", lambda *_: broken)
    result = run("balance")
    assert result.exit_code == 1
    assert result.stderr == "Error: internal error, -v shows where: KeyError: 'x\\ny'\n"


def test_a_missing_database_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    result = run("--database", f"sqlite:///{path}", "client", "list")
    assert "astcredit init" in result.stderr
    assert not path.exists()


def test_an_empty_database_is_told_from_one_that_does_not_answer(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    result = run("--database", database_url, "client", "list")
    assert 'run "astcredit init"' in result.stderr
    dead = run("--database", "mysql://u:p@127.0.0.1:1/x", "client", "list")
    assert "init" not in dead.stderr
    assert dead.stderr.startswith("Error: database: ")


def test_the_format_may_stand_before_or_behind_the_command(demo: str) -> None:
    names = {"demo", "demo-postpaid"}
    for arguments in (
        ["--format", "json", "client", "list"],
        ["client", "list", "--format", "json"],
        ["--format", "csv", "client", "list", "--format", "json"],
    ):
        result = run("--database", demo, *arguments)
        assert {row["name"] for row in json.loads(result.stdout)} == names
    assert run("client", "list", "--format", "xml").exit_code == 2


def test_the_command_line_wins_over_the_environment(demo: str, tmp_path: Path) -> None:
    other = {"ASTCREDIT_DATABASE_URL": f"sqlite:///{tmp_path / 'other.db'}"}
    assert run("client", "list", env=other).exit_code == 1
    assert run("--database", demo, "client", "list", env=other).exit_code == 0


@pytest.mark.parametrize(
    ("sudo", "expected"), [("", "root@host"), ("alice", "alice@host"), ("a\nb", "a\\nb@host")]
)
def test_the_actor_is_who_is_at_the_keyboard(
    monkeypatch: pytest.MonkeyPatch, sudo: str, expected: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", sudo)
    assert App().actor == expected
    monkeypatch.setenv("SUDO_USER", "x" * 200)
    assert len(App().actor) == 80


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(demo: str, unbuffered: str) -> None:
    """`astcredit … | head` ends quietly, with the status that shells show for SIGPIPE."""
    command = ("--database", demo, "--format", "csv", "client", "list")
    running = process(*command, unbuffered=unbuffered)
    assert running.stdout is not None
    running.stdout.close()  # long before the first line is written
    assert running.stderr is not None
    assert running.stderr.read() == ""
    assert running.wait() == BROKEN_PIPE
    running.stderr.close()


def test_control_c_ends_quietly(demo: str, tmp_path: Path) -> None:
    deck = tmp_path / "deck.csv"
    os.mkfifo(deck)
    running = process("--database", demo, "rates", "import", "demo", str(deck))
    with deck.open("w"):  # which returns when the command has opened it, too, and waits for lines
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate()
    assert errors.strip() == ""
    assert running.returncode == INTERRUPTED


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said_in_one_line(demo: str, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "astcredit", "--database", demo, "client", "list"],
            cwd=ROOT,
            env=environment(unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line


def test_the_shell_completes_commands() -> None:
    completing = {
        **os.environ,
        "_ASTCREDIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "astcredit to",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from astcredit.cli.main import main; main(prog_name='astcredit')"],
        cwd=ROOT,
        env=completing,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "plain,topup\n"
