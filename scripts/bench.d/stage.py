"""What is measured and with what: a private MariaDB, the controller as a process, the generator.

Nothing is shared with the machine's own servers, COMMIT means on disk, and every process's CPU time
comes from the kernel (/proc/PID/stat), which other processes on the machine do not disturb as they
do wall time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import add_history, fill

from support.databases import MariaDb, free_port
from support.project import ROOT
from support.server import COMMAND, START_SECONDS, STOP_SECONDS, astcredit, environment

NODE = "bench"
CLIENTS = 1_000
PATIENCE_SECONDS = 300.0
"""Within this whatever is waited for has happened, or the run has failed."""
_LOOK_SECONDS = 0.01
_TICKS = os.sysconf("SC_CLK_TCK")
_TUNING = {
    # A server with some memory: every administrator sets these, and neither touches durability.
    "innodb_buffer_pool_size": 1024 * 1024 * 1024,
    "innodb_log_file_size": 512 * 1024 * 1024,
}


class BenchError(Exception):
    """A run that is no run: a call lost, books that do not balance."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds that the processes have used."""

    server: float
    database: float
    generator: float
    machine: float
    """All processes of the machine together."""

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(
            self.server - other.server,
            self.database - other.database,
            self.generator - other.generator,
            self.machine - other.machine,
        )

    @property
    def ours(self) -> float:
        """What the three used together."""
        return self.server + self.database + self.generator


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds."""

    rss_bytes: int
    files: int
    threads: int


class Generator:
    """The load generator's process (generator.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("generator.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        greeting = self._answer()
        self.pid = int(greeting["pid"])
        self.ami_port = int(greeting["ami_port"])

    def do(self, what: str, **values: Any) -> dict[str, Any]:
        """Carry out a command and return its answer. Raises BenchError if the server's AMI link
        broke meanwhile."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **values}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer["lost"]:
            raise BenchError("the server's AMI link broke")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the load generator has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Database:
    """One database with clients, rates and money in it."""

    def __init__(self, mariadb: MariaDb, socket: Path, pid: int) -> None:
        self.name = mariadb.create_database()
        self.url = f"{mariadb.url(self.name)}?unix_socket={socket}"
        self.pid = pid
        self._connection = mariadb.connect(self.name)

    def ask(self, statement: str, *values: object) -> tuple[Any, ...]:
        """The first row of an answer; empty if there is none."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row or ()

    def count(self, table: str, condition: str = "TRUE") -> int:
        """Rows of a table."""
        statement = f"SELECT COUNT(*) FROM {table} WHERE {condition}"  # noqa: S608 - ours
        return int(self.ask(statement)[0])

    def settled(self, left: int = 0) -> float:
        """Wait until no more than so many calls are open; the instant at which that was seen."""
        end = time.monotonic() + PATIENCE_SECONDS
        statement = "SELECT COUNT(*) FROM (SELECT 1 FROM astcreditres LIMIT %s) r"
        while int(self.ask(statement, left + 1)[0]) > left:
            if time.monotonic() > end:
                raise BenchError(f"{self.count('astcreditres')} calls are not settled")
            time.sleep(_LOOK_SECONDS)
        return time.monotonic()

    def audit(self) -> str:
        """Prove the books. Raises BenchError if they do not balance."""
        try:
            return astcredit(self.url, "audit").stdout.strip()
        except AssertionError as error:
            raise BenchError(f"the books do not balance: {error}") from None

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Server:
    """A running `astcredit serve`."""

    def __init__(self, process: subprocess.Popen[str], port: int, metrics_port: int) -> None:
        self._process = process
        self.port = port
        self._metrics_port = metrics_port

    @property
    def pids(self) -> list[int]:
        """The process and its workers."""
        return _family(self._process.pid)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        address = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            text = answer.read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name))
        return sum(float(value) for key, _, value in lines if key.partition("{")[0] == name)

    def resources(self) -> Resources:
        """What the server holds now, its workers included."""
        found = [_resources(pid) for pid in self.pids]
        return Resources(
            sum(each.rss_bytes for each in found),
            sum(each.files for each in found),
            sum(each.threads for each in found),
        )

    def stop(self) -> None:
        """End it as an administrator does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise BenchError("the server did not stop") from None


class Stage:
    """The database server and the generator; databases and controllers are made on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mariadb = MariaDb()
        self.generator = Generator()
        try:
            self._mariadb.start()
            for name, value in _TUNING.items():
                self._mariadb.execute(f"SET GLOBAL {name} = {value}")
            said = self._mariadb.execute("SELECT @@pid_file, @@datadir, @@socket")[0]
            pid_file, data, socket = map(Path, map(str, said))
            self._database_pid, self._socket = int(pid_file.read_text()), data / socket
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything and remove its files."""
        self.generator.stop()
        self._mariadb.stop()

    def version(self) -> str:
        """MariaDB's own word."""
        return str(self._mariadb.execute("SELECT VERSION()")[0][0])

    @contextmanager
    def database(self, clients: int = CLIENTS, history: int = 0) -> Iterator[Database]:
        """A database with so many clients that have money without end, and so many calls that are
        over; audited at the end."""
        found = Database(self._mariadb, self._socket, self._database_pid)
        try:
            fill(found.url, self._mariadb.connect(found.name), clients, self._folder)
            if history:
                add_history(self._mariadb.connect(found.name), history, clients)
            yield found
            found.audit()
        finally:
            found.close()
            self._mariadb.drop_database(found.name)

    @contextmanager
    def serving(self, database: Database, *options: str, **settings: str) -> Iterator[Server]:
        """A controller on that database, listening to the generator's manager side."""
        port, metrics_port = free_port(), free_port()
        given = {
            "fastagi_listen": f"127.0.0.1:{port}",
            "metrics_listen": f"127.0.0.1:{metrics_port}",
            "ami_nodes": f"ami://bench:secret@127.0.0.1:{self.generator.ami_port}/{NODE}",
            "log_level": "warning",
            **settings,
        }
        log = self._folder / f"server-{port}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*COMMAND, "serve", *options],
                env=environment(database.url, **given),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        server = Server(process, port, metrics_port)
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise BenchError(f"the server did not start:\n{log.read_text()}")
            self._await_link(server)
            yield server
        except BaseException:
            print(_tail(log), file=sys.stderr)
            raise
        finally:
            server.stop()

    def _await_link(self, server: Server) -> None:
        end = time.monotonic() + START_SECONDS
        while server.metric("astcredit_ami_up") < 1:
            if time.monotonic() > end:
                raise BenchError("the server's AMI link does not come up")
            self.generator.do("state")  # it works while it answers
            time.sleep(0.05)

    def cpu(self, server: Server | None) -> Cpu:
        """The CPU time that was used until now."""
        return Cpu(
            sum(_cpu_seconds(pid) for pid in server.pids) if server else 0.0,
            _cpu_seconds(self._database_pid),
            _cpu_seconds(self.generator.pid),
            _machine_seconds(),
        )


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_seconds() -> float:
    """User, nice, system, interrupts, stolen: everything but idle and waiting for a disk."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    busy = (int(value) for place, value in enumerate(fields[:8]) if place not in (3, 4))
    return sum(busy) / _TICKS


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # a thread that has just ended
                found.extend(map(int, children.read_text().split()))
    return found


def _resources(pid: int) -> Resources:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Resources(
        int(status["VmRSS"].split()[0]) * 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
    )


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
