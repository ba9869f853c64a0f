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
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ASTCREDIT_")}
    given = {f"ASTCREDIT_{name.upper()}": value for name, value in settings.items()}
    return {**inherited, "ASTCREDIT_DATABASE_URL": database_url, **given}


def astcredit(
    database_url: str, *arguments: str, status: int | None = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line; `status` None takes any exit status."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=environment(database_url, **settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    if status is not None and done.returncode != status:
        raise AssertionError(f"{arguments}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done


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
