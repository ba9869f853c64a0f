"""`astcredit serve` as a process of its own, for tests that need the real thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from astcredit.cli.main import main
from support.databases import free_port
from support.project import ROOT

START_SECONDS = 60
STOP_SECONDS = 30
COMMAND = (sys.executable, "-m", "astcredit")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server process and where it listens."""

    process: subprocess.Popen[str]
    port: int
    metrics_port: int
    log: Path


def environment(database_url: str, **settings: str) -> dict[str, str]:
    """The environment of a process that works on that database; settings as fastagi_listen=…"""
    inherited = {name: value for name, value in os.environ.items() if name not in _given()}
    return {**inherited, **_settings(database_url, settings)}


def _given() -> list[str]:
    return [name for name in os.environ if name.startswith("ASTCREDIT_")]


def _settings(database_url: str, settings: Mapping[str, str]) -> dict[str, str]:
    given = {f"ASTCREDIT_{name.upper()}": value for name, value in settings.items()}
    return {"ASTCREDIT_DATABASE_URL": database_url, **given}


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    stdout: str
    stderr: str


def astcredit(database_url: str, *arguments: str, status: int = 0, **settings: str) -> Done:
    """Run one command of the command line in this process; AssertionError for another status."""
    runner = CliRunner(env=dict.fromkeys(_given()))
    result = runner.invoke(main, arguments, env=_settings(database_url, settings))
    done = Done(result.exit_code, result.stdout, result.stderr)
    assert done.status == status, f"{arguments}: {done} {result.exception!r}"
    return done


def astcredit_process(database_url: str, *arguments: str, **settings: str) -> Done:
    """Run one command as a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(database_url, **settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def serving(database_url: str, folder: Path, **settings: str) -> Iterator[RunningServer]:
    """A server that answers, stopped by SIGTERM at the end of the block."""
    port, metrics_port = free_port(), free_port()
    listen: Mapping[str, str] = {
        "fastagi_listen": f"127.0.0.1:{port}",
        "metrics_listen": f"127.0.0.1:{metrics_port}",
    }
    log = folder / f"server-{port}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "serve"],
            env=environment(database_url, **{**listen, **settings}),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # comes when it serves, or is empty when it ended
        assert line, f"the server did not start:\n{log.read_text()}"
        yield RunningServer(process, port, metrics_port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
